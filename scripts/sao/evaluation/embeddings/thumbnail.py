"""Small spectrograms, which find copies that an embedding may miss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from sao.evaluation.embeddings.embedding import Embedding

if TYPE_CHECKING:
    from sao.evaluation.memorisation import Nearest


class Thumbnail(Embedding):
    """A log-mel spectrogram, as bytes. Longer clips have longer vectors."""

    name = label = "spectrogram"
    about = (
        "log-mel, 32 bands, 31 frames per second, 40 dB deep, compared at every shift in time. It is always computed, for the search "
        "for copies"
    )
    rate = 16000  # `sao.sound.spectra.RATE`, whose import takes scipy
    compares_sets = False

    def sound(self, signal: np.ndarray) -> np.ndarray:
        from sao.sound.spectra import thumbnail

        return thumbnail(signal)

    def stack(self, vectors: Sequence[np.ndarray]) -> np.ndarray:
        """Bytes, padded with silence."""
        from sao.evaluation.embedded import stack

        return stack(vectors)

    def nearest(self, x: np.ndarray, y: np.ndarray) -> Nearest:
        from sao.evaluation.memorisation import nearest_shifted

        return nearest_shifted(x, y)
