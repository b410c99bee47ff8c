"""CSV tables that name the file and the row when they are wrong."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pandas as pd

from .command import InputError
from .files import whole


def read_rows(path: Path, required: list[str], encoding: str = "utf-8") -> list[dict[str, str]]:
    """Rows of a published CSV, as text; raises InputError with the file and the row on anything odd."""
    data = path.read_bytes()
    lines = data.split(b"\n")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        row = data.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{path}, row {row}: byte 0x{data[error.start]:02x} is not {encoding.upper()} "
            f"({lines[row - 1][:60]!r}): save the file as {encoding.upper()}"
        ) from None
    if "\0" in text:
        raise InputError(f"{path}, row {text.count(chr(10), 0, text.index(chr(0))) + 1}: holds a NUL byte: remove it")
    reader = csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""), strict=True)
    rows: list[dict[str, str]] = []
    try:
        header = next(reader, [])
        missing = [column for column in required if column not in header]
        if missing:
            raise InputError(f"{path}: column {missing[0]!r} is missing; found {', '.join(header) or 'an empty file'}")
        if len(set(header)) != len(header):
            raise InputError(f"{path}: a column name appears twice in the header: {', '.join(header)}")
        for fields in reader:
            if not fields:
                continue
            if len(fields) != len(header):
                raise InputError(
                    f"{path}, row {reader.line_num}: {len(fields)} fields where the header has {len(header)}: "
                    "quote fields that hold commas"
                )
            rows.append(dict(zip(header, fields, strict=True)))
    except csv.Error as error:
        raise InputError(f"{path}, row {reader.line_num}: not a valid CSV row ({error})") from None
    return rows


def read_table(path: Path) -> pd.DataFrame:
    """A table of our own making. Text stays text ('NA' is a caption, not a missing value)."""
    table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8")
    for column in ("seconds", "peak_dbfs", "rms_dbfs", "dc_offset"):
        if column in table:
            table[column] = pd.to_numeric(table[column])
    for column in ("sample_rate", "channels", "frames", "seed"):
        if column in table:
            table[column] = pd.to_numeric(table[column]).astype("Int64")
    return table


def write_table(path: Path, table: pd.DataFrame) -> None:
    with whole(path) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n", encoding="utf-8")


def caption_columns(table: pd.DataFrame) -> list[str]:
    """`caption_1`, `caption_2`, … in order."""
    columns = [c for c in table.columns if c.startswith("caption_") and c.removeprefix("caption_").isdigit()]
    return sorted(columns, key=lambda c: int(c.removeprefix("caption_")))
