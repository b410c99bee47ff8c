"""Small spectrograms, which find copies that an embedding may miss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from sao.evaluation.embeddings.embedding import Embedding

if TYPE_CHECKING:
    from sao.evaluation.memorisation import Nearest


class Thumbnail(Embedding):
    """A coarse log-mel spectrogram. Longer clips have longer vectors."""

    name = label = "spectrogram"
    about = "log-mel, 64 bands, ten frames per second. It is always computed, for the search for copies"
    rate = 16000  # `sao.sound.spectra.RATE`, whose import takes scipy
    compares_sets = False

    def sound(self, signal: np.ndarray) -> np.ndarray:
        from sao.sound.spectra import thumbnail

        return thumbnail(signal)

    def stack(self, vectors: Sequence[np.ndarray]) -> np.ndarray:
        """Pad with the floor. float16 halves these long vectors, and is exact within 0.02 dB."""
        from sao.evaluation.embedded import stack
        from sao.sound.spectra import FLOOR_DB

        return stack(vectors, FLOOR_DB).astype(np.float16)

    def nearest(self, x: np.ndarray, y: np.ndarray) -> Nearest:
        from sao.evaluation.memorisation import nearest_thumbnails

        return nearest_thumbnails(x, y)
