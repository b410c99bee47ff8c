"""The measures of rule `evaluate`. A new one is a function and an entry in `MEASURES`.

Pages and pictures import this module for names and forms. So functions import the libraries that they compute with.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from sao.base.takes import is_first_take
from sao.evaluation.embedded import Embedded
from sao.evaluation.embeddings.embedding import Embedding
from sao.evaluation.measure import (
    AgainstBase,
    BesideRecording,
    BetweenSets,
    Distance,
    Fact,
    InEmbedding,
    Measure,
    PerClip,
    Shown,
    Signal,
)
from sao.evaluation.papers import PAPERS
from sao.evaluation.signals import FACTS

HELD_OUT = ("validation", "evaluation")
SAME_TEXT = 1e-5  # unit vectors that differ less are of the same text, embedded in other batches
AVERAGE = "rewards the average: a blurred mean of plausible sounds scores better than a sharp one of them"
CLOSER = ("closer to the recordings than", "farther from the recordings than")


def kad(x: np.ndarray, y: np.ndarray, own: np.ndarray) -> Distance:
    from sao.evaluation.distances import kad

    return kad(x, y, own)


def fad(x: np.ndarray, y: np.ndarray, own: np.ndarray) -> Distance:
    """FAD without the bias of few clips. It has no interval: one around a biased figure would not hold the truth."""
    from sao.evaluation.distances import fad, fad_infinity

    (n, dim), n_reference = x.shape, len(y)
    plain, value = fad(x, y), fad_infinity(x, y)
    note = f"of the plain FAD of {plain:.3g}, {plain - value:.3g} is the bias of so few clips"
    if min(n, n_reference) <= dim:
        note += (
            f", and more of it is left: {n} clips and {n_reference} recordings are too few for covariances in {dim} dimensions. "
            "Go by KAD"
        )
    return Distance(value, note=note)


def clap_score(embedding: Embedding, renders: Embedded, recordings: Embedded) -> PerClip | None:
    """The cosine of each clip's vector and its prompt's, if the embedding has a text side."""
    if renders.text is None:
        return None
    return PerClip({"clap_score": (_unit(renders.vectors) * _unit(renders.text)).sum(axis=1).tolist()})


def clap_ceiling(embedding: Embedding, renders: Embedded, recordings: Embedded) -> PerClip | None:
    """The cosine of the vectors of each render's own recording and of the prompt. None for a prompt without a recording."""
    if renders.text is None:
        return None
    vectors, text = _unit(recordings.vectors), _unit(renders.text)
    pairs = zip(recordings.rows_of(renders), text, strict=True)
    return PerClip({"clap_ceiling": [None if row is None else float(vectors[row] @ caption) for row, caption in pairs]})


