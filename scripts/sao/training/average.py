"""The moving average of the weights while they train. If a run has one, the average is validated and exported instead of the weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from sao.training.sharding import fill, local


class MovingAverage:
    """Exponential moving average of weights, with stable-audio-tools' settings of ema_pytorch (Wang, v0.2.3).

    beta 0.9999, power 3/4, updated every step, begun after the first.
    """

    BETA, POWER, BEGIN = 0.9999, 3 / 4, 1

    def __init__(self, weights: Mapping[str, torch.Tensor]) -> None:
        self.step, self.online = 0, weights
        self.average = {key: value.detach().clone() for key, value in weights.items()}

    @torch.no_grad()
    def update(self) -> None:
        self.step += 1
        age = self.step - self.BEGIN - 1
        decay = 0.0 if age <= 1 else min(1 - (1 + age) ** -self.POWER, self.BETA)  # the first three are copies
        torch._foreach_lerp_(list(self.average.values()), [v.detach() for v in self.online.values()], 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange averaged and online weights, for a validation and back."""
        for key, weight in self.online.items():
            one, other = local(weight), local(self.average[key])
            kept = one.clone()
            one.copy_(other)
            other.copy_(kept)

    def state_dict(self) -> dict[str, Any]:
        return {**self.average, "step": self.step}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step = state["step"]
        for key, weight in self.average.items():
            fill(weight, state[key])
