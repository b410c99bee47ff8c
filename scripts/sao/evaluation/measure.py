"""The kinds of measures. A measure has a name, a unit, a better direction, the places where it is shown, and a function.

Each kind is a class, and the kinds differ in the arguments of the function. `signals.FACTS` and `measures.MEASURES` list the
measures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
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


class Influence(NamedTuple):
    """How far each clip moves a distance: the distance less the distance without the clip."""

    of_clips: np.ndarray  # `[n]` of each render together with its own recording
    of_others: np.ndarray  # of the recordings of which nothing was rendered


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
    notes: dict[str, str] = field(default_factory=dict)  # caveats by split


@dataclass(frozen=True)
class Distance:
    """The distance between two sets. Without the influence of its clips it has no interval."""

    value: float
    influence: Influence | None = None
    note: str = ""  # a caveat

    def __sub__(self, other: Distance) -> Distance:
        """The difference of the distances of two models from the same recordings, whose renders are of the same clips."""
        influence = None
        if self.influence and other.influence:
            influence = Influence(*(a - b for a, b in zip(self.influence, other.influence, strict=True)))
        return Distance(self.value - other.value, influence)


@dataclass(frozen=True)
class Found:
    """The distance between all windows of two sets. Without `left_out` it has no interval."""

    value: float
    left_out: tuple[np.ndarray, np.ndarray] | None = None  # the distances without each group of renders, of recordings
    note: str = ""  # a caveat

    def __sub__(self, other: Found) -> Found:
        """The difference of the distances of two models from the same recordings, whose renders are of the same clips."""
        left_out = None
        if self.left_out and other.left_out:
            left_out = self.left_out[0] - other.left_out[0], self.left_out[1] - other.left_out[1]
        return Found(self.value - other.value, left_out)

    def interval(self, level: float) -> Interval | None:
        """The interval of a delete-a-group jackknife (Kott 2001). None if it is not known without which groups."""
        if self.left_out is None:
            return None
        variance = sum((len(distances) - 1) * np.var(distances) for distances in self.left_out)
        half = float(NormalDist().inv_cdf((1 + level) / 2) * np.sqrt(variance))
        return self.value - half, self.value + half


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
    better: str = ""  # `higher` or `lower`; empty if neither is better: then a fact of sounds has no mean
    drawn: bool = False  # whether it is logged, and drawn by step if a run has several legs
    shown: Shown | None = None
    lowest: float = -math.inf  # value that is possible; intervals are cut there
    caveat: str = ""  # what a reader has to know beside the figure
    # What the model may be called, compared with its base, if the measure says whether it is better: `closer to the
    # recordings than` and the opposite. The first measure that has these words leads the page.
    words: tuple[str, str] | None = None


@dataclass(frozen=True, kw_only=True)
class OfSound(Measure):
    """A fact of one sound. Rule `signals` computes it from samples `[frames, channels]`, full scale = 1, and their rate."""

    of: Callable[[np.ndarray, int], Fact]


@dataclass(frozen=True, kw_only=True)
class BesideRecording(Measure):
    """The distance of a render from its recording, or what a recording itself has."""

    of: Callable[[Signal, Signal], float | None]
    averaged: bool = False  # whether it has a mean even if neither direction is better


@dataclass(frozen=True, kw_only=True)
class InEmbedding(Measure):
    """A figure of each render in an embedding, from the renders and all recordings. None if the embedding does not have it."""

    of: Callable[[Embedding, Embedded, Embedded], PerClip | None]


@dataclass(frozen=True, kw_only=True)
class AgainstBase(InEmbedding):
    """One whose function also takes the base model's figures of the same training captions, or None for a base model."""

    of: Callable[[Embedding, Embedded, Embedded, Sequence[float] | None], PerClip | None]  # type: ignore[assignment]
    base_column: str  # key of these figures


@dataclass(frozen=True, kw_only=True)
class BetweenSets(Measure):
    """The distance between the vectors of renders `[n, dim]` and of recordings `[m, dim]`, at least two of each.

    The third argument, `[n]`, has the row of each render's own recording, or -1.
    """

    of: Callable[[np.ndarray, np.ndarray, np.ndarray], Distance]
    by_clips: bool = False  # whether it is left out in embeddings in which papers compare all windows


@dataclass(frozen=True, kw_only=True)
class BetweenWindows(Measure):
    """The distance between all windows of renders and of recordings, a `[windows, dim]` for each clip, at least two clips of each.

    Where it is taken, measures of one vector per clip are left out if they are `by_clips`.
    """

    of: Callable[[Sequence[np.ndarray], Sequence[np.ndarray]], Found]
