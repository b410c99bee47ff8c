"""Log-mel statistics, and the log-mel input that they share with aiSFX."""

from __future__ import annotations

import numpy as np

from sao.evaluation.embeddings.embedding import Embedding

RATE = 44100  # Hz


def aisfx_input(signal: np.ndarray) -> np.ndarray:
    """`[frames, 96]` log-mel of a signal at RATE, 43 frames per second, the same as in aiSFX's `spectrogram_essentia.py`."""
    from sao.sound.spectra import mel_power

    return np.log10(1e4 * mel_power(signal, RATE, 2048, 1024, 96, 22050) + 1)


class LogMel(Embedding):
    """Mean and standard deviation over time of aiSFX's log-mel bands."""

    name = label = "log-mel"
    about = "mean and standard deviation of aiSFX's log-mel bands over time, 192 numbers. It has no learned weights"
    rate = RATE

    def sound(self, signal: np.ndarray) -> np.ndarray:
        bands = aisfx_input(signal)
        return np.concatenate([bands.mean(axis=0), bands.std(axis=0)]).astype(np.float32)
