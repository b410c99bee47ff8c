"""Render sounds from prompts with one model: one file per sound, each with its own seed."""

from __future__ import annotations

import argparse
import glob
import json
import math
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sao.base.command import InputError, log, output_to_log, parse, progress, run

import numpy as np
import pandas as pd
from sao.base.files import check_room, digest, read_json, whole
from sao.base.names import read_digests, shard_name, shard_of
from sao.base.tables import write_table
from sao.base.vouched import Checking, Vouched, model_files
from sao.config.settings import RenderSettings, add_settings
from sao.models.build import load_model
from sao.models.config import check_sampler, chunk_frames, read_model_config, window_frames
from sao.rendering.clips import OF_SOURCE, Clip, read_clips
from sao.sound.read import SILENT_DBFS, decibels
from sao.sound.write import write_sound

LOUDNESS_BLOCK = 0.4  # s, as in ITU-R BS.1770-4
CLOSE = 0.01  # LU
TRIALS = 10  # most need one
FORMATS = {"wav16": ("wav", "PCM_16"), "wav24": ("wav", "PCM_24"), "flac": ("flac", "PCM_16")}
COLUMNS = (
    "clip_id", "split", "prompt", "negative_prompt", "cfg_scale", "seed", "seconds", "run", "checkpoint", "model_sha256",
    "peak_dbfs", "gain_db", "overs", "warning", "reference", "source", "source_sha256", *OF_SOURCE, "file",
)  # fmt: skip


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


def finish(audio: np.ndarray, rate: int, loudness: float | None, clip: str, precision: str) -> Finished:
    """Bring `audio [samples, channels]` to a loudness in LUFS, if one is given, and count the samples over full scale.

    Silence stays as it is. Raises InputError on NaN or infinite samples.
    """
    if not np.isfinite(audio).all():
        cure = (
            ""
            if precision == "fp32"
            else f", or its numbers are too large for {precision}: set render.precision to fp32"
        )
        raise InputError(
            f"clip {clip}: rendered NaN or infinite samples: the model is broken (did the training diverge?){cure}"
        )
    peak = decibels(float(np.abs(audio).max()))
    if peak < SILENT_DBFS:
        return Finished(audio, peak, 0.0, 0, "silent")
    gain = 0.0
    if loudness is not None:
        import pyloudnorm

        # A clip that is shorter than a block is measured as one block.
        meter = pyloudnorm.Meter(rate, block_size=min(LOUDNESS_BLOCK, len(audio) / rate))
        # Parts below -70 LUFS do not count (ITU-R BS.1770-4), and with more gain more of a quiet sound counts.
        for _ in range(TRIALS):
            measured = meter.integrated_loudness(audio * 10 ** (gain / 20))
            if not np.isfinite(measured) or abs(loudness - measured) < CLOSE:
                break
            gain += loudness - measured
        audio = audio * 10 ** (gain / 20)
    overs = int((np.abs(audio) > 1).sum())
    return Finished(audio, peak, gain, overs, f"{overs} samples over full scale, clipped" if overs else "")


def keep_row(folder: Path, clip: Clip, row: dict[str, Any]) -> None:
    """Note that a clip is finished: its row of the table, and what it was rendered from."""
    with whole(folder / f"{clip.clip_id}.json") as temporary:
        temporary.write_text(json.dumps({"clip": asdict(clip), "row": row}), encoding="utf-8")


