"""One step of the optimiser: from batches to gradients, from gradients to changed weights."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sao.base.names import seed_for
from sao.training.dataset import Item

if TYPE_CHECKING:
    from lightning_fabric import Fabric


class Update:
    """Takes steps of the optimiser: adds the gradients of several batches, clips them, and applies them.

    These are three methods, so that a caller can stop a training that has diverged before its weights have changed.
    """

    def __init__(
        self,
        fabric: Fabric,
        objective: Any,
        optimizer: Any,
        weights: Sequence[torch.Tensor],
        settings: Mapping[str, Any],
    ) -> None:
        """`objective` and `optimizer` as `fabric.setup` gives them; `weights` are those that are trained."""
        self.fabric, self.objective, self.optimizer, self.weights = fabric, objective, optimizer, weights
        self.accumulate, self.seed = settings["accumulate"], settings["seed"]
        self.limit = settings["gradient_clip"]
        self.skipped = 0  # steps whose gradients overflowed in float16, and which changed nothing
        # Gradients of float16 vanish where they are small, so the loss is scaled up; elsewhere this passes all through.
        self.scaler = torch.GradScaler(fabric.device.type, enabled=settings["precision"] == "16-mixed")

    def backward(self, batches: Iterator[Item], step: int) -> float:
        """Add the gradients of the next batches of optimiser step `step`, and return their mean loss."""
        loss = 0.0
        for part in range(self.accumulate):
            number = step * self.accumulate + part
            items = next(batches)
            seed_step(self.seed, number, self.fabric.global_rank)
            with self.fabric.no_backward_sync(self.objective, enabled=part < self.accumulate - 1):
                error = self.objective(items).mean() / self.accumulate
                self.fabric.backward(self.scaler.scale(error))
            loss += error.item()
        return loss

    def clip(self) -> float | None:
        """Clip the gradients and return their norm before, where the run clips; None where it does not.

        In 16-mixed the norm may be infinite: such a step is passed over.
        """
        if not self.limit:
            return None
        self.scaler.unscale_(self.optimizer.optimizer)
        return float(torch.nn.utils.clip_grad_norm_(self.weights, self.limit))

    def apply(self, step: int) -> None:
        """Change the weights, and forget the gradients."""
        # Rounding to bfloat16 is drawn at random: alike on all devices, or their weights would part.
        seed_step(self.seed, step, -1)
        before = self.scaler.get_scale()
        self.scaler.step(self.optimizer.optimizer)
        self.scaler.update()
        self.skipped += self.scaler.get_scale() < before
        self.optimizer.zero_grad()


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seed the draws inside the model (an adapter's dropout) as a function of seed, step and process."""
    value = seed_for(seed, "step", step, rank)
    random.seed(value)
    np.random.seed(value)
    torch.manual_seed(value)
