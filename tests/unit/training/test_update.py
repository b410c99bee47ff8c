"""A step of the optimiser is a function of the seed and the number of the step."""

from __future__ import annotations

import random

import numpy as np
import torch
from sao.training.update import seed_step


def test_a_step_seeds_all_generators() -> None:
    def drawn(*key: int) -> tuple:
        seed_step(*key)
        return random.random(), float(np.random.random()), float(torch.rand(1))

    first = drawn(0, 5, 0)
    assert drawn(0, 5, 0) == first
    for other in ((1, 5, 0), (0, 6, 0), (0, 5, 1)):
        assert not set(drawn(*other)) & set(first)
