"""Pre-encode the audio of one published split into latents, once for all runs."""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile
from sao.clips import clip_id, seed_for
from sao.command import InputError, log, output_to_log, parse, progress, run
from sao.files import digest, write_json
from sao.model import build, load_weights, pick_device
from sao.model_config import downsampling_ratio, read_model_config, window_frames
from sao.tables import read_table


def load_audio(path: Path, sample_rate: int, channels: int, samples: int):
    """Audio `[channels, samples]` at `sample_rate` Hz, zero-padded, and its length before padding, in samples.

    Channels as stable-audio-tools does it: mono is repeated into stereo, stereo averaged into mono. Read with
    soundfile, because torchaudio.load needs FFmpeg's libraries.
    """
    import torch
    import torchaudio

    try:
        data, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except soundfile.SoundFileError as error:
        raise InputError(f"{path}: cannot be read ({error})") from None
    audio = torch.from_numpy(data.T.copy())
    if rate != sample_rate:
        audio = torchaudio.functional.resample(audio, rate, sample_rate)
    if not torch.isfinite(audio).all() or audio.abs().max() == 0:
        raise InputError(f"{path}: silent, or holds NaN: validate the corpus first")
    length = audio.shape[1]
    # Resampling rounds up: a sample more than the window is no cut clip.
    if length > samples + 1:
        raise InputError(f"{path}: lasts {length / sample_rate:.2f} s, the window {samples / sample_rate:.2f} s")
    if audio.shape[0] != channels:
        audio = audio.mean(0, keepdim=True) if channels == 1 else audio[:1].repeat(channels, 1)
    padded = torch.zeros(channels, samples)
    padded[:, : min(length, samples)] = audio[:, :samples].clamp(-1, 1)
    return padded, min(length, samples)


def usable(facts: pd.DataFrame, window: float) -> list[str]:
    """The files that can be encoded. Validation told of the others, and stopped unless they are to be left out."""
    names = []
    for row in facts.sort_values("file_name").itertuples():
        long = row.seconds > window
        if row.problem or long or row.peak_dbfs == -math.inf:
            log.info("left out: %s %s", row.file_name, row.problem or ("is too long" if long else "is silent"))
        else:
            names.append(row.file_name)
    return names


def summarise(folder: Path, clips: int, shape: tuple[int, int]) -> dict:
    """Count, shape `[channels, frames]`, mean, standard deviation and a digest over all latents of a folder."""
    means, stds, digests = [], [], {}
    for path in sorted(folder.glob("*.npy")):
        array = np.load(path)
        means.append(array.mean(dtype=np.float64))
        stds.append(array.std(dtype=np.float64))
        digests[path.stem] = hashlib.sha256(array.tobytes()).hexdigest()
    if len(digests) != clips:
        raise InputError(f"{folder}: {len(digests)} latents for {clips} clips")
    mean, std = float(np.mean(means)), float(np.mean(stds))
    return {
        "clips": clips,
        "shape": list(shape),
        "mean": round(mean, 4),
        "std": round(std, 4),
        "sha256": digest(digests),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--audio", type=Path, required=True)
    parser.add_argument("--facts", type=Path, required=True, help="CSV of what was measured of --audio, a row a file")
    parser.add_argument("--split", required=True, help="published split")
    parser.add_argument("--model", type=Path, required=True, help="folder of the base model")
    parser.add_argument("--model-digest", type=Path, required=True)
    parser.add_argument("--window-seconds", type=float)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--code", required=True, help="hash of the code that encodes")
    parser.add_argument("--output", type=Path, required=True, help="folder for <clip_id>.npy and <clip_id>.json")
    parser.add_argument("--digest", type=Path, required=True, help="summary of the latents")
    args = parse(parser)

    config = read_model_config(args.model / "model_config.json")
    frames, ratio = window_frames(config, args.window_seconds), downsampling_ratio(config)
    fingerprint = digest(
        args.facts.read_text(encoding="utf-8"), args.model_digest.read_text(encoding="utf-8"), frames, args.code
    )[:16]
    # Finished clips survive an interruption here; the name says what they were made from.
    partial = args.output.with_name(f".{args.output.name}.{fingerprint}")
    for stale in args.output.parent.glob(f".{args.output.name}.*"):
        if stale != partial:
            shutil.rmtree(stale)
    partial.mkdir(parents=True, exist_ok=True)

    names = usable(read_table(args.facts), frames * ratio / config["sample_rate"])
    if not names:
        raise InputError(f"{args.facts}: no file can be encoded: look at the corpus's validation.html")
    todo = [name for name in names if not (partial / f"{clip_id(args.split, name)}.json").is_file()]
    if len(todo) < len(names):
        log.info("%d of %d clips are encoded already", len(names) - len(todo), len(names))
    model = build(config, args.model / "hub")
    load_weights(model, args.model / "model.safetensors")

    import torch

    torch.set_num_threads(args.threads)
    device = pick_device()
    autoencoder = model.pretransform.model.to(device).eval()
    channels = model.pretransform.io_channels
    with output_to_log(), torch.inference_mode():
        for name in progress(todo, f"encoding {args.split}", unit="clips"):
            clip = clip_id(args.split, name)
            audio, length = load_audio(args.audio / name, config["sample_rate"], channels, frames * ratio)
            # The bottleneck samples: a seed a clip makes latents reproducible, whatever else is encoded. Unscaled,
            # as stable-audio-tools' training expects pre-encoded latents (it divides by pretransform.scale itself).
            torch.manual_seed(seed_for("encode", clip))
            latents = autoencoder.encode_audio(audio[None].to(device))[0].float().cpu().numpy()
            if latents.shape != (model.io_channels, frames) or not np.isfinite(latents).all():
                raise InputError(f"{args.audio / name}: gave latents of shape {latents.shape}, or NaN")
            valid = math.ceil(length / ratio)
            np.save(partial / f"{clip}.npy", latents)
            info = {
                "clip_id": clip,
                "path": (args.audio / name).as_posix(),
                "sample_rate": config["sample_rate"],
                "seconds_start": 0,
                "seconds_total": math.ceil(length / config["sample_rate"]),
                "padding_mask": [1] * valid + [0] * (frames - valid),
            }
            # Written last: a clip counts as done when its JSON is there.
            with (partial / f"{clip}.json.part").open("w", encoding="utf-8") as handle:
                json.dump(info, handle)
            (partial / f"{clip}.json.part").rename(partial / f"{clip}.json")

    shutil.rmtree(args.output, ignore_errors=True)
    partial.rename(args.output)
    write_json(args.digest, summarise(args.output, len(names), (model.io_channels, frames)))


if __name__ == "__main__":
    run(main)
