"""What an embedding is. Reading this and the embeddings themselves takes no library but numpy: the plan asks them, too."""

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
    """A way to turn each sound into one vector. `load` comes before all that computes."""

    name: str  # in a config, and of its folder
    label: str  # beside a measure's name: `FAD (aiSFX)`
    about: str  # for the documentation, in Markdown
    rate: int  # Hz of the signals that it takes
    license: str = ""  # of its weights
    gpu: bool = False  # computed by torch, on a GPU where there is one
    revision: str = ""  # commit on the Hub that its weights are fetched from; empty where none are
    compares_sets: bool = True  # False where vectors differ in length, so that a set of them has no mean

    @property
    def folder(self) -> str:
        return embedding_folder(self.name)

    @property
    def fetched(self) -> bool:
        """Whether its weights come from the Hub."""
        return bool(self.revision)

    @property
    def provenance(self) -> dict[str, Any]:
        """Where its numbers come from, once it is loaded."""
        return {"name": self.name}

    def load(self, model: Path | None, threads: int) -> None:  # noqa: B027 - not all have any
        """Bring its weights into memory. `model` is the Hub cache of those that are fetched."""

    @abstractmethod
    def sound(self, signal: np.ndarray) -> np.ndarray:
        """The vector `[dim]` of a mono signal `[frames]` at `rate`."""

    def text(self, captions: Sequence[str]) -> np.ndarray | None:
        """Vectors `[captions, dim]` in the same space; None where text has none."""
        return None

    def stack(self, vectors: Sequence[np.ndarray]) -> np.ndarray:
        """`[clips, dim]`, as a set of recordings is kept."""
        return np.stack(vectors).astype(np.float32)

    def nearest(self, x: np.ndarray, y: np.ndarray) -> Nearest:
        """The nearest of `y` to each of `x`."""
        from sao.evaluation.memorisation import nearest

        return nearest(x, y)
