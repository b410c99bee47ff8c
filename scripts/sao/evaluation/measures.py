"""The measures of rule `evaluate`. A new one is a function and an entry in `MEASURES`.

Pages and pictures import this module for names and forms. So functions import the libraries that they compute with.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from sao.evaluation.embedded import Embedded
from sao.evaluation.embeddings.embedding import Embedding
from sao.evaluation.measure import (
    BesideRecording,
    BetweenSets,
    Distance,
    Fact,
    InEmbedding,
    Measure,
    PerClip,
    Resampling,
    Shown,
    Signal,
)
from sao.evaluation.signals import FACTS

HELD_OUT = ("validation", "evaluation")


def kad(x: np.ndarray, y: np.ndarray, resampling: Resampling) -> Distance:
    from sao.evaluation.distances import Kad

    kernels = Kad(x, y)
    return Distance(kernels.value(), kernels.interval(*resampling))


def fad(x: np.ndarray, y: np.ndarray, resampling: Resampling) -> Distance:
    """FAD, with a caveat if there are too few clips to estimate covariances."""
    from sao.evaluation.distances import fad, fad_interval

    (n, dim), n_reference = x.shape, len(y)
    note = (
        f"{n} clips and {n_reference} recordings are too few for covariances in {dim} dimensions: FAD is biased, go by KAD"
        if min(n, n_reference) <= dim
        else ""
    )
    return Distance(fad(x, y), fad_interval(x, y, *resampling), note)


def clap_score(embedding: Embedding, renders: Embedded, recordings: Embedded) -> PerClip | None:
    """The cosine of each clip's vector and its prompt's, if the embedding has a text side."""
    if renders.text is None:
        return None
    vectors, text = renders.vectors.astype(np.float64), renders.text.astype(np.float64)
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(text, axis=1)
    return PerClip({"clap_score": ((vectors * text).sum(axis=1) / lengths.clip(1e-12)).tolist()})


def memorised(embedding: Embedding, renders: Embedded, recordings: Embedded) -> PerClip | None:
    """Each clip's nearest training recording and nearest held-out recording, and whether the clip is a copy.

    It is a copy if it is nearer to a training recording than any held-out recording is. None if either set is empty.
    """
    train, held_out = recordings.of_splits("train"), recordings.of_splits(*HELD_OUT)
    if not train.ids or not held_out.ids:
        return None
    to_train = embedding.nearest(renders.vectors, train.vectors)
    to_held_out = embedding.nearest(renders.vectors, held_out.vectors)
    threshold = float(embedding.nearest(held_out.vectors, train.vectors).distance.min())
    is_copy = (to_train.distance < threshold).tolist()
    columns: dict[str, Sequence[Any]] = {
        "nearest_train": [train.ids[row] for row in to_train.row],
        "train_distance": to_train.distance.tolist(),
        "nearest_held_out": [held_out.ids[row] for row in to_held_out.row],
        "held_out_distance": to_held_out.distance.tolist(),
        "memorised": is_copy,
    }
    counts = {"threshold": threshold, "n_train": len(train.ids), "n_held_out": len(held_out.ids)}
    flagged = [clip for clip, copied in zip(renders.ids, is_copy, strict=True) if copied]
    return PerClip(columns, {"space": embedding.name} | counts | {"flagged": flagged})


def log_mel_distance(render: Signal, recording: Signal) -> float:
    from sao.sound.spectra import log_mel_distance

    return log_mel_distance(render.log_mel, recording.log_mel)


def loudness_error(render: Signal, recording: Signal) -> float | None:
    return apart(render.facts["loudness_lufs"], recording.facts["loudness_lufs"])


def bandwidth_error(render: Signal, recording: Signal) -> float | None:
    return apart(octaves(render.facts["bandwidth_hz"]), octaves(recording.facts["bandwidth_hz"]))


def duration_error(render: Signal, recording: Signal) -> float | None:
    error = apart(render.facts["seconds"], recording.facts["seconds"])
    return None if error is None else round(error, 6)


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
        about="kernel audio distance (Chung et al. 2025): 100 times the unbiased squared MMD with a Gaussian kernel, whose "
        "bandwidth is the median distance of the split's recordings. It is unbiased at any `n`, so it may be negative",
    ),
    BetweenSets(
        key="fad",
        name="FAD",
        better="lower",
        of=fad,
        drawn=True,
        about="Fréchet audio distance. With no more clips than dimensions it is biased, and `note` says so: compare by KAD then",
    ),
    InEmbedding(
        key="clap_score",
        name="CLAP score",
        better="higher",
        of=clap_score,
        drawn=True,
        shown=Shown("CLAP score", "{:.3f}", sortable=True),
        about="cosine of the vectors of caption and sound, if the config names a CLAP embedding",
    ),
    BesideRecording(
        key="log_mel_distance",
        name="Log-mel distance to the recording",
        unit="dB",
        better="lower",
        of=log_mel_distance,
        drawn=True,
        shown=Shown("Log-mel distance", "{:.1f} dB", sortable=True),
        about="mean absolute difference from the recording in 64 bands up to 8 kHz. Each clip is relative to its loudest cell, "
        "with a floor of -60 dB",
    ),
    BesideRecording(
        key="loudness_error",
        name="Loudness error",
        unit="LU",
        better="lower",
        of=loudness_error,
        about="difference from the recording's loudness",
    ),
    BesideRecording(
        key="bandwidth_error",
        name="Bandwidth error",
        unit="octaves",
        better="lower",
        of=bandwidth_error,
        about="difference from the recording's bandwidth",
    ),
    BesideRecording(
        key="duration_error",
        name="Duration error",
        unit="s",
        better="lower",
        of=duration_error,
        about="difference from the recording's length",
    ),
    *FACTS,
    InEmbedding(
        key="memorised",
        name="Suspected copies of training clips",
        unit="share",
        better="lower",
        of=memorised,
        drawn=True,
        about="share of clips that are nearer to a training clip than any held-out recording is, in each embedding and in "
        "`spectrogram`",
    ),
)
