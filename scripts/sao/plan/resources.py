"""How much memory and time a job asks a scheduler for. Nothing here decides a result, and nothing reruns a job."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

# Generous: a job that ends early costs nothing. Seconds, on the kind of device that the model is meant for.
STEP = 5  # an optimiser step
ENCODED = 3  # a clip that is encoded
RENDERED = 20  # a clip that is rendered
EMBEDDED = 1  # a clip that is embedded
START = 10  # minutes: imports and weights from a cold shared file system, validation, saving
MARGIN = 1.5  # nodes differ


def grown(amount: float, attempt: int = 1) -> int:
    """The amount at the first attempt; half as much again at each that follows."""
    return math.ceil(round(amount * (1 + attempt) / 2, 6))


def megabytes(paths: str | Iterable[str]) -> float:
    """The size of files; raises FileNotFoundError, which Snakemake takes for `not yet known`."""
    return sum(Path(path).stat().st_size for path in ([paths] if isinstance(paths, str) else paths)) / 1e6


def rows(path: str | Path) -> int:
    """About as many as a table has, without reading it as one; raises FileNotFoundError."""
    with Path(path).open("rb") as handle:
        return max(0, sum(block.count(b"\n") for block in iter(lambda: handle.read(1 << 20), b"")) - 1)
