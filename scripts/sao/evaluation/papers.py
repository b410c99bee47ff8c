"""Measures as papers define them, in embeddings whose weights a config declares. A new one is a function and an entry in `PAPERS`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sao.evaluation.embedded import Embedded
from sao.evaluation.embeddings.embedding import Embedding
from sao.evaluation.measure import BetweenWindows, Found, InEmbedding, PerClip, Shown

LEAST = 1e-6  # is added to a recording's probabilities, as in stable-audio-metrics


def frechet(x: Sequence[np.ndarray], y: Sequence[np.ndarray]) -> Found:
    from sao.evaluation.windows import fad_of_windows

    return fad_of_windows(x, y)


def divergence(embedding: Embedding, renders: Embedded, recordings: Embedded) -> PerClip | None:
    """KL(render || recording) in nats of each render's class probabilities from its own recording's. None if there are none."""
    rows = recordings.rows_of(renders)
    if renders.classes is None or recordings.classes is None or set(rows) == {None}:
        return None
    values: list[float | None] = []
    for own, row in zip(renders.classes.astype(np.float64), rows, strict=True):
        if row is None:
            values.append(None)
            continue
        logs = np.log(own, where=own > 0, out=np.zeros_like(own)) - np.log(recordings.classes[row] + LEAST)
        values.append(float((own * logs).sum()))
    return PerClip({"kl": values})


def watermark(embedding: Embedding, renders: Embedded, recordings: Embedded) -> PerClip | None:
    """The share of each render that a detector takes for watermarked."""
    return PerClip({"watermark": renders.vectors[:, 0].tolist()}) if embedding.detects else None


def reference_watermark(embedding: Embedding, renders: Embedded, recordings: Embedded) -> PerClip | None:
    """The share of each render's recording that a detector takes for watermarked."""
    rows = recordings.rows_of(renders)
    if not embedding.detects or set(rows) == {None}:
        return None
    return PerClip(
        {"reference_watermark": [None if row is None else float(recordings.vectors[row, 0]) for row in rows]}
    )


PAPERS = (
    BetweenWindows(
        key="fd",
        name="Fréchet distance of all windows",
        better="lower",
        of=frechet,
        lowest=0,
        drawn=True,
        about="FD-OpenL3, FAD-VGGish and FAD-PANNs as papers report them: the Fréchet distance (Kilgour et al. 2019, "
        "arXiv:1812.08466) between the Gaussians of all windows of both sets, where FAD compares one vector per clip. With no more "
        "windows than dimensions it is biased, and `note` says so. The intervals are a jackknife's over clips",
    ),
    InEmbedding(
        key="kl",
        name="KL divergence from the recording",
        unit="nats",
        better="lower",
        of=divergence,
        drawn=True,
        shown=Shown("KL", "{:.2f}", sortable=True),
        about="KL-PaSST and KL-PANNs: KL(render ‖ recording) of the class probabilities of each render and of its own recording, "
        "softmax over AudioSet's 527 classes. As in stable-audio-metrics, 1e-6 is added to the recording's",
    ),
    InEmbedding(
        key="watermark",
        name="Watermark in renders",
        unit="share",
        lowest=0,
        of=watermark,
        drawn=True,
        shown=Shown("Watermark", "{:.2f}", sortable=True),
        about="mean share of a render's samples that AudioSeal's detector takes for watermarked. It should be near 1 with "
        "`render.watermark`, and near 0 without",
    ),
    InEmbedding(
        key="reference_watermark",
        name="Watermark in recordings",
        unit="share",
        lowest=0,
        of=reference_watermark,
        about="the same of the recordings of these renders. It should be near 0, unless they were marked by somebody",
    ),
)
