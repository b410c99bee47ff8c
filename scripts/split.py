"""Sort the validated clips of a corpus into train, validation and evaluation."""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
from sao.command import InputError, log, parse, run
from sao.config import ROLES
from sao.tables import read_table, write_table


def assert_disjoint(splits: dict[str, pd.DataFrame]) -> None:
    """Raise InputError if a clip, by id or by audio, is in two splits."""
    owner: dict[str, str] = {}
    for role, table in splits.items():
        for key in [*table.clip_id, *table.sha256]:
            if owner.setdefault(key, role) != role:
                raise InputError(f"clip {key} is both in {owner[key]} and in {role}: it would leak")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for role in ROLES:
        parser.add_argument(f"--{role}", type=Path, required=True, nargs="+", help="manifests of this split")
    parser.add_argument("--validation-report", type=Path, required=True, help="written when the corpus is sound")
    parser.add_argument(
        "--output", type=Path, required=True, help="folder of train.csv, validation.csv, evaluation.csv"
    )
    args = parse(parser)

    if not args.validation_report.is_file():
        raise InputError(f"{args.validation_report}: missing; the corpus has to be validated before it is split")
    splits = {
        role: pd.concat([read_table(path) for path in getattr(args, role)], ignore_index=True).sort_values("clip_id")
        for role in ROLES
    }
    assert_disjoint(splits)
    for role, table in splits.items():
        write_table(args.output / f"{role}.csv", table.drop(columns="problem"))
        log.info("%s: %d clips, %.1f s", role, len(table), table.seconds.sum())


if __name__ == "__main__":
    run(main)
