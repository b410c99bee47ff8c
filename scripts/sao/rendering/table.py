"""Where the sounds of a table of renders are. pandas only."""

from __future__ import annotations

from pathlib import Path

from sao.base.command import InputError

import pandas as pd

from sao.base.tables import read_table


def read_renders(table: Path, folder: Path) -> pd.DataFrame:
    """The table with a column `sound`, the path of each sound; `reference` is empty where there is none.

    Raises InputError on a sound or a reference that is missing.
    """
    rows = read_table(table)
    rows["sound"] = [(folder / name).as_posix() for name in rows.file]
    for path in [*rows.sound, *rows.reference[rows.reference != ""]]:
        if not Path(path).is_file():
            raise InputError(f"{path}: listed in {table}, but missing: delete {folder} and run again")
    return rows
