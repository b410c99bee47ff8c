"""A copied training clip is found, and a new sound is not mistaken for one."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sao.evaluation.embedded import Embedded, stack
from sao.evaluation.embeddings import THUMBNAIL, find
from sao.evaluation.evaluate import Evaluation
from sao.evaluation.memorisation import nearest, nearest_thumbnails
from sao.sound.spectra import BANDS, FLOOR_DB, RATE, thumbnail


def chord(seed: int, seconds: float = 1.0) -> np.ndarray:
    """A sound of five fading partials, each with its own pitch and noise."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * RATE)) / RATE
    partials = [np.sin(2 * np.pi * f * time) * np.exp(-time * d) for f, d in rng.uniform((80, 0), (6000, 9), (5, 2))]
    return sum(partials) + 0.01 * rng.standard_normal(len(time))


SIGNALS = {
    "train": [chord(seed, 0.5 + 0.1 * seed) for seed in range(8)],
    "validation": [chord(seed) for seed in range(10, 14)],
    "evaluation": [chord(seed) for seed in range(20, 24)],
}


def embedded(signals: dict[str, list[np.ndarray]]) -> Embedded:
    pairs = [(split, i, thumbnail(x)) for split, xs in signals.items() for i, x in enumerate(xs)]
    ids = [f"{split}{i}" for split, i, _ in pairs]
    return Embedded(ids, [p[0] for p in pairs], stack([p[2] for p in pairs], FLOOR_DB), None, {})


@pytest.mark.parametrize("space", [THUMBNAIL.name, "log-mel"])
def test_copy_is_flagged_and_an_unrelated_clip_is_not(space: str) -> None:
    rng = np.random.default_rng(0)
    copy = 0.5 * SIGNALS["train"][6] + 0.001 * rng.standard_normal(len(SIGNALS["train"][6]))
    renders = embedded({"prompts": [copy, chord(99)]})
    recordings = embedded(SIGNALS)
    if space != THUMBNAIL.name:  # the vectors of an embedding are equally long
        width = recordings.vectors.shape[1]
        vectors = np.pad(renders.vectors, ((0, 0), (0, width - renders.vectors.shape[1])), constant_values=FLOOR_DB)
        renders = Embedded(renders.ids, renders.splits, vectors, None, {})
    found = Evaluation(pd.DataFrame({"clip_id": renders.ids, "split": "prompts"}), 100, 0, 0.95)
    found.measure_in(find(space), renders, recordings)
    assert found.clips[f"memorised/{space}"].tolist() == [True, False]
    assert found.clips[f"nearest_train/{space}"][0] == "train6"
    assert found.clips[f"nearest_held_out/{space}"][0].startswith(("validation", "evaluation"))
    assert found.clips[f"train_distance/{space}"][0] < found.clips[f"held_out_distance/{space}"][0]
    assert found.memorisation[0]["flagged"] == ["prompts0"] and found.memorisation[0]["n_train"] == 8
    (measure,) = found.measures
    assert measure["value"] == 0.5 and measure["n"] == 2 and measure["better"] == "lower"


def test_nearest_is_the_nearest() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((5, 3)), rng.standard_normal((9, 3))
    distances = np.linalg.norm(x[:, None] - y[None], axis=2)
    found = nearest(x, y)
    assert np.array_equal(found.row, distances.argmin(axis=1)) and np.allclose(found.distance, distances.min(axis=1))


def test_silence_that_fills_up_a_set_changes_no_distance() -> None:
    short, long = (stack([thumbnail(chord(i, s)) for i in range(4)], FLOOR_DB) for s in (0.5, 2.0))
    one = nearest_thumbnails(short, long)
    padded = np.pad(short, ((0, 0), (0, 40 * BANDS)), constant_values=FLOOR_DB)
    other = nearest_thumbnails(padded, long)
    assert np.array_equal(one.row, other.row) and np.allclose(one.distance, other.distance)
    assert nearest_thumbnails(short, short).distance == pytest.approx(0, abs=1e-6)
    silent = np.full((1, BANDS), FLOOR_DB, np.float32)
    assert nearest_thumbnails(silent, silent).distance[0] == 0
