"""Weights, gradients and optimiser states that are split over the processes of a training (FSDP).

What is written are whole tensors, so states and weights are the files of one process. sao/training/fsdp.py splits the weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch


def is_split(tensor: Any) -> bool:
    """Whether it is a DTensor. To import that class takes most of a second."""
    return isinstance(tensor, torch.Tensor) and hasattr(tensor, "placements")


def local(tensor: Any) -> torch.Tensor:
    """This process's part of a split tensor (not copied), or the tensor itself."""
    part: torch.Tensor = tensor.to_local() if is_split(tensor) else tensor
    return part


def gathered(value: Any, keep: bool) -> Any:
    """Nested dicts and lists with whole tensors in place of split ones, in main memory. All processes have to call it.

    Those that do not `keep` them get None there.
    """
    if is_split(value):
        full = value.detach().full_tensor()
        return full.cpu() if keep else None
    if isinstance(value, Mapping):
        return {key: gathered(part, keep) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(gathered(part, keep) for part in value)
    return value


def fill(tensor: torch.Tensor, whole: torch.Tensor) -> None:
    """Copy a whole tensor, or this process's part of it, into one that may be split."""
    local(tensor).copy_(local(split_like(whole, tensor)))


def split_like(whole: torch.Tensor, tensor: Any) -> torch.Tensor:
    """A whole tensor, which every process has, split as another one is."""
    if not is_split(tensor):
        return whole
    from torch.distributed.tensor import distribute_tensor

    on_device = whole.to(tensor.device)
    return distribute_tensor(on_device, tensor.device_mesh, tensor.placements, src_data_rank=None)


def split_states(states: dict[str, Any], weights: Sequence[torch.Tensor]) -> dict[str, Any]:
    """An optimiser's state dict, whose states that are as large as their weight are split as the weight is."""
    split = {
        number: {
            name: split_like(value, weights[number])
            if getattr(value, "shape", None) == weights[number].shape
            else value
            for name, value in state.items()
        }
        for number, state in states["state"].items()
    }
    return states | {"state": split}
