"""Fréchet distance between all windows of two sets of sounds, as papers measure it, and its interval. numpy only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import NormalDist

import numpy as np

from sao.evaluation.distances import fad
from sao.evaluation.measure import Found

GROUPS = 50  # of clips; as many are left out in turn, whatever the number of clips
FEWEST = 5  # clips of a set; with fewer, a jackknife holds the truth too rarely


def fad_of_windows(x: Sequence[np.ndarray], y: Sequence[np.ndarray], level: float) -> Found:
    """The distance between the Gaussians of all windows of two sets of clips, each `[windows, dim]`.

    The interval is that of a delete-a-group jackknife (Kott 2001): clips are left out in turn, in up to 50 groups of each set.
    Windows of one clip are alike, so they are left out together. It has no random draws, and no interval for fewer than 5 clips.
    """
    value = fad(np.concatenate(x), np.concatenate(y))
    dim, least = x[0].shape[1], min(sum(map(len, x)), sum(map(len, y)))
    note = (
        f"{least} windows are too few for covariances in {dim} dimensions: it is biased, go by KAD"
        if least <= dim
        else ""
    )
    if min(len(x), len(y)) < FEWEST:
        return Found(value, None, note)
    one, other = _Sums(x), _Sums(y)
    half = _half(level, _left_out(one, other), _left_out(other, one))
    return Found(value, (max(value - half, 0.0), value + half), note)


def fad_difference(x: Sequence[np.ndarray], base: Sequence[np.ndarray], y: Sequence[np.ndarray], level: float) -> Found:
    """How much farther from `y` than `base` the renders `x` are, which are of the same clips in the same order.

    The interval is that of the same jackknife. It is paired: clips are left out of `x` and `base` together.
    """
    value = fad(np.concatenate(x), np.concatenate(y)) - fad(np.concatenate(base), np.concatenate(y))
    if min(len(x), len(y)) < FEWEST:
        return Found(value, None)
    one, before, other = _Sums(x), _Sums(base), _Sums(y)
    by_clips = _left_out(one, other) - _left_out(before, other)
    by_recordings = _left_out(other, one) - _left_out(other, before)
    half = _half(level, by_clips, by_recordings)
    return Found(value, (value - half, value + half))


def _half(level: float, *left_out: np.ndarray) -> float:
    """Half the width of an interval, from a figure without each group of either set."""
    variance = sum((len(figures) - 1) * np.var(figures) for figures in left_out)
    return float(NormalDist().inv_cdf((1 + level) / 2) * np.sqrt(variance))


class _Sums:
    """Numbers, sums and products of the windows of a set, of all and by group of clips."""

    def __init__(self, clips: Sequence[np.ndarray]) -> None:
        count = min(GROUPS, len(clips))
        self.groups = [np.concatenate(clips[at::count]).astype(np.float64) for at in range(count)]
        self.number = sum(map(len, self.groups))
        self.total = np.sum([group.sum(axis=0) for group in self.groups], axis=0)
        self.products = np.sum([group.T @ group for group in self.groups], axis=0)

    def gaussian(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and covariance of all windows."""
        return _gaussian(self.number, self.total, self.products)

    def without_each(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The same without each of the groups."""
        for group in self.groups:
            yield _gaussian(self.number - len(group), self.total - group.sum(axis=0), self.products - group.T @ group)


def _gaussian(number: int, total: np.ndarray, products: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mean = total / number
    return mean, (products - number * np.outer(mean, mean)) / (number - 1)


def _left_out(one: _Sums, other: _Sums) -> np.ndarray:
    """The distance without each of the groups of `one`."""
    mean, covariance = other.gaussian()
    values, vectors = np.linalg.eigh(covariance)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    distances = [
        np.square(left_mean - mean).sum()
        + np.trace(left)
        + np.trace(covariance)
        - 2 * np.sqrt(np.maximum(np.linalg.eigvalsh(root @ left @ root), 0)).sum()
        for left_mean, left in one.without_each()
    ]
    return np.array(distances)
