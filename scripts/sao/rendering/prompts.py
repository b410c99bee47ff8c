"""Prompts of a user's own, from a file."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sao.base.command import InputError

from sao.base.files import bad_byte
from sao.base.placeholders import is_blank
from sao.base.tables import read_rows
from sao.config.settings import PromptSettings
from sao.models.numbers import Number
from sao.rendering.clips import Clip, render_seed

SPLIT = "prompts"  # the split of prompts from a file, in the table of renders
COLUMNS = ("id", "prompt", "seconds", "seed", "cfg_scale", "negative_prompt")
ID = r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}"


def read_prompts(path: Path, window: float, settings: PromptSettings, numbers: Sequence[Number] = ()) -> list[Clip]:
    """Read the prompts of a `.txt` or `.csv`. Empty cells take their values from the config.

    `window`, in seconds, is the longest sound that the model renders. `numbers` are those that the model takes beside a
    prompt; each is a column. Raises InputError with file and row.
    """
    default = window if settings["seconds"] is None else settings["seconds"]
    sampling = settings["sampling"]
    if default > window:
        raise InputError(
            f"render.seconds is {default}, the model's window is {window:.2f} s: set it to null or to less than that"
        )
    rows = _table(path, numbers) if path.suffix == ".csv" else _lines(path, numbers)
    clips: dict[str, Clip] = {}
    for line, row in rows:
        origin = f"{path}, row {line}"
        name = row.get("id", "").strip() or f"prompt-{line:04d}"
        if not re.fullmatch(ID, name):
            raise InputError(
                f"{origin}: the id {name!r} cannot be a file name: use up to 80 letters, digits, '.', '_' and '-'"
            )
        # Some file systems ignore case.
        if name.casefold() in clips:
            raise InputError(f"{origin}: {clips[name.casefold()].origin} has the id {name!r} too: rename one")
        prompt = row["prompt"].strip()
        if is_blank(prompt):
            raise InputError(f"{origin}: the prompt is empty: write one or delete the row")
        if re.search(r"\r(?!\n)", prompt + row.get("negative_prompt", "").strip()):
            raise InputError(f"{origin}: holds a carriage return: end lines as Windows or Unix does, or remove it")
        seconds = _number(row, "seconds", origin, float, lambda x: x > 0, "a number above 0", default)
        if seconds > window:
            raise InputError(f"{origin}: seconds is {seconds}, the model's window is {window:.2f} s: ask for less")
        clips[name.casefold()] = Clip(
            clip_id=name,
            split=SPLIT,
            prompt=prompt,
            seconds=seconds,
            seed=_number(
                row,
                "seed",
                origin,
                int,
                lambda x: 0 <= x < 2**63,
                "a whole number from 0",
                render_seed(settings["seed"], name),
            ),
            cfg_scale=_number(
                row,
                "cfg_scale",
                origin,
                float,
                lambda x: 0 <= x <= 100,
                "a number from 0 to 100",
                float(sampling["cfg_scale"]),
            ),
            negative_prompt=row.get("negative_prompt", "").strip() or sampling["negative_prompt"],
            numbers={number.name: _given(row, number, origin) for number in numbers},
            origin=origin,
        )
    if not clips:
        raise InputError(f"{path}: holds no prompt: write one per line")
    return list(clips.values())


def _table(path: Path, numbers: Sequence[Number]) -> list[tuple[int, dict[str, str]]]:
    needed = [number.name for number in numbers]
    rows = read_rows(path, ["prompt", *needed])
    allowed = (*COLUMNS, *needed)
    for name in rows[0][1] if rows else ():
        if name not in allowed:
            near = difflib.get_close_matches(name, allowed, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise InputError(f"{path}, row 1: unknown column {name!r}; {hint}allowed: {', '.join(allowed)}")
    return rows


def _lines(path: Path, numbers: Sequence[Number]) -> list[tuple[int, dict[str, str]]]:
    if numbers:
        names = ", ".join(number.name for number in numbers)
        raise InputError(
            f"{path}: the model takes numbers beside a prompt: write a CSV with the columns prompt, {names}"
        )
    try:
        lines = path.read_bytes().decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        row, _ = bad_byte(error)
        raise InputError(f"{path}, row {row}: is not UTF-8: save the file as UTF-8") from None
    numbered = ((number, line.strip()) for number, line in enumerate(lines, start=1))
    return [(number, {"prompt": line}) for number, line in numbered if line and not line.startswith("#")]


def _given(row: dict[str, str], number: Number, origin: str) -> float | int:
    try:
        return number.read(row[number.name].strip())
    except ValueError as error:
        raise InputError(f"{origin}: {number.name} {error}: correct it") from None


def _number(
    row: dict[str, str],
    column: str,
    origin: str,
    kind: type,
    fits: Callable[[Any], bool],
    allowed: str,
    default: Any,
) -> Any:
    """The number in a cell, or `default` if the cell is empty. Raises InputError unless it is finite and `fits`."""
    text = row.get(column, "").strip()
    if not text:
        return default
    try:
        value = kind(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or not fits(value):
        raise InputError(f"{origin}: {column} is {text!r}, not {allowed}: correct it or leave it empty")
    return value
