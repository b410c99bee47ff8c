"""Random draws are functions of their purpose, position and seed."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import SCRIPTS
from hypothesis import given
from hypothesis import strategies as st
from sao.training import draws
from scipy import stats

PARTS = st.lists(st.integers(0, 1000) | st.sampled_from(["crop", "flip", "noise"]), min_size=1, max_size=4)
SAMPLERS = ("uniform", "logit_normal", "trunc_logit_normal", "log_snr", "log_snr_uniform")


@given(PARTS, PARTS)
def test_draws_are_functions_of_their_parts(one: list, other: list) -> None:
    np.random.seed(len(one))
    first = draws.uniform(*one), draws.normal((2, 3), *one)
    draws.uniform(*other)
    np.random.random()
    assert draws.uniform(*one) == first[0] and (draws.normal((2, 3), *one) == first[1]).all()
    if one != other:
        assert draws.uniform(*other) != first[0]


def test_draws_are_the_same_in_another_process() -> None:
    code = "from sao.training import draws; print(draws.uniform(3, 'crop', 7), draws.stratified(5, 2), draws.normal((1,), 1)[0])"
    told = subprocess.run([sys.executable, "-c", code], cwd=SCRIPTS, capture_output=True, text=True, check=True).stdout
    here = (draws.uniform(3, "crop", 7), draws.stratified(5, 2), draws.normal((1,), 1)[0])
    assert told.split() == [str(value) for value in here]


def test_uniform_and_normal_have_their_distributions() -> None:
    numbers = [draws.uniform(0, "crop", position) for position in range(2000)]
    assert min(numbers) >= 0 and max(numbers) < 1
    assert stats.kstest(numbers, "uniform").pvalue > 1e-3
    normal = draws.normal((50, 100), 0, "noise", 0)
    assert normal.dtype == np.float32 and normal.shape == (50, 100)
    assert stats.kstest(normal.ravel(), "norm").pvalue > 1e-3
    assert abs(np.corrcoef(normal[:, 0], draws.normal((50, 100), 0, "noise", 1)[:, 0])[0, 1]) < 0.5


@given(st.integers(0, 10**6), st.integers(0, 12), st.integers(0, 10**9))
def test_stratified_fills_each_bin_once(seed: int, power: int, block: int) -> None:
    """The bins of an aligned block of positions are shifted like the whole sequence, whose shift is the value at position 0."""
    size = 2**power
    shift = draws.stratified(0, seed)
    found = np.array([draws.stratified(position, seed) for position in range(block * size, block * size + size)])
    assert found.min() >= 0 and found.max() < 1
    # Each number is moved slightly off the edge of its bin, against rounding.
    bins = np.floor(((found - shift + 1e-12) % 1) * size).astype(int)
    assert sorted(bins) == list(range(size))


@given(st.integers(0, 10**6), st.integers(1, 10))
def test_stratified_is_even_without_the_shift_too(seed: int, power: int) -> None:
    """If bins start at 0, the shift moves at most one number of each bin into the next."""
    size = 2**power
    counts = np.bincount([int(draws.stratified(position, seed) * size) for position in range(size)], minlength=size)
    assert counts.max() <= 2 and counts.sum() == size
    assert np.abs(np.cumsum(counts - 1)).max() <= 1


def test_stratified_differs_by_seed_and_is_sobols_sequence_in_another_order() -> None:
    assert len({draws.stratified(0, seed) for seed in range(100)}) == 100
    ours = [(draws.stratified(position, 4) - draws.stratified(0, 4)) % 1 for position in range(64)]
    sobol = torch.quasirandom.SobolEngine(1).draw(64)[:, 0].tolist()
    assert sorted(ours) == pytest.approx(sorted(sobol), abs=1e-9)


@pytest.mark.parametrize("sampler", SAMPLERS)
@given(u=st.floats(0, 1, exclude_max=True), v=st.floats(0, 1, exclude_max=True))
def test_timesteps_are_in_range_and_monotonic(sampler: str, u: float, v: float) -> None:
    low, high = sorted(draws.timestep(x, sampler, {}) for x in (u, v))
    assert 0 <= low <= high <= 1
    if abs(u - v) > 1e-3:
        assert low < high
        # The map has one direction, so numbers that are even in u are even in the quantiles of t.
        rising = draws.timestep(0.9, sampler, {}) > draws.timestep(0.1, sampler, {})
        assert (draws.timestep(max(u, v), sampler, {}) == high) == rising


def stock(sampler: str, count: int, options: dict[str, float]) -> torch.Tensor:
    """Draw timesteps as DiffusionCondTrainingWrapper.training_step does."""
    from stable_audio_tools.inference import sampling

    match sampler:
        case "uniform":
            return torch.quasirandom.SobolEngine(1, scramble=True).draw(count)[:, 0]
        case "logit_normal":
            return torch.sigmoid(torch.randn(count))
        case "trunc_logit_normal":
            return 1 - sampling.truncated_logistic_normal_rescaled(count)
        case "log_snr":
            return sampling.sample_timesteps_logsnr(count, **options)
        case "log_snr_uniform":
            return sampling.sample_timesteps_logsnr_uniform(count, **options)
    raise ValueError(sampler)


@pytest.mark.parametrize(
    ("sampler", "options"),
    [(name, {}) for name in SAMPLERS]
    + [
        ("log_snr", {"mean_logsnr": 0.5, "std_logsnr": 1.0}),
        ("log_snr_uniform", {"min_logsnr": -4.0, "max_logsnr": 2.0}),
    ],
)
def test_timesteps_have_stable_audio_tools_distribution(sampler: str, options: dict[str, float]) -> None:
    torch.manual_seed(0)
    ours = np.array([draws.timestep(draws.stratified(position, 0), sampler, options) for position in range(4096)])
    theirs = stock(sampler, 40000, options).numpy()
    levels = np.linspace(0.01, 0.99, 50)
    np.testing.assert_allclose(np.quantile(ours, levels), np.quantile(theirs, levels), atol=0.012)
    # The tolerance is small enough to distinguish the samplers.
    for other in set(SAMPLERS) - {sampler}:
        found = np.quantile([draws.timestep(u, other, {}) for u in np.linspace(0, 1, 999)], levels)
        assert np.abs(found - np.quantile(theirs, levels)).max() > 0.02


def test_unknown_sampler() -> None:
    with pytest.raises(ValueError, match="unknown timestep_sampler 'normal'"):
        draws.timestep(0.5, "normal", {})
