"""Measure one model: from the vectors and signals of its renders to a table of its clips and a summary of each split."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pandas as pd
from pandas.api.types import is_bool_dtype

from sao.base.names import corpus_of, seed_for
from sao.base.takes import clip_and_take, is_first_take
from sao.config.resolve import ROLES
from sao.evaluation.embedded import Embedded
from sao.evaluation.embeddings.embedding import Embedding
from sao.evaluation.intervals import jackknife_interval, mean_interval, share_difference, share_interval
from sao.evaluation.measure import (
    AgainstBase,
    BesideRecording,
    BetweenSets,
    BetweenWindows,
    Distance,
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
    recording = recordings.of(clip_and_take(clip)[0])
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


class Figure(NamedTuple):
    """A number with its interval, if that is known, and the clips that it was taken of."""

    value: float
    interval: Interval | None
    n: int


@dataclass
class Evaluation:
    """Fills `clips`, with one row per render, and `measures`, the summary of each split, and of each corpus of a mixture in it.

    With the clips of the base model, each measure also has the difference to it: of the same prompts, rendered from the same
    seeds. `comparisons` is the number of models that are compared with this base. The intervals of the differences have the level
    1 - (1 - level) / comparisons, so by each measure all of them hold at once with `level` (Bonferroni).
    """

    clips: pd.DataFrame  # from `clip_table`
    draws: int
    seed: int
    level: float
    base: pd.DataFrame | None = None  # its `clips`
    comparisons: int = 1
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
        """Which renders are in a group: the first takes alone, because takes of one prompt are no independent clips."""
        own = (self.clips.split == group.split) & self.clips.clip_id.map(is_first_take)
        return own & (self.clips.clip_id.map(corpus_of) == group.corpus) if group.corpus else own

    def measure_in(
        self, embedding: Embedding, renders: Embedded, recordings: Embedded, base: Embedded | None = None
    ) -> None:
        """Take all measures in an embedding. `renders`, `base` and `self.clips` have the same clips in the same order."""
        for group in self.groups() if embedding.compares_sets else []:
            clips = self.clips.clip_id[self.rows_of(group)].tolist()
            y = recordings.of_splits(group.split).of_corpus(group.corpus)
            for measure in of_kind(BetweenSets) if y.ids else []:  # prompts have no recordings
                if measure.by_clips and renders.windows is not None:
                    continue
                self._compare_sets(measure, group.name, embedding, renders.of(clips), y, base and base.of(clips))
        self._compare_windows(embedding, renders, recordings, base)
        for per_clip in of_kind(InEmbedding):
            self._score_clips(per_clip, embedding, renders, recordings)

    def measure_clips(self) -> None:
        """Average the facts of the clips, and their distances from the recordings, over each split."""
        for measure in MEASURES:
            averaged = measure.better or (isinstance(measure, BesideRecording) and measure.averaged)
            if isinstance(measure, OfSound | BesideRecording) and averaged:
                self._average(measure)

    def _compare_sets(
        self,
        measure: BetweenSets,
        split: str,
        embedding: Embedding,
        renders: Embedded,
        recordings: Embedded,
        base: Embedded | None,
    ) -> None:
        n, n_reference = len(renders.ids), len(recordings.ids)
        if min(n, n_reference) < 2:
            note = "needs two clips and two recordings"
            return self._add(measure, split, embedding, Figure(math.nan, None, n), None, n_reference, note)
        own = np.array([-1 if row is None else row for row in recordings.rows_of(renders)])
        resampling = self._resampling(split, measure, embedding)

        def figure(distance: Distance, level: float) -> Figure:
            value, influence = distance.value, distance.influence
            given = resampling._replace(level=level)
            return Figure(value, influence and jackknife_interval(value, influence, given), n)

        found = measure.of(renders.vectors, recordings.vectors, own)
        difference = None
        if base:
            difference = figure(found - measure.of(base.vectors, recordings.vectors, own), self._difference_level)
        self._add(measure, split, embedding, figure(found, self.level), difference, n_reference, found.note)

    def _compare_windows(
        self, embedding: Embedding, renders: Embedded, recordings: Embedded, base: Embedded | None
    ) -> None:
        """Take the measures of all windows of renders and recordings, if the embedding has them."""
        for group in self.groups() if renders.windows is not None else []:
            clips = self.clips.clip_id[self.rows_of(group)].tolist()
            x, y = renders.of(clips), recordings.of_splits(group.split).of_corpus(group.corpus)
            if x.windows is None or y.windows is None or not y.ids:  # prompts have no recordings
                continue
            n, n_reference = len(x.ids), len(y.ids)
            for measure in of_kind(BetweenWindows):
                if min(n, n_reference) < 2:
                    note = "needs two clips and two recordings"
                    self._add(measure, group.name, embedding, Figure(math.nan, None, n), None, n_reference, note)
                    continue
                found = measure.of(x.windows, y.windows)
                difference = None
                if base and (before := base.of(clips).windows) is not None:
                    apart = found - measure.of(before, y.windows)
                    difference = Figure(apart.value, apart.interval(self._difference_level), n)
                figure = Figure(found.value, found.interval(self.level), n)
                self._add(measure, group.name, embedding, figure, difference, n_reference, found.note)

    def _score_clips(self, measure: InEmbedding, embedding: Embedding, renders: Embedded, recordings: Embedded) -> None:
        more = [self._of_base(measure, embedding)] if isinstance(measure, AgainstBase) else []
        per_clip = measure.of(embedding, renders, recordings, *more)
        if per_clip is None:
            return
        for name, values in per_clip.columns.items():
            self.clips[f"{name}/{embedding.name}"] = values
        if per_clip.summary:
            self.memorisation.append(per_clip.summary)
        self._average(measure, embedding, per_clip.notes)

    def _of_base(self, measure: AgainstBase, embedding: Embedding) -> list[float] | None:
        """The base model's figures of its renders of training captions."""
        if self.base is None:
            return None
        first = self.base.clip_id.map(is_first_take)
        figures = self.base[(self.base.split == "train") & first].get(f"{measure.base_column}/{embedding.name}")
        return [] if figures is None else figures.dropna().tolist()

    def _average(
        self, measure: Measure, embedding: Embedding | None = None, notes: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        """Add the mean of a column over the clips of each split that have a value. `notes` are caveats by split."""
        column = f"{measure.key}/{embedding.name}" if embedding else measure.key
        for group in self.groups() if column in self.clips else []:
            values = self.clips[self.rows_of(group)].set_index("clip_id")[column].dropna().infer_objects()
            note = notes.get(group.split, "")
            if not len(values) and note:  # which says why
                self._add(measure, group.name, embedding, Figure(math.nan, None, 0), None, None, note)
            if len(values):
                resampling = self._resampling(group.name, measure, embedding)
                difference = self._difference(values, column, resampling._replace(level=self._difference_level))
                self._add(measure, group.name, embedding, _mean(values, resampling), difference, None, note)

    def _difference(self, values: pd.Series, column: str, resampling: Resampling) -> Figure | None:
        """The mean difference of clips' values to those of the base model. None if no clip has both."""
        if self.base is None or column not in self.base:
            return None
        others = self.base.set_index("clip_id")[column].reindex(values.index).dropna().infer_objects()
        if others.empty:
            return None
        values = values[others.index]
        if is_bool_dtype(values) and is_bool_dtype(others):
            own, other = values.to_numpy(bool), others.to_numpy(bool)
            return Figure(own.mean() - other.mean(), share_difference(own, other, resampling.level), len(own))
        return _mean(values.astype(float) - others.astype(float), resampling)

    @property
    def _difference_level(self) -> float:
        return 1 - (1 - self.level) / self.comparisons

    def _add(
        self,
        measure: Measure,
        split: str,
        embedding: Embedding | None,
        figure: Figure,
        difference: Figure | None,
        n_reference: int | None = None,
        note: str = "",
    ) -> None:
        """Append a measure to the summary."""
        low, high = figure.interval or (None, None)
        difference = difference or Figure(math.nan, None, 0)
        difference_low, difference_high = difference.interval or (None, None)
        self.measures.append(
            {
                "key": _key(split, measure, embedding),
                "name": embedding.title(measure.key, measure.name) if embedding else measure.name,
                "measure": measure.key,
                "embedding": embedding.name if embedding else None,
                "split": split,
                "difference": finite(difference.value),
                "difference_low": finite(difference_low),
                "difference_high": finite(difference_high),
                "difference_n": difference.n,
                "value": finite(figure.value),
                "low": None if low is None else finite(max(low, measure.lowest)),
                "high": finite(high),
                "n": figure.n,
                "n_reference": n_reference,
                "unit": measure.unit,
                "better": measure.better,
                "note": "; ".join(filter(None, (note, measure.caveat))),
            }
        )

    def _resampling(self, split: str, measure: Measure, embedding: Embedding | None) -> Resampling:
        """The resampling of a measure. It has the same draws in every run."""
        return Resampling(self.draws, seed_for(self.seed, _key(split, measure, embedding)), self.level)


def _mean(values: pd.Series, resampling: Resampling) -> Figure:
    """The mean of clips' values. Of `True` and `False` it is a share."""
    n = len(values)
    if is_bool_dtype(values):
        return Figure(float(values.mean()), share_interval(int(values.sum()), n, resampling.level), n)
    numbers = values.to_numpy(float)
    return Figure(float(numbers.mean()), mean_interval(numbers, resampling), n)


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
