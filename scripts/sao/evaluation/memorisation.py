"""Find renders that are copies of training clips. numpy and scipy only.

A render is flagged if it is nearer to a training clip than any held-out recording is. Held-out recordings are new sounds, so
a sound that is nearer than all of them is hardly new.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import cdist

from sao.sound.spectra import BANDS, FLOOR_DB

ROWS = 256  # clips compared at a time, so that a large corpus needs no more memory


@dataclass
class Nearest:
    """For each clip, the row of the nearest clip in the other set, and the distance."""

    row: np.ndarray
    distance: np.ndarray


def nearest(x: np.ndarray, y: np.ndarray) -> Nearest:
    """The nearest of `y` `[m, dim]` to each of `x` `[n, dim]`, by Euclidean distance."""
    distances = cdist(x.astype(np.float64), y.astype(np.float64))
    row = distances.argmin(axis=1)
    return Nearest(row, distances[np.arange(len(x)), row])


def nearest_thumbnails(x: np.ndarray, y: np.ndarray) -> Nearest:
    """The same for log-mel thumbnails `[clips, frames * BANDS]`, by root mean square in dB over the longer clip's frames.

    Frames in which both clips have only the floor, such as padding, do not count.
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
    # The distance to the nearest is computed again, because the formula above has a rounding error for similar clips.
    squares = np.square(x - y[row]).sum(axis=1)
    return Nearest(row, np.sqrt(squares / np.maximum(lengths, others[row])))


def _lengths(x: np.ndarray) -> np.ndarray:
    """The number of values of each clip up to its last frame above the floor. It has at least one frame."""
    loud = x.reshape(len(x), -1, BANDS).any(axis=2)
    return BANDS * np.maximum((loud * np.arange(1, loud.shape[1] + 1)).max(axis=1), 1)
