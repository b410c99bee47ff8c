"""Find renders that are copies of training clips. numpy and scipy only.

A render is called a copy if it is nearer to a training clip than sounds are that cannot be copies. These are held-out recordings
for renders of new captions. A training caption alone brings a render nearer to its clip, so a render of one is judged by the base
model's renders of training captions. `benchmarks/copies.py` measures how many planted copies are found.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft
from scipy.spatial.distance import cdist

from sao.sound.spectra import COPY_BANDS

LOWEST_RATE, HIGHEST_RATE = 0.01, 0.1  # of false alarms
FENCE = 4  # quartile distances, further than Tukey's "far out" (1977): nearest distances have a long lower tail of their own
# A clip is compared at every shift with the clips whose spectra are most alike: roughly with so many, closely with the best of them.
ROUGHLY, CLOSELY, COARSE = 64, 8, 4  # clips, clips, frames and half as many bands that a rough comparison takes as one
PARTS = (0, 0.25, 0.5, 0.75)  # of a frame; shifts by them are interpolated
JUDGES = 500  # clips that a threshold is found from, which is enough for a quantile of 1 %
SHARE = 0.75  # of the quieter clip that has to overlap with the other
FRAMES = 4  # that have to overlap


@dataclass(frozen=True)
class Nearest:
    """For each clip, the row of the nearest clip in the other set, and the distance."""

    row: np.ndarray
    distance: np.ndarray


@dataclass(frozen=True)
class Threshold:
    """The distance below which a clip is called a copy, and what is known about it."""

    value: float | None  # None if there are too few clips to tell
    rate: float  # the share of clips, which are no copies, that are called copies
    n: int  # clips that it was found from
    left_out: int  # others, which are near-duplicates of training clips

    def note(self, what: str) -> str:
        """A sentence about it. `what` names the clips that it was found from."""
        if self.value is None:
            return f"cannot be told with {self.n} {what}: {round(1 / HIGHEST_RATE) - 1} are needed"
        left_out = f", without {self.left_out} near-duplicates of training clips" if self.left_out else ""
        return f"false alarms: {self.rate:.2g} of clips that are no copies, judged by {self.n} {what}{left_out}"


def threshold(distances: np.ndarray) -> Threshold:
    """The threshold from the distances `[clips]` of clips that are no copies to their nearest training clips.

    It is their quantile. If a new clip is like them, it is below the k-th smallest of n with a probability of k / (n + 1)
    (Vovk et al. 2005, conformal prediction). The rate is LOWEST_RATE, or what n clips allow, if that is higher. There is no
    threshold if it would be above HIGHEST_RATE. Clips far below all others are near-duplicates of training clips on the other
    side, and would hide copies. They are left out, by the quartiles of the logarithms, which such clips hardly move.
    """
    if not len(distances):
        return Threshold(None, 1, 0, 0)
    logs = np.log(np.maximum(distances, 1e-9 * max(float(distances.max()), 1e-9)))
    low, high = np.quantile(logs, [0.25, 0.75])
    kept = np.sort(distances[logs >= low - FENCE * (high - low)])
    n, left_out = len(kept), len(distances) - len(kept)
    rate = max(LOWEST_RATE, 1 / (n + 1))
    if rate > HIGHEST_RATE:
        return Threshold(None, rate, n, left_out)
    rank = int(rate * (n + 1) + 1e-9)
    return Threshold(float(kept[rank - 1]), rank / (n + 1), n, left_out)


def nearest(x: np.ndarray, y: np.ndarray) -> Nearest:
    """The nearest of `y` `[m, dim]` to each of `x` `[n, dim]`, by Euclidean distance."""
    distances = cdist(x.astype(np.float64), y.astype(np.float64))
    row = distances.argmin(axis=1)
    return Nearest(row, distances[np.arange(len(x)), row])


def nearest_shifted(x: np.ndarray, y: np.ndarray) -> Nearest:
    """The same for thumbnails `[clips, frames * COPY_BANDS]`, at the best shift in time.

    The distance is one less the correlation of the cells that overlap, so gain changes nothing. It is between 0 and 2.
    """
    others = [_frames(clip) for clip in y]
    spectra, coarse = np.stack([_spectrum(clip) for clip in others]), [_coarse(clip) for clip in others]
    rows, distances = np.zeros(len(x), int), np.ones(len(x))
    for i, clip in enumerate(map(_frames, x)):
        chosen = np.square(spectra - _spectrum(clip)).sum(axis=1).argsort(kind="stable")[:ROUGHLY]
        if len(chosen) > CLOSELY:
            chosen = chosen[_distances(_coarse(clip), *_padded([coarse[row] for row in chosen])).argsort(kind="stable")]
        chosen = chosen[:CLOSELY]
        candidates = _padded([others[row] for row in chosen])
        found = np.min([_distances(_later(clip, part), *candidates) for part in PARTS], axis=0)
        rows[i], distances[i] = chosen[found.argmin()], found.min()
    return Nearest(rows, distances)


def _frames(thumbnail: np.ndarray) -> np.ndarray:
    """`[frames, COPY_BANDS]` without the silent frames at the end, but at least one."""
    frames = thumbnail.reshape(-1, COPY_BANDS)
    sounding = np.flatnonzero(frames.any(axis=1))
    return frames[: sounding[-1] + 1 if len(sounding) else 1].astype(np.float32)


def _spectrum(frames: np.ndarray) -> np.ndarray:
    """Mean and deviation of each band over the frames that sound, as a vector of length one."""
    sounding = frames[frames.any(axis=1)]
    if not len(sounding):
        return np.zeros(2 * COPY_BANDS, np.float32)
    spectrum = np.concatenate([sounding.mean(axis=0), sounding.std(axis=0)])
    return spectrum / np.linalg.norm(spectrum)


def _later(frames: np.ndarray, part: float) -> np.ndarray:
    """The frames that begin a part of a frame later, between each two."""
    return (1 - part) * frames[:-1] + part * frames[1:] if part and len(frames) > 1 else frames


def _coarse(frames: np.ndarray) -> np.ndarray:
    """Means of COARSE frames and of two bands."""
    padded = np.pad(frames, ((0, -len(frames) % COARSE), (0, 0)))
    return padded.reshape(-1, COARSE, COPY_BANDS // 2, 2).mean(axis=(1, 3))


def _padded(clips: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Clips `[clips, frames, bands]` of unequal length, with zeros at their ends, and their lengths `[clips]`."""
    lengths = np.array([len(clip) for clip in clips])
    padded = np.zeros((len(clips), lengths.max(), clips[0].shape[1]), np.float32)
    for row, clip in zip(padded, clips, strict=True):
        row[: len(clip)] = clip
    return padded, lengths


