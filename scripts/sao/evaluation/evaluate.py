"""The measures of a run, from embeddings and from facts of its clips. numpy, pandas and scipy only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from sao.base.names import seed_for
from sao.config.embeddings import THUMBNAIL, Choice
from sao.evaluation.distances import Kad, fad, fad_interval, mean_interval
from sao.evaluation.embeddings import Embedded
from sao.evaluation.memorisation import nearest, nearest_thumbnails

# What is measured: `(name, unit, which is better)`. Of the last ones the mean over the clips is reported.
SET_MEASURES = {"kad": ("KAD", "", "lower"), "fad": ("FAD", "", "lower")}
CLIP_MEASURES = {
    "clap_score": ("CLAP score", "", "higher"),
    "log_mel_distance": ("Log-mel distance to the recording", "dB", "lower"),
    "loudness_error": ("Loudness error", "LU", "lower"),
    "bandwidth_error": ("Bandwidth error", "octaves", "lower"),
    "duration_error": ("Duration error", "s", "lower"),
    "silent": ("Silent clips", "share", "lower"),
    "clipped": ("Clipped samples", "share", "lower"),
    "dc_offset": ("DC offset", "full scale", "lower"),
    "memorised": ("Suspected copies of training clips", "share", "lower"),
}
HELD_OUT = ("validation", "evaluation")
Measure = dict[str, Any]


@dataclass
class Evaluation:
    """Fills `clips`, a row a render, and `measures`, the summary of each split."""

    clips: pd.DataFrame  # clip_id, split, and what is known of each clip
    draws: int
    seed: int
    level: float
    measures: list[Measure] = field(default_factory=list)
    memorisation: list[dict[str, Any]] = field(default_factory=list)

    def ids(self, split: str) -> list[str]:
        return self.clips.clip_id[self.clips.split == split].tolist()

    def splits(self) -> list[str]:
        """Evaluation first: that is what models are compared by."""
        return sorted(self.clips.split.unique(), key=lambda split: (split != "evaluation", split))

    def add(
        self,
        measure: str,
        split: str,
        value: float | None,
        interval: tuple[float, float] | None,
        n: int,
        embedding: Choice | None = None,
        **more: Any,
    ) -> None:
        """Append a measure; its key is `<split>/<measure>` or `<split>/<measure>/<embedding>`."""
        name, unit, better = (SET_MEASURES | CLIP_MEASURES)[measure]
        low, high = interval or (None, None)
        self.measures.append(
            {
                "key": self.key(split, measure, embedding),
                "name": f"{name} ({embedding.label})" if embedding else name,
                "measure": measure,
                "embedding": embedding.name if embedding else None,
                "split": split,
                "value": finite(value),
                "low": finite(low),
                "high": finite(high),
                "n": n,
                "n_reference": None,
                "unit": unit,
                "better": better,
                "note": "",
            }
            | more
        )

    @staticmethod
    def key(split: str, measure: str, embedding: Choice | None) -> str:
        return "/".join([split, measure, *([embedding.name] if embedding else [])])

    def compare_sets(self, chosen: Choice, renders: Embedded, recordings: Embedded) -> None:
        """KAD and FAD of the renders of each split against that split's recordings."""
        for split in self.splits():
            ids, (_, y) = self.ids(split), recordings.of_split(split)
            if not len(y):
                continue  # prompts have no recordings
            x = renders.of(ids)
            known = {"n_reference": len(y), "embedding": chosen}
            if min(len(x), len(y)) < 2:
                for measure in SET_MEASURES:
                    self.add(measure, split, None, None, len(x), **known, note="needs two clips and two recordings")
                continue
            kad = Kad(x, y)
            interval = kad.interval(self.draws, self._seed(split, "kad", chosen), self.level)
            self.add("kad", split, kad.value(), interval, len(x), **known)
            interval = fad_interval(x, y, self.draws, self._seed(split, "fad", chosen), self.level)
            self.add("fad", split, fad(x, y), interval, len(x), **known, note=fad_note(*x.shape, len(y)))

    def score_captions(self, chosen: Choice, renders: Embedded) -> None:
        """Cosine of each clip's embedding and its prompt's, where the embedding has a text side."""
        if renders.text is None:
            return
        vectors, text = renders.vectors.astype(np.float64), renders.text.astype(np.float64)
        cosines = (vectors * text).sum(axis=1) / (np.linalg.norm(vectors, axis=1) * np.linalg.norm(text, axis=1)).clip(
            1e-12
        )
        self.clips[f"clap_score/{chosen.name}"] = self.clips.clip_id.map(
            dict(zip(renders.ids, cosines.tolist(), strict=True))
        )
        self.average("clap_score", chosen)

    def average(self, measure: str, chosen: Choice | None = None) -> None:
        """The mean of a column over the clips of each split that have a value."""
        column = f"{measure}/{chosen.name}" if chosen else measure
        for split in self.splits() if column in self.clips else []:
            values = self.clips[column][self.clips.split == split].dropna().to_numpy(float)
            if len(values):
                interval = mean_interval(values, self.draws, self._seed(split, measure, chosen), self.level)
                self.add(measure, split, float(values.mean()), interval, len(values), chosen)

    def find_copies(self, chosen: Choice, renders: Embedded, recordings: Embedded) -> None:
        """Nearest training and nearest held-out recording of each clip, and whether it is a copy: see memorisation."""
        search = nearest_thumbnails if chosen.name == THUMBNAIL else nearest
        train_ids, train = recordings.of_split("train")
        held_ids, held = recordings.of_split(*HELD_OUT)
        if not len(train) or not len(held):
            return
        x = renders.of(self.clips.clip_id.tolist())
        to_train, to_held = search(x, train), search(x, held)
        threshold = float(search(held, train).distance.min())
        self.clips[f"nearest_train/{chosen.name}"] = [train_ids[row] for row in to_train.row]
        self.clips[f"train_distance/{chosen.name}"] = to_train.distance
        self.clips[f"nearest_held_out/{chosen.name}"] = [held_ids[row] for row in to_held.row]
        self.clips[f"held_out_distance/{chosen.name}"] = to_held.distance
        self.clips[f"memorised/{chosen.name}"] = to_train.distance < threshold
        self.memorisation.append(
            {
                "space": chosen.name,
                "threshold": threshold,
                "n_train": len(train),
                "n_held_out": len(held),
                "flagged": self.clips.clip_id[to_train.distance < threshold].tolist(),
            }
        )
        self.average("memorised", chosen)

    def _seed(self, split: str, measure: str, chosen: Choice | None) -> int:
        """The same draws for the same measure in every run."""
        return seed_for(self.seed, self.key(split, measure, chosen))


def fad_note(n: int, dim: int, n_reference: int) -> str:
    """Says when FAD's covariances cannot be estimated."""
    if min(n, n_reference) > dim:
        return ""
    return (
        f"{n} clips and {n_reference} recordings are too few for covariances in {dim} dimensions: FAD is biased, "
        "go by KAD"
    )


def finite(value: Any) -> Any:
    """JSON has no NaN: None instead."""
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, float | np.floating):
        return float(f"{value:.6g}") if np.isfinite(value) else None
    return value


def clip_figures(clips: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Per clip what a table holds, by clip_id; what is missing in a row is left out of it."""
    rows = {}
    for row in clips.to_dict("records"):
        figures = {key: finite(value) for key, value in row.items()}
        clip = figures.pop("clip_id")
        rows[clip] = {key: value for key, value in figures.items() if value is not None}
    return rows
