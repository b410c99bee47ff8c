"""Measure one model: from the vectors and signals of its renders to a table of its clips and a summary of each split."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from sao.base.names import corpus_of, seed_for
from sao.config.resolve import ROLES
from sao.evaluation.distances import mean_interval
from sao.evaluation.embedded import Embedded
from sao.evaluation.embeddings.embedding import Embedding
from sao.evaluation.measure import (
    BesideRecording,
    BetweenSets,
    Fact,
    InEmbedding,
    Interval,
    Measure,
    OfSound,
    Resampling,
)
from sao.evaluation.measures import MEASURES
from sao.evaluation.signal_set import Signals

Kind = TypeVar("Kind", bound=Measure)


def of_kind(kind: type[Kind]) -> Iterator[Kind]:
    """The measures of one kind, in order."""
    return (measure for measure in MEASURES if isinstance(measure, kind))


def clip_facts(clip: str, has_recording: bool, renders: Signals, recordings: Signals) -> dict[str, Fact]:
    """The facts of a render as a signal, and its distances from its recording if it has one."""
    render = renders.of(clip)
    if not has_recording:
        return render.facts
    recording = recordings.of(clip)
    # The page shows the same facts of a render and of its recording.
    beside = [measure.key for measure in of_kind(OfSound) if measure.shown or not measure.better]
    return (
        render.facts
        | {f"reference_{key}": recording.facts[key] for key in beside}
        | {measure.key: measure.of(render, recording) for measure in of_kind(BesideRecording)}
    )


def clip_table(rows: pd.DataFrame, renders: Signals, recordings: Signals) -> pd.DataFrame:
    """One row per render: clip_id, split and facts. `rows` is the table of renders."""
    columns = zip(rows.clip_id, rows.split, rows.reference, strict=True)
    return pd.DataFrame(
        {"clip_id": clip, "split": split} | clip_facts(clip, reference != "", renders, recordings)
        for clip, split, reference in columns
    )


@dataclass(frozen=True)
class Group:
    """The renders that are summed up together: those of a split, or of one corpus of a mixture in it."""

    name: str
    split: str
    corpus: str  # empty for all


@dataclass
class Evaluation:
    """Fills `clips`, with one row per render, and `measures`, the summary of each split, and of each corpus of a mixture in it."""

    clips: pd.DataFrame  # from `clip_table`
    draws: int
    seed: int
    level: float
    measures: list[dict[str, Any]] = field(default_factory=list)
    memorisation: list[dict[str, Any]] = field(default_factory=list)

    def splits(self) -> list[str]:
        """All splits, `evaluation` first, because models are compared by it."""
        return sorted(self.clips.split.unique(), key=lambda split: (split != "evaluation", split))

    def groups(self) -> list[Group]:
        """All splits, and behind them the corpora of a mixture in each."""
        groups = [Group(split, split, "") for split in self.splits()]
        for split in self.splits():
            own = self.clips.clip_id[self.clips.split == split] if split in ROLES else ()  # prompts are of no corpus
            corpora = sorted({corpus_of(clip) for clip in own} - {""})
            groups += [Group(f"{split}, {corpus}", split, corpus) for corpus in corpora]
        return groups

    def rows_of(self, group: Group) -> pd.Series:
        """Which renders are in a group."""
        own = self.clips.split == group.split
        return own & (self.clips.clip_id.map(corpus_of) == group.corpus) if group.corpus else own

    def measure_in(self, embedding: Embedding, renders: Embedded, recordings: Embedded) -> None:
        """Take all measures in an embedding. `renders` and `self.clips` have the same clips in the same order."""
        for group in self.groups() if embedding.compares_sets else []:
            x = renders.of(self.clips.clip_id[self.rows_of(group)].tolist()).vectors
            y = recordings.of_splits(group.split).of_corpus(group.corpus).vectors
            for measure in of_kind(BetweenSets) if len(y) else []:  # prompts have no recordings
                self._compare_sets(measure, group.name, embedding, x, y)
        for per_clip in of_kind(InEmbedding):
            self._score_clips(per_clip, embedding, renders, recordings)

    def measure_clips(self) -> None:
        """Average the facts of the clips, and their distances from the recordings, over each split."""
        for measure in MEASURES:
            if isinstance(measure, OfSound | BesideRecording) and measure.better:
                self._average(measure)

    def _compare_sets(
        self, measure: BetweenSets, split: str, embedding: Embedding, x: np.ndarray, y: np.ndarray
    ) -> None:
        if min(len(x), len(y)) < 2:
            note = "needs two clips and two recordings"
            return self._add(measure, split, None, None, len(x), embedding, len(y), note)
        distance = measure.of(x, y, self._resampling(split, measure, embedding))
        self._add(measure, split, distance.value, distance.interval, len(x), embedding, len(y), distance.note)

    def _score_clips(self, measure: InEmbedding, embedding: Embedding, renders: Embedded, recordings: Embedded) -> None:
        per_clip = measure.of(embedding, renders, recordings)
        if per_clip is None:
            return
        for name, values in per_clip.columns.items():
            self.clips[f"{name}/{embedding.name}"] = values
        if per_clip.summary:
            self.memorisation.append(per_clip.summary)
        self._average(measure, embedding)

    def _average(self, measure: Measure, embedding: Embedding | None = None) -> None:
        """Add the mean of a column over the clips of each split that have a value."""
        column = f"{measure.key}/{embedding.name}" if embedding else measure.key
        for group in self.groups() if column in self.clips else []:
            values = self.clips[column][self.rows_of(group)].dropna().to_numpy(float)
            if len(values):
                interval = mean_interval(values, *self._resampling(group.name, measure, embedding))
                self._add(measure, group.name, float(values.mean()), interval, len(values), embedding)

    def _add(
        self,
        measure: Measure,
        split: str,
        value: float | None,
        interval: Interval | None,
        n: int,
        embedding: Embedding | None,
        n_reference: int | None = None,
        note: str = "",
    ) -> None:
        """Append a measure to the summary."""
        low, high = interval or (None, None)
        self.measures.append(
            {
                "key": _key(split, measure, embedding),
                "name": f"{measure.name} ({embedding.label})" if embedding else measure.name,
                "measure": measure.key,
                "embedding": embedding.name if embedding else None,
                "split": split,
                "value": finite(value),
                "low": finite(low),
                "high": finite(high),
                "n": n,
                "n_reference": n_reference,
                "unit": measure.unit,
                "better": measure.better,
                "note": note,
            }
        )

    def _resampling(self, split: str, measure: Measure, embedding: Embedding | None) -> Resampling:
        """The resampling of a measure. It has the same draws in every run."""
        return Resampling(self.draws, seed_for(self.seed, _key(split, measure, embedding)), self.level)


def _key(split: str, measure: Measure, embedding: Embedding | None) -> str:
    """`<split>/<measure>` or `<split>/<measure>/<embedding>`."""
    return "/".join([split, measure.key, *([embedding.name] if embedding else [])])


def finite(value: Any) -> Any:
    """A value for JSON, which has no NaN: None replaces it. Numbers keep six digits."""
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, float | np.floating):
        return float(f"{value:.6g}") if np.isfinite(value) else None
    return value


def clip_figures(clips: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """The figures of each clip by clip_id, without missing values."""
    rows = {}
    for row in clips.to_dict("records"):
        figures = {str(key): finite(value) for key, value in row.items()}
        clip = figures.pop("clip_id")
        rows[clip] = {key: value for key, value in figures.items() if value is not None}
    return rows
