"""Sounds as mono signals, and mel spectrograms of them. No torch."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path

from sao.base.command import InputError

import numpy as np
import soundfile
from scipy.signal import ShortTimeFFT, resample_poly
from scipy.signal.windows import hann

from sao.sound.read import read_sound as read_samples

RATE, BANDS = 16000, 64  # Hz and bands of `log_mel`
COPY_BANDS, COPY_FLOOR_DB = 32, -40.0  # of `thumbnail`; what MP3 and noise change lies below this floor
FLOOR_DB = -60.0  # relative to the loudest cell; a lower level is hardly audible


def read_sound(path: Path) -> tuple[np.ndarray, int]:
    """`(audio [frames, channels] float32, rate in Hz)`. Raises InputError on a file that cannot be read."""
    try:
        return read_samples(path)
    except (soundfile.SoundFileError, RuntimeError) as error:
        reason = getattr(error, "error_string", str(error)).rstrip(".")
        raise InputError(f"{path}: cannot be read ({reason}): make it again") from None


def to_mono(audio: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    """The mean of the channels `[frames]`, resampled to the wanted rate."""
    common = math.gcd(rate, wanted)
    signal = audio.mean(axis=1)
    return signal if rate == wanted else resample_poly(signal, wanted // common, rate // common)


@cache
def mel_bands(rate: int, window: int, bands: int, high: float) -> np.ndarray:
    """Triangles of equal width on HTK's mel scale from 0 to `high` Hz, each of sum one: `[window // 2 + 1, bands]`.

    These are Essentia's MelBands with `htkMel`, `weighting="warping"` and `unit_sum`, with which aiSFX was trained.
    """

    def to_mel(hertz: np.ndarray | float) -> np.ndarray:
        return 1127.01048 * np.log1p(np.asarray(hertz) / 700)

    edges = np.linspace(0, to_mel(high), bands + 2)
    mel = to_mel(np.fft.rfftfreq(window, 1 / rate))[:, None]
    rising, falling = (mel - edges[:-2]), (edges[2:] - mel)
    triangles = np.maximum(np.minimum(rising, falling), 0)
    return triangles / np.maximum(triangles.sum(axis=0), 1e-12)


def mel_power(signal: np.ndarray, rate: int, window: int, hop: int, bands: int, high: float) -> np.ndarray:
    """The mean power in each band `[frames, bands]`, with a Hann window that is not normalised."""
    signal = np.pad(signal, (0, max(0, window - len(signal))))
    power = ShortTimeFFT(hann(window, sym=False), hop, fs=rate).spectrogram(signal)
    return power.T @ mel_bands(rate, window, bands, high)


def log_mel(signal: np.ndarray, window: int = 1024, hop: int = 256) -> np.ndarray:
    """The log-mel spectrogram `[frames, BANDS]` of a signal at RATE, in dB relative to its loudest cell, at least FLOOR_DB."""
    decibels = 10 * np.log10(np.maximum(mel_power(signal, RATE, window, hop, BANDS, RATE / 2), 1e-12))
    return np.maximum(decibels - decibels.max(), FLOOR_DB)


def thumbnail(signal: np.ndarray) -> np.ndarray:
    """The spectrogram of a signal at RATE in which copies are looked for, as one vector `[frames * COPY_BANDS]` of bytes.

    It has 31 frames per second and 32 bands, in quarters of a decibel above COPY_FLOOR_DB, relative to the loudest cell. Each
    frame spans four hops, so it hardly changes if a copy begins between two frames. Silence is zero.
    """
    power = mel_power(signal, RATE, 2048, 512, COPY_BANDS, RATE / 2)
    if power.max() <= 1e-10:
        return np.zeros(power.size, np.uint8)
    decibels = 10 * np.log10(np.maximum(power / power.max(), 1e-12))
    return np.rint(4 * (np.maximum(decibels, COPY_FLOOR_DB) - COPY_FLOOR_DB)).astype(np.uint8).reshape(-1)


def log_mel_distance(one: np.ndarray, other: np.ndarray) -> float:
    """The mean absolute difference in dB of two spectrograms of `log_mel`. The shorter one is padded with the floor."""
    frames = max(len(one), len(other))
    one, other = (np.pad(x, ((0, frames - len(x)), (0, 0)), constant_values=FLOOR_DB) for x in (one, other))
    return float(np.abs(one - other).mean())
