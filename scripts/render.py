"""Render captions of a corpus, and prompts from a file, with one model: a file a clip, with a fixed seed a clip."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sao.base.command import InputError, log, output_to_log, parse, progress, run

import numpy as np
import pandas as pd
import soundfile
from sao.base.files import check_room, read_json, whole_folder, writing
from sao.base.names import read_digests, seed_for, shard_name, shard_of
from sao.base.tables import read_table, write_table
from sao.base.vouched import Checking, Vouched, model_files
from sao.config.settings import RenderSettings, add_settings
from sao.models.build import build, load_weights, pick_device
from sao.models.config import (
    ModelConfig,
    check_sampler,
    downsampling_ratio,
    read_model_config,
    text_max_length,
    window_frames,
)
from sao.models.tokens import Reader
from sao.rendering.prompts import Clip, read_prompts, render_seed
from sao.sound.read import decibels

SILENT_DBFS = -60.0  # peak below which a rendered clip is called silent
LOUDNESS_BLOCK = 0.4  # s, as in ITU-R BS.1770-4
FORMATS = {"wav16": ("wav", "PCM_16"), "wav24": ("wav", "PCM_24"), "flac": ("flac", "PCM_16")}
COLUMNS = (
    "clip_id", "split", "prompt", "negative_prompt", "cfg_scale", "seed", "seconds", "run", "checkpoint", "model_sha256",
    "peak_dbfs", "gain_db", "overs", "warning", "reference", "file",
)  # fmt: skip


def choose(table: pd.DataFrame, count: str | int, seed: int) -> pd.DataFrame:
    """`count` clips of a split, or all: the first by a hash of (seed, clip_id), so that more clips move no other."""
    if count == "all":
        return table
    ranked = sorted(table.clip_id, key=lambda clip: seed_for(seed, "choose", clip))
    return table[table.clip_id.isin(ranked[: int(count)])]


def corpus_clips(splits: Path, dropped: set[str], render: dict[str, Any], sampling: dict[str, Any]) -> list[Clip]:
    """The clips of the splits in the folder `splits` that the config's `render` asks for, their captions as prompts."""
    clips = []
    for split, count in render["clips"].items():
        table = read_table(splits / f"{split}.csv")
        chosen = choose(table[~table.clip_id.isin(dropped)], count, render["seed"])
        few = chosen[chosen.caption_count < render["caption"]]
        if len(few):
            raise InputError(
                f"render.caption is {render['caption']}; clip {few.clip_id.iloc[0]} has {few.caption_count.iloc[0]} captions"
            )
        clips += [
            Clip(
                clip_id=row["clip_id"],
                split=split,
                prompt=row[f"caption_{render['caption']}"],
                seconds=row["seconds"],
                seed=render_seed(render["seed"], row["clip_id"]),
                cfg_scale=float(sampling["cfg_scale"]),
                negative_prompt=sampling["negative_prompt"],
                reference=row["path"],
                origin=f"clip {row['clip_id']}",
            )
            for row in chosen.to_dict("records")
        ]
    return clips


def check_ids(clips: Sequence[Clip]) -> None:
    """Raise InputError on two clips whose files would have one name."""
    seen: dict[str, Clip] = {}
    for clip in clips:
        other = seen.setdefault(clip.clip_id.casefold(), clip)
        if other is not clip:
            raise InputError(f"{clip.origin}: the id {clip.clip_id!r} is that of {other.origin} too: choose another")


