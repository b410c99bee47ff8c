"""Encode one shard of a published split's audio into latents, once for all runs."""

from __future__ import annotations

import argparse
import math
import shutil
from pathlib import Path

from sao.base.command import InputError, log, parse, run

from sao.base.files import digest, sha256, write_json
from sao.base.names import clip_id, shard_name, shard_of
from sao.base.tables import read_table
from sao.config.settings import EncodeSettings, add_settings
from sao.models.config import downsampling_ratio, read_model_config, window_frames
from sao.models.encoding import Sounds, encode, summarise, usable


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
    todo = {clip: name for clip, name in clips.items() if not (partial / f"{clip}.json").is_file()}
    if len(todo) < len(clips):
        log.info("%d of %d clips are encoded already", len(clips) - len(todo), len(clips))
    if todo:
        sounds = Sounds(args.split, args.audio, args.facts)
        encode(todo, sounds, args.model, args.model_digest, config, frames, args.threads, partial, args.output)
    shutil.rmtree(args.output, ignore_errors=True)
    partial.rename(args.output)
    made_from = {"base_model": sha256(args.model_digest), "audio": sha256(args.facts), "code": args.code}
    write_json(args.digest, made_from | summarise(args.output, len(clips)))


if __name__ == "__main__":
    run(main)
