"""The noise of k-diffusion's SDE samplers, one Brownian tree per clip, drawn ahead by processes of their own.

To draw it takes one processor 20 to 30 ms per clip and step of Stable Audio Open 1.0, several times what a GPU in 16 bits needs
for the rest of the step. The steps are known beforehand, and so is all noise of a clip.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import warnings
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor

import sao.models.upstream  # noqa: F401

import numpy as np
import torch
from stable_audio_tools.inference import k_diffusion as K


def brownian(shape: tuple[int, int], sigmas: Sequence[float], seed: int) -> np.ndarray:
    """The noise `[steps, channels, frames]` that falls between each two of `sigmas`, but the last, which is 0."""
    levels = torch.tensor(sigmas, dtype=torch.float32)
    with warnings.catch_warnings():
        # The last step may begin less than 1e-7 outside of the tree, by rounding. torchsde takes the tree's end then.
        warnings.filterwarnings("ignore", message="Should have t[ab]")
        tree = K.sampling.BrownianTreeNoiseSampler(torch.zeros(1, *shape), levels[-2], levels[0], seed=[seed])
        drawn = [tree(one, two)[0] for one, two in itertools.pairwise(levels[:-1])]
    return torch.stack(drawn).numpy() if drawn else np.zeros((0, *shape), np.float32)


def _start() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that renders ends its workers
    os.nice(5)  # it must not wait for a processor
    torch.set_num_threads(1)


class Ahead:
    """Draws the noise of clips on `workers` processes, from when it is announced."""

    def __init__(self, workers: int) -> None:
        self.pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _start)
        self.drawn: dict[tuple[object, ...], Future[np.ndarray]] = {}

    def announce(self, shape: tuple[int, int], sigmas: Sequence[float], seeds: Sequence[int]) -> None:
        for seed in seeds:
            if (shape, tuple(sigmas), seed) not in self.drawn:
                self.drawn[shape, tuple(sigmas), seed] = self.pool.submit(brownian, shape, list(sigmas), seed)

    def take(self, shape: tuple[int, int], sigmas: Sequence[float], seeds: Sequence[int]) -> torch.Tensor:
        """The noise `[steps, clips, channels, frames]` of clips, which is forgotten here."""
        self.announce(shape, sigmas, seeds)
        drawn = {seed: self.drawn.pop((shape, tuple(sigmas), seed)).result() for seed in set(seeds)}
        return torch.from_numpy(np.stack([drawn[seed] for seed in seeds], axis=1))

    def close(self) -> None:
        self.pool.shutdown(cancel_futures=True)
