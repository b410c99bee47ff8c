"""Write the stable-audio-tools dataset configs of a corpus for one base model, and check that every clip fits it."""

from __future__ import annotations

import argparse
import json
import os
import shutil
from pathlib import Path

import pandas as pd
from sao import caption_hook
from sao.clips import write_digests
from sao.command import InputError, log, parse, progress, run
from sao.config import ROLES
from sao.files import whole, write_json
from sao.model_config import (
    ModelConfig,
    downsampling_ratio,
    read_model_config,
    snapshot_folder,
    text_encoder_name,
    text_max_length,
    window_frames,
)
from sao.tables import caption_columns, read_table
from tokenizers import Tokenizer


def load_tokenizer(folder: Path) -> Tokenizer:
    """The text encoder's tokenizer with truncation and padding off, so that lengths are true."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise InputError(f"{path}: missing: the length of captions in tokens cannot be checked without it")
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def check_captions(table: pd.DataFrame, tokenizer: Tokenizer, max_length: int) -> int:
    """Tokens of the longest caption; raises InputError on an empty caption or one that would be truncated."""
    longest = 0
    columns = caption_columns(table)
    rows = table[["clip_id", *columns]].itertuples(index=False)
    for clip_id, *captions in progress(rows, "counting tokens", total=len(table), unit="clips"):
        for column, encoding in zip(columns, tokenizer.encode_batch(captions), strict=True):
            if not captions[columns.index(column)].strip():
                raise InputError(f"clip {clip_id}: {column} is empty")
            if len(encoding.ids) > max_length:
                raise InputError(
                    f"clip {clip_id}: {column} has {len(encoding.ids)} tokens, the text encoder cuts it after "
                    f"{max_length}: shorten it in the captions CSV ({captions[columns.index(column)][:60]!r}…)"
                )
            longest = max(longest, len(encoding.ids))
    return longest


def check_durations(table: pd.DataFrame, config: ModelConfig, frames: int) -> None:
    """Raise InputError on a clip that the window would cut."""
    window = frames * downsampling_ratio(config) / config["sample_rate"]
    long = table[table.seconds > window]
    if len(long):
        row = long.iloc[0]
        raise InputError(
            f"{row.path}: lasts {row.seconds:.2f} s, the training window is {window:.2f} s: raise window_seconds "
            f"(the model allows {config['sample_size'] / config['sample_rate']:.2f} s) or cut the clip ({len(long)} such)"
        )


def write_dataset(folder: Path, table: pd.DataFrame, latents: Path) -> None:
    """`filelist.txt`, `captions.json` and the metadata module that a dataset config points to."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    up = Path(os.path.relpath(latents, folder)).as_posix()
    files = [
        f"{up}/{split}/{clip_id}.npy\n" for clip_id, split in zip(table.clip_id, table.published_split, strict=True)
    ]
    (folder / "filelist.txt").write_text("".join(files), encoding="utf-8")
    columns = caption_columns(table)
    captions = {row["clip_id"]: [row[c] for c in columns] for row in table.to_dict("records")}
    write_json(folder / "captions.json", captions)
    shutil.copyfile(caption_hook.__file__, folder / "metadata.py")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--splits", type=Path, required=True, help="folder of train.csv, validation.csv, evaluation.csv"
    )
    parser.add_argument("--model-config", type=Path, required=True)
    parser.add_argument("--hub", type=Path, required=True, help="Hub cache with the text encoder")
    parser.add_argument("--latents", type=Path, required=True, help="folder where the latents will lie, split by split")
    parser.add_argument("--window-seconds", type=float)
    parser.add_argument("--output", type=Path, required=True, help="folder of train.json and validation.json")
    parser.add_argument("--digest", type=Path, required=True, help="sha256sum listing of --output")
    args = parse(parser)

    config = read_model_config(args.model_config)
    tokenizer = load_tokenizer(snapshot_folder(args.hub, text_encoder_name(config)))
    frames = window_frames(config, args.window_seconds)
    tables = {role: read_table(args.splits / f"{role}.csv") for role in ROLES}
    everything = pd.concat(tables.values(), ignore_index=True)
    check_durations(everything, config, frames)
    longest = check_captions(everything, tokenizer, text_max_length(config))
    log.info("longest caption: %d of %d tokens", longest, text_max_length(config))

    for role in ("train", "validation"):
        folder = args.output / role
        write_dataset(folder, tables[role], args.latents)
        dataset = {
            "dataset_type": "pre_encoded",
            "datasets": [
                {"id": role, "path": folder.as_posix(), "custom_metadata_module": (folder / "metadata.py").as_posix()}
            ],
            "latent_crop_length": frames,
            "random_crop": False,
            "drop_last": role == "train",
        }
        with whole(args.output / f"{role}.json") as temporary:
            temporary.write_text(json.dumps(dataset, indent=2) + "\n", encoding="utf-8")
        log.info("%s: %d clips", args.output / f"{role}.json", len(tables[role]))
    files = sorted(path for path in args.output.rglob("*") if path.is_file())
    write_digests(args.digest, args.output, files)


if __name__ == "__main__":
    run(main)
