"""Small pictures of sounds, to see beside what one hears."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
from scipy.signal import ShortTimeFFT
from scipy.signal.windows import hann

WIDTH, HEIGHT = 480, 96  # pixels at most; pixels
WINDOW = 2048  # samples
LOWEST = 40.0  # Hz
RANGE_DB = 80.0  # below the loudest cell


def log_spectrogram(audio: np.ndarray, rate: int) -> np.ndarray:
    """Level `[HEIGHT, frames]` in dB below the loudest cell, of `audio [samples]`; frequencies logarithmic, up to half the rate."""
    hop = max(len(audio) // WIDTH, WINDOW // 32)
    transform = ShortTimeFFT(hann(WINDOW), hop, rate)
    padded = np.pad(audio, (0, max(WINDOW - len(audio), 0)))
    level = np.abs(transform.stft(padded, p0=0, p1=max(len(padded) // hop, 1)))
    wanted = np.geomspace(LOWEST, rate / 2, HEIGHT)
    bins = np.stack([np.interp(wanted, transform.f, frame) for frame in level.T], axis=1)
    decibels = 20 * np.log10(np.maximum(bins, 1e-12))
    return np.maximum(decibels - decibels.max(), -RANGE_DB)


def draw(sound: Path, picture: Path) -> None:
    """A PNG of the log spectrogram of a sound, its channels averaged."""
    from matplotlib.image import imsave

    audio, rate = soundfile.read(sound, dtype="float32", always_2d=True)
    picture.parent.mkdir(parents=True, exist_ok=True)
    levels = log_spectrogram(audio.mean(axis=1), rate)
    imsave(picture, levels, cmap="magma", vmin=-RANGE_DB, vmax=0, origin="lower", format="png")
