"""Intervals hold the truth as often as they say, for few clips too, and say so where nothing can be told."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sao.evaluation.distances import kad
from sao.evaluation.intervals import (
    FEWEST,
    jackknife_interval,
    mean_interval,
    share_difference,
    share_interval,
)
from sao.evaluation.measure import Influence, Resampling

DRAWS = {
    "normal": (np.random.Generator.standard_normal, 0.0),
    "half normal": (lambda rng, size: np.abs(rng.standard_normal(size)), np.sqrt(2 / np.pi)),
    "exponential": (np.random.Generator.standard_exponential, 1.0),
    "two-sided": (lambda rng, size: np.subtract(*rng.standard_exponential((2, size))), 0.0),
}


@pytest.mark.parametrize("kind", DRAWS)
@pytest.mark.parametrize("n", [8, 24])
def test_interval_of_a_mean_holds_it(kind: str, n: int) -> None:
    draw, mean = DRAWS[kind]
    rng = np.random.default_rng(1)
    found = [mean_interval(draw(rng, n), Resampling(300, seed, 0.95)) for seed in range(400)]
    assert np.mean([interval is not None and interval[0] <= mean <= interval[1] for interval in found]) >= 0.93


def test_nothing_is_told_of_one_clip_or_of_equal_ones() -> None:
    assert mean_interval(np.array([0.3]), Resampling(100, 0, 0.95)) is None
    assert mean_interval(np.zeros(4), Resampling(100, 0, 0.95)) is None
    low, high = mean_interval(np.array([0.0, 1.0]), Resampling(100, 0, 0.95)) or (0, 0)
    assert low < -5 and high > 6  # Student's interval of two clips


def test_interval_is_wider_for_a_higher_level_and_the_same_each_time() -> None:
    values = np.random.default_rng(0).standard_exponential(9)
    intervals = [mean_interval(values, Resampling(500, 3, level)) or (0, 0) for level in (0.9, 0.95, 0.99, 0.99)]
    widths = [high - low for low, high in intervals]
    assert widths[0] < widths[1] < widths[2] == widths[3] and intervals[2] == intervals[3]


@pytest.mark.parametrize(("count", "n", "expected"), [(0, 4, (0, 0.6024)), (4, 4, (0.3976, 1)), (1, 1, (0.025, 1))])
def test_share_has_the_exact_interval(count: int, n: int, expected: tuple[float, float]) -> None:
    assert share_interval(count, n, 0.95) == pytest.approx(expected, abs=1e-4)


@given(st.integers(1, 30), st.floats(0, 1), st.floats(0, 1), st.integers(0, 99))
def test_difference_of_shares_lies_in_its_interval_which_is_never_empty(n: int, p: float, q: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values, others = rng.random(n) < p, rng.random(n) < q
    low, high = share_difference(values, others, 0.95)
    assert -1 <= low <= values.mean() - others.mean() <= high <= 1 and high - low > 0.05
    assert share_difference(others, values, 0.95) == pytest.approx((-high, -low))


@pytest.mark.parametrize(("p", "q"), [(0.05, 0.05), (0.5, 0.2), (0.9, 0.1)])
def test_interval_of_a_difference_of_shares_holds_it(p: float, q: float) -> None:
    rng = np.random.default_rng(2)
    found = [share_difference(rng.random(8) < p, rng.random(8) < q, 0.95) for _ in range(1000)]
    assert np.mean([low <= p - q <= high for low, high in found]) >= 0.93


def clips(rng: np.random.Generator, n: int, own: float, shift: float) -> tuple[np.ndarray, np.ndarray]:
    """Renders and recordings `[n, 16]` of the same captions, which the renders follow more or less."""
    captions = rng.standard_normal((n, 16))
    noise, other = rng.standard_normal((2, n, 16))
    return own * captions + noise + shift, captions + 0.3 * other


@pytest.mark.parametrize("n", [8, 24])
@pytest.mark.parametrize("models", [((0.9, 0.2), (0.4, 0.6)), ((0.0, 0.0), (0.0, 0.5))])
def test_paired_difference_of_kad_holds_it(models: tuple[tuple[float, float], ...], n: int) -> None:
    rng = np.random.default_rng(3)
    values, found = [], []
    for _ in range(300):
        seed = int(rng.integers(2**32))
        (one, y), (other, _) = (clips(np.random.default_rng(seed), n, *model) for model in models)
        distance = kad(one, y, np.arange(n)) - kad(other, y, np.arange(n))
        assert distance.influence is not None
        values.append(distance.value)
        found.append(jackknife_interval(distance.value, distance.influence, Resampling(300, 0, 0.95)) or (0, 0))
    assert np.mean([low <= np.mean(values) <= high for low, high in found]) >= 0.93


def test_a_few_clips_have_no_interval() -> None:
    influence = Influence(np.arange(FEWEST - 1), np.arange(20))
    assert jackknife_interval(0.0, influence, Resampling(100, 0, 0.95)) is None


def test_recordings_without_a_render_count_too() -> None:
    """A recording of which nothing was rendered widens the interval on its own."""
    given, nothing = Resampling(100, 0, 0.95), np.zeros(6)  # clips of no influence have Student's interval
    low, high = jackknife_interval(5.0, Influence(nothing, np.array([-1, 0, 1])), given) or (0, 0)
    assert high - 5 == pytest.approx(5 - low) and high - 5 == pytest.approx(2.5706 * np.sqrt(2 * 2 / 3), rel=1e-3)
    assert jackknife_interval(5.0, Influence(nothing, np.zeros(0)), given) == (5, 5)
