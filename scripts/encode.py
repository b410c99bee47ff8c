"""Encode one shard of a published split's audio into latents, once for all runs."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import shutil
from pathlib import Path
from typing import Any

from sao.base.command import InputError, log, output_to_log, parse, progress, run

import numpy as np
import pandas as pd
from sao.base.ahead import ahead
from sao.base.files import check_room, digest, sha256, write_json, writing
from sao.base.names import clip_id, shard_name, shard_of, write_digests
from sao.base.tables import read_table
from sao.base.vouched import LISTING, Checking, model_files, sound_files
from sao.config.settings import EncodeSettings, add_settings
from sao.models.build import build_autoencoder, enough_memory
from sao.models.config import ModelConfig, downsampling_ratio, read_model_config, window_frames

ENDS = (".json", ".npy", ".std")  # endings of the files of a clip
COMPILED_FROM = 36_000  # s of audio; for less, compiling the encoder takes longer than it saves


def usable(facts: pd.DataFrame, window: float) -> list[str]:
    """The names of the files that can be encoded. The others passed validation only because they may be left out."""
    names = []
    for row in facts.sort_values("file_name").to_dict("records"):
        long = row["seconds"] > window
        if row["problem"] or long or row["peak_dbfs"] == -math.inf:
            log.info("left out: %s %s", row["file_name"], row["problem"] or ("is too long" if long else "is silent"))
        else:
            names.append(row["file_name"])
    return names


def summarise(folder: Path, clips: int) -> dict[str, Any]:
    """Write the listing of digests. Returns its SHA-256 with count, channels, frames, mean and standard deviation."""
    means, stds, shapes = [], [], []
    for path in sorted(folder.glob("*.npy")):
        array = np.load(path)
        means.append(array.mean(dtype=np.float64))
        stds.append(array.std(dtype=np.float64))
        shapes.append(array.shape)
    if len(shapes) != clips:
        raise InputError(f"{folder}: {len(shapes)} latents for {clips} clips")
    write_digests(folder / LISTING, folder, sorted(path for end in ENDS for path in folder.glob(f"*{end}")))
    return {
        "clips": clips,
        "channels": shapes[0][0] if shapes else None,
        "frames": sum(frames for _, frames in shapes),
        "mean": round(float(np.mean(means)), 4) if means else None,
        "std": round(float(np.mean(stds)), 4) if stds else None,
        "sha256": sha256(folder / LISTING),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--audio", type=Path, required=True)
    parser.add_argument("--facts", type=Path, required=True, help="CSV of measurements of --audio, one row per file")
    parser.add_argument("--split", required=True, help="published split")
    parser.add_argument("--shard", default=shard_name(0, 1), help="which part of the clips: 0001-of-0004")
    parser.add_argument("--model", type=Path, required=True, help="folder of the base model")
    parser.add_argument("--model-digest", type=Path, required=True)
    add_settings(parser, EncodeSettings)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--code", required=True, help="hash of the code that encodes")
    parser.add_argument("--output", type=Path, required=True, help="folder for <clip_id>.npy, .std and .json")
    parser.add_argument("--digest", type=Path, required=True, help="summary of the latents")
    args = parse(parser)

    config = read_model_config(args.model / "model_config.json")
    frames, ratio = window_frames(config, args.settings["train_seconds"]), downsampling_ratio(config)
    number, _, shards = args.shard.partition("-of-")
    fingerprint = digest(
        args.facts.read_text(encoding="utf-8"),
        args.model_digest.read_text(encoding="utf-8"),
        frames,
        args.settings["random_crop"],
        args.shard,
        args.code,
    )[:16]
    # This folder keeps finished clips after an interruption. Its name identifies the inputs that they were made from.
    partial = args.output.with_name(f".{args.output.name}.{fingerprint}")
    for stale in args.output.parent.glob(f".{args.output.name}.*"):
        if stale != partial:
            shutil.rmtree(stale)
    partial.mkdir(parents=True, exist_ok=True)

    window = math.inf if args.settings["random_crop"] else frames * ratio / config["sample_rate"]
    clips = {clip_id(args.split, name): name for name in usable(read_table(args.facts), window)}
    if not clips:
        raise InputError(f"{args.facts}: no file can be encoded: look at the corpus's validation.html")
    clips = {clip: name for clip, name in clips.items() if shard_of(clip, int(shards)) == int(number) - 1}
    todo = [clip for clip in clips if not (partial / f"{clip}.json").is_file()]
    if len(todo) < len(clips):
        log.info("%d of %d clips are encoded already", len(clips) - len(todo), len(clips))
    if todo:
        encode(todo, clips, args, config, frames, partial)
    shutil.rmtree(args.output, ignore_errors=True)
    partial.rename(args.output)
    made_from = {"base_model": sha256(args.model_digest), "audio": sha256(args.facts), "code": args.code}
    write_json(args.digest, made_from | summarise(args.output, len(clips)))


def encode(
    todo: list[str], clips: dict[str, str], args: argparse.Namespace, config: ModelConfig, frames: int, folder: Path
) -> None:
    """Write mean, standard deviation and facts of each clip, padded to at least `frames` latent frames."""
    facts = read_table(args.facts).set_index("file_name")
    ratio, width = downsampling_ratio(config), config["model"]["io_channels"]
    lengths = [max(frames, math.ceil(facts.seconds[clips[clip]] * config["sample_rate"] / ratio)) for clip in todo]
    # Mean and deviation in float32, and a JSON with 3 bytes per frame.
    room = [8 * width * length + 3 * length + 1000 for length in lengths]
    check_room(folder, sum(room), f"the latents of {len(todo)} clips")
    checking = Checking(model_files(args.model, args.model_digest))
    model = build_autoencoder(config, args.model / "model.safetensors")
    checking.finish(f"base model {args.model}")
    sounds = {file.path: file for file in sound_files(args.facts, args.audio)}
    channels = config["model"]["pretransform"]["config"]["io_channels"]

    import torch
    from sao.models.autoencoder import clip_facts, compile_encoder, load_audio, moments, padded
    from sao.models.device import this_device

    torch.set_num_threads(args.threads)
    device = this_device()
    autoencoder = model.to(device.kind).eval()
    if sum(lengths) * ratio >= COMPILED_FROM * config["sample_rate"] and compile_encoder(autoencoder):
        log.info("the encoder is compiled")

    def read(clip: str) -> tuple[int, torch.Tensor]:
        """A clip's length in samples, and its audio, padded."""
        path = args.audio / clips[clip]
        if wrong := sounds[path].wrong():
            raise InputError(wrong)
        audio = load_audio(path, config["sample_rate"], channels)
        samples, audio = audio.shape[1], padded(audio, ratio, frames)
        return samples, audio.pin_memory() if device.pins_memory else audio

    def write(done: int, samples: int, mean: np.ndarray, std: np.ndarray) -> None:
        """Write the latents of the clip after the first `done`."""
        clip, path = todo[done], args.audio / clips[todo[done]]
        if mean.shape[0] != width or mean.shape[1] < frames or not np.isfinite([mean, std]).all():
            raise InputError(f"{path}: gave latents of shape {mean.shape}, or NaN")
        about = {"clip_id": clip, "file_name": clips[clip]} | clip_facts(samples, config, mean.shape[1])
        with writing(args.output, sum(room[done:])):
            np.save(folder / f"{clip}.npy", mean)
            with (folder / f"{clip}.std").open("wb") as deviation:
                np.save(deviation, std)
            # Written last, because a clip counts as done when its JSON exists.
            with (folder / f"{clip}.json.part").open("w", encoding="utf-8") as handle:
                json.dump(about, handle)
        (folder / f"{clip}.json.part").rename(folder / f"{clip}.json")

    with output_to_log(), torch.inference_mode(), contextlib.closing(ahead(read, todo)) as audio_of:
        ready: tuple[int, int, np.ndarray, np.ndarray] | None = None
        for done, clip in enumerate(progress(todo, f"encoding {args.split}", unit="clips")):
            samples, audio = next(audio_of)
            with enough_memory(args.audio / clips[clip], "encode it on a larger GPU, or set device to cpu"):
                found = moments(autoencoder, audio.to(device.kind, non_blocking=True))
            if ready:  # while a GPU computes this one
                write(*ready)
            mean, std = (each.cpu().numpy() for each in found)
            ready = done, samples, mean, std
        if ready:
            write(*ready)


if __name__ == "__main__":
    run(main)
