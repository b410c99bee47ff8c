"""Distances between two sets of clips. numpy and scipy only."""

from __future__ import annotations

import numpy as np
from scipy.spatial.distance import cdist, pdist

from sao.evaluation.measure import Distance, Influence

KAD_SCALE = 100  # as in the authors' own figures
SIZES = 15  # of the parts that FAD is extrapolated from, as in Gui et al. 2024


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


def fad_infinity(x: np.ndarray, y: np.ndarray) -> float:
    """FAD extrapolated to infinitely many clips (Gui et al. 2024): the fewer clips there are, the larger is FAD.

    FAD of random parts of both sets, from one half to all of them, lies near a line over 1 / size. Its end is returned, and may
    be below zero. Gui et al. take parts of one set only, because the other one is large. The parts are the same in each call.
    With no more clips than dimensions the line is a curve, and part of the bias stays.
    """
    rng = np.random.default_rng(0)
    shares = np.linspace(0.5, 1, SIZES)
    values = [fad(_part(x, share, rng), _part(y, share, rng)) for share in shares]
    return float(np.polynomial.Polynomial.fit(1 / shares, values, 1)(0.0))


def _part(x: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """At least two random rows."""
    return x[rng.permutation(len(x))[: max(round(share * len(x)), 2)]]


def bandwidth(reference: np.ndarray) -> float:
    """Median distance between two clips of the reference `[clips, dim]`, KAD's bandwidth."""
    return float(np.median(pdist(reference.astype(np.float64)))) or 1.0


def kad(x: np.ndarray, y: np.ndarray, own: np.ndarray) -> Distance:
    """Kernel audio distance (Chung et al. 2025): 100 times the unbiased squared MMD with a Gaussian kernel.

    As in kadtk, k(a, b) = exp(-|a - b|^2 / (2 s^2)), where s is the median distance within the reference `y` `[m, dim]`. It may
    be below zero, because it is unbiased. That takes independent sets, but a render `x` `[n, dim]` and its own recording, at row
    `own` `[n]` of `y` (-1 for none), have the same caption. So their pair is left out, as a clip's pair with itself is (Gretton et
    al. 2012, Lemma 6). The influence of a render is the distance less
    the distance without it and its own recording.
    """
    x, y = x.astype(np.float64), y.astype(np.float64)
    scale = -1 / (2 * bandwidth(y) ** 2)
    xx, yy, xy = (np.exp(scale * cdist(a, b, "sqeuclidean")) for a, b in ((x, x), (y, y), (x, y)))
    has_own = own >= 0
    pairs = np.ones(xy.shape)
    pairs[np.flatnonzero(has_own), own[has_own]] = 0
    xy *= pairs
    (of_x, without_x), (of_y, without_y), of_xy = _within(xx), _within(yy), xy.sum() / pairs.sum()
    alone = np.delete(np.arange(len(y)), own[has_own])
    # What is left of sums and numbers of pairs without a render and its recording, and without a recording alone.
    rows, columns = ([values.sum(axis=axis) for values in (xy, pairs)] for axis in (1, 0))
    left = [
        total.sum() - row - np.where(has_own, column[own], 0)
        for total, row, column in zip((xy, pairs), rows, columns, strict=True)
    ]
    left_alone = [total.sum() - column[alone] for total, column in zip((xy, pairs), columns, strict=True)]
    value = of_x + of_y - 2 * of_xy
    without_clips = without_x + np.where(has_own, without_y[own], of_y) - 2 * left[0] / np.maximum(left[1], 1)
    without_others = of_x + without_y[alone] - 2 * left_alone[0] / np.maximum(left_alone[1], 1)
    influence = Influence(KAD_SCALE * (value - without_clips), KAD_SCALE * (value - without_others))
    return Distance(float(KAD_SCALE * value), influence)


def _within(kernel: np.ndarray) -> tuple[float, np.ndarray]:
    """The mean of a kernel over the pairs of a set's clips, and the means without each clip `[clips]`. Zero for two clips."""
    n = len(kernel)
    rows = kernel.sum(axis=1) - np.diag(kernel)
    return rows.sum() / (n * (n - 1)), (rows.sum() - 2 * rows) / max((n - 1) * (n - 2), 1)
