"""Captions as people's tables have them: what their columns are called, and cells that hold several."""

from __future__ import annotations

import ast
import functools
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sao.base.command import InputError

from sao.base.names import same_name
from sao.base.tables import CAPTION, plain, read_rows
from sao.data.origin import Row

Captions = list[str]  # of one sound

# What pandas writes of a list of texts: as Python prints one, or as numpy does, with nothing but space between them.
STRING = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\""""
ITEM = rf"{STRING}|None|nan|NaN|null"
ITEMS = re.compile(rf"\s*(?:(?:{ITEM})(?:\s*,\s*|\s+|$))+")
PAIRS = {"[": "]", "(": ")", "{": "}"}


def like_caption(column: str, stem: str = "captions?") -> bool:
    """Whether a column is called like one of captions: `caption`, `Caption 2`, `caption_²` …"""
    return re.fullmatch(rf"{stem}_*\d*", plain(column)) is not None


def unique_rows(paths: list[Path], required: list[str], encoding: str) -> dict[str, tuple[str, Row]]:
    """`(file and row, row)` of all files by `file_name`; raises InputError naming both rows of a duplicate.

    Names are compared as `same_name` has them.
    """
    table: dict[str, tuple[str, Row]] = {}
    for path in paths:
        for number, row in read_rows(path, ["file_name", *required], encoding):
            name, here = same_name(row["file_name"]), f"{path}, row {number}"
            if name in table:
                raise InputError(f"{here}: file_name {row['file_name']!r} is already in {table[name][0]}: keep one")
            table[name] = here, row
    return table


def read_captions(paths: list[Path]) -> tuple[dict[str, Row], dict[str, Captions]]:
    """`(rows, captions)` of tables in Clotho's form, by `file_name` as `same_name` has it. Raises InputError on anything odd."""
    rows = unique_rows(paths, ["caption_1"], "utf-8")
    columns = functools.cache(published_columns)  # each row of a table has the same
    captions = {}
    for name, (where, row) in rows.items():
        names = columns(tuple(row), where.rpartition(", row ")[0])
        captions[name] = published_captions(row, names, where)
    return {name: row for name, (_, row) in rows.items()}, captions


def published_columns(header: Sequence[str], where: str) -> list[str]:
    """`caption_1`, `caption_2`, … of a header in Clotho's form; raises InputError on a gap and on any of another form."""
    if odd := next((c for c in header if like_caption(c) and not CAPTION.fullmatch(c)), None):
        raise InputError(
            f"{where}: column {odd!r} is called like captions, which are caption_1, caption_2, … here: rename or remove it"
        )
    found = {c for c in header if CAPTION.fullmatch(c)}
    columns = [f"caption_{i + 1}" for i in range(len(found))]
    if gap := next((c for c in columns if c not in found), None):
        raise InputError(f"{where}: column {gap!r} is missing; found {', '.join(header)}: number them without a gap")
    return columns


def published_captions(row: dict[str, str], columns: Sequence[str], where: str) -> list[str]:
    """The captions of a row in Clotho's form, each on one line; `columns` are those of its table.

    `caption_count` is a column that scan.py writes for clips that have fewer captions than others. What a table of
    someone else has under that name is not believed: it would have to be a number that leaves out empty cells alone.
    """
    cells = [row[column] for column in columns]
    count = row.get("caption_count", "")
    if re.fullmatch("[0-9]{1,9}", count) and 0 < int(count) < len(cells) and not any(cells[int(count) :]):
        cells = cells[: int(count)]
    return [text for column, cell in zip(columns, cells, strict=False) for text in listed(cell, f"{where} ({column})")]


def listed(cell: str, where: str) -> list[str]:
    """The texts of a cell, each on one line: one, or those of a list in it, as Python, numpy or JSON writes it.

    Raises InputError on a list or an object that holds anything else; a missing value in it is an empty text.
    """
    cell = " ".join(cell.split())
    if PAIRS.get(cell[:1]) != cell[-1:] or not cell:
        return [cell]
    inside = cell[1:-1]
    found: Any = _parsed(cell)
    if cell[0] == "[" and isinstance(found, list) and all(item is None or isinstance(item, str) for item in found):
        texts = [item or "" for item in found]
    elif ITEMS.fullmatch(inside) and (cell[0] == "[" or "," in inside):
        texts = [_text(item) for item in re.findall(ITEM, inside)]
    elif isinstance(found, list | dict) or re.match(r"\[\s*['\"]", cell):
        raise InputError(f"{where}: holds {cell[:60]!r}, which is no list of texts: write a text, or a list of texts")
    else:
        return [cell]  # a text in brackets
    if any("\0" in text or re.search("[\ud800-\udfff]", text) for text in texts):
        raise InputError(f"{where}: holds a NUL or half a surrogate pair: remove it")
    return [" ".join(text.split()) for text in texts] or [""]


def _parsed(cell: str) -> Any:
    """What a cell is in JSON, else in Python; None where it is neither. Strings that follow each other are not joined."""
    try:
        return (
            [None if item != item else item for item in found] if isinstance(found := json.loads(cell), list) else found
        )
    except (ValueError, RecursionError):
        pass
    try:
        found = ast.literal_eval(cell)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    return None if ITEMS.fullmatch(cell[1:-1]) else found


def _text(item: str) -> str:
    """A Python string literal's text; nothing for a missing value."""
    if item[0] not in "'\"":
        return ""
    try:
        return ast.literal_eval(item)
    except (ValueError, SyntaxError):  # no valid escape
        return item[1:-1]
