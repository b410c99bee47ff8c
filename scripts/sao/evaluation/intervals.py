"""Confidence intervals that hold for few clips too. numpy and scipy only.

`benchmarks/intervals.py` measures how often each of them holds the truth; benchmarks/README.md has the table.
"""

from __future__ import annotations

from statistics import NormalDist

import numpy as np

from sao.evaluation.measure import Influence, Interval, Resampling

FEWEST = 5  # renders of a set whose distance has an interval; with fewer, a jackknife holds the truth too rarely


def mean_interval(values: np.ndarray, resampling: Resampling) -> Interval | None:
    """Interval of the mean of clips' values `[clips]`. None if it cannot be told: a single clip, or clips that are all equal.

    It holds both Student's interval and the bootstrap-t interval (Efron and Tibshirani 1993, chapter 12). With 8 clips the
    first alone is too narrow for skewed values, the second alone for values with long tails on both sides.
    """
    n = len(values)
    if n < 2 or np.ptp(values) == 0:
        return None
    mean, error = float(values.mean()), float(values.std(ddof=1)) / np.sqrt(n)
    low, high = _ratios(values, resampling)
    return mean - error * high, mean - error * low


def _ratios(values: np.ndarray, resampling: Resampling) -> Interval:
    """Between which multiples of its standard error the mean of clips' values lies around the true mean.

    They are those of Student's distribution, and wider where resamples of the values say so.
    """
    from scipy.stats import t  # imports for half a second

    n = len(values)
    student = float(t.ppf((1 + resampling.level) / 2, n - 1))
    rng = np.random.default_rng(resampling.seed)
    drawn = values[rng.integers(n, size=(resampling.draws, n))]
    errors = drawn.std(axis=1, ddof=1) / np.sqrt(n)
    usable = errors > 0  # a resample of one clip alone has no error
    if not usable.any():
        return -student, student
    ratios = (drawn.mean(axis=1) - values.mean())[usable] / errors[usable]
    low, high = np.quantile(ratios, [(1 - resampling.level) / 2, (1 + resampling.level) / 2])
    return min(float(low), -student), max(float(high), student)


def share_interval(count: int, n: int, level: float) -> Interval:
    """Exact interval of a share, `count` of `n` clips (Clopper and Pearson 1934). For 0 of 4 clips it is 0 to 0.60."""
    from scipy.stats import binomtest

    found = binomtest(count, n).proportion_ci(level, "exact")
    return float(found.low), float(found.high)


def share_difference(values: np.ndarray, others: np.ndarray, level: float) -> Interval:
    """Interval of the difference of two shares of the same clips `[clips]`, by the paired formula of Bonett and Price (2012).

    Each kind of disagreement counts one clip more than was seen, so the interval is never empty.
    """
    n = len(values)
    more, fewer = ((int((a & ~b).sum()) + 1) / (n + 2) for a, b in ((values, others), (others, values)))
    difference = more - fewer
    half = NormalDist().inv_cdf((1 + level) / 2) * np.sqrt((more + fewer - difference**2) / (n + 2))
    return max(difference - half, -1.0), min(difference + half, 1.0)


def jackknife_interval(value: float, influence: Influence, resampling: Resampling) -> Interval | None:
    """Interval of a distance between two sets, from how far each clip moves it. None with fewer than FEWEST clips.

    A render and its own recording count as one clip, because both follow the same caption. The standard error is that of the
    jackknife (Arvesen 1969 for U-statistics). The distance is not computed anew for resamples: in these clips appear twice, and a
    distance between sets sees two equal clips.
    """
    if len(influence.of_clips) < FEWEST:
        return None
    error = np.sqrt(_scatter(influence.of_clips) + _scatter(influence.of_others))
    low, high = _ratios(influence.of_clips, resampling)
    return value - error * high, value - error * low


def _scatter(moves: np.ndarray) -> float:
    """The jackknife's variance from how far each clip alone moves a figure."""
    return float(np.square(moves - moves.mean()).sum() * (len(moves) - 1) / len(moves)) if len(moves) else 0.0
