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
from sao.findings import Findings
from sao.model_config import (
    ModelConfig,
    downsampling_ratio,
    read_model_config,
    snapshot_folder,
    text_encoder_name,
    text_max_length,
    window_frames,
)
from sao.tables import caption_columns, captions_of, read_table, write_table
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


def check_captions(table: pd.DataFrame, tokenizer: Tokenizer, max_length: int, found: Findings) -> int:
    """Tokens of the longest caption that fits; finds captions that are empty or would be truncated."""
    longest = 0
    columns = caption_columns(table)
    for row in progress(table.itertuples(), "counting tokens", total=len(table), unit="clips"):
        captions = [getattr(row, column) for column in columns[: row.caption_count]]
        for column, text, encoding in zip(columns, captions, tokenizer.encode_batch(captions), strict=False):
            if not text.strip():
                found.error("caption", row, f"{column} is empty")
            if len(encoding.ids) > max_length:
                found.error(
                    "tokens",
                    row,
                    f"{column} has {len(encoding.ids)} tokens, the text encoder cuts it after {max_length}: shorten it "
                    f"({text[:60]!r}…)",
                )
            else:
                longest = max(longest, len(encoding.ids))
    return longest


def check_durations(table: pd.DataFrame, config: ModelConfig, frames: int, found: Findings) -> None:
    """Find clips that the window would cut."""
    window, own = (n / config["sample_rate"] for n in (frames * downsampling_ratio(config), config["sample_size"]))
    for row in table[table.seconds > window].itertuples():
        found.error(
            "duration",
            row,
            f"lasts {row.seconds:.2f} s, the training window is {window:.2f} s: raise window_seconds (the model allows "
            f"{own:.2f} s) or cut the clip",
        )


def check_batches(table: pd.DataFrame, runs: dict[str, dict]) -> None:
    """Raise InputError on a run whose batch the training clips do not fill. `runs`: their settings by name."""
    for run_name, settings in runs.items():
        items = table.caption_count.sum() if settings["captions"] == "all" else len(table)
        if items < settings["batch_size"]:
            raise InputError(
                f"run {run_name}: {items} training clips do not fill one batch of {settings['batch_size']}: lower "
                "batch_size or add clips"
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
    captions = {row["clip_id"]: captions_of(row, columns) for row in table.to_dict("records")}
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
    parser.add_argument("--on-invalid", choices=["fail", "drop"], default="fail")
    parser.add_argument("--runs", type=json.loads, default={}, help="JSON: the runs that train on this, by name")
    parser.add_argument("--output", type=Path, required=True, help="folder of train.json and validation.json")
    parser.add_argument("--digest", type=Path, required=True, help="sha256sum listing of --output")
    args = parse(parser)

    config = read_model_config(args.model_config)
    tokenizer = load_tokenizer(snapshot_folder(args.hub, text_encoder_name(config)))
    frames = window_frames(config, args.window_seconds)
    tables = {role: read_table(args.splits / f"{role}.csv") for role in ROLES}
    found = Findings()
    longest = 0
    for table in tables.values():
        check_durations(table, config, frames, found)
        longest = max(longest, check_captions(table, tokenizer, text_max_length(config), found))
    if found.errors and args.on_invalid == "fail":
        raise found.failure("; on_invalid: drop leaves such clips out")
    found.drop_errors()
    for role, table in tables.items():
        tables[role] = table[~table.path.isin(found.paths(found.left_out))]
        if not len(tables[role]):
            raise InputError(f"{args.splits / role}.csv: no clip fits {args.model_config}: all are left out")
    check_batches(tables["train"], args.runs)
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
    # For rules render and export: clips that this model cannot take. No part of what is trained on.
    dropped = args.output / "dropped.csv"
    write_table(dropped, pd.DataFrame(found.left_out, columns=Findings.COLUMNS))
    files = sorted(path for path in args.output.rglob("*") if path.is_file() and path != dropped)
    write_digests(args.digest, args.output, files)


if __name__ == "__main__":
    run(main)
