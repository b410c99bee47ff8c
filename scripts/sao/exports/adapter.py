"""The adapter of a leg, as stable-audio-tools' own parametrizations of the weights that it changes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sao.base.command import InputError

from sao.models.build import read_safetensors

if TYPE_CHECKING:
    import torch
    from stable_audio_tools.models.lora import LoRAParametrization


def adapted(base: Mapping[str, torch.Tensor], path: Path) -> Iterator[tuple[str, torch.Tensor, LoRAParametrization]]:
    """`(name, weight, parametrization)` of each weight of `base` that the adapter of a `lora.safetensors` changes.

    The names start from the transformer's wrapper. Weights are float32. `merged_form` is to have checked the file.
    """
    import torch

    from sao.training.forms import BETWEEN, TYPES, parametrization

    state, header = read_safetensors(path), read_header(path)
    method = next(method for method, kind in TYPES.items() if kind == header["adapter_type"])
    adapter = {"rank": header["rank"], "alpha": header["alpha"], "rslora": False, "dropout": 0.0}
    for name in sorted({key.split(BETWEEN)[0] for key in state}):
        layer = torch.nn.Module()
        layer.weight = torch.nn.Parameter(base[f"model.{name}.weight"].float(), requires_grad=False)
        made = parametrization(layer, method, adapter).requires_grad_(False)
        for key, value in made.named_parameters():
            value.copy_(state[f"{name}{BETWEEN}{key}"])
        yield name, layer.weight.detach(), made


def read_header(path: Path) -> dict[str, Any]:
    """The settings of the adapter in the header of a `lora.safetensors`. Raises InputError if it has none."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        text = (file.metadata() or {}).get("lora_config")
    if text is None:
        raise InputError(f"{path}: has no lora_config of an adapter in its header: take the adapter from its own run")
    return dict(json.loads(text))
