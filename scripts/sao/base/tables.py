"""CSV tables: reading published ones with errors that name file and row, reading and writing our own."""

from __future__ import annotations

import codecs
import csv
import functools
import io
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from sao.base.command import InputError

import pandas as pd

from sao.base.files import bad_byte, whole

CAPTION = re.compile("caption_[1-9][0-9]*")


def read_rows(
    path: Path,
    required: list[str],
    encoding: str = "utf-8",
    delimiter: str = ",",
    look: Callable[[list[str]], object] = lambda header: None,
) -> list[tuple[int, dict[str, str]]]:
    """The rows of a published CSV as text, each with the line that it begins in. Raises InputError with file and row.

    A file that is valid UTF-8 is read as UTF-8, whatever `encoding` says. `look` is called with the header.
    """
    data = path.read_bytes()
    if data.startswith(codecs.BOM_UTF8) or is_utf8(data):
        encoding = "utf-8"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        row, byte = bad_byte(error)
        line_text = data.split(b"\n")[row - 1]
        raise InputError(
            f"{path}, row {row}: {byte} is not {encoding.upper()} ({line_text[:60]!r}): save the file as {encoding.upper()}"
        ) from None
    if "\0" in text:
        raise InputError(f"{path}, row {text.count(chr(10), 0, text.index(chr(0))) + 1}: holds a NUL byte: remove it")
    reader = csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""), delimiter=delimiter, strict=True)
    rows: list[tuple[int, dict[str, str]]] = []
    try:
        header = next(reader, [])
        missing = [column for column in required if column not in header]
        if missing:
            raise InputError(f"{path}: column {missing[0]!r} is missing; found {', '.join(header) or 'an empty file'}")
        if len(set(header)) != len(header):
            raise InputError(f"{path}: a column name appears twice in the header: {', '.join(header)}")
        check_columns(header, str(path))
        look(header)
        line = reader.line_num
        for fields in reader:
            first, line = line + 1, reader.line_num  # a quoted field may span lines
            if not fields:
                continue
            if len(fields) != len(header):
                raise InputError(
                    f"{path}, row {first}: {len(fields)} fields, the header has {len(header)}: "
                    f"quote fields that hold {'commas' if delimiter == ',' else 'tabs'}"
                )
            rows.append((first, dict(zip(header, fields, strict=True))))
    except csv.Error as error:
        raise InputError(f"{path}, row {reader.line_num}: not a valid CSV row ({error})") from None
    return rows


@functools.cache  # every row has the same columns
def plain(column: str) -> str:
    """The name of a column in lower case, with underscores for blanks and hyphens, and `2` for `²`."""
    return re.sub(r"[\s-]+", "_", unicodedata.normalize("NFKC", column).strip().lower())


def check_columns(columns: Sequence[str], where: str) -> None:
    """Raise InputError on two columns with almost the same name, because only one of them would be read."""
    seen: dict[str, str] = {}
    for column in columns:
        other = seen.setdefault(plain(column), column)
        if other != column:
            raise InputError(
                f"{where}: columns {other!r} and {column!r} differ only in case or form: keep one, or rename one"
            )


def is_utf8(data: bytes) -> bool:
    """Whether bytes are valid UTF-8. Text in ISO-8859-1 practically never is: each non-ASCII letter would have to be
    followed by the right number of signs such as `¤` or `©`.
    """
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def read_table(path: Path) -> pd.DataFrame:
    """Read a table that the graph wrote. Text stays text ('NA' is a caption, not a missing value)."""
    table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8")
    for column in ("seconds", "peak_dbfs", "rms_dbfs", "dc_offset", "train_loss", "validation_loss"):
        if column in table:
            table[column] = pd.to_numeric(table[column])
    for column in ("sample_rate", "channels", "frames", "clipped_run", "seed", "caption_count", "step"):
        if column in table:
            table[column] = pd.to_numeric(table[column]).astype("Int64")
    return table


def read_tables(paths: list[Path]) -> pd.DataFrame:
    """Read several tables into one, as `stacked` does."""
    return stacked([read_table(path) for path in paths])


def stacked(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Several tables as one. If a table lacks a text column, its rows have an empty text there."""
    table = pd.concat(tables, ignore_index=True)
    text = table.select_dtypes("object").columns
    table[text] = table[text].fillna("")
    return table


def each(table: pd.DataFrame) -> Iterator[Any]:
    """The rows of a table, with its columns as attributes."""
    return iter(table.itertuples())


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table, each by the names of its columns."""
    return [{str(column): value for column, value in row.items()} for row in table.to_dict("records")]


def write_table(path: Path, table: pd.DataFrame) -> None:
    with whole(path) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n", encoding="utf-8")


def captions_of(row: dict[str, str], columns: list[str]) -> list[str]:
    """The captions of a row of a validated table. A clip may have fewer captions than the table has columns."""
    return [row[column] for column in columns if row[column]]


def caption_columns(table: pd.DataFrame | dict[str, str]) -> list[str]:
    """The caption columns of a table in order: `caption_1`, `caption_2`, …"""
    columns = [c for c in map(str, table) if CAPTION.fullmatch(c)]
    return sorted(columns, key=lambda c: int(c.removeprefix("caption_")))
