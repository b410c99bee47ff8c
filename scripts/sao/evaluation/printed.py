"""Print measures of rule `evaluate` for pages and cards."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

MINUS = "\N{MINUS SIGN}"


def interval(measure: dict[str, Any] | None, digits: int) -> str:
    """`0.231 [0.12, 0.34]`, or a dash if there is no value. Without an interval it is the value alone."""
    if measure is None or measure["value"] is None:
        return "–"
    value, *bounds = (measure[key] for key in ("value", "low", "high"))
    return number(value, digits) + _brackets(bounds, digits)


def difference(measure: dict[str, Any] | None, digits: int = 2) -> str:
    """`−11 [−20, −2]`, the difference to the base; a dash if there is none. Without an interval it is the value alone."""
    if measure is None or measure["difference"] is None:
        return "–"
    value, *bounds = (measure[key] for key in ("difference", "difference_low", "difference_high"))
    return ("+" if value > 0 else "") + number(value, digits) + _brackets(bounds, digits)


def _brackets(bounds: list[float | None], digits: int) -> str:
    """` [−20, −2]`, or nothing if a bound is not known."""
    texts = [number(bound, digits) for bound in bounds if bound is not None]
    return f" [{', '.join(texts)}]" if len(texts) == 2 else ""


def number(value: float, digits: int) -> str:
    """A number with so many significant digits, or all digits before the point if these are more: `150`, not `1.5e+02`."""
    text = f"{value:.0f}" if abs(value) >= 10**digits else f"{value:.{digits}g}"
    return text.replace("-", MINUS)


def with_unit(measure: dict[str, Any]) -> str:
    """The name of a measure and its unit: `Loudness error (LU)`."""
    return measure["name"] + (f" ({measure['unit']})" if measure["unit"] else "")


def corrected(level: float, comparisons: int) -> str:
    """What the intervals of differences hold for, in a sentence, if that many models are compared with the same base."""
    percent = f"{100 * level:.4g} %"
    if comparisons == 1:
        return f"The interval of a difference has the level {percent}."
    return (
        f"{comparisons} models are compared with the base. So the intervals of their differences are wider (Bonferroni): by each "
        f"measure, all {comparisons} of them hold at once with {percent}."
    )


def notes(measures: Iterable[dict[str, Any]]) -> list[str]:
    """Each caveat once, with the name of its measure."""
    return list(dict.fromkeys(f"{m['name']}, {m['split']}: {m['note']}." for m in measures if m["note"]))
