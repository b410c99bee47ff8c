"""The interface of embeddings. This module and the embeddings import only numpy at their tops, because the plan reads them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sao.config.embeddings import embedding_folder

if TYPE_CHECKING:
    from sao.evaluation.memorisation import Nearest


class Analysis(NamedTuple):
    """What an embedding tells of one sound."""

    vector: np.ndarray  # [dim]
    windows: np.ndarray | None = None  # [windows, dim], if the embedding keeps them
    classes: np.ndarray | None = None  # [classes], probabilities of a classifier, of sum one


@dataclass(frozen=True)
class Published:
    """Weights that are not fetched by themselves. The config declares the file, with its hash."""

    url: str  # of the file
    page: str  # of licence and authors


class Embedding(ABC):
    """A way to turn each sound into one vector. Call `load` before `analyse`, `text` and `provenance`."""

    name: str  # in a config, and the base of its folder's name
    label: str  # beside a measure's name: `FAD (aiSFX)`
    about: str  # for the documentation, in Markdown
    rate: int  # Hz of the signals that it takes
    license: str = ""  # of its weights
    gpu: bool = False  # whether torch computes it, on a GPU if there is one
    revision: str = ""  # commit on the Hub that its weights are fetched from; empty if none are
    published: Published | None = None  # its weights, if the config declares them
    compares_sets: bool = True  # False if a set of vectors has no mean, as where they differ in length
    keeps_windows: bool = False  # whether papers compare sets by all windows of their sounds in it
    finds_copies: bool = True  # False if near vectors do not mean that sounds are alike
    detects: bool = False  # whether the first number is the probability that the sound has a watermark
    names: Mapping[str, str] = MappingProxyType({})  # of measures, by key, that papers call by a name of their own

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
        """Load the weights. `model` is the Hub cache if they are fetched, or the file of weights that the config declares."""

    def title(self, key: str, name: str) -> str:
        """The name of a measure in this embedding, by the measure's key and own name: `FAD (aiSFX)`."""
        return self.names.get(key, f"{name} ({self.label})")

    def analyse(self, audio: np.ndarray, rate: int) -> Analysis:
        """What the embedding tells of a sound `[frames, channels]`, full scale = 1, at `rate` Hz."""
        from sao.sound.spectra import to_mono

        return Analysis(self.sound(to_mono(audio, rate, self.rate)))

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
