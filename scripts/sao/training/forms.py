"""Adapters in stable-audio-tools' form: its class, and the file that it and Stable Audio 3's own tools load.

An adapter is a parametrization of a weight: each forward pass makes the adapted weight anew. Forms that peft has too are trained
with peft (sao/training/adapters.py), which computes them on a layer's input, and are written in this form beside.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sao.models.upstream  # noqa: F401
from sao.base.command import InputError

import torch
from torch.nn.utils import parametrize

from sao.base.files import whole
from sao.models.build import assert_same_keys, read_safetensors, write_safetensors

if TYPE_CHECKING:
    from stable_audio_tools.models.lora import LoRAParametrization

# By method: the name in stable-audio-tools.
TYPES = {
    "lora": "lora",
    "dora": "dora-rows",
    "dora-cols": "dora-cols",
    "bora": "bora",
    "lora-xs": "lora-xs",
    "dora-xs": "dora-rows-xs",
    "dora-cols-xs": "dora-cols-xs",
    "bora-xs": "bora-xs",
}
FILE = "lora.safetensors"
BETWEEN = ".parametrizations.weight.0."  # the name of a module, this, and the name of the adapter's weight


def add(dit: torch.nn.Module, names: Sequence[str], method: str, adapter: Mapping[str, Any], seed: int) -> None:
    """Give the modules of these names adapters that are initialised from `seed` alone. Raises InputError on a rank too high."""
    if method.endswith("-xs"):
        check_rank(dit, names, method, adapter["rank"])
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        for name in names:
            layer = dit.get_submodule(name)
            made = Unseen(parametrization(layer, method, adapter))
            parametrize.register_parametrization(layer, "weight", made, unsafe=True)


class Unseen(torch.nn.Module):
    """An adapter that the model's own forward pass does not look for.

    Where stable-audio-tools finds its adapters, it reads the first timestep back from the device and goes through all modules,
    in every pass, to turn adapters on or off (DiffusionTransformer.forward, models/dit.py).
    """

    def __init__(self, made: LoRAParametrization) -> None:
        super().__init__()
        self.__dict__["made"] = made
        self._parameters, self._buffers, self._modules = made._parameters, made._buffers, made._modules

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        adapted: torch.Tensor = self.__dict__["made"](weight)
        return adapted


def check_rank(dit: torch.nn.Module, names: Iterable[str], method: str, rank: int) -> None:
    """Raise InputError if a weight has fewer singular vectors than a form with such vectors takes."""
    for name in names:
        weight: Any = dit.get_submodule(name).weight
        if rank > (most := min(weight.shape[0], math.prod(weight.shape[1:]))):
            raise InputError(f"adapter.rank is {rank}, and {method} finds {most} singular vectors in {name}: lower it")


def parametrization(layer: Any, method: str, adapter: Mapping[str, Any]) -> LoRAParametrization:
    """A new adapter for a layer, a Linear or a Conv1d."""
    from stable_audio_tools.models.lora import LoRAParametrization

    rank = adapter["rank"]
    make = LoRAParametrization.from_linear if layer.weight.ndim == 2 else LoRAParametrization.from_conv1d
    made = make(
        layer, rank=rank, lora_dropout_p=adapter["dropout"], lora_alpha=scale(adapter), adapter_type=TYPES[method]
    )
    # As a tensor on the device, it would be read back in every forward pass.
    del made.lora_strength
    made.lora_strength = 1.0
    return made


def scale(adapter: Mapping[str, Any]) -> float:
    """The alpha that gives the adapter's scale, which stable-audio-tools takes to be alpha / rank.

    Rank-stabilised adapters scale by alpha / sqrt(rank) (Kalajdzievski 2023, arXiv:2312.03732).
    """
    return float(adapter["alpha"] * (math.sqrt(adapter["rank"]) if adapter["rslora"] else 1))


def form_state(dit: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The adapters' weights (not copied) under stable-audio-tools' keys. Singular vectors are left out, as there."""
    from stable_audio_tools.models.lora import get_lora_state_dict

    state: dict[str, torch.Tensor] = get_lora_state_dict(dit)
    return state


