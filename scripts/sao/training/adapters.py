"""Adapters on the diffusion transformer: adding, saving, merging.

LoRA and DoRA by way of peft, all other forms by way of stable-audio-tools (sao/training/forms.py).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sao.base.command import InputError

from sao.base.files import read_json, whole, write_json
from sao.models.build import assert_same_keys, read_safetensors, write_safetensors
from sao.training.memory import PEFT, is_adapted

# peft is imported in the functions: it imports huggingface_hub, which `build` has to come before.
if TYPE_CHECKING:
    import torch
    from peft import LoraConfig

ATTENTION = ("to_q", "to_kv", "to_qkv", "to_out")  # to_q and to_kv are cross-attention's, to_qkv self-attention's
ALL_LINEAR = "all-linear"
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"  # peft's file names
PREFIX = "base_model.model."  # peft's, before the name of a module in the DiT


def add_adapters(model: Any, method: str, adapter: dict[str, Any], seed: int) -> None:
    """Put float32 adapters, initialised from `seed` alone, into the model's DiT, and freeze everything else.

    With `base_precision` "bf16" the frozen linear and convolution weights become bfloat16, and every forward pass has
    to run under autocast. Raises InputError on targets that there are not, and on those that DoRA cannot scale.
    """
    import torch

    from sao.training import forms

    names = adapted_modules(model.model, adapter)
    layers = [m for m in model.model.modules() if isinstance(m, (torch.nn.Linear, torch.nn.Conv1d))]
    model.requires_grad_(False)
    if method in PEFT:
        targets = names if adapter["include"] or adapter["exclude"] else adapter["target_modules"]
        inject(model.model, lora_config(method, adapter | {"target_modules": targets}), seed)
    else:
        forms.add(model.model, names, method, adapter, seed)
    for name, magnitude in model.model.named_parameters():
        found = re.fullmatch(r"(.+)\.(?:lora_magnitude_vector|parametrizations\.weight\.0\.magnitude)\b.*", name)
        if found and not magnitude.all():
            raise InputError(
                f"target_modules: weight rows or columns of {found[1]} are zero, and {method} divides by their norm: "
                "set method to lora, or leave this module out"
            )
    # Only now: from bfloat16 weights adapters would be bfloat16, and DoRA's magnitudes would be rounded.
    if adapter["base_precision"] == "bf16":
        for layer in layers:
            for weight in layer.parameters(recurse=False):
                weight.data = weight.data.to(torch.bfloat16)
            if torch.nn.utils.parametrize.is_parametrized(layer, "weight"):
                original: Any = layer.get_parameter("parametrizations.weight.original")
                original.data = original.data.to(torch.bfloat16)


def adapted_modules(dit: torch.nn.Module, adapter: dict[str, Any]) -> list[str]:
    """The names of the modules of the DiT that get an adapter. Raises InputError if settings name none, or unfit ones."""
    from torch.nn import Conv1d, Linear

    if adapter["target_modules"] != ALL_LINEAR:
        check_targets(dit, set(adapter["target_modules"]))
    kinds = Linear if adapter["target_modules"] == ALL_LINEAR else (Linear, Conv1d)
    names = [n for n, module in dit.named_modules() if isinstance(module, kinds) and is_adapted(n, adapter)]
    if not names:
        raise InputError("adapter: include and exclude leave no module of target_modules: change them")
    return names


def lora_config(method: str, adapter: dict[str, Any]) -> LoraConfig:
    from peft import LoraConfig

    targets = adapter["target_modules"]
    return LoraConfig(
        r=adapter["rank"],
        lora_alpha=adapter["alpha"],
        lora_dropout=adapter["dropout"],
        target_modules=targets if targets == ALL_LINEAR else list(targets),
        use_dora=method == "dora",
        use_rslora=adapter["rslora"],
    )


def check_targets(dit: torch.nn.Module, targets: set[str]) -> None:
    """Raise InputError unless each name is the end of the names of Linear and Conv1d modules, and of no others."""
    from torch.nn import Conv1d, Linear

    # peft cannot adapt every grouped convolution, and merges none.
    fits = {
        name: isinstance(module, Linear) or (isinstance(module, Conv1d) and module.groups == 1)
        for name, module in dit.named_modules()
    }
    matched = {target: [fits[name] for name in fits if f".{name}".endswith(f".{target}")] for target in targets}
    if bad := sorted(target for target, fit in matched.items() if not fit or not all(fit)):
        # A number says nothing without the name before it.
        ends = (re.search(r"[^.]+(\.\d+)*$", name) for name in fits if fits[name])
        known = sorted({end[0] for end in ends if end})
        raise InputError(
            "target_modules: not the names of Linear or Conv1d modules of this model's diffusion transformer: "
            f"{', '.join(map(repr, bad))}; choose among {', '.join(known)}, or set {ALL_LINEAR!r}"
        )


def inject(dit: torch.nn.Module, config: LoraConfig, seed: int, state: dict[str, torch.Tensor] | None = None) -> None:
    """peft's injection, in place, into the modules that `state` has weights for, or else into those of `config`."""
    import torch
    from peft import inject_adapter_in_model

    # The generator itself, as torch.manual_seed would also seed the GPUs'; peft draws on the CPU.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        inject_adapter_in_model(config, dit, state_dict=state)


