"""Several corpora in one training: each has its exact share of every epoch, and no clip of it falls behind another."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sao.data.mixing import per_epoch
from sao.training.dataset import Clip, TrainingClips


@dataclass
class Listed:
    """The clips of a dataset config, without their sounds."""

    clips: list[Clip]
    weights: dict[str, float] = field(default_factory=dict)


def training(captions: str = "first", seed: int = 0, **corpora: tuple[int, float]) -> TrainingClips:
    """Training clips of corpora, given as `name=(clips, weight)`."""
    clips = [
        Clip(f"{name}{number}", Path(f"{name}{number}.npy"), dict, 3, corpus=name)
        for name, (count, _) in corpora.items()
        for number in range(count)
    ]
    weights = {name: weight for name, (_, weight) in corpora.items()}
    return TrainingClips(Listed(clips, weights), captions, seed, {}, False)  # type: ignore[arg-type]


def taken(data: TrainingClips, epochs: int) -> list[tuple[Clip, int]]:
    return [data.item_at(position) for position in range(epochs * len(data))]


CORPORA = st.tuples(st.integers(1, 12), st.floats(0.05, 4))


@given(CORPORA, CORPORA, st.integers(0, 5), st.integers(1, 5))
def test_each_corpus_has_its_share_and_its_clips_come_equally_often(
    one: tuple[int, float], other: tuple[int, float], seed: int, epochs: int
) -> None:
    data = training(seed=seed, a=one, b=other)
    assert len(data) == per_epoch(*one) + per_epoch(*other)
    clips = taken(data, epochs)
    for name, (count, weight) in (("a", one), ("b", other)):
        for epoch in range(epochs):
            items = clips[epoch * len(data) : (epoch + 1) * len(data)]
            assert sum(clip.corpus == name for clip, _ in items) == per_epoch(count, weight)
        often = Counter(clip.clip_id for clip, _ in clips if clip.corpus == name)
        counts = [often[f"{name}{number}"] for number in range(count)]
        assert max(counts) - min(counts) <= 1


def test_one_corpus_comes_in_the_order_that_it_had_without_weights() -> None:
    data = training(seed=3, a=(7, 1))
    for epoch in range(3):
        order = np.random.default_rng([3, epoch]).permutation(7)
        at = range(epoch * 7, (epoch + 1) * 7)
        assert [data.item_at(position)[0].clip_id for position in at] == [f"a{number}" for number in order]


def test_a_clip_that_comes_thrice_in_an_epoch_has_a_caption_of_its_own_each_time() -> None:
    data = training("random", a=(5, 1), b=(4, 3))
    items = [(clip.clip_id, caption) for clip, caption in taken(data, 1) if clip.corpus == "b"]
    assert Counter(name for name, _ in items) == dict.fromkeys([f"b{number}" for number in range(4)], 3)
    assert len(set(items)) > 4


def test_all_captions_of_a_corpus_count_as_items() -> None:
    data = training("all", a=(4, 0.5), b=(2, 2))
    assert len(data) == 6 + 12
    items = Counter((clip.clip_id, caption) for clip, caption in taken(data, 2))
    assert sorted(items.values()) == [1] * 12 + [4] * 6


@pytest.mark.parametrize(
    ("items", "weight", "count"), [(10, 0.1, 1), (10, 0.01, 1), (3, 2.5, 8), (7, 1, 7), (5, 3, 15)]
)
def test_items_of_an_epoch(items: int, weight: float, count: int) -> None:
    assert per_epoch(items, weight) == count
