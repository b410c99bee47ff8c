"""Copies of training clips are found, whatever their delay, gain and format, and few new sounds are mistaken for one."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from sao.evaluation.embedded import Embedded, stack
from sao.evaluation.embeddings import THUMBNAIL, find
from sao.evaluation.evaluate import Evaluation
from sao.evaluation.memorisation import HIGHEST_RATE, LOWEST_RATE, nearest, nearest_shifted, threshold
from sao.sound.spectra import COPY_BANDS, RATE, thumbnail


def chord(seed: int, seconds: float = 1.0) -> np.ndarray:
    """A sound of five fading partials, each with its own pitch and noise."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * RATE)) / RATE
    partials = [np.sin(2 * np.pi * f * time) * np.exp(-time * d) for f, d in rng.uniform((80, 0), (6000, 9), (5, 2))]
    return 0.1 * (sum(partials) + 0.01 * rng.standard_normal(len(time)))


def delayed(sound: np.ndarray, seconds: float) -> np.ndarray:
    return np.concatenate([np.zeros(round(seconds * RATE)), sound])


def as_mp3(sound: np.ndarray) -> np.ndarray:
    file = io.BytesIO()
    soundfile.write(file, sound, RATE, format="MP3")
    file.seek(0)
    return soundfile.read(file)[0]


COPIES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "exact": lambda sound: sound,
    "gain": lambda sound: 0.25 * sound,
    "0.2 s later": lambda sound: delayed(sound, 0.2),
    "0.137 s later, as long": lambda sound: delayed(sound, 0.137)[: len(sound)],
    "begins in the middle": lambda sound: sound[len(sound) // 4 :],
    "MP3": as_mp3,
    "MP3, later, softer": lambda sound: as_mp3(0.5 * delayed(sound, 0.31)),
    "a part of more": lambda sound: np.concatenate([0.3 * chord(10**6, 0.4), sound]),
}
TRAIN = [chord(seed, 0.7 + 0.02 * seed) for seed in range(40)]


def thumbnails(sounds: Sequence[np.ndarray]) -> np.ndarray:
    return stack([thumbnail(sound) for sound in sounds])


@pytest.fixture(scope="module")
def held_out() -> np.ndarray:
    """The distances of 120 sounds, which are in no training set, to the nearest of TRAIN."""
    return nearest_shifted(thumbnails([chord(seed) for seed in range(1000, 1120)]), thumbnails(TRAIN)).distance


@pytest.mark.parametrize("kind", COPIES)
def test_planted_copies_are_found(kind: str, held_out: np.ndarray) -> None:
    found = nearest_shifted(thumbnails([COPIES[kind](sound) for sound in TRAIN]), thumbnails(TRAIN))
    limit = threshold(held_out)
    assert limit.value is not None and limit.rate <= 0.01
    assert (found.distance < limit.value).mean() >= 0.95 and (found.row == np.arange(len(TRAIN))).mean() >= 0.95


def test_new_sounds_are_hardly_ever_called_copies(held_out: np.ndarray) -> None:
    fresh = nearest_shifted(thumbnails([chord(seed) for seed in range(2000, 2200)]), thumbnails(TRAIN)).distance
    limit = threshold(held_out)
    assert limit.value is not None and (fresh < limit.value).mean() <= 0.03  # 1 % of 200, within three deviations


@pytest.mark.parametrize("n", [9, 24, 64, 99, 300])
def test_rate_of_false_alarms_is_true(n: int) -> None:
    rng = np.random.default_rng(n)
    limits = [threshold(rng.standard_exponential(n) ** 0.1) for _ in range(400)]
    assert {limit.n + limit.left_out for limit in limits} == {n}
    # Of the exponential distribution to the power of 0.1 the share below a value is known.
    shares = [-np.expm1(-(limit.value**10)) for limit in limits if limit.value is not None]
    rate = np.mean([limit.rate for limit in limits if limit.value is not None])
    assert np.mean(shares) == pytest.approx(rate, rel=0.2) and LOWEST_RATE * 0.5 < rate <= HIGHEST_RATE


def test_few_clips_tell_nothing() -> None:
    limit = threshold(np.arange(1.0, 9.0))
    assert limit.value is None and limit.note("recordings") == "cannot be told with 8 recordings: 9 are needed"
    assert threshold(np.zeros(0)).value is None
    assert threshold(np.arange(1.0, 10.0)).value == 1


def test_near_duplicate_between_the_sides_hides_no_copy() -> None:
    rng = np.random.default_rng(0)
    train, kept = rng.standard_normal((400, 64)), rng.standard_normal((64, 64))
    kept[0] = train[0] + 0.01 * rng.standard_normal(64)
    limit = threshold(nearest(kept, train).distance)
    copies = nearest(train[:50] + 0.05 * rng.standard_normal((50, 64)), train).distance
    fresh = nearest(rng.standard_normal((400, 64)), train).distance
    assert limit.value is not None and limit.left_out == 1 and "without 1 near-dup" in limit.note("recordings")
    assert (copies < limit.value).all() and (fresh < limit.value).mean() < 0.05


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=60))
def test_threshold_is_one_of_the_distances(distances: list[float]) -> None:
    limit = threshold(np.array(distances))
    assert limit.n + limit.left_out == len(distances)
    if limit.value is not None:
        assert (
            limit.value in distances
            and sum(d < limit.value for d in distances) <= limit.rate * (limit.n + 1) + limit.left_out
        )


SOUNDS = {
    "train": TRAIN[:12],
    "validation": [chord(seed) for seed in range(100, 110)],
    "evaluation": [chord(seed) for seed in range(200, 210)],
}


