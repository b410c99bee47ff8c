"""Sort the validated clips of a corpus into train, validation and evaluation."""

from __future__ import annotations

import argparse
from pathlib import Path

from sao.base.command import InputError, log, parse, run

from sao.base.tables import read_table, read_tables, write_table
from sao.config.resolve import ROLES
from sao.config.settings import SplitSettings, add_settings
from sao.data.splits import assert_disjoint, assign


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--manifest", type=Path, required=True, nargs="+")
    add_settings(parser, SplitSettings)
    parser.add_argument(
        "--validation-report", type=Path, required=True, help="JSON of rule validate; exists only for a valid corpus"
    )
    parser.add_argument("--dropped", type=Path, required=True, help="clips that validation left out")
    parser.add_argument(
        "--output", type=Path, required=True, help="folder of train.csv, validation.csv, evaluation.csv"
    )
    args = parse(parser)

    if not args.validation_report.is_file():
        raise InputError(f"{args.validation_report}: missing; the corpus has to be validated before it is split")
    table = read_tables(args.manifest)
    dropped = read_table(args.dropped)
    # As in validate.py: sides are drawn from the clips that are left, and leaks are found after that.
    table = table[~table.path.isin(dropped.path[dropped.check != "leak"])]
    sides = assign(table, args.settings)
    kept = ~table.path.isin(dropped.path)
    splits = {role: table[kept & (sides == role)].sort_values("clip_id") for role in ROLES}
    assert_disjoint(splits)
    for role, clips in splits.items():
        write_table(args.output / f"{role}.csv", clips.drop(columns="problem"))
        log.info("%s: %d clips, %.1f s", role, len(clips), clips.seconds.sum())


if __name__ == "__main__":
    run(main)
