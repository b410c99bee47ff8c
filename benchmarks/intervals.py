"""How often do the confidence intervals of rule evaluate hold the truth?

uv run python benchmarks/intervals.py

Draws sets of clips from distributions whose means are known, or are known from all draws, and counts how often the interval of level
0.95 holds it. Prints a table in Markdown.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
from sao.evaluation.distances import kad
from sao.evaluation.intervals import jackknife_interval, mean_interval, share_difference, share_interval
from sao.evaluation.measure import Interval, Resampling

SIZES = (8, 16, 40)
DRAWS, RESAMPLES, LEVEL = 1000, 500, 0.95
Drawn = tuple[float, Interval | None]  # a figure and its interval
GIVEN = Resampling(RESAMPLES, 0, LEVEL)


def means(draw: Callable[[np.random.Generator, int], np.ndarray]) -> Callable[[np.random.Generator, int], Drawn]:
    def figure(rng: np.random.Generator, n: int) -> Drawn:
        values = draw(rng, n)
        return float(values.mean()), mean_interval(values, GIVEN)

    return figure


def share(p: float) -> Callable[[np.random.Generator, int], Drawn]:
    def figure(rng: np.random.Generator, n: int) -> Drawn:
        count = int(rng.binomial(n, p))
        return count / n, share_interval(count, n, LEVEL)

    return figure


def shares(p: float, q: float) -> Callable[[np.random.Generator, int], Drawn]:
    def figure(rng: np.random.Generator, n: int) -> Drawn:
        one, other = rng.random(n) < p, rng.random(n) < q
        return float(one.mean() - other.mean()), share_difference(one, other, LEVEL)

    return figure


def sets(model: tuple[float, float], base: tuple[float, float] | None) -> Callable[[np.random.Generator, int], Drawn]:
    """KAD, or its difference to a base. A model follows the captions by some share, and is shifted.

    The clips lie around eight centres, as kinds of sounds do, in 64 dimensions.
    """

    def renders(rng: np.random.Generator, captions: np.ndarray, follows: float, shift: float) -> np.ndarray:
        moved = np.where(np.arange(64) < 8, shift, 0)
        return follows * captions + moved + 0.4 * rng.standard_normal(captions.shape)

    def figure(rng: np.random.Generator, n: int) -> Drawn:
        centres = 2 * np.random.default_rng(5).standard_normal((8, 64))
        captions = centres[rng.integers(8, size=n)] + 0.7 * rng.standard_normal((n, 64))
        recordings, own = captions + 0.3 * rng.standard_normal((n, 64)), np.arange(n)
        found = kad(renders(rng, captions, *model), recordings, own)
        if base:
            found = found - kad(renders(rng, captions, *base), recordings, own)
        return found.value, found.influence and jackknife_interval(found.value, found.influence, GIVEN)

    return figure


NORMAL = np.random.Generator.standard_normal
EXPONENTIAL = np.random.Generator.standard_exponential
# What is drawn, the method, the figure, and its true value, if it is not the mean of all draws.
CASES: tuple[tuple[str, str, Callable[[np.random.Generator, int], Drawn], float | None], ...] = (
    ("mean, normal", "Student and bootstrap-t", means(NORMAL), 0),
    ("mean, half normal", "Student and bootstrap-t", means(lambda r, n: np.abs(NORMAL(r, n))), np.sqrt(2 / np.pi)),
    ("mean, exponential", "Student and bootstrap-t", means(EXPONENTIAL), 1),
    ("difference, two-sided", "Student and bootstrap-t", means(lambda r, n: EXPONENTIAL(r, n) - EXPONENTIAL(r, n)), 0),
    ("share of 0.02", "Clopper-Pearson", share(0.02), 0.02),
    ("share of 0.3", "Clopper-Pearson", share(0.3), 0.3),
    ("difference of shares, 0.1 and 0.1", "Bonett-Price", shares(0.1, 0.1), 0),
    ("difference of shares, 0.5 and 0.2", "Bonett-Price", shares(0.5, 0.2), 0.3),
    ("KAD, as the recordings", "jackknife", sets((1, 0), None), None),
    ("KAD, near", "jackknife", sets((0.9, 0.3), None), None),
    ("KAD, far", "jackknife", sets((0.1, 1), None), None),
    ("difference of KAD, alike", "jackknife, paired", sets((0.6, 1), (0.6, 1)), 0),
    ("difference of KAD, better", "jackknife, paired", sets((0.9, 0.3), (0.6, 1)), None),
    ("difference of KAD, far worse", "jackknife, paired", sets((0.1, 1), (0.6, 1)), None),
)


def coverage(figure: Callable[[np.random.Generator, int], Drawn], truth: float | None) -> Iterator[float]:
    for n in SIZES:
        rng = np.random.default_rng(n)
        drawn = [figure(rng, n) for _ in range(DRAWS)]
        true = np.mean([value for value, _ in drawn]) if truth is None else truth
        yield float(np.mean([interval is not None and interval[0] <= true <= interval[1] for _, interval in drawn]))


def main() -> None:
    print("| Figure | Interval |", " | ".join(f"n = {n}" for n in SIZES), "|\n| --- | --- |", " ---: |" * len(SIZES))
    for name, method, figure, truth in CASES:
        print(f"| {name} | {method} |", " | ".join(f"{held:.3f}" for held in coverage(figure, truth)), "|", flush=True)


if __name__ == "__main__":
    main()
