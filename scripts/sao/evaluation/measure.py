"""What a measure is: its name, its unit, which is better, where it is shown, and the function that computes it.

Each kind of measure is a class here, by what its function is given. `signals.FACTS` and `measures.MEASURES` list them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from sao.evaluation.embedded import Embedded
from sao.evaluation.embeddings.embedding import Embedding

Fact = float | bool | None  # None where a value cannot be had
Interval = tuple[float, float]


class Resampling(NamedTuple):
    """How an interval is drawn."""

    draws: int
    seed: int
    level: float


@dataclass(frozen=True)
class Signal:
    """What is kept of one sound, for all comparisons with others."""

    facts: dict[str, Fact]  # by key of a measure
    log_mel: np.ndarray  # `[frames, bands]` of `sao.sound.spectra`
    thumbnail: np.ndarray


@dataclass(frozen=True)
class PerClip:
    """Columns of the table of clips, a value for each render. The measure is the mean of the one of its own key."""

    columns: dict[str, Sequence[Any]]
    summary: dict[str, Any] = field(default_factory=dict)  # for the list `memorisation`


@dataclass(frozen=True)
class Distance:
    """How far two sets are apart."""

    value: float
    interval: Interval
    note: str = ""  # a caveat


@dataclass(frozen=True)
class Shown:
    """How a figure of one sound is printed beside it on the page."""

    name: str
    form: str  # for str.format
    sortable: bool = False


@dataclass(frozen=True, kw_only=True)
class Measure:
    """What all kinds have in common. Tables, pictures and pages ask these fields, and name no measure themselves."""

    key: str
    name: str
    about: str  # for the documentation, in Markdown
    unit: str = ""
    better: str = (
        ""  # `higher` or `lower`; empty where neither is: then it has no mean, and is only shown beside sounds
    )
    drawn: bool = False  # by step, where a run has several legs; logged, too
    shown: Shown | None = None


@dataclass(frozen=True, kw_only=True)
class OfSound(Measure):
    """A fact of one sound. Rule `signals` computes it of samples `[frames, channels]`, full scale = 1, and their rate."""

    of: Callable[[np.ndarray, int], Fact]


@dataclass(frozen=True, kw_only=True)
class BesideRecording(Measure):
    """How far a render is from its recording."""

    of: Callable[[Signal, Signal], float | None]


@dataclass(frozen=True, kw_only=True)
class InEmbedding(Measure):
    """A figure of each render in an embedding, from the renders and all recordings; None where it has no meaning there."""

    of: Callable[[Embedding, Embedded, Embedded], PerClip | None]


@dataclass(frozen=True, kw_only=True)
class BetweenSets(Measure):
    """How far the vectors of renders `[clips, dim]` are from those of recordings, for two of each or more."""

    of: Callable[[np.ndarray, np.ndarray, Resampling], Distance]
