"""Find the sounds of a published split that have no captions, and the captions that have no sound."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sao.base.command import InputError

import pandas as pd

from sao.base.names import same_name
from sao.base.tables import records
from sao.data.origin import Row

Facts = dict[str, dict[str, Any]]  # of sounds, by `file_name` in the form of `same_name`


def facts_by_name(facts: pd.DataFrame, audio: Path) -> Facts:
    """The facts by file name, in the form of `same_name`. Raises InputError if two files have one name."""
    by_name: Facts = {}
    for fact in records(facts):
        other = by_name.setdefault(same_name(fact["file_name"]), fact)
        if other is not fact:
            names = f"{other['file_name']!a} and {fact['file_name']!a}"
            raise InputError(f"{audio}: {names} are one name in two Unicode forms: keep one, or rename one")
    return by_name


def find_lost(rows: dict[str, Row], facts: Facts, audio: Path, tables: str, on_invalid: str) -> dict[str, str]:
    """The reason for each clip, by name, that cannot be used: it has only captions or only audio, or scan.py misses one of them.

    Raises InputError on the first, unless `on_invalid` is drop.
    """
    lost = {}
    for name in sorted(rows.keys() | facts.keys(), key=lambda name: (name in facts, name)):
        if name not in facts:
            lost[name] = f"{tables}: {rows[name]['file_name']!r} has a row but no audio in {audio}"
        elif not facts[name]["sha256"]:
            lost[name] = facts[name]["problem"]
        elif name not in rows:
            lost[name] = f"{audio}: {facts[name]['file_name']!r} has audio but no row in {tables}"
    if lost and on_invalid == "fail":
        first = next(iter(lost))
        count = sum((name in facts) == (first in facts) for name in lost)
        raise InputError(f"{lost[first]} ({count} such): correct it, or set the corpus's on_invalid to drop")
    return lost
