"""Is a render a copy of a training clip? numpy and scipy only.

A render is flagged when it is closer to a training clip than any recording that was held out ever is: recordings are
new sounds, so what is nearer than all of them is hardly new.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sao.sound.spectra import BANDS, FLOOR_DB
from scipy.spatial.distance import cdist

ROWS = 256  # clips compared at a time: bounded memory whatever the corpus


@dataclass
class Nearest:
    """For each clip the row of its nearest other, and the distance."""

    row: np.ndarray
    distance: np.ndarray


def nearest(x: np.ndarray, y: np.ndarray) -> Nearest:
    """Nearest of `y` `[m, dim]` to each of `x` `[n, dim]`, by Euclidean distance."""
    distances = cdist(x.astype(np.float64), y.astype(np.float64))
    row = distances.argmin(axis=1)
    return Nearest(row, distances[np.arange(len(x)), row])


def nearest_thumbnails(x: np.ndarray, y: np.ndarray) -> Nearest:
    """The same of log-mel thumbnails `[clips, frames * BANDS]`: dB, root mean square over the longer clip's frames.

    The floor that fills a short clip up counts for nothing where both have it.
    """
    width = max(x.shape[1], y.shape[1])
    x, y = x.astype(np.float32), y.astype(np.float32)
    x, y = (np.pad(z, ((0, 0), (0, width - z.shape[1])), constant_values=FLOOR_DB) - FLOOR_DB for z in (x, y))
    lengths, others = _lengths(x), _lengths(y)
    norms = np.square(y).sum(axis=1)
    rows = []
    for at in range(0, len(x), ROWS):
        part = x[at : at + ROWS]
        squares = np.square(part).sum(axis=1)[:, None] + norms - 2 * part @ y.T
        rows.append((squares / np.maximum(lengths[at : at + ROWS, None], others)).argmin(axis=1))
    row = np.concatenate(rows)
    # Anew for the nearest: of two that are alike the formula above leaves a rounding error.
    squares = np.square(x - y[row]).sum(axis=1)
    return Nearest(row, np.sqrt(squares / np.maximum(lengths, others[row])))


def _lengths(x: np.ndarray) -> np.ndarray:
    """Numbers of each clip up to the end of its last frame that is over the floor, of at least one frame."""
    heard = x.reshape(len(x), -1, BANDS).any(axis=2)
    return BANDS * np.maximum((heard * np.arange(1, heard.shape[1] + 1)).max(axis=1), 1)
