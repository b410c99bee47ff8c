"""Print measures of rule `evaluate` for pages and cards."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def interval(measure: dict[str, Any] | None, digits: int) -> str:
    """`0.231 [0.12, 0.34]`, or a dash if there is no value."""
    if measure is None or measure["value"] is None:
        return "–"
    value, *bounds = (measure[key] for key in ("value", "low", "high"))
    return f"{value:.{digits}g}" + ("" if None in bounds else f" [{bounds[0]:.{digits}g}, {bounds[1]:.{digits}g}]")


def notes(measures: Iterable[dict[str, Any]]) -> list[str]:
    """Each caveat once, with the name of its measure."""
    return list(dict.fromkeys(f"{m['name']}, {m['split']}: {m['note']}." for m in measures if m["note"]))
