"""Distances between two sets of clips, and their intervals. numpy and scipy only."""

from __future__ import annotations

import numpy as np
from scipy.spatial.distance import cdist, pdist

KAD_SCALE = 100  # as in the authors' own figures
Interval = tuple[float, float]


def fad(x: np.ndarray, y: np.ndarray) -> float:
    """Fréchet distance of the Gaussians of two sets `[clips, dim]` (Kilgour et al. 2019).

    The trace of the root of a product of covariances is the sum of the singular values of `A B^T`, where `A^T A` and
    `B^T B` are the covariances. This is exact even if they are singular, and needs no root of an ill-conditioned matrix.
    """
    a, b = _root_of_covariance(x), _root_of_covariance(y)
    cross = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    means = np.square(x.mean(axis=0, dtype=np.float64) - y.mean(axis=0, dtype=np.float64)).sum()
    return float(max(means + np.square(a).sum() + np.square(b).sum() - 2 * cross, 0))


def _root_of_covariance(x: np.ndarray) -> np.ndarray:
    """A matrix, no taller than wide, whose square is the covariance of the rows."""
    centred = (x.astype(np.float64) - x.mean(axis=0, dtype=np.float64)) / np.sqrt(len(x) - 1)
    return np.asarray(np.linalg.qr(centred, mode="r")) if len(x) > x.shape[1] else centred


def fad_interval(x: np.ndarray, y: np.ndarray, draws: int, seed: int, level: float) -> Interval:
    """Percentile bootstrap over the clips of both sets.

    A resample has fewer different clips, and with fewer clips FAD is larger. So the interval is moved by the mean of this
    bias, and then shows the spread around the value.
    """
    rng = np.random.default_rng(seed)
    values = [fad(x[rng.integers(len(x), size=len(x))], y[rng.integers(len(y), size=len(y))]) for _ in range(draws)]
    low, high = quantiles(np.asarray(values) - np.mean(values) + fad(x, y), level)
    return max(low, 0.0), max(high, 0.0)


def bandwidth(reference: np.ndarray) -> float:
    """Median distance between two clips of the reference `[clips, dim]`, KAD's bandwidth."""
    return float(np.median(pdist(reference.astype(np.float64)))) or 1.0


class Kad:
    """Kernel audio distance (Chung et al. 2025): 100 times the unbiased squared MMD with a Gaussian kernel.

    The same as in kadtk: k(a, b) = exp(-|a - b|^2 / (2 s^2)), where s is the median distance within the reference `y`. It may
    be below zero, because it is unbiased.
    """

    def __init__(self, x: np.ndarray, y: np.ndarray) -> None:
        x, y = x.astype(np.float64), y.astype(np.float64)
        scale = -1 / (2 * bandwidth(y) ** 2)
        self.xx, self.yy, self.xy = (np.exp(scale * cdist(a, b, "sqeuclidean")) for a, b in ((x, x), (y, y), (x, y)))

    def value(self) -> float:
        return float(self._of(np.ones((1, len(self.xx))), np.ones((1, len(self.yy))))[0])

    def _of(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """KAD of resamples. `a` and `b` `[draws, clips]` count each clip's copies. A clip is never paired with its copies.

        Such a pair would have the kernel's highest value, which would bias every resample.
        """

        def within(kernel: np.ndarray, counts: np.ndarray) -> np.ndarray:
            squares = np.square(counts)
            pairs = np.square(counts.sum(axis=1)) - squares.sum(axis=1)
            total = ((counts @ kernel) * counts).sum(axis=1) - squares @ np.diag(kernel)
            return total / np.where(pairs > 0, pairs, np.nan)

        cross = ((a @ self.xy) * b).sum(axis=1) / (a.sum(axis=1) * b.sum(axis=1))
        return KAD_SCALE * (within(self.xx, a) + within(self.yy, b) - 2 * cross)

    def interval(self, draws: int, seed: int, level: float) -> Interval:
        """Percentile bootstrap over the clips of both sets."""
        rng = np.random.default_rng(seed)
        counts = [rng.multinomial(n, np.full(n, 1 / n), size=draws).astype(float) for n in self.xy.shape]
        return quantiles(self._of(*counts), level)


def mean_interval(values: np.ndarray, draws: int, seed: int, level: float) -> Interval:
    """Percentile bootstrap of the mean of the clips' values."""
    rng = np.random.default_rng(seed)
    return quantiles(values[rng.integers(len(values), size=(draws, len(values)))].mean(axis=1), level)


def quantiles(values: np.ndarray, level: float) -> Interval:
    low, high = np.nanquantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
