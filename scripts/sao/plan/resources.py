"""Estimate the memory and time that a job asks a scheduler for. No estimate decides a result or reruns a job."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

# Seconds, on the kind of device that the model is meant for. Generous, because a job that ends early costs nothing.
STEP = 5  # an optimiser step
ENCODED = 3  # a clip that is encoded
CAPTIONS = 0.5  # the captions of a clip that are encoded
RENDERED = 20  # a clip that is rendered
EMBEDDED = 1  # a clip that is embedded
START = 10  # minutes: imports and weights from a cold shared file system, validation, saving
MARGIN = 1.5  # because nodes differ in speed


def grown(amount: float, attempt: int = 1) -> int:
    """The amount at the first attempt, and half of it more at each further attempt."""
    return math.ceil(round(amount * (1 + attempt) / 2, 6))


def megabytes(paths: str | Iterable[str]) -> float:
    """The total size of files. Raises FileNotFoundError, which Snakemake takes to mean `not yet known`."""
    return sum(Path(path).stat().st_size for path in ([paths] if isinstance(paths, str) else paths)) / 1e6


def rows(path: str | Path) -> int:
    """The approximate number of rows of a table, counted by line breaks. Raises FileNotFoundError."""
    with Path(path).open("rb") as handle:
        return max(0, sum(block.count(b"\n") for block in iter(lambda: handle.read(1 << 20), b"")) - 1)