def _distances(clip: np.ndarray, others: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The distance of a clip `[frames, bands]` to each of `others` `[clips, frames, bands]` at the best shift by whole frames.

    It is 1 where too little overlaps at every shift.
    """
    n, width = len(clip), others.shape[1]
    size = next_fast_len(n + width - 1, real=True)
    # Products at each shift of `others` against `clip`, from -(n - 1) to width - 1. Negative shifts lie at the end.
    product = irfft((np.conj(rfft(clip, size, axis=0)) * rfft(others, size, axis=1)).sum(axis=2), size, axis=1)
    shifts = np.arange(-(n - 1), width)
    product = product[:, shifts]
    begin, end = np.maximum(-shifts, 0), np.minimum(n, lengths[:, None] - shifts)  # of the overlap, in `clip`
    end = np.maximum(end, begin)
    cells = (end - begin) * clip.shape[1]

    def sums(values: np.ndarray, at: np.ndarray) -> np.ndarray:
        return np.take_along_axis(np.cumsum(np.pad(values, ((0, 0), (1, 0))), axis=1, dtype=np.float64), at, axis=1)

    def overlap(values: np.ndarray, shift: np.ndarray | int) -> np.ndarray:
        return sums(values, end + shift) - sums(values, np.broadcast_to(begin + shift, end.shape))

    of_clip = [np.broadcast_to(values, (len(others), n)) for values in (clip.sum(axis=1), np.square(clip).sum(axis=1))]
    of_others = [others.sum(axis=2), np.square(others).sum(axis=2)]
    (sum_clip, square_clip), (sum_other, square_other) = (
        [overlap(values, shift) for values in pair] for pair, shift in ((of_clip, 0), (of_others, shifts))
    )
    totals = [pair[1].sum(axis=1, keepdims=True) for pair in (of_clip, of_others)]
    share = np.where(
        totals[0] <= totals[1], square_clip / np.maximum(totals[0], 1), square_other / np.maximum(totals[1], 1)
    )
    enough = (share >= SHARE) & (end - begin >= np.minimum(FRAMES, np.minimum(n, lengths))[:, None])
    cells = np.maximum(cells, 1)
    covariance = product - sum_clip * sum_other / cells
    variances = [squares - total**2 / cells for squares, total in ((square_clip, sum_clip), (square_other, sum_other))]
    enough &= np.minimum(*variances) >= cells  # a level that does not change correlates with nothing
    correlation = covariance / np.sqrt(np.maximum(variances[0] * variances[1], 1))
    return 1 - np.where(enough, correlation, 0).clip(-1, 1).max(axis=1)