def check_tokens(clips: Sequence[Clip], config: ModelConfig, hub: Path) -> None:
    """Raise InputError on a prompt that the text encoder would cut or does not understand; warn of one that it half does."""
    limit = text_max_length(config)
    texts = [
        (clip, what, text)
        for clip in clips
        for what, text in (("prompt", clip.prompt), ("negative prompt", clip.negative_prompt))
        if text
    ]
    caveats = []
    for (clip, what, text), reading in zip(texts, Reader(config, hub).read([text for *_, text in texts]), strict=True):
        if reading.tokens > limit:
            raise InputError(
                f"{clip.origin}: the {what} has {reading.tokens} tokens, the text encoder cuts it after {limit}: shorten it"
            )
        if problem := reading.problem():
            raise InputError(f"{clip.origin}: the {what} ({text[:60]!r}) {problem}")
        if caveat := reading.caveat():
            caveats.append(f"{clip.origin}: the {what} ({text[:60]!r}) {caveat}")
    if caveats:
        log.warning("warning: %s (%d such)", caveats[0], len(caveats))


def weights_hash(weights: Path, digest: Path) -> str:
    """SHA-256 of the weights, from an export.json or a checksum listing."""
    return read_json(digest)["sha256"] if digest.suffix == ".json" else read_digests(digest)[weights.name]


@dataclass
class Finished:
    """The samples to write, and their measurements."""

    audio: np.ndarray  # [samples, channels]
    peak_dbfs: float  # of the model's output
    gain_db: float
    overs: int  # samples beyond full scale, which the format clips
    warning: str


def finish(audio: np.ndarray, rate: int, loudness: float | None, clip: str) -> Finished:
    """Bring `audio [samples, channels]` to a loudness in LUFS, if one is given, and count the samples over full scale.

    Silence stays as it is. Raises InputError on NaN or infinite samples.
    """
    if not np.isfinite(audio).all():
        raise InputError(
            f"clip {clip}: rendered NaN or infinite samples: the model is broken (did the training diverge?)"
        )
    peak = decibels(float(np.abs(audio).max()))
    if peak < SILENT_DBFS:
        return Finished(audio, peak, 0.0, 0, "silent")
    gain = 0.0
    if loudness is not None:
        import pyloudnorm

        # A clip that is shorter than a block is measured as one block.
        meter = pyloudnorm.Meter(rate, block_size=min(LOUDNESS_BLOCK, len(audio) / rate))
        measured = meter.integrated_loudness(audio)
        gain = loudness - measured if np.isfinite(measured) else 0.0
        audio = audio * 10 ** (gain / 20)
    overs = int((np.abs(audio) > 1).sum())
    return Finished(audio, peak, gain, overs, f"{overs} samples over full scale, clipped" if overs else "")


