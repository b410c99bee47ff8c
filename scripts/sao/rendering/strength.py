"""Adapters of other strengths than they were trained with, as `set_lora_strength` of stable-audio-tools gives them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sao.base.command import InputError

from sao.models.build import assert_same_keys, read_safetensors
from sao.training.forms import BETWEEN, _config, parametrization

if TYPE_CHECKING:
    import torch


def with_strength(path: Path, base: Mapping[str, torch.Tensor], strength: float) -> dict[str, torch.Tensor]:
    """`base`, the bare model's state dict, with the adapter of a `lora.safetensors` merged in at a strength, in float32.

    0 is `base` itself, 1 is the adapter as it was trained. Keys, shapes and types stay those of `base`. Raises InputError on an
    adapter of another model, and where the merged weights are not finite.
    """
    import torch

    if strength == 0:
        return dict(base)
    state, (method, adapter) = read_safetensors(path), _config(path)
    merged, expected = dict(base), dict[str, tuple[int, ...]]()
    for name in sorted({key.split(BETWEEN)[0] for key in state}):
        weight = base.get(f"model.{name}.weight")
        if weight is None:
            raise InputError(f"{path}: is of another model; the base model has no model.{name}.weight")
        layer = torch.nn.Module()
        layer.weight = torch.nn.Parameter(weight.float(), requires_grad=False)
        made = parametrization(layer, method, adapter)
        own = {f"{name}{BETWEEN}{key}": value for key, value in made.named_parameters()}
        expected |= {key: tuple(value.shape) for key, value in own.items()}
        assert_same_keys({key: state[key].shape for key in own if key in state}, {k: expected[k] for k in own}, path)
        made.lora_strength = strength
        with torch.no_grad():
            for key, value in own.items():
                value.copy_(state[key])
            adapted = made(layer.weight)
        if not torch.isfinite(adapted).all():
            raise InputError(f"{path}: at strength {strength:g} {name} is NaN or infinite: choose a lower one")
        merged[f"model.{name}.weight"] = adapted.to(weight.dtype)
    assert_same_keys({key: tuple(value.shape) for key, value in state.items()}, expected, path)
    return merged
