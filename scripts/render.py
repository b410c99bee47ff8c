"""Render sounds from prompts with one model: one file per sound, each with its own seed."""

from __future__ import annotations

import argparse
import glob
import math
import shutil
from pathlib import Path

from sao.base.command import InputError, log, output_to_log, parse, progress, run

import pandas as pd
from sao.base.files import check_room, digest
from sao.base.names import shard_name, shard_of
from sao.base.tables import write_table
from sao.base.vouched import Vouched, model_files
from sao.config.settings import RenderSettings, add_settings
from sao.models.config import check_sampler, chunk_frames, read_model_config, window_frames
from sao.rendering.clips import read_clips
from sao.rendering.finish import COLUMNS, FORMATS, keep_row, kept_row, write_render
from sao.rendering.ready import mark_file, ready_marker, ready_model, weights_hash


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
    parser.add_argument("--watermark", type=Path, nargs="?", help="weights that mark every sound")
    parser.add_argument("--watermark-digest", type=Path, nargs="?", help="their checksum listing")
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
    marking = rendering.get("watermark")
    vouched = [weights, *model_files(args.model, args.model_digest, weights=False)]
    vouched += [mark_file(args.watermark, args.watermark_digest)] if marking else []
    model, precision = ready_model(
        config,
        args.model / "hub",
        args.weights,
        vouched,
        rendering["precision"],
        args.threads,
        f"{args.weights} and base model {args.model}",
    )
    marker = ready_marker(args.watermark, marking) if marking else None
    with output_to_log():
        from sao.models.device import this_device
        from sao.rendering.sampling import render

    listings = [path.read_text(encoding="utf-8") for path in (args.model_digest, args.watermark_digest) if path]
    identity = digest(about["model_sha256"], *listings, rendering, frames, precision, args.code)
    partial = args.output.with_name(f".{args.output.name}.{identity[:16]}")
    for stale in args.output.parent.glob(f".{glob.escape(args.output.name)}.*"):
        if stale != partial:
            shutil.rmtree(stale)
    rows = {clip.clip_id: row for clip in clips if (row := kept_row(partial, clip)) is not None}
    todo = [clip for clip in clips if clip.clip_id not in rows]
    if rows:
        log.info("%d of %d clips are rendered already", len(rows), len(clips))

    _, subtype = FORMATS[rendering["format"]]
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
        rows[clip.clip_id] = write_render(partial, clip, audio, rate, rendering, precision, about, marker)
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
