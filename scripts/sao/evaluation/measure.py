"""The kinds of measures. A measure has a name, a unit, a better direction, the places where it is shown, and a function.

Each kind is a class, and the kinds differ in the arguments of the function. `signals.FACTS` and `measures.MEASURES` list the
measures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from sao.evaluation.embedded import Embedded
from sao.evaluation.embeddings.embedding import Embedding

Fact = float | bool | None  # None if a value cannot be computed
Interval = tuple[float, float]


class Resampling(NamedTuple):
    """The settings of a bootstrap interval."""

    draws: int
    seed: int
    level: float


@dataclass(frozen=True)
class Signal:
    """The facts and spectrograms of one sound, which all comparisons with others need."""

    facts: dict[str, Fact]  # by key of a measure
    log_mel: np.ndarray  # `[frames, bands]` of `sao.sound.spectra`
    thumbnail: np.ndarray


@dataclass(frozen=True)
class PerClip:
    """Columns of the table of clips, with one value per render. The measure is the mean of the column with its key."""

    columns: dict[str, Sequence[Any]]
    summary: dict[str, Any] = field(default_factory=dict)  # for the list `memorisation`


@dataclass(frozen=True)
class Distance:
    """The distance between two sets."""

    value: float
    interval: Interval
    note: str = ""  # a caveat


@dataclass(frozen=True)
class Shown:
    """The form in which the page prints a figure beside its sound."""

    name: str
    form: str  # for str.format
    sortable: bool = False


@dataclass(frozen=True, kw_only=True)
class Measure:
    """The fields of all kinds. Tables, pictures and pages read them, and name no measure themselves."""

    key: str
    name: str
    about: str  # for the documentation, in Markdown
    unit: str = ""
    better: str = (
        ""  # `higher` or `lower`; empty if neither is better: then it has no mean, and is only shown beside sounds
    )
    drawn: bool = False  # whether it is logged, and drawn by step if a run has several legs
    shown: Shown | None = None


@dataclass(frozen=True, kw_only=True)
class OfSound(Measure):
    """A fact of one sound. Rule `signals` computes it from samples `[frames, channels]`, full scale = 1, and their rate."""

    of: Callable[[np.ndarray, int], Fact]


@dataclass(frozen=True, kw_only=True)
class BesideRecording(Measure):
    """The distance of a render from its recording."""

    of: Callable[[Signal, Signal], float | None]


@dataclass(frozen=True, kw_only=True)
class InEmbedding(Measure):
    """A figure of each render in an embedding, from the renders and all recordings. None if the embedding does not have it."""

    of: Callable[[Embedding, Embedded, Embedded], PerClip | None]


@dataclass(frozen=True, kw_only=True)
class BetweenSets(Measure):
    """The distance between the vectors of renders and of recordings, `[clips, dim]`, at least two of each."""

    of: Callable[[np.ndarray, np.ndarray, Resampling], Distance]
