"""The sounds that a file of prompts names, for the plan and for rule prompts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sao.base.command import InputError

from sao.base.tables import read_rows

COLUMN = "init_audio"


def named_sound(table: Path, row: Mapping[str, str]) -> Path | None:
    """The file that a row names as `init_audio`, counted from the folder of the table; None if it names none."""
    named = row.get(COLUMN, "").strip()
    return table.parent / named if named else None


def named_sounds(table: Path) -> list[Path]:
    """The files that a table of prompts names. Raises InputError if one does not exist.

    Other faults of the table are left to rule prompts.
    """
    if table.suffix != ".csv":
        return []
    try:
        rows = read_rows(table, [])
    except InputError:
        return []
    found: dict[Path, None] = {}
    for line, row in rows:
        if sound := named_sound(table, row):
            check_sound(sound, f"{table}, row {line}")
            found[sound] = None
    return list(found)


def check_sound(sound: Path, origin: str) -> None:
    """Raise InputError, which begins with `origin`, if a sound does not exist."""
    if not sound.is_file():
        raise InputError(
            f"{origin}: the init_audio {sound.as_posix()!r} does not exist: its path counts from the folder of the table"
        )