def clap_floor(embedding: Embedding, renders: Embedded, recordings: Embedded) -> PerClip | None:
    """The mean cosine of each clip's vector and the prompts of its split that have another text.

    This is what a shuffle of the captions gives on average. None if all prompts of the split are alike.
    """
    if renders.text is None:
        return None
    vectors, text, splits = _unit(renders.vectors), _unit(renders.text), np.array(renders.splits)
    scores = []
    for row, split in enumerate(splits):
        others = (splits == split) & (np.abs(text - text[row]).max(axis=1) > SAME_TEXT)
        scores.append(float((text[others] @ vectors[row]).mean()) if others.any() else None)
    return PerClip({"clap_floor": scores})


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors of length one `[clips, dim]`."""
    vectors = vectors.astype(np.float64)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-12)


def memorised(
    embedding: Embedding, renders: Embedded, recordings: Embedded, base: Sequence[float] | None
) -> PerClip | None:
    """Each clip's nearest training recording and nearest held-out recording, and whether the clip is a copy.

    `base` has the distances of the base model's renders of training captions to their nearest training recordings. Without it the
    renders are those of the base model. None if there is no training recording, or no held-out one.
    """
    if not embedding.finds_copies:
        return None
    from sao.evaluation.memorisation import threshold

    train, held_out = recordings.of_splits("train"), recordings.of_splits(*HELD_OUT)
    if not train.ids or not held_out.ids:
        return None
    to_train = embedding.nearest(renders.vectors, train.vectors)
    to_held_out = embedding.nearest(renders.vectors, held_out.vectors)
    learned = np.array([split == "train" for split in renders.splits])
    first = np.array([is_first_take(clip) for clip in renders.ids])  # takes are no independent sounds
    judged_by = {
        False: (
            "held-out recordings",
            embedding.nearest(held_out.vectors[_spread(len(held_out.ids))], train.vectors).distance,
        ),
        True: (
            "renders of training captions by the base model",
            to_train.distance[learned & first] if base is None else np.array(base),
        ),
    }
    thresholds = {is_train: threshold(distances) for is_train, (_, distances) in judged_by.items()}
    is_copy = [
        None if (limit := thresholds[is_train].value) is None else bool(distance < limit)
        for is_train, distance in zip(learned.tolist(), to_train.distance.tolist(), strict=True)
    ]
    columns: dict[str, Sequence[Any]] = {
        "nearest_train": [train.ids[row] for row in to_train.row],
        "train_distance": to_train.distance.tolist(),
        "nearest_held_out": [held_out.ids[row] for row in to_held_out.row],
        "held_out_distance": to_held_out.distance.tolist(),
        "memorised": is_copy,
    }
    splits = dict.fromkeys(renders.splits)
    judged = {split: asdict(thresholds[split == "train"]) for split in splits}
    flagged = [clip for clip, copied in zip(renders.ids, is_copy, strict=True) if copied]
    summary = {"space": embedding.name, "n_train": len(train.ids), "n_held_out": len(held_out.ids), "judged": judged}
    notes = {split: thresholds[split == "train"].note(judged_by[split == "train"][0]) for split in splits}
    return PerClip(columns, summary | {"flagged": flagged}, notes)


def _spread(n: int) -> np.ndarray:
    """The rows of the clips that judge, spread evenly over all `n` if these are more than needed."""
    from sao.evaluation.memorisation import JUDGES

    return np.unique(np.linspace(0, n - 1, min(n, JUDGES)).round().astype(int))


def log_mel_distance(render: Signal, recording: Signal) -> float:
    from sao.sound.spectra import log_mel_distance

    return log_mel_distance(render.log_mel, recording.log_mel)


def loudness_error(render: Signal, recording: Signal) -> float | None:
    return apart(render.facts["loudness_lufs"], recording.facts["loudness_lufs"])


def bandwidth_error(render: Signal, recording: Signal) -> float | None:
    return apart(octaves(render.facts["bandwidth_hz"]), octaves(recording.facts["bandwidth_hz"]))


def recorded_clicks(render: Signal, recording: Signal) -> float | None:
    return recording.facts["clicks"]


def recorded_dropouts(render: Signal, recording: Signal) -> float | None:
    return recording.facts["dropouts"]


def octaves(hertz: Fact) -> float | None:
    return math.log2(hertz) if hertz else None


def apart(one: Fact, other: Fact) -> float | None:
    return None if one is None or other is None else abs(one - other)


# The order is that of pages and tables.
MEASURES: tuple[Measure, ...] = (
    BetweenSets(
        key="kad",
        name="KAD",
        better="lower",
        of=kad,
        drawn=True,
        words=CLOSER,
        about="kernel audio distance (Chung et al. 2025): 100 times the unbiased squared MMD with a Gaussian kernel, whose "
        "bandwidth is the median distance of the split's recordings. It is unbiased at any `n`, so it may be negative. The pair of "
        "a render and its own recording is left out, because they have the same caption and so are not independent",
    ),
    BetweenSets(
        key="fad",
        name="FAD∞",
        better="lower",
        of=fad,
        by_clips=True,
        drawn=True,
        about="Fréchet audio distance, extrapolated to infinitely many clips (Gui et al. 2024), because plain FAD grows as clips get "
        "fewer. `note` has the plain FAD and its bias. With no more clips than dimensions part of the bias is left: compare by KAD "
        "then. It has no interval",
    ),
    InEmbedding(
        key="clap_score",
        name="CLAP score",
        better="higher",
        of=clap_score,
        drawn=True,
        shown=Shown("CLAP score", "{:.3f}", sortable=True),
        words=("closer to its captions than", "farther from its captions than"),
        about="cosine of the vectors of caption and sound, if the config names a CLAP embedding. It lies between the next two",
    ),
    InEmbedding(
        key="clap_ceiling",
        name="CLAP score of the recordings, the ceiling",
        of=clap_ceiling,
        about="the same of the recordings of these captions. A score above it is no better: CLAP hears no more in a caption",
    ),
    InEmbedding(
        key="clap_floor",
        name="CLAP score with shuffled captions, the floor",
        of=clap_floor,
        about="the same of the renders with captions of other clips of the split, on average over all. A score that is no higher "
        "does not depend on the caption",
    ),
    BesideRecording(
        key="log_mel_distance",
        name="Log-mel distance to the recording",
        unit="dB",
        better="lower",
        of=log_mel_distance,
        lowest=0,
        drawn=True,
        words=CLOSER,
        caveat=AVERAGE,
        shown=Shown("Log-mel distance", "{:.1f} dB", sortable=True),
        about="mean absolute difference from the recording in 64 bands up to 8 kHz. Each clip is relative to its loudest cell, "
        "with a floor of -60 dB. It rewards the average: a blurred mean of all plausible sounds is nearer to a recording than a sharp "
        "sound that is as plausible",
    ),
    BesideRecording(
        key="loudness_error",
        name="Loudness error",
        unit="LU",
        better="lower",
        lowest=0,
        of=loudness_error,
        about="difference from the recording's loudness",
    ),
    BesideRecording(
        key="bandwidth_error",
        name="Bandwidth error",
        unit="octaves",
        better="lower",
        lowest=0,
        of=bandwidth_error,
        about="difference from the recording's bandwidth",
    ),
    *PAPERS,
    *FACTS,
    BesideRecording(
        key="reference_clicks",
        name="Clicks in recordings",
        unit="1/s",
        lowest=0,
        of=recorded_clicks,
        averaged=True,
        about="the same of the recordings of these renders: what these sounds have anyway",
    ),
    BesideRecording(
        key="reference_dropouts",
        name="Dropouts in recordings",
        unit="1/s",
        lowest=0,
        of=recorded_dropouts,
        averaged=True,
        about="the same of the recordings of these renders",
    ),
    AgainstBase(
        key="memorised",
        name="Suspected copies of training clips",
        unit="share",
        better="lower",
        lowest=0,
        of=memorised,
        drawn=True,
        base_column="train_distance",
        about="share of clips that are nearer to a training clip than sounds are that cannot be copies, in each embedding and in "
        "`spectrogram`, which is compared at every shift in time. Renders of training captions are judged by the base model's renders "
        "of training captions, others by held-out recordings. `note` has the rate of false alarms: 1 %, or more with fewer than 99 of "
        "these. With fewer than 9 it cannot be told",
    ),
)
