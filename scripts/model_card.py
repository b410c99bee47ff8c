"""Write the model card of an exported model and the credits of the clips that it was trained on."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from sao.base.command import InputError, log, parse, run

from sao.base.files import read_json, whole
from sao.base.names import read_digests
from sao.base.tables import read_table, write_table
from sao.config.settings import CardSettings, add_settings
from sao.models.config import read_model_config
from sao.pages.card import Card, attribution


def of_leg(leg: str, paths: list[Path]) -> dict[str, Any]:
    """The training.json of a leg. Raises InputError if none of `paths` is of this leg."""
    for training in map(read_json, paths):
        if training["leg"] == leg:
            return training
    raise InputError(f"{paths[-1]}: is of another leg than the export, {leg}: delete the export and run again")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--export", type=Path, required=True, help="export.json")
    parser.add_argument("--training", type=Path, required=True, nargs="+", help="training.json of the legs")
    parser.add_argument("--model-config", type=Path, required=True)
    add_settings(parser, CardSettings)
    parser.add_argument("--model-digest", type=Path, required=True, help="checksums.sha256 of the base model")
    parser.add_argument("--model-source", type=Path, required=True, help="source.json of the base model")
    parser.add_argument(
        "--start-source", type=Path, nargs="?", help="source.json of other weights that it started from"
    )
    parser.add_argument("--kept", type=Path, required=True, help="table of the clips that the model can take")
    parser.add_argument("--measures", type=Path, required=True, help="JSON of rule evaluate")
    parser.add_argument("--base-measures", type=Path, required=True, help="the same of the base model")
    parser.add_argument("--exports", type=Path, nargs="*", default=[], help="records of what is published")
    parser.add_argument("--card", type=Path, required=True)
    parser.add_argument("--attribution", type=Path, required=True)
    args = parse(parser)

    export, measures = read_json(args.export), read_json(args.measures)
    if measures["leg"] != export["leg"]:
        raise InputError(
            f"{args.measures}: is of {measures['leg']}, but {export['leg']} was exported: delete it and run again"
        )
    kept = read_table(args.kept)
    clips = kept[kept.role == "train"]
    settings = args.settings
    settings["source"] |= read_json(args.model_source)  # which has commits where the config has branches
    records = [read_json(path) for path in args.exports]
    for path, record in zip(args.exports, records, strict=True):
        if record["model_sha256"] != export["sha256"]:
            raise InputError(f"{path}: was made of other weights than those of {args.export}: delete it and run again")
    card = Card(
        training=of_leg(export["leg"], args.training),
        export=export,
        config=read_model_config(args.model_config),
        digests=read_digests(args.model_digest),
        **settings,
        clips=clips,
        measures=measures,
        base_measures=read_json(args.base_measures),
        start=read_json(args.start_source) if args.start_source else None,
        exports=records,
    )
    write_table(args.attribution, attribution(clips))
    with whole(args.card) as temporary:
        temporary.write_text(card.text(), encoding="utf-8")
    log.info("%s: %d clips, %d measures", args.card, len(clips), len(measures["measures"]))


if __name__ == "__main__":
    run(main)
