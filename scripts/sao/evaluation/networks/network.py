"""What all networks share: they are built with the widths of a file of weights, which has to fit key by key."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from sao.base.command import InputError

import torch

from sao.models.build import assert_same_keys, read_safetensors

Tensors = dict[str, torch.Tensor]


class Network(torch.nn.Module):
    """A network whose arguments follow from its weights."""

    DROPPED: tuple[str, ...] = ()  # beginnings of keys that published files hold beside the weights

    @classmethod
    def arguments(cls, tensors: Mapping[str, torch.Tensor]) -> dict[str, Any]:
        """The arguments of the constructor. Raises KeyError on a file without the weights that tell them."""
        raise NotImplementedError


Kind = TypeVar("Kind", bound=Network)


def own_tensors(kind: type[Network], tensors: Mapping[str, torch.Tensor]) -> Tensors:
    """The weights of a published file, without what is computed anyway: spectrograms' kernels, counters of batches."""
    return {
        key: value
        for key, value in tensors.items()
        if not key.startswith(kind.DROPPED) and not key.endswith("num_batches_tracked")
    }


def build(kind: type[Kind], tensors: Mapping[str, torch.Tensor], path: Path) -> Kind:
    """The network of `tensors`, ready to compute with. Raises InputError unless all keys and shapes are the network's."""
    try:
        network = kind(**kind.arguments(tensors))
    except (KeyError, IndexError, ValueError, RuntimeError, ZeroDivisionError) as error:
        raise InputError(
            f"{path}: not the weights of {kind.__name__} ({type(error).__name__}: {error}): take the file that "
            "docs/reference/measures.md names"
        ) from None
    expected = own_tensors(kind, network.state_dict())
    assert_same_keys({k: v.shape for k, v in tensors.items()}, {k: v.shape for k, v in expected.items()}, path)
    network.load_state_dict(dict(tensors), strict=False)  # counters of batches are not in `tensors`
    return network.eval().requires_grad_(False)


def load(kind: type[Kind], path: Path) -> Kind:
    """The network of a file that rule `weights` wrote."""
    return build(kind, read_safetensors(path), path)