def write_sound(path: Path, audio: np.ndarray, rate: int, subtype: str, title: str, comment: dict[str, Any]) -> None:
    """Write `audio [samples, channels]` with title and comment (as JSON) in the file's own metadata."""
    with writing(path, 4 * audio.size):
        with soundfile.SoundFile(path, "w", rate, audio.shape[1], subtype) as sound:
            sound.title = title
            sound.comment = json.dumps(comment)
            sound.write(audio)
        # Closing the file writes the rest of a buffer, and libsndfile does not report if that fails.
        if soundfile.info(path).frames != len(audio):
            raise OSError(f"{path}: was not written to its end")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", required=True, help="name of the run or base model")
    parser.add_argument("--weights", type=Path, required=True, help="model.safetensors")
    parser.add_argument(
        "--weights-digest", type=Path, required=True, help="export.json or checksums.sha256 of the weights"
    )
    parser.add_argument("--model", type=Path, required=True, help="folder of the base model")
    parser.add_argument("--model-digest", type=Path, required=True, help="listing that vouches for it")
    parser.add_argument(
        "--splits", type=Path, required=True, help="folder of train.csv, validation.csv, evaluation.csv"
    )
    parser.add_argument("--prompts", type=Path, nargs="?", help="a .txt or .csv of prompts to render beside the clips")
    parser.add_argument("--dropped", type=Path, required=True, help="CSV of clips that this model cannot take")
    add_settings(parser, RenderSettings)
    parser.add_argument("--shard", nargs="?", help="render a part of the clips: 0001-of-0004")
    parser.add_argument(
        "--batch-size", type=int, nargs="?", help="number of clips to render together (default: by memory)"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, required=True, help="folder for the files")
    parser.add_argument("--table", type=Path, required=True)
    args = parse(parser)
    wanted, sampling = args.settings, args.settings["sampling"]

    config = read_model_config(args.model / "model_config.json")
    check_sampler(config, sampling["sampler"], sampling["steps"])
    rate, frames = config["sample_rate"], window_frames(config, wanted["train_seconds"])
    clips = corpus_clips(args.splits, set(read_table(args.dropped).clip_id), wanted, sampling)
    if args.prompts:
        window = frames * downsampling_ratio(config) / rate
        clips += read_prompts(args.prompts, window, wanted, sampling)
        check_ids(clips)
    if args.shard:
        shards = int(args.shard.split("-of-")[1])
        clips = [clip for clip in clips if shard_name(shard_of(clip.clip_id, shards), shards) == args.shard]
    check_tokens(clips, config, args.model / "hub")
    about = {"run": args.run, "checkpoint": args.weights.as_posix()}
    about["model_sha256"] = weights_hash(args.weights, args.weights_digest)
    cure = f"delete {args.weights} and run again"
    weights = Vouched(args.weights, about["model_sha256"], args.weights_digest, cure)
    checking = Checking([weights, *model_files(args.model, args.model_digest, weights=False)])
    model = build(config, args.model / "hub")
    load_weights(model, args.weights)
    checking.finish(f"{args.weights} and base model {args.model}")
    with output_to_log():
        import torch
        from sao.rendering.sampling import render

    torch.set_num_threads(args.threads)
    model = model.to(pick_device()).eval().requires_grad_(False)
    settings = {key: value for key, value in sampling.items() if key not in ("cfg_scale", "negative_prompt")}

    suffix, subtype = FORMATS[wanted["format"]]
    # The size of a WAV. A FLAC is smaller, by an amount that depends on the sound.
    width = {"PCM_16": 2, "PCM_24": 3}[subtype] * config["model"]["pretransform"]["config"]["io_channels"]
    room = sum(math.ceil(clip.seconds * rate) * width + 4096 for clip in clips)
    rows = []
    with whole_folder(args.output) as partial:
        check_room(args.output, room, f"the sounds of {len(clips)} clips")
        rendered = render(model, clips, sampling, frames, args.batch_size)
        for clip, window_audio in progress(rendered, f"rendering {args.run}", total=len(clips), unit="clips"):
            audio = window_audio[:, : max(round(clip.seconds * rate), 1)].T.numpy()
            finished = finish(audio, rate, wanted["loudness"], clip.clip_id)
            if finished.warning:
                log.warning("warning: clip %s: %s (peak %.1f dBFS)", clip.clip_id, finished.warning, finished.peak_dbfs)
            row = {
                "clip_id": clip.clip_id,
                "split": clip.split,
                "prompt": clip.prompt,
                "negative_prompt": clip.negative_prompt,
                "cfg_scale": clip.cfg_scale,
                "seed": clip.seed,
                "seconds": round(len(audio) / rate, 6),
                **about,
            }
            comment = {key: value for key, value in row.items() if key != "prompt"} | settings
            file = f"{clip.clip_id}.{suffix}"
            write_sound(partial / file, finished.audio, rate, subtype, clip.prompt, comment)
            rows.append(
                row
                | {
                    "peak_dbfs": round(finished.peak_dbfs, 2),
                    "gain_db": round(finished.gain_db, 2),
                    "overs": finished.overs,
                    "warning": finished.warning,
                    "reference": clip.reference,
                    "file": file,
                }
            )
        # A single shard may be silent, so gather.py checks all shards together.
        if not args.shard and all(row["warning"] == "silent" for row in rows):
            raise InputError(f"{args.weights}: every rendered clip is silent: the model is broken")
    write_table(args.table, pd.DataFrame(rows, columns=COLUMNS).sort_values(["split", "clip_id"]))


if __name__ == "__main__":
    run(main)
