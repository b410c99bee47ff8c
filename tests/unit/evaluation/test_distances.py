"""Distances between sets, compared with known values and with other formulas."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sao.evaluation.distances import KAD_SCALE, bandwidth, fad, fad_infinity, kad
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


@pytest.mark.parametrize(("n", "shift"), [(128, 0.0), (128, 2.0), (512, 0.0)])
def test_fad_of_few_clips_is_extrapolated_to_its_true_value(n: int, shift: float) -> None:
    pairs = [np.random.default_rng(seed).standard_normal((2, n, 32)) for seed in range(1000, 1020)]
    for _, y in pairs:
        y[:, 0] += shift
    plain, found = (np.array([distance(x, y) for x, y in pairs]) for distance in (fad, fad_infinity))
    bias, error = (values.mean() - shift**2 for values in (plain, found))
    assert abs(error) < 3 * found.std() / np.sqrt(len(pairs)) and abs(error) < 0.3 * bias


def test_fad_is_the_same_each_time() -> None:
    x, y = draw(12, 20, 1), draw(3, 20, 2, shift=0.3)
    assert fad_infinity(x, y) == fad_infinity(x, y) != fad(x, y)


NONE = np.full(100, -1)  # no render has a recording of its own


@pytest.mark.parametrize("own", [NONE[:7], np.array([3, -1, 0, 8, -1, 1, 2])])
def test_kad_is_the_sum_over_pairs(own: np.ndarray) -> None:
    x, y = draw(7, 5, 1), draw(9, 5, 2, shift=1.0)
    width = bandwidth(y)
    assert width == pytest.approx(np.median([np.linalg.norm(y[i] - y[j]) for i in range(9) for j in range(i)]))

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return np.exp(-np.square(a - b).sum() / (2 * width**2))

    def expected(left: list[int], right: list[int]) -> float:
        xx = np.mean([kernel(x[i], x[j]) for i in left for j in left if i != j])
        yy = np.mean([kernel(y[i], y[j]) for i in right for j in right if i != j])
        xy = np.mean([kernel(x[i], y[j]) for i in left for j in right if own[i] != j])
        return KAD_SCALE * (xx + yy - 2 * xy)

    found, (left, right) = kad(x, y, own), (list(range(7)), list(range(9)))
    assert found.value == pytest.approx(expected(left, right), rel=1e-5)
    assert found.influence is not None
    without = [expected([i for i in left if i != k], [i for i in right if i != own[k]]) for k in left]
    assert found.value - found.influence.of_clips == pytest.approx(without)
    without = [expected(left, [i for i in right if i != k]) for k in right if k not in own]
    assert found.value - found.influence.of_others == pytest.approx(without)


@pytest.mark.parametrize("n", [4, 16])
@pytest.mark.parametrize("follows", [False, True])
def test_kad_of_one_distribution_is_nothing_on_average(n: int, follows: bool) -> None:
    """Also if each render is like its own recording."""
    values = []
    for i in range(600):
        x, y = draw(n, 8, 2 * i), draw(n, 8, 2 * i + 1)
        values.append(
            kad(y + 0.1 * x, y + 0.1 * draw(n, 8, -i - 1 + 10**6), np.arange(n)) if follows else kad(x, y, NONE[:n])
        )
    found = np.array([distance.value for distance in values])
    assert found.min() < 0 < found.max()
    assert abs(found.mean()) < 4 * found.std() / np.sqrt(len(found))


def test_kad_grows_with_the_shift() -> None:
    y = draw(50, 8, 0)
    values = [kad(draw(50, 8, 1, shift), y, NONE[:50]).value for shift in (0, 0.5, 1, 2)]
    assert values == sorted(values)
