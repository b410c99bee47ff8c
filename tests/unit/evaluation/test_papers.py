"""Measures as papers define them, on sets whose figures are known."""

from __future__ import annotations

import numpy as np
import pytest
from sao.evaluation.distances import fad
from sao.evaluation.embedded import Embedded
from sao.evaluation.embeddings import find
from sao.evaluation.papers import divergence, reference_watermark, watermark
from sao.evaluation.windows import fad_of_windows

RNG = np.random.default_rng(0)


def clips(count: int, shift: float, dim: int = 4) -> list[np.ndarray]:
    """Windows of clips, three to eight each; those of one clip are alike."""
    return [
        shift + RNG.standard_normal(dim) + 0.3 * RNG.standard_normal((RNG.integers(3, 9), dim)) for _ in range(count)
    ]


def embedded(ids: list[str], split: str = "evaluation", **more: object) -> Embedded:
    vectors = np.asarray(more.pop("vectors", np.zeros((len(ids), 2))))
    return Embedded(ids, [split] * len(ids), vectors, None, {}, **more)


def test_distance_of_windows_is_that_of_their_gaussians() -> None:
    x, y = clips(9, 0), clips(12, 1)
    found = fad_of_windows(x, y)
    interval, wider = found.interval(0.95), found.interval(0.99)
    assert found.value == pytest.approx(fad(np.concatenate(x), np.concatenate(y)))
    assert interval and interval[0] < found.value < interval[1] and not found.note
    assert fad_of_windows(x, x).value == pytest.approx(0, abs=1e-9)
    assert wider and wider[1] > interval[1]


def test_difference_of_two_models_is_paired() -> None:
    """What a model and the base model share cancels out: the interval is far narrower than that of either distance."""
    y, x = clips(60, 0), clips(40, 1)
    base = [windows + 0.2 for windows in x]
    of_x, of_base = fad_of_windows(x, y), fad_of_windows(base, y)
    found = of_x - of_base
    interval, alone = found.interval(0.95), of_x.interval(0.95)
    assert found.value == pytest.approx(of_x.value - of_base.value)
    assert interval and alone and interval[0] < found.value < interval[1] < 0
    assert interval[1] - interval[0] < 0.5 * (alone[1] - alone[0])
    same = of_x - of_x
    assert same.value == 0 and same.interval(0.95) == (0, 0)
    assert (fad_of_windows(x[:4], y) - fad_of_windows(base[:4], y)).interval(0.95) is None


def test_interval_of_the_difference_holds_the_truth() -> None:
    """Two models as good as each other: 0 lies in 95 of 100 intervals, here in at least 54 of 60."""
    inside = 0
    for _ in range(60):
        shared, y = clips(40, 1), clips(40, 0)
        x, base = ([windows + 0.1 * RNG.standard_normal(4) for windows in shared] for _ in range(2))
        low, high = (fad_of_windows(x, y) - fad_of_windows(base, y)).interval(0.95) or (1.0, 1.0)
        inside += low <= 0 <= high
    assert inside >= 54, inside


def test_interval_is_as_wide_as_new_clips_scatter() -> None:
    """The truth is known here: many new sets of clips."""
    values = [fad_of_windows(clips(80, 0), clips(80, 1)) for _ in range(60)]
    spread = np.std([each.value for each in values])
    intervals = [each.interval(0.95) for each in values]
    halves = [(interval[1] - interval[0]) / 2 / 1.96 for interval in intervals if interval]
    assert len(halves) == 60 and 0.7 * spread < np.mean(halves) < 1.4 * spread


def test_few_clips_and_few_windows_are_told() -> None:
    assert fad_of_windows(clips(4, 0), clips(9, 0)).interval(0.95) is None
    assert "too few for covariances in 60 dimensions" in fad_of_windows(clips(6, 0, 60), clips(6, 0, 60)).note


def test_divergence_is_that_of_the_render_from_its_recording() -> None:
    p, q = np.array([0.7, 0.3, 0.0]), np.array([0.5, 0.25, 0.25])
    renders = embedded(["a", "mine", "b"], classes=np.stack([p, p, q]))
    recordings = embedded(["b", "a", "other"], classes=np.stack([q, q, p]))
    found = divergence(find("passt"), renders, recordings)
    assert found is not None
    first, prompt, last = found.columns["kl"]
    assert first == pytest.approx(0.7 * np.log(0.7 / 0.5) + 0.3 * np.log(0.3 / 0.25), abs=1e-4)
    assert prompt is None and last == pytest.approx(0, abs=1e-4)
    # A prompt may have the name of a recording, but not its split.
    assert divergence(find("passt"), embedded(["a"], "prompts", classes=p[None]), recordings) is None
    assert divergence(find("aisfx"), embedded(["a"]), recordings) is None


def test_watermark_is_looked_for_in_renders_and_recordings() -> None:
    renders = embedded(["a", "mine"], vectors=[[0.9, 1.0], [0.8, 0.0]])
    recordings = embedded(["a"], vectors=[[0.1, 0.0]])
    audioseal = find("audioseal")
    found, recorded = watermark(audioseal, renders, recordings), reference_watermark(audioseal, renders, recordings)
    assert found and found.columns == {"watermark": [0.9, 0.8]}
    assert recorded and recorded.columns == {"reference_watermark": [0.1, None]}
    assert watermark(find("aisfx"), renders, recordings) is None


def test_windows_and_classes_are_kept_in_the_file(tmp_path) -> None:
    windows = [np.ones((2, 3), np.float32), np.zeros((0, 3), np.float32), np.full((1, 3), 2, np.float32)]
    kept = Embedded(
        ["a", "b", "c"], ["evaluation", "train", "evaluation"], np.zeros((3, 3)), None, {}, windows, np.eye(3)
    )
    kept.write(tmp_path / "a.npz")
    found = Embedded.read(tmp_path / "a.npz").of(["c", "b", "a"])
    assert [len(each) for each in found.windows] == [1, 0, 2] and found.windows[0][0, 0] == 2
    assert np.array_equal(found.classes, np.eye(3)[::-1])
