"""Distances between sets and their intervals, compared with known values and with other formulas."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sao.evaluation.distances import KAD_SCALE, Kad, bandwidth, fad, fad_interval, mean_interval
from scipy.linalg import sqrtm


def draw(n: int, dim: int, seed: int, shift: float = 0.0, scale: float = 1.0) -> np.ndarray:
    """Draw clips from a Gaussian whose dimensions depend on each other."""
    mixing = np.random.default_rng(99).standard_normal((dim, dim)) / np.sqrt(dim)
    return (scale * np.random.default_rng(seed).standard_normal((n, dim)) @ mixing + shift).astype(np.float32)


@given(st.integers(2, 40), st.integers(1, 20), st.integers(0, 99))
def test_fad_of_a_set_and_itself_is_nothing(n: int, dim: int, seed: int) -> None:
    x = draw(n, dim, seed)
    assert fad(x, x) == pytest.approx(0, abs=1e-6)
    assert fad(x, x[::-1]) == pytest.approx(0, abs=1e-6)


@given(st.integers(2, 60), st.integers(2, 60), st.integers(1, 30), st.floats(-2, 2), st.floats(0.1, 3))
def test_fad_is_the_formula_of_the_paper(n: int, m: int, dim: int, shift: float, scale: float) -> None:
    x, y = draw(n, dim, 1).astype(float), draw(m, dim, 2, shift, scale).astype(float)
    a, b = np.cov(x.T).reshape(dim, dim), np.cov(y.T).reshape(dim, dim)
    # The root of A^½ B A^½ has the same trace as the root of AB, but the matrix is symmetric, and so may be singular.
    root = np.real(sqrtm(a + 1e-12 * np.eye(dim)))
    cross = np.sqrt(np.linalg.eigvalsh(root @ b @ root).clip(0)).sum()
    expected = np.square(x.mean(0) - y.mean(0)).sum() + np.trace(a) + np.trace(b) - 2 * cross
    assert fad(x, y) == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_fad_of_gaussians_that_are_known() -> None:
    x, y = np.random.default_rng(0).standard_normal((2, 200_000, 2))
    assert fad(x, 3 * y + [1, 2]) == pytest.approx(1 + 4 + 2 * (3 - 1) ** 2, rel=0.02)


def test_kad_is_the_sum_over_pairs() -> None:
    x, y = draw(7, 5, 1), draw(9, 5, 2, shift=1.0)
    width = bandwidth(y)
    assert width == pytest.approx(np.median([np.linalg.norm(y[i] - y[j]) for i in range(9) for j in range(i)]))

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return np.exp(-np.square(a - b).sum() / (2 * width**2))

    xx = np.mean([kernel(x[i], x[j]) for i in range(7) for j in range(7) if i != j])
    yy = np.mean([kernel(y[i], y[j]) for i in range(9) for j in range(9) if i != j])
    xy = np.mean([kernel(a, b) for a in x for b in y])
    assert Kad(x, y).value() == pytest.approx(KAD_SCALE * (xx + yy - 2 * xy), rel=1e-5)


@pytest.mark.parametrize("n", [4, 16])
def test_kad_of_one_distribution_is_nothing_on_average(n: int) -> None:
    values = np.array([Kad(draw(n, 8, 2 * i), draw(n, 8, 2 * i + 1)).value() for i in range(2000)])
    assert values.min() < 0 < values.max()
    assert abs(values.mean()) < 4 * values.std() / np.sqrt(len(values))


def test_kad_grows_with_the_shift() -> None:
    y = draw(50, 8, 0)
    values = [Kad(draw(50, 8, 1, shift), y).value() for shift in (0, 0.5, 1, 2)]
    assert values == sorted(values)


def test_twins_in_a_resample_do_not_move_kad() -> None:
    """If a clip were paired with its copy, the intervals would not lie around the value."""
    kad = Kad(draw(6, 8, 1), draw(6, 8, 2))
    low, high = kad.interval(4000, seed=0, level=0.5)
    assert low < kad.value() < high


def test_interval_of_a_mean_covers_it_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    intervals = [mean_interval(rng.standard_normal(40), 400, seed, 0.9) for seed in range(300)]
    assert 0.83 < np.mean([low <= 0 <= high for low, high in intervals]) < 0.95


def test_intervals_are_around_the_value_and_the_same_each_time() -> None:
    x, y = draw(12, 20, 1), draw(10, 20, 2, shift=0.3)
    low, high = fad_interval(x, y, 200, 3, 0.95)
    assert low < fad(x, y) < high
    assert (low, high) == fad_interval(x, y, 200, 3, 0.95) != fad_interval(x, y, 200, 4, 0.95)
    assert Kad(x, y).interval(200, 3, 0.95) == Kad(x, y).interval(200, 3, 0.95)
