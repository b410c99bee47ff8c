"""Clicks and dropouts in a sound: what no ear misses, and what measures of spectra hardly see. numpy only.

`benchmarks/README.md` tells how many planted ones are found, and how often real sounds raise a false alarm.
"""

from __future__ import annotations

import numpy as np

ORDER = 16  # of the linear prediction
FRAME, HOP = 1024, 512  # samples that a prediction is fitted to, and that it predicts
AROUND = 0.015  # s before and after a click in which nothing is nearly as sudden
OWN = 0.001  # s around its peak that belong to the click itself
TIMES = 2.5  # how much more sudden than all around it a click is
AUDIBLE = 10 ** (-50 / 20)  # error of prediction, full scale = 1; what is less sudden is no click
SILENCE = 10 ** (-80 / 20)  # peak within a dropout: the last bits of 16
GAP = 0.003  # s; the shortest dropout
EDGE = 0.005  # s before and after a dropout in which there is sound
SOUND = 10 ** (-50 / 20)  # root mean square of that sound, at least


def clicks(audio: np.ndarray, rate: int) -> float | None:
    """Clicks per second of a sound `[samples, channels]`, in the channel that has most. None for an empty sound.

    A click is a sample that linear prediction misses by far more than all samples around it, before and after. So the attack of
    a clap or a knock is none, because sound follows it; nor are the pulses of a low tone, because there are others near by. This
    is the detector of impulsive noise of Vaseghi and Rayner (1990), with the largest error nearby in place of the mean one.
    """
    if not len(audio):
        return None
    return max(_count_clicks(channel, rate) for channel in audio.T.astype(np.float64)) * rate / len(audio)


def _count_clicks(signal: np.ndarray, rate: int) -> int:
    side, own = round(AROUND * rate), round(OWN * rate)
    error = np.abs(prediction_error(signal))
    if len(error) <= 2 * side:
        return 0
    highest = _running_max(error, side - own)
    # The largest error from `own` to `side` samples before each sample, and likewise after it.
    before = highest[: len(error) - 2 * side]
    after = highest[side + own :][: len(before)]
    centre = error[side : side + len(before)]
    found = np.flatnonzero((centre > AUDIBLE) & (centre > TIMES * np.maximum(before, after)))
    return len(found) and 1 + int((np.diff(found) > own).sum())


def _running_max(values: np.ndarray, width: int) -> np.ndarray:
    """The highest of each `width` neighbouring values, by the first of them."""
    from scipy.ndimage import maximum_filter1d

    return maximum_filter1d(values, width, origin=-(width // 2))[: len(values) - width + 1]


def prediction_error(signal: np.ndarray) -> np.ndarray:
    """What linear prediction from the ORDER samples before misses of each sample `[samples]`.

    Predictions are fitted to overlapping frames by autocorrelation.
    """
    count = -(-len(signal) // HOP)
    padded = np.pad(signal, ((FRAME - HOP) // 2 + ORDER, FRAME + count * HOP - len(signal)))
    frames = np.lib.stride_tricks.sliding_window_view(padded[ORDER:], FRAME)[::HOP][:count] * np.hanning(FRAME)
    spectra = np.fft.rfft(frames, 2 * FRAME)
    correlation = np.fft.irfft(np.square(np.abs(spectra)))[:, : ORDER + 1]
    # White noise at -60 dB keeps a pure tone from a prediction with huge coefficients.
    correlation[:, 0] = correlation[:, 0] * (1 + 1e-6) + 1e-12
    lags = np.abs(np.subtract.outer(np.arange(ORDER), np.arange(ORDER)))
    weights = np.linalg.solve(correlation[:, lags], correlation[:, 1:, None])[..., 0]
    past = np.lib.stride_tricks.sliding_window_view(np.pad(signal, (ORDER, count * HOP - len(signal))), ORDER + 1)
    past = past[: count * HOP].reshape(count, HOP, ORDER + 1)
    predicted = np.matmul(past[:, :, -2::-1], weights[:, :, None])[..., 0]
    return (past[:, :, -1] - predicted).reshape(-1)[: len(signal)]


def dropouts(audio: np.ndarray, rate: int) -> float | None:
    """Dropouts per second of a sound `[samples, channels]`, in the channel that has most. None for an empty sound.

    A dropout is digital silence of 3 ms or more that sound stops at and goes on after, without fading.
    """
    if not len(audio):
        return None
    return max(_count_dropouts(channel, rate) for channel in audio.T.astype(np.float64)) * rate / len(audio)


def _count_dropouts(signal: np.ndarray, rate: int) -> int:
    quiet = np.concatenate([[False], np.abs(signal) < SILENCE, [False]])
    starts, stops = np.flatnonzero(np.diff(quiet.astype(np.int8))).reshape(-1, 2).T
    edge = round(EDGE * rate)
    energy = np.concatenate([[0.0], np.cumsum(np.square(signal))])
    long = (stops - starts >= GAP * rate) & (starts >= edge) & (stops <= len(signal) - edge)
    starts, stops = starts[long], stops[long]
    before, after = energy[starts] - energy[starts - edge], energy[stops + edge] - energy[stops]
    return int((np.minimum(before, after) >= edge * SOUND**2).sum())
