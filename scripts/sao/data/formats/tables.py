"""The tables of captions in a user's folder: every way in which people write which sound has which caption.

Each reader gives `(where, row)` for every row, with the sound's name under `file_name`. A new kind is a reader and a line in
`READERS`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sao.base.command import InputError

from sao.base.files import bad_byte
from sao.base.tables import check_columns, plain, read_rows

Rows = list[tuple[str, dict[str, Any]]]
FILE = "file_name"
# Other names of the column, in the form of `plain`. One is taken if a table has no `file_name` and none of the others.
FILES = (
    "file",
    "filename",
    "path",
    "filepath",
    "file_path",
    "audio",
    "audio_path",
    "audio_file",
    "fname",
    "name",
    "sound",
)


def file_column(columns: Sequence[str], where: str) -> str:
    """The column that names the sound. Raises InputError if there is none, or if it could be several."""
    if FILE in columns:
        return FILE
    found = [column for column in columns if plain(column) in (FILE, *FILES)]
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(f"{where}: {' and '.join(map(repr, found))} may all name the sound: call one of them {FILE!r}")
    raise InputError(
        f"{where}: column {FILE!r} is missing, and so is any other that names the sound; found "
        f"{', '.join(columns) or 'an empty file'}"
    )


def named(row: dict[str, Any], column: str, where: str) -> dict[str, Any]:
    """A row with the name of its sound under `file_name`. Raises InputError if that is no text."""
    name = row[column]
    if not isinstance(name, str):
        what = (
            "holds a sound instead of its name: save it as a file" if isinstance(name, dict | bytes) else "is no text"
        )
        raise InputError(f"{where}: {column!r} {what}")
    return row if column == FILE else {FILE: name} | {key: value for key, value in row.items() if key != column}


def read_csv(path: Path, delimiter: str = ",") -> Rows:
    column = ""

    def look(header: list[str]) -> None:
        nonlocal column
        column = file_column(header, str(path))

    rows = read_rows(path, [], delimiter=delimiter, look=look)
    places = ((f"{path}, row {number}", row) for number, row in rows)
    return [(where, named(row, column, where)) for where, row in places]


def read_tsv(path: Path) -> Rows:
    return read_csv(path, delimiter="\t")


def read_jsonl(path: Path) -> Rows:
    """One JSON object per line."""
    rows: Rows = []
    seen: dict[tuple[str, ...], str] = {}  # the columns of rows that were checked; most rows have the same
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}, row {number}"
        row = as_object(line, where)
        if tuple(row) not in seen:
            check_columns(tuple(row), where)
            seen[tuple(row)] = file_column(tuple(row), where)
        rows.append((where, named(row, seen[tuple(row)], where)))
    return rows


def import_pyarrow(what: object, other: str = "") -> Any:
    """pyarrow. Raises InputError, for `what` needs it, if it is not installed; `other` is another way out."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise InputError(f"{what}: to read parquet, pyarrow is needed: run `uv sync --group parquet`{other}") from None
    return pyarrow


def read_parquet(path: Path) -> Rows:
    pyarrow = import_pyarrow(path, ", or write the table as metadata.csv")
    try:
        table = pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{path}: not a parquet file that can be read ({str(error).splitlines()[0]})") from None
    check_columns(table.column_names, str(path))
    column = file_column(table.column_names, str(path))
    places = ((f"{path}, row {number}", row) for number, row in enumerate(table.to_pylist(), start=1))
    return [(where, named(row, column, where)) for where, row in places]


def read_prompts(path: Path) -> Rows:
    """One JSON object for all sounds: a caption, a list of captions, or an object of columns, by the sound's name."""
    rows: Rows = []
    for name, about in as_object(read_text(path), str(path)).items():
        where = f"{path}, {name!r}"
        if isinstance(about, dict):
            check_columns(tuple(about), where)
        elif not isinstance(about, str | list):
            raise InputError(f"{where}: found {about!r}; write a caption, a list of captions, or an object of columns")
        rows.append((where, {FILE: name} | (about if isinstance(about, dict) else {"caption": about})))
    return rows


READERS: dict[str, Callable[[Path], Rows]] = {
    "metadata.csv": read_csv,
    "metadata.tsv": read_tsv,
    "metadata.jsonl": read_jsonl,
    "metadata.parquet": read_parquet,
    "prompts.json": read_prompts,
}


def as_object(text: str, where: str) -> dict[str, Any]:
    """A JSON object. Raises InputError on anything else."""
    try:
        row = json.loads(text, object_pairs_hook=no_key_twice)
    except (ValueError, RecursionError) as error:  # nested ever deeper
        raise InputError(f"{where}: not valid JSON ({error})") from None
    if not isinstance(row, dict):
        raise InputError(f"{where}: not a JSON object")
    return row


def no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a dict of a JSON object. Raises ValueError on a key that it has twice."""
    row = dict(pairs)
    if len(row) != len(pairs):
        twice = next(key for at, (key, _) in enumerate(pairs) if key in dict(pairs[:at]))
        raise ValueError(f"the key {twice!r} is there twice: keep one")
    return row


def read_text(path: Path) -> str:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        row, byte = bad_byte(error)
        raise InputError(f"{path}, row {row}: {byte} is not UTF-8: save the file as UTF-8") from None
    if "\0" in text:
        raise InputError(f"{path}, row {text.count(chr(10), 0, text.index(chr(0))) + 1}: holds a NUL byte: remove it")
    return text