def embedded(sounds: dict[str, list[np.ndarray]], space: str) -> Embedded:
    """The sounds in a space, whose vectors are all equally long."""
    pairs = [(f"{split}{i}", split, x) for split, xs in sounds.items() for i, x in enumerate(xs)]
    embedding = find(space)
    vectors = embedding.stack([embedding.sound(x) for _, _, x in pairs])
    return Embedded([p[0] for p in pairs], [p[1] for p in pairs], vectors, None, {})


def evaluation(renders: Embedded, recordings: Embedded, space: str, base: pd.DataFrame | None = None) -> Evaluation:
    clips = pd.DataFrame({"clip_id": renders.ids, "split": renders.splits})
    found = Evaluation(clips, 100, 0, 0.95, base)
    found.measure_in(find(space), renders, recordings, renders)
    return found


@pytest.mark.parametrize("space", [THUMBNAIL.name, "log-mel"])
def test_copy_is_flagged_and_an_unrelated_clip_is_not(space: str) -> None:
    renders, recordings = embedded({"prompts": [0.999 * TRAIN[6], chord(99)]}, space), embedded(SOUNDS, space)
    found = evaluation(renders, recordings, space)
    assert found.clips[f"memorised/{space}"].tolist() == [True, False]
    assert found.clips[f"nearest_train/{space}"][0] == "train6"
    assert found.clips[f"nearest_held_out/{space}"][0].startswith(("validation", "evaluation"))
    assert found.clips[f"train_distance/{space}"][0] < found.clips[f"held_out_distance/{space}"][0]
    entry = found.memorisation[0]
    assert entry["flagged"] == ["prompts0"] and entry["n_train"] == 12
    assert (entry["judged"]["prompts"]["n"], entry["judged"]["prompts"]["rate"]) == (20, pytest.approx(1 / 21))
    (measure,) = (m for m in found.measures if m["measure"] == "memorised")
    assert measure["value"] == 0.5 and measure["n"] == 2 and measure["better"] == "lower"
    assert measure["note"] == "false alarms: 0.048 of clips that are no copies, judged by 20 held-out recordings"


def test_renders_of_training_captions_are_judged_by_those_of_the_base_model() -> None:
    """The caption brings the base model's renders near the clips, nearer than any recording: these are no copies."""
    space = THUMBNAIL.name
    recordings = embedded(SOUNDS, space)
    rng = np.random.default_rng(0)

    def renders(noise: float) -> Embedded:
        return embedded({"train": [x + noise * x.std() * rng.standard_normal(len(x)) for x in TRAIN[:12]]}, space)

    base = evaluation(renders(1.5), recordings, space)
    like_base = evaluation(renders(1.5), recordings, space, base.clips)
    copies = evaluation(renders(0.05), recordings, space, base.clips)
    flags = [found.clips[f"memorised/{space}"].mean() for found in (base, like_base, copies)]
    assert flags[0] <= 1 / 12 and flags[1] <= 3 / 12 and flags[2] == 1
    (measure,) = (m for m in copies.measures if m["measure"] == "memorised")
    assert "judged by 12 renders of training captions by the base model" in measure["note"]
    assert measure["difference"] == pytest.approx(1 - flags[0]) and measure["difference_low"] > 0
    # Without enough of them nothing is called a copy, and the reason is told.
    few = evaluation(renders(0.05), recordings, space, base.clips[:8])
    assert few.clips[f"memorised/{space}"].isna().all() and few.memorisation[0]["flagged"] == []
    (measure,) = (m for m in few.measures if m["measure"] == "memorised")
    assert measure["value"] is None and measure["note"].startswith("cannot be told with 8 renders of training captions")


def test_nearest_is_the_nearest() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((5, 3)), rng.standard_normal((9, 3))
    distances = np.linalg.norm(x[:, None] - y[None], axis=2)
    found = nearest(x, y)
    assert np.array_equal(found.row, distances.argmin(axis=1)) and np.allclose(found.distance, distances.min(axis=1))


def test_distance_is_one_less_the_correlation_of_what_overlaps() -> None:
    """Compared with a loop over all shifts."""
    rng = np.random.default_rng(1)
    x, y = (np.repeat(rng.integers(0, 160, (n, COPY_BANDS)), 3, axis=0) for n in (6, 9))
    expected = []
    for shift in range(-len(x) + 1, len(y)):
        begin, end = max(-shift, 0), min(len(x), len(y) - shift)
        one, other = x[begin:end], y[begin + shift : end + shift]
        if end - begin >= 4 and np.square(one).sum() >= 0.75 * np.square(x).sum():
            expected.append(1 - np.corrcoef(one.ravel(), other.ravel())[0, 1])
    found = nearest_shifted(x.reshape(1, -1).astype(np.uint8), y.reshape(1, -1).astype(np.uint8)).distance[0]
    assert found <= min(expected) + 1e-4  # shifts by parts of a frame may be nearer
    assert found > 0.3  # these are unlike


def test_silence_changes_no_distance() -> None:
    short, long = (thumbnails([chord(i, s) for i in range(4)]) for s in (0.5, 2.0))
    one = nearest_shifted(short, long)
    other = nearest_shifted(np.pad(short, ((0, 0), (0, 40 * COPY_BANDS))), long)
    assert np.array_equal(one.row, other.row) and np.allclose(one.distance, other.distance)
    assert nearest_shifted(short, short).distance == pytest.approx(0, abs=1e-4)
    silent = thumbnails([np.zeros(RATE)])
    assert not silent.any() and nearest_shifted(silent, silent).distance[0] == 1  # silence is a copy of nothing
