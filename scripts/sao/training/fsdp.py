"""Splits the weights of a training over its processes: PyTorch's `fully_shard`, on the processes that Lightning starts.

Each process holds its share of every weight, and gets the rest of a block for the time that it computes with it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from lightning_fabric.strategies.ddp import DDPStrategy
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard


class Sharded(DDPStrategy):
    """Lightning's strategy for several processes, with split weights instead of DistributedDataParallel."""

    def __init__(self) -> None:
        super().__init__()
        self._backward_sync_control: Any = _Sync()

    def module_to_device(self, module: torch.nn.Module) -> None:
        """`fully_shard` moves one block after the other, so that a device never holds all weights."""

    def setup_module(self, module: Any) -> Any:
        """Split the weights of an Objective: block by block, and the rest of them."""
        mesh = init_device_mesh(self.root_device.type, (self.world_size,))
        for part in (*module.dit.model.transformer.layers, module):
            fully_shard(part, mesh=mesh)
        return module


class _Sync:
    """Lets gradients of several batches add up before they are exchanged."""

    @contextlib.contextmanager
    def no_backward_sync(self, module: Any, enabled: bool) -> Iterator[None]:
        module.set_requires_gradient_sync(not enabled)
        yield
