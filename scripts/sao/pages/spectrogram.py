"""Draw small spectrograms, which the page shows beside the sounds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.signal import ShortTimeFFT
from scipy.signal.windows import hann

from sao.sound.spectra import read_sound

WIDTH, HEIGHT = 480, 96  # pixels; a short sound's picture is narrower
WINDOW = 2048  # samples
LOWEST, HIGHEST = 40.0, 20000.0  # Hz; the same for all sounds, so the missing part of a lower sample rate shows
RANGE_DB = 80.0  # below the loudest cell


def log_spectrogram(signal: np.ndarray, rate: int) -> np.ndarray:
    """Level `[HEIGHT, frames]` of a signal `[frames]` in dB relative to its loudest cell, at least -RANGE_DB.

    Frequencies are logarithmic. Those above half the rate are at the floor.
    """
    hop = max(len(signal) // WIDTH, WINDOW // 32)
    transform = ShortTimeFFT(hann(WINDOW, sym=False), hop, rate)
    padded = np.pad(signal, (0, max(WINDOW - len(signal), 0)))
    level = np.abs(transform.stft(padded, p0=0, p1=max(len(padded) // hop, 1)))
    frequencies = np.geomspace(LOWEST, HIGHEST, HEIGHT)
    bins = np.stack([np.interp(frequencies, transform.f, frame, right=0) for frame in level.T], axis=1)
    decibels = 20 * np.log10(np.maximum(bins, 1e-12))
    return np.maximum(decibels - decibels.max(), -RANGE_DB)


def draw(sound: Path, picture: Path) -> None:
    """Draw the log spectrogram of a sound, the mean of its channels, as a WebP. Raises InputError if it cannot be read."""
    from matplotlib.image import imsave

    audio, rate = read_sound(sound)
    picture.parent.mkdir(parents=True, exist_ok=True)
    levels = log_spectrogram(audio.mean(axis=1), rate)
    imsave(
        picture, levels, cmap="magma", vmin=-RANGE_DB, vmax=0, origin="lower", format="webp", pil_kwargs={"quality": 75}
    )