def kept_row(folder: Path, clip: Clip) -> dict[str, Any] | None:
    """The row of a clip that was finished before, from the same prompt, seed, length and guidance; None if there is none."""
    path = folder / f"{clip.clip_id}.json"
    if not path.is_file():
        return None
    kept = read_json(path)
    return kept["row"] if kept["clip"] == asdict(clip) and (folder / kept["row"]["file"]).is_file() else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", required=True, help="name of the run or base model")
    parser.add_argument("--weights", type=Path, required=True, help="model.safetensors")
    parser.add_argument(
        "--weights-digest", type=Path, required=True, help="export.json or checksums.sha256 of the weights"
    )
    parser.add_argument("--model", type=Path, required=True, help="folder of the base model")
    parser.add_argument("--model-digest", type=Path, required=True, help="its checksum listing")
    parser.add_argument("--clips", type=Path, required=True, help="CSV of the sounds to render, checked by prompts.py")
    add_settings(parser, RenderSettings)
    parser.add_argument("--shard", nargs="?", help="render a part of the clips: 0001-of-0004")
    parser.add_argument(
        "--batch-size", type=int, nargs="?", help="number of clips to render together (default: by memory)"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--code", required=True, help="hash of the code that renders")
    parser.add_argument("--output", type=Path, required=True, help="folder for the files")
    parser.add_argument("--table", type=Path, required=True)
    args = parse(parser)
    rendering, sampling = args.settings, args.settings["sampling"]

    config = read_model_config(args.model / "model_config.json")
    check_sampler(config, sampling["sampler"], sampling["steps"])
    rate, frames = config["sample_rate"], window_frames(config, rendering["train_seconds"])
    clips = read_clips(args.clips)
    if args.shard:
        shards = int(args.shard.split("-of-")[1])
        clips = [clip for clip in clips if shard_name(shard_of(clip.clip_id, shards), shards) == args.shard]
    about = {"run": args.run, "checkpoint": args.weights.as_posix()}
    about["model_sha256"] = weights_hash(args.weights, args.weights_digest)
    cure = f"delete {args.weights} and run again"
    weights = Vouched(args.weights, about["model_sha256"], args.weights_digest, cure)
    checking = Checking([weights, *model_files(args.model, args.model_digest, weights=False)])
    model = load_model(config, args.model / "hub", args.weights)
    checking.finish(f"{args.weights} and base model {args.model}")
    with output_to_log():
        import torch
        from sao.models.device import this_device
        from sao.rendering.precision import chosen, lower
        from sao.rendering.sampling import render

    torch.set_num_threads(args.threads)
    precision = chosen(rendering["precision"], this_device())
    lower(model, precision)
    model = model.to(this_device().kind).eval().requires_grad_(False)
    settings = {key: value for key, value in sampling.items() if key not in ("cfg_scale", "negative_prompt")}
    settings["precision"] = precision

    identity = digest(
        about["model_sha256"], args.model_digest.read_text(encoding="utf-8"), rendering, frames, precision, args.code
    )
    partial = args.output.with_name(f".{args.output.name}.{identity[:16]}")
    for stale in args.output.parent.glob(f".{glob.escape(args.output.name)}.*"):
        if stale != partial:
            shutil.rmtree(stale)
    rows = {clip.clip_id: row for clip in clips if (row := kept_row(partial, clip)) is not None}
    todo = [clip for clip in clips if clip.clip_id not in rows]
    if rows:
        log.info("%d of %d clips are rendered already", len(rows), len(clips))

    suffix, subtype = FORMATS[rendering["format"]]
    # The size of a WAV. A FLAC is smaller, by an amount that depends on the sound.
    width = {"PCM_16": 2, "PCM_24": 3}[subtype] * config["model"]["pretransform"]["config"]["io_channels"]
    room = sum(math.ceil(clip.seconds * rate) * width + 4096 for clip in todo)
    check_room(args.output, room, f"the sounds of {len(todo)} clips")
    # It keeps finished clips after an interruption. Its name says what they were made with.
    partial.mkdir(parents=True, exist_ok=True)
    # Beside a GPU, all processors but one can draw noise.
    workers = args.threads - 1 if this_device().is_gpu else 0
    rendered = render(model, todo, sampling, frames, args.batch_size, chunk_frames(config), workers)
    for clip, window_audio in progress(rendered, f"rendering {args.run}", total=len(todo), unit="clips"):
        audio = window_audio[:, : max(round(clip.seconds * rate), 1)].T.numpy()
        # What lies outside of a mask keeps its level.
        loudness = rendering["loudness"] if clip.mask_start is None else None
        finished = finish(audio, rate, loudness, clip.clip_id, precision)
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
        made_from = {name: getattr(clip, name) for name in ("source_sha256", *OF_SOURCE)}
        comment = {key: value for key, value in row.items() if key != "prompt"} | settings
        comment |= made_from if clip.source else {}
        file = f"{clip.clip_id}.{suffix}"
        write_sound(partial / file, finished.audio, rate, subtype, clip.prompt, comment)
        rows[clip.clip_id] = row | {
            "peak_dbfs": round(finished.peak_dbfs, 2),
            "gain_db": round(finished.gain_db, 2),
            "overs": finished.overs,
            "warning": finished.warning,
            "reference": clip.reference,
            "source": clip.source,
            **made_from,
            "file": file,
        }
        keep_row(partial, clip, rows[clip.clip_id])
    # A single shard may be silent, so gather.py checks all shards together.
    if not args.shard and all(row["warning"] == "silent" for row in rows.values()):
        raise InputError(f"{args.weights}: every rendered clip is silent: the model is broken")
    files = {row["file"] for row in rows.values()}
    for path in partial.iterdir():
        if path.name not in files:
            path.unlink()
    shutil.rmtree(args.output, ignore_errors=True)
    partial.rename(args.output)
    write_table(args.table, pd.DataFrame(rows.values(), columns=COLUMNS).sort_values(["split", "clip_id"]))


if __name__ == "__main__":
    run(main)
