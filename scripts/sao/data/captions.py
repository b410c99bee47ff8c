"""Read captions from tables: recognise the caption columns, and split cells that hold several captions."""

from __future__ import annotations

import ast
import functools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sao.base.command import InputError

from sao.base.names import same_name
from sao.base.tables import CAPTION, plain, read_rows
from sao.data.origin import Row

Captions = list[str]  # of one sound
DESCRIBED = "described_in"  # column of a table that scan.py writes: the file and row that a row comes from

# pandas writes a list of texts as Python prints it, or as numpy does, with only white space between the texts.
STRING = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\""""
ITEM = rf"{STRING}|None|nan|NaN|null"
ITEMS = re.compile(rf"\s*(?:(?:{ITEM})(?:\s*,\s*|\s+|$))+")
PAIRS = {"[": "]", "(": ")", "{": "}"}


@dataclass(frozen=True)
class Part:
    """A row that describes a sound, or a part of it: the file and row that it comes from, its cells and its captions."""

    where: str
    row: Row
    captions: Captions


def like_caption(column: str, stem: str = "captions?") -> bool:
    """Whether a column's name resembles that of a caption column: `caption`, `Caption 2`, `caption_²` …"""
    return re.fullmatch(rf"{stem}_*\d*", plain(column)) is not None


def unique_rows(paths: list[Path], required: list[str], encoding: str) -> dict[str, tuple[str, Row]]:
    """`(file and row, row)` of all files by `file_name`, in the form of `same_name`.

    Raises InputError on a duplicate, with both of its rows.
    """
    table: dict[str, tuple[str, Row]] = {}
    for path in paths:
        for number, row in read_rows(path, ["file_name", *required], encoding):
            name, where = same_name(row["file_name"]), f"{path}, row {number}"
            if name in table:
                raise InputError(f"{where}: file_name {row['file_name']!r} is already in {table[name][0]}: keep one")
            table[name] = where, row
    return table


def read_captions(paths: list[Path]) -> tuple[dict[str, Row], dict[str, Captions]]:
    """`(rows, captions)` of tables in Clotho's form, by `file_name` in the form of `same_name`."""
    rows = unique_rows(paths, ["caption_1"], "utf-8")
    columns = functools.cache(published_columns)  # all rows of a table have the same columns
    captions = {}
    for name, (where, row) in rows.items():
        names = columns(tuple(row), where.rpartition(", row ")[0])
        captions[name] = published_captions(row, names, where)
    return {name: row for name, (_, row) in rows.items()}, captions


def read_parts(paths: list[Path]) -> dict[str, list[Part]]:
    """The rows of tables in Clotho's form, by `file_name` in the form of `same_name`. A sound may have several.

    Where scan.py wrote the table, its column `described_in` names the user's own file and row.
    """
    parts: dict[str, list[Part]] = {}
    columns = functools.cache(published_columns)
    for path in paths:
        for number, row in read_rows(path, ["file_name", "caption_1"]):
            where = row.get(DESCRIBED) or f"{path}, row {number}"
            captions = published_captions(row, columns(tuple(row), str(path)), where)
            parts.setdefault(same_name(row["file_name"]), []).append(Part(where, row, captions))
    return parts


def published_columns(header: Sequence[str], where: str) -> list[str]:
    """`caption_1`, `caption_2`, … of a header in Clotho's form. Raises InputError on a gap, and on a name that resembles one."""
    if odd := next((c for c in header if like_caption(c) and not CAPTION.fullmatch(c)), None):
        raise InputError(
            f"{where}: column {odd!r} resembles a caption column, but captions are caption_1, caption_2, …: rename or remove "
            "it"
        )
    present = {c for c in header if CAPTION.fullmatch(c)}
    columns = [f"caption_{i + 1}" for i in range(len(present))]
    if gap := next((c for c in columns if c not in present), None):
        raise InputError(f"{where}: column {gap!r} is missing; found {', '.join(header)}: number them without a gap")
    return columns


def published_captions(row: dict[str, str], columns: Sequence[str], where: str) -> list[str]:
    """The captions of a row in Clotho's form, each on one line. `columns` are the caption columns of its table.

    scan.py writes a column `caption_count` for clips that have fewer captions than others. Other tables may use this name
    for something else. So the number counts only if all cells after it are empty.
    """
    cells = [row[column] for column in columns]
    count = row.get("caption_count", "")
    if re.fullmatch("[0-9]{1,9}", count) and 0 < int(count) < len(cells) and not any(cells[int(count) :]):
        cells = cells[: int(count)]
    return [text for column, cell in zip(columns, cells, strict=False) for text in listed(cell, f"{where} ({column})")]


def listed(cell: str, where: str) -> list[str]:
    """The texts of a cell, each on one line: the cell itself, or the items of a list as Python, numpy or JSON writes it.

    A missing value in a list is an empty text. Raises InputError on a list that holds anything but texts, and on an object.
    """
    cell = " ".join(cell.split())
    if PAIRS.get(cell[:1]) != cell[-1:] or not cell:
        return [cell]
    inside = cell[1:-1]
    value: Any = _parsed(cell)
    if cell[0] == "[" and isinstance(value, list) and all(item is None or isinstance(item, str) for item in value):
        texts = [item or "" for item in value]
    elif ITEMS.fullmatch(inside) and (cell[0] == "[" or "," in inside):
        texts = [_text(item) for item in re.findall(ITEM, inside)]
    elif isinstance(value, list | dict) or re.match(r"\[\s*['\"]", cell):
        raise InputError(f"{where}: holds {cell[:60]!r}, which is no list of texts: write a text, or a list of texts")
    else:
        return [cell]  # a text in brackets
    if any("\0" in text or re.search("[\ud800-\udfff]", text) for text in texts):
        raise InputError(f"{where}: holds a NUL or half a surrogate pair: remove it")
    return [" ".join(text.split()) for text in texts] or [""]


def _parsed(cell: str) -> Any:
    """The value of a cell in JSON, else in Python; None if it is neither. Adjacent strings are not joined into one."""
    try:
        value = json.loads(cell)
        return [None if item != item else item for item in value] if isinstance(value, list) else value
    except (ValueError, RecursionError):
        pass
    try:
        value = ast.literal_eval(cell)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    return None if ITEMS.fullmatch(cell[1:-1]) else value


def _text(item: str) -> str:
    """The text of a Python string literal; empty for a missing value."""
    if item[0] not in "'\"":
        return ""
    try:
        return ast.literal_eval(item)
    except (ValueError, SyntaxError):  # no valid escape
        return item[1:-1]
