"""Collect the renders of a run's shards in one folder and one table."""

from __future__ import annotations

import argparse
from pathlib import Path

from sao.base.command import InputError, log, parse, run

from sao.base.files import link_or_copy, whole_folder
from sao.base.tables import read_table, read_tables, write_table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", type=Path, required=True, nargs="+", help="tables of the shards")
    parser.add_argument("--render", type=Path, required=True, nargs="+", help="their folders, in that order")
    parser.add_argument("--output", type=Path, required=True, help="folder for the files")
    parser.add_argument("--output-table", type=Path, required=True)
    args = parse(parser)

    table = read_tables(args.table).sort_values(["split", "clip_id"])
    if (table.warning == "silent").all():
        raise InputError(f"{table.checkpoint.iloc[0]}: every rendered clip is silent: the model is broken")
    with whole_folder(args.output) as gathered:
        for path, folder in zip(args.table, args.render, strict=True):
            for file in read_table(path).file:
                if not (folder / file).is_file():
                    raise InputError(f"{folder / file}: listed in {path}, but missing: delete {folder} and run again")
                link_or_copy(folder / file, gathered / file)
    write_table(args.output_table, table)
    log.info("%d clips from %d shards", len(table), len(args.table))


if __name__ == "__main__":
    run(main)
