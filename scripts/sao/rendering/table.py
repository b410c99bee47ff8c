"""Read a table of renders with the paths of its sounds. Only pandas is needed."""

from __future__ import annotations

from pathlib import Path

from sao.base.command import InputError

import pandas as pd

from sao.base.tables import read_table

BESIDE = ("reference", "source")  # columns with the sounds that belong beside a render


def read_renders(table: Path, folder: Path) -> pd.DataFrame:
    """Read the table and add a column `sound`, the path of each sound.

    `reference` is empty if there is no recording, and `source` if the sound started from no other. Raises InputError on a
    missing sound, recording or source.
    """
    rows = read_table(table)
    rows["sound"] = [(folder / name).as_posix() for name in rows.file]
    for path in filter(None, [*rows.sound, *(path for kind in BESIDE for path in rows[kind])]):
        if not Path(path).is_file():
            raise InputError(f"{path}: listed in {table}, but missing: delete {folder} and run again")
    return rows