def from_peft(state: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """peft's weights of `lora` and `dora` under stable-audio-tools' keys. It keeps filters as rows."""
    found = {}
    for key, value in state.items():
        name, part = key.removeprefix(prefix).rsplit(".lora_", 1)
        if part.startswith("magnitude"):
            found[f"{name}{BETWEEN}magnitude"] = value.reshape(-1)
        else:
            found[f"{name}{BETWEEN}lora_{part[0]}"] = value.reshape(value.shape[0], -1)
    return found


def write_form(folder: Path, state: Mapping[str, torch.Tensor], method: str, adapter: Mapping[str, Any]) -> None:
    """Write `lora.safetensors`, with the settings of the adapter in its header."""
    names = sorted({key.split(BETWEEN)[0] for key in state})
    config = {"rank": adapter["rank"], "alpha": scale(adapter), "adapter_type": TYPES[method], "include": names}
    with whole(folder / FILE) as temporary:
        weights = {key: value.cpu().contiguous() for key, value in state.items()}
        write_safetensors(weights, temporary, ("lora_config", json.dumps(config)))


def parametrizations(
    base: Mapping[str, torch.Tensor], path: Path
) -> Iterator[tuple[str, torch.Tensor, LoRAParametrization]]:
    """`(name, weight, parametrization)` of each weight of `base`, the bare model's state dict, that a `lora.safetensors` changes.

    The names begin at the transformer's wrapper. Weights are float32, and nothing has a gradient. Raises InputError on an adapter of
    another model, at its end if keys or shapes do not match.
    """
    state = read_safetensors(path)
    method, adapter = _config(path)
    expected = dict[str, tuple[int, ...]]()
    found = {key: tuple(value.shape) for key, value in state.items()}
    for name in sorted({key.split(BETWEEN)[0] for key in state}):
        weight = base.get(f"model.{name}.weight")
        if weight is None:
            raise InputError(f"{path}: is of another model; the base model has no model.{name}.weight")
        layer = torch.nn.Module()
        layer.weight = torch.nn.Parameter(weight.float(), requires_grad=False)
        made = parametrization(layer, method, adapter).requires_grad_(False)
        own = {f"{name}{BETWEEN}{key}": value for key, value in made.named_parameters()}
        expected |= {key: tuple(value.shape) for key, value in own.items()}
        if any(found.get(key) != expected[key] for key in own):
            continue  # told below, with all that does not fit
        for key, value in own.items():
            value.copy_(state[key])
        yield name, layer.weight.detach(), made
    assert_same_keys(found, expected, path)


def merged_form(base: Mapping[str, torch.Tensor], path: Path, strength: float = 1.0) -> dict[str, torch.Tensor]:
    """`base`, the bare model's state dict, with the adapter of a `lora.safetensors` merged in, in float32.

    Strength 0 is `base` itself, 1 is the adapter as it was trained, as `set_lora_strength` of stable-audio-tools has it. Keys, shapes
    and types stay those of `base`. Raises InputError on an adapter of another model, and where the merged weights are not finite.
    """
    merged = dict(base)
    for name, weight, made in parametrizations(base, path) if strength else ():
        made.lora_strength = strength
        adapted = made(weight)
        if not torch.isfinite(adapted).all():
            why = "the training diverged" if strength == 1 else f"{strength:g} is too strong"
            raise InputError(f"{path}: {name} is NaN or infinite: {why}")
        merged[f"model.{name}.weight"] = adapted.to(base[f"model.{name}.weight"].dtype)
    return merged


def read_header(path: Path) -> dict[str, Any]:
    """The settings of the adapter in the header of a file, as write_form wrote them. Raises InputError if it has none."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        text = (file.metadata() or {}).get("lora_config", "")
    try:
        return dict(json.loads(text))
    except (ValueError, TypeError):
        raise InputError(f"{path}: has no lora_config of an adapter in its header ({text[:80]!r})") from None


def _config(path: Path) -> tuple[str, dict[str, Any]]:
    """`(method, adapter)` from the header of a file."""
    found = read_header(path)
    try:
        method = next(method for method, kind in TYPES.items() if kind == found["adapter_type"])
        return method, {"rank": int(found["rank"]), "alpha": float(found["alpha"]), "rslora": False, "dropout": 0.0}
    except (ValueError, KeyError, TypeError, StopIteration):
        text = json.dumps(found)
        raise InputError(f"{path}: has no lora_config of an adapter in its header ({text[:80]!r})") from None
