"""Read a table of renders with the paths of its sounds. Only pandas is needed."""

from __future__ import annotations

from pathlib import Path

from sao.base.command import InputError

import pandas as pd

from sao.base.tables import read_table


def read_renders(table: Path, folder: Path) -> pd.DataFrame:
    """Read the table and add a column `sound`, the path of each sound. `reference` is empty if there is no recording.

    Raises InputError on a missing sound or recording.
    """
    rows = read_table(table)
    rows["sound"] = [(folder / name).as_posix() for name in rows.file]
    for path in [*rows.sound, *rows.reference[rows.reference != ""]]:
        if not Path(path).is_file():
            raise InputError(f"{path}: listed in {table}, but missing: delete {folder} and run again")
    return rows