def adapter_state(model: Any, method: str) -> dict[str, torch.Tensor]:
    """The adapters' weights (not copied) under the keys of the files: peft's, or stable-audio-tools' for its own forms."""
    if method not in PEFT:
        from sao.training.forms import form_state

        return form_state(model.model)
    from peft import get_peft_model_state_dict

    return {f"{PREFIX}{key}": value for key, value in get_peft_model_state_dict(model.model).items()}


def load_adapter_state(model: Any, state: dict[str, torch.Tensor], path: Path) -> None:
    """Copy weights read from `path` into the adapters; raises InputError unless keys and shapes are theirs."""
    from peft import set_peft_model_state_dict

    expected = {key: tuple(value.shape) for key, value in adapter_state(model, PEFT[0]).items()}
    assert_same_keys({key: tuple(value.shape) for key, value in state.items()}, expected, path)
    set_peft_model_state_dict(model.model, state)


def write_adapter(folder: Path, state: dict[str, torch.Tensor], method: str, adapter: dict[str, Any]) -> None:
    """Write what `adapter_state` gave as the files that others load.

    `adapter_model.safetensors` and `adapter_config.json` are for peft, which knows LoRA and DoRA. `lora.safetensors` is for
    stable-audio-tools and Stable Audio 3's own tools.
    """
    from sao.training.forms import from_peft, write_form

    if method not in PEFT:
        write_form(folder, state, method, adapter)
        return
    with whole(folder / WEIGHTS) as temporary:
        write_safetensors({k: value.cpu().contiguous() for k, value in state.items()}, temporary, ("format", "pt"))
    named = adapter["include"] or adapter["exclude"]
    names = sorted({key.removeprefix(PREFIX).rsplit(".lora_", 1)[0] for key in state})
    write_json(
        folder / CONFIG, config_json(lora_config(method, adapter | ({"target_modules": names} if named else {})))
    )
    write_form(folder, from_peft(state, PREFIX), method, adapter)


def config_json(config: LoraConfig) -> dict[str, Any]:
    return {key: sorted(value) if isinstance(value, set) else value for key, value in config.to_dict().items()}


def read_adapter(folder: Path) -> tuple[LoraConfig, dict[str, torch.Tensor]]:
    """`(config, weights)` as write_adapter wrote them; raises InputError on anything else, and unpickles nothing."""
    path = folder / CONFIG
    try:
        found = read_json(path)
        adapter = {"rank": found["r"], "alpha": found["lora_alpha"], "dropout": found["lora_dropout"]}
        adapter |= {"target_modules": found["target_modules"], "rslora": found["use_rslora"]}
        config = lora_config("dora" if found["use_dora"] else "lora", adapter)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not the config of an adapter ({type(error).__name__}: {error})") from None
    # Any other setting could give the weights another meaning, or name a module to import.
    known = config_json(config)
    if strange := sorted(key for key in found.keys() - {"peft_version"} if found[key] != known.get(key, ...)):
        raise InputError(f"{path}: {strange[0]} is not what this workflow writes: take the adapter from its own run")
    path = folder / WEIGHTS
    if not path.is_file():
        raise InputError(f"{path}: is missing; an adapter is read from safetensors only")
    state = read_safetensors(path)
    if not state:
        raise InputError(f"{path}: holds no weights: take the adapter from its own run")
    return config, state


def merged_weights(base: dict[str, torch.Tensor], folder: Path) -> dict[str, torch.Tensor]:
    """`base`, the bare model's state dict, with the adapter in `folder` merged in, in float32.

    Keys, shapes and dtypes stay those of `base`, whose tensors are not written to. Raises InputError on an adapter of
    another model, and where the merged weights are not finite.
    """
    import torch

    if not (folder / CONFIG).is_file():
        from sao.training.forms import FILE, merged_form

        return merged_form(base, folder / FILE)
    config, state = read_adapter(folder)
    state_in_dit = {key.removeprefix(PREFIX): value for key, value in state.items()}
    # `model.` leads from the bare model to its DiT, which the adapter's names start from.
    names = sorted({f"model.{key.rsplit('.lora_', 1)[0]}" for key in state_in_dit})
    if missing := [name for name in names if f"{name}.weight" not in base]:
        raise InputError(f"{folder / WEIGHTS}: is of another model; the base model has no {missing[0]}.weight")
    model: Any = adapted_layers({name: base[f"{name}.weight"].float() for name in names})
    inject(model.model, config, 0, state_in_dit)
    load_adapter_state(model, state, folder / WEIGHTS)
    merged = dict(base)
    for name in names:
        layer = model.get_submodule(name)
        try:
            with torch.no_grad():
                layer.merge(safe_merge=True)
        except ValueError:
            raise InputError(f"{folder / WEIGHTS}: {name} is NaN or infinite: the training diverged") from None
        merged[f"{name}.weight"] = layer.get_base_layer().weight.detach().to(base[f"{name}.weight"].dtype)
    return merged


def adapted_layers(weights: dict[str, torch.Tensor]) -> torch.nn.Module:
    """Modules of these names, linear or convolutions, with these weights: all of a model that merging needs."""
    from torch.nn import Conv1d, Linear, Module, Parameter

    root = Module()
    for name, weight in weights.items():
        kind: Any = Linear if weight.ndim == 2 else Conv1d
        width_out, width_in, *kernel = weight.shape
        layer = kind(width_in, width_out, *kernel, bias=False, device="meta")
        layer.weight = Parameter(weight)
        parent = root
        *parents, last = name.split(".")
        for part in parents:
            if part not in parent._modules:
                parent.add_module(part, Module())
            parent = parent.get_submodule(part)
        parent.add_module(last, layer)
    return root
