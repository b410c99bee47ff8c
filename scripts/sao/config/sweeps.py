"""Runs with lists of values become families of runs, one for each combination: `learning_rate: [1.0e-5, 5.0e-5]`."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Any

from sao.base.command import InputError

Config = dict[str, Any]
Key = tuple[str, ...]
SECTIONS = ("adapter",)  # of a run, whose settings may have lists too
NOT_SWEPT = ("exports", "publish", "wandb")  # a run that is published is one run


def expanded(runs: Config, schemas: Config) -> dict[str, Config]:
    """The runs, with each that has lists replaced by its family: `demo--learning_rate-1e-05--rank-8`.

    A list stands for several values only where the schema takes none; `schemas` has those of a run's settings. Raises InputError on a list that is empty, or
    has a value twice.
    """
    out: Config = {}
    for name, run in runs.items():
        members = family(name, run, schemas) if isinstance(run, dict) else {}
        for member, settings in (members or {name: run}).items():
            if member in out:
                raise InputError(f"config: runs.{name}: {member!r} is there twice: give one of the runs another name")
            out[member] = settings
    return out


def family(name: str, run: Config, schemas: Config) -> dict[str, Config]:
    """The members of a run's family by name, in the order of its lists; none if it has no lists."""
    lists = dict(swept(run, schemas))
    for key, values in lists.items():
        texts = [text_of(value) for value in values]
        if not values or len(set(texts)) < len(texts):
            what = "an empty list" if not values else "a value twice"
            raise InputError(f"config: runs.{name}.{'.'.join(key)}: found {what}; give each value of a sweep once")
    members = {}
    for combination in itertools.product(*lists.values()) if lists else ():
        chosen = dict(zip(lists, combination, strict=True))
        label = "--".join([name, *(f"{key[-1]}-{text_of(value)}" for key, value in chosen.items())])
        members[label] = with_values(run, chosen)
    return members


def swept(run: Config, schemas: Config, above: Key = ()) -> Iterator[tuple[Key, list[Any]]]:
    """`(key, values)` of each list in a run that stands for several values."""
    for name, value in run.items():
        known = schemas.get(name, {})
        if isinstance(value, dict) and name in SECTIONS:
            yield from swept(value, known.get("properties", {}), (*above, name))
        elif isinstance(value, list) and known and not takes_a_list(known) and name not in NOT_SWEPT:
            yield (*above, name), value


def takes_a_list(schema: Config) -> bool:
    kinds = schema.get("type", [])
    return "array" in ([kinds] if isinstance(kinds, str) else kinds) or any(
        takes_a_list(option) for key in ("anyOf", "oneOf") for option in schema.get(key, [])
    )


def text_of(value: Any) -> str:
    """A value as part of a name."""
    text = f"{value:g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)
    return re.sub(r"[^A-Za-z0-9._-]+", ".", text)


def with_values(run: Config, values: dict[Key, Any]) -> Config:
    """A copy of a run with single values at these keys."""
    out = {name: dict(value) if name in SECTIONS and isinstance(value, dict) else value for name, value in run.items()}
    for (*above, last), value in values.items():
        place = out
        for name in above:
            place = place[name]
        place[last] = value
    return out
