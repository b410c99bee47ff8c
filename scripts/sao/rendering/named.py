"""The sounds that a file of prompts names. The plan asks for them at every start of Snakemake, so pandas is not needed."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path

from sao.base.command import InputError

COLUMN = "init_audio"


def named_sound(table: Path, row: Mapping[str, str | None]) -> Path | None:
    """The file that a row names as `init_audio`, counted from the folder of the table; None if it names none."""
    named = (row.get(COLUMN) or "").strip()
    return table.parent / named if named else None


def named_sounds(table: Path) -> list[Path]:
    """The files that a table of prompts names. Raises InputError if one does not exist.

    Other faults of the table are left to rule prompts.
    """
    if table.suffix != ".csv":
        return []
    return list(dict.fromkeys(_existing(table)))


def _existing(table: Path) -> Iterator[Path]:
    with table.open(encoding="utf-8-sig", errors="replace", newline="") as handle:
        rows = csv.DictReader(handle)
        try:
            for row in rows:
                if sound := named_sound(table, row):
                    check_sound(sound, f"{table}, row {rows.line_num}")
                    yield sound
        except csv.Error:
            return


def check_sound(sound: Path, origin: str) -> None:
    """Raise InputError, which begins with `origin`, if a sound does not exist."""
    if not sound.is_file():
        raise InputError(
            f"{origin}: the init_audio {sound.as_posix()!r} does not exist: its path counts from the folder of the table"
        )
