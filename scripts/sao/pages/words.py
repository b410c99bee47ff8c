"""Legs of a training in words, for pages."""

from __future__ import annotations


def leg_text(leg: str) -> str:
    """`step 300` of `step-00000300`."""
    unit, _, at = leg.partition("-")
    return f"{unit} {int(at)}"


def leg_count(leg: str) -> str:
    """`600 steps` of `step-00000600`."""
    unit, _, at = leg.partition("-")
    return f"{int(at):,} {unit}{'' if int(at) == 1 else 's'}"
