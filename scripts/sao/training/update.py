"""One step of the optimiser: from batches to gradients, from gradients to changed weights."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sao.base.names import seed_for
from sao.models.device import this_device
from sao.training.dataset import Item
from sao.training.sharding import is_split

if TYPE_CHECKING:
    from lightning_fabric import Fabric


class Update:
    """Takes steps of the optimiser: adds the gradients of several batches, clips them, and applies them.

    It reads nothing back from the device, which would wait for it: losses and norms are tensors there.
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
        # Steps whose gradients overflowed in float16, and which changed nothing.
        self.skipped = torch.zeros((), dtype=torch.int64, device=fabric.device)
        self.one = torch.ones((), device=fabric.device)
        # Gradients of float16 vanish where they are small, so the loss is scaled up; elsewhere this passes all through.
        self.scaler = torch.GradScaler(fabric.device.type, enabled=settings["precision"] == "16-mixed")

    def backward(self, batches: Iterator[Item], step: int) -> torch.Tensor:
        """Add the gradients of the next batches of optimiser step `step`, and return their mean loss `[]`, in the widest numbers."""
        loss = torch.zeros((), dtype=this_device().double, device=self.fabric.device)
        for part in range(self.accumulate):
            number = step * self.accumulate + part
            items = next(batches)
            seed_step(self.seed, number, self.fabric.global_rank)
            with self.fabric.no_backward_sync(self.objective, enabled=part < self.accumulate - 1):
                error = self.objective(items).mean() / self.accumulate
                self.fabric.backward(self.scaler.scale(error))
            loss += error.detach()
        return loss

    def clip(self) -> torch.Tensor:
        """Clip the gradients, where the run clips; returns their norm `[]` before.

        In 16-mixed the norm may be infinite: such a step is passed over.
        """
        self.scaler.unscale_(self.optimizer.optimizer)
        gradients = [weight.grad for weight in self.weights if weight.grad is not None]
        norm: Any = torch.nn.utils.get_total_norm(gradients)
        if self.limit:
            torch.nn.utils.clip_grads_with_norm_(self.weights, self.limit, norm)
        return norm.full_tensor() if is_split(norm) else norm

    def apply(self, step: int) -> None:
        """Change the weights, and forget the gradients."""
        # Rounding to bfloat16 is drawn at random: alike on all devices, or their weights would part.
        seed_step(self.seed, step, -1)
        before = self.scaler.scale(self.one)
        self.scaler.step(self.optimizer.optimizer)
        self.scaler.update()
        self.skipped += self.scaler.scale(self.one) < before
        self.optimizer.zero_grad()


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seed the draws inside the model (an adapter's dropout) as a function of seed, step and process."""
    value = seed_for(seed, "step", step, rank)
    random.seed(value)
    np.random.seed(value)
    torch.default_generator.manual_seed(value)
    # Without a GPU this would note each call, with a traceback, for the day when there is one.
    if this_device().is_gpu:
        torch.manual_seed(value)
