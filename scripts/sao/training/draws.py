"""Every random draw of a training as a pure function of what it is for, so that no process history can change one."""

from __future__ import annotations

import functools
import hashlib

import numpy as np
from scipy.special import expit, logit, ndtr, ndtri

FLOOR = 1e-6  # keeps inverse distribution functions finite


def generator(*parts: object) -> np.random.Generator:
    """A generator that is a function of `parts` alone."""
    return np.random.default_rng(
        int.from_bytes(hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:16], "big")
    )


def normal(shape: tuple[int, ...], *parts: object) -> np.ndarray:
    """Standard normal float32 noise of `shape`."""
    return generator(*parts).standard_normal(shape, dtype=np.float32)


def uniform(*parts: object) -> float:
    """A number in [0, 1)."""
    return float(generator(*parts).random())


@functools.lru_cache(8)
def _shift(seed: int) -> float:
    return uniform(seed, "stratified")


def stratified(position: int, seed: int) -> float:
    """Number `position` of a sequence in [0, 1) that fills it evenly: van der Corput's in base 2, shifted by the seed.

    For the timesteps, which stable-audio-tools takes from a Sobol engine: its one-dimensional sequence is this one, in
    another order.
    """
    radical = int(f"{position:064b}"[::-1], 2) / 2**64
    return (radical + _shift(seed)) % 1.0


def timestep(u: float, sampler: str, options: dict[str, float]) -> float:
    """The timestep in [0, 1] at quantile `u` of a distribution of stable-audio-tools (training/diffusion.py).

    Raises ValueError on a sampler that it does not have.
    """
    u = min(max(u, FLOOR), 1 - FLOOR)
    if sampler == "uniform":
        return u
    if sampler == "logit_normal":
        return float(expit(ndtri(u)))
    if sampler == "trunc_logit_normal":  # truncated_logistic_normal_rescaled, inference/sampling.py
        left = 0.075
        low = ndtr(logit(left))
        return float(1 - (expit(ndtri(low + (1 - low) * u)) - left) / (1 - left))
    if sampler == "log_snr":  # sample_timesteps_logsnr, inference/sampling.py
        log_snr = ndtri(u) * options.get("std_logsnr", 2.0) + options.get("mean_logsnr", -1.2)
        return float(np.clip(expit(-log_snr), 1e-4, 1 - 1e-4))
    if sampler == "log_snr_uniform":  # sample_timesteps_logsnr_uniform, inference/sampling.py
        low, high = options.get("min_logsnr", -6.0), options.get("max_logsnr", 5.0)
        return float(np.clip(expit(-(low + (high - low) * u)), 1e-4, 1 - 1e-4))
    raise ValueError(f"unknown timestep_sampler {sampler!r}")
