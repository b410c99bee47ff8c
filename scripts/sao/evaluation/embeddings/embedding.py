"""The interface of embeddings. This module and the embeddings import only numpy at their tops, because the plan reads them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sao.config.embeddings import embedding_folder

if TYPE_CHECKING:
    from sao.evaluation.memorisation import Nearest


class Embedding(ABC):
    """A way to turn each sound into one vector. Call `load` before `sound`, `text` and `provenance`."""

    name: str  # in a config, and the base of its folder's name
    label: str  # beside a measure's name: `FAD (aiSFX)`
    about: str  # for the documentation, in Markdown
    rate: int  # Hz of the signals that it takes
    license: str = ""  # of its weights
    gpu: bool = False  # whether torch computes it, on a GPU if there is one
    revision: str = ""  # commit on the Hub that its weights are fetched from; empty if none are
    compares_sets: bool = True  # False if vectors differ in length, because such a set has no mean

    @property
    def folder(self) -> str:
        return embedding_folder(self.name)

    @property
    def fetched(self) -> bool:
        """Whether its weights come from the Hub."""
        return bool(self.revision)

    @property
    def provenance(self) -> dict[str, Any]:
        """The name and version of the embedding. It has to be loaded first."""
        return {"name": self.name}

    def load(self, model: Path | None, threads: int) -> None:  # noqa: B027 - not all have any
        """Load the weights. `model` is the Hub cache if they are fetched."""

    @abstractmethod
    def sound(self, signal: np.ndarray) -> np.ndarray:
        """The vector `[dim]` of a mono signal `[frames]` at `rate`."""

    def text(self, captions: Sequence[str]) -> np.ndarray | None:
        """Vectors `[captions, dim]` of texts in the same space. None if the embedding has no text side."""
        return None

    def stack(self, vectors: Sequence[np.ndarray]) -> np.ndarray:
        """`[clips, dim]`, the array in which a set of sounds is stored."""
        return np.stack(vectors).astype(np.float32)

    def nearest(self, x: np.ndarray, y: np.ndarray) -> Nearest:
        """The nearest of `y` to each of `x`."""
        from sao.evaluation.memorisation import nearest

        return nearest(x, y)
