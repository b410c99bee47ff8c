"""Fréchet distance between all windows of two sets of sounds, as papers measure it, and its interval. numpy only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from sao.evaluation.distances import fad
from sao.evaluation.measure import Found

GROUPS = 50  # of clips; as many are left out in turn, whatever the number of clips
FEWEST = 5  # clips of a set; with fewer, a jackknife holds the truth too rarely


def fad_of_windows(x: Sequence[np.ndarray], y: Sequence[np.ndarray]) -> Found:
    """The distance between the Gaussians of all windows of two sets of clips, each `[windows, dim]`.

    For its interval, clips are left out in turn, in up to 50 groups of each set. Windows of one clip are alike, so they are left out
    together. It has no random draws, and no interval for fewer than 5 clips.
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
    return Found(value, (_left_out(one, other), _left_out(other, one)), note)


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
