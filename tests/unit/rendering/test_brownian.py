"""The noise of a clip's Brownian tree is the same, whoever draws it and when."""

from __future__ import annotations

import contextlib
import itertools

import numpy as np
import torch

SHAPE, SIGMAS = (3, 5), [50.0, 9.0, 2.0, 0.3, 0.0]


def test_noise_is_that_of_k_diffusions_tree() -> None:
    from sao.rendering.brownian import brownian
    from stable_audio_tools.inference import k_diffusion as K

    levels = torch.tensor(SIGMAS)
    tree = K.sampling.BrownianTreeNoiseSampler(torch.zeros(2, *SHAPE), levels[-2], levels[0], seed=[7, 8])
    expected = [tree(one, two) for one, two in itertools.pairwise(levels[:-1])]
    for number, seed in enumerate((7, 8)):
        found = brownian(SHAPE, SIGMAS, seed)
        assert found.shape == (3, *SHAPE) and found.dtype == np.float32
        assert np.array_equal(found, torch.stack(expected)[:, number].numpy())


def test_workers_draw_the_same() -> None:
    from sao.rendering.brownian import Ahead, brownian

    with contextlib.closing(Ahead(2)) as ahead:
        ahead.announce(SHAPE, SIGMAS, [1, 2, 3])
        first = ahead.take(SHAPE, SIGMAS, [2, 1])
        again = ahead.take(SHAPE, SIGMAS, [3, 2])  # one that was announced, and one that was taken
        same = ahead.take(SHAPE, SIGMAS, [5, 5])  # two prompts with one seed
        assert not ahead.drawn
    for noise, seeds in ((first, (2, 1)), (again, (3, 2)), (same, (5, 5))):
        for number, seed in enumerate(seeds):
            assert np.array_equal(noise[:, number].numpy(), brownian(SHAPE, SIGMAS, seed))
