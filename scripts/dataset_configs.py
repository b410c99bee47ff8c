"""Write the stable-audio-tools dataset configs of a corpus for one base model, and check that every clip fits it."""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

from sao.base.command import InputError, log, parse, run

import pandas as pd
from sao.base.files import whole_folder
from sao.base.names import corpus_of, own_id, seed_for, write_digests
from sao.base.tables import records, write_table
from sao.config.settings import Batches, DatasetSettings, add_settings
from sao.data.findings import Findings
from sao.data.templates import draw
from sao.data.texts import Texts
from sao.models.config import (
    read_model_config,
    text_max_length,
    window_frames,
)
from sao.models.numbers import numbers_of
from sao.models.tokens import Reader
from sao.pages.prompts import Drawn, page
from sao.training.dataset_configs import check_batches, check_clips, makes_prompts, read_splits, write_dataset

PROMPTS_SHOWN = 50
DRAWN = "prompts.html"


def drawn_prompts(table: pd.DataFrame, texts: Texts, reader: Reader, seed: int = 0) -> list[Drawn]:
    """The prompts of some clips, chosen by lot, that a training with this seed draws in its first rounds."""
    rows = sorted(records(table), key=lambda row: seed_for("shown", row["clip_id"]))
    drawn: list[Drawn] = []
    for epoch, row in itertools.islice(((epoch, row) for epoch in itertools.count() for row in rows), PROMPTS_SHOWN):
        given = texts[row["clip_id"]]
        weights = [weight for _, weight in given]
        which = draw(
            len(given),
            weights if len(set(weights)) > 1 else None,
            seed,
            epoch,
            own_id(corpus_of(row["clip_id"]), row["clip_id"]),
        )
        (reading,) = reader.read([given[which][0]])
        drawn.append((row["file_name"], given[which][0], f"{which + 1}/{len(given)}", reading.tokens))
    return drawn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--splits", type=Path, required=True, help="folder of train.csv, validation.csv, evaluation.csv"
    )
    parser.add_argument("--model-config", type=Path, required=True)
    parser.add_argument("--hub", type=Path, required=True, help="Hub cache with the text encoder")
    add_settings(parser, DatasetSettings)
    add_settings(parser, dict[str, Batches], "batches", "clips per batch and use of captions, by run")
    parser.add_argument("--output", type=Path, required=True, help="folder of train.json and validation.json")
    parser.add_argument("--kept", type=Path, required=True, help="table of the clips that fit, with their `role`")
    parser.add_argument("--digest", type=Path, required=True, help="sha256sum listing of --output")
    args = parse(parser)
    settings: DatasetSettings = args.settings

    config = read_model_config(args.model_config)
    tables = read_splits(args.splits)
    reader = Reader(config, args.hub)
    findings, texts, longest = check_clips(tables, config, reader, settings)
    dropped = findings.paths(findings.left_out)
    warnings = [entry for entry in findings.warnings if entry["path"] not in dropped]
    for warning in Findings.first(warnings):
        log.warning("warning: %s", warning)
    kept = {role: table[~table.path.isin(dropped)] for role, table in tables.items()}
    if empty := next((role for role, table in kept.items() if not len(table)), None):
        raise InputError(f"{args.splits / empty}.csv: no clip fits {args.model_config}: all are left out")
    check_batches(kept["train"], texts, settings, args.batches, args.splits / "train.csv")
    kind = "prompt" if makes_prompts(settings) else "caption"
    log.info("longest %s: %d of %d tokens", kind, longest, text_max_length(config))

    frames = window_frames(config, settings["train_seconds"])
    with whole_folder(args.output) as written:
        for role in ("train", "validation"):
            write_dataset(written, args.output, role, kept[role], texts, numbers_of(config), frames, settings)
        # Clips that this model cannot take, and captions that it half understands. They are for a person, not for a training.
        asides = {"dropped.csv": findings.left_out} | ({"warnings.csv": warnings} if warnings else {})
        for name, entries in asides.items():
            write_table(written / name, pd.DataFrame(entries, columns=Findings.COLUMNS))
        drawn = drawn_prompts(kept["train"], texts, reader)
        (written / DRAWN).write_text(page(args.splits.parent.name, drawn, text_max_length(config)), encoding="utf-8")
    whole = pd.concat([table.assign(role=role) for role, table in kept.items()])
    # What is rendered for a clip, if the config renders templates instead of captions.
    write_table(
        args.kept,
        whole.assign(prompt=[texts[clip][0][0] for clip in whole.clip_id]) if makes_prompts(settings) else whole,
    )
    files = sorted(path for path in args.output.rglob("*") if path.is_file())
    write_digests(
        args.digest,
        args.output,
        [path for path in files if path.relative_to(args.output).as_posix() not in (*asides, DRAWN)],
    )


if __name__ == "__main__":
    run(main)
