"""The adapter in the form that ComfyUI's LoRA loaders take.

ComfyUI (comfy/lora.py, comfy/weight_adapter) looks for the names of its own modules, `diffusion_model.transformer.layers.0…`,
which are those of stable-audio-tools' transformer. Of a key that it does not know it only logs a line, and where `.alpha` is
missing it takes a scale of 1. So every key of an adapter is written here, with its alpha.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sao.exports.form import Form, Source, Weights, anything

if TYPE_CHECKING:
    import torch

IN_MODEL, IN_COMFYUI = "model.", "diffusion_model."  # before the name of a module of the transformer
OF_TRANSFORMER = "model."  # from our adapters' names, which start at the transformer's wrapper, to the transformer


def write(source: Source, precision: str, folder: Path) -> Weights:
    """Write `<run>-comfyui.safetensors`, and return the weights that ComfyUI has after it loaded the file at strength 1."""
    from sao.exports.precision import stored
    from sao.models.build import write_safetensors
    from sao.training.forms import parametrizations

    assert source.adapter is not None
    file: Weights = {}
    loaded: Weights = {}
    for name, weight, made in parametrizations(source.base, source.adapter):
        entry = stored(patch(made, weight), precision)
        module = f"{IN_COMFYUI}{name.removeprefix(OF_TRANSFORMER)}"
        file |= {f"{module}.{part}": value.contiguous() for part, value in entry.items()}
        loaded[f"{IN_MODEL}{name}.weight"] = patched(weight, entry)
    write_safetensors(file, folder / file_name(source.name), ("format", "pt"))
    return loaded


def file_name(run: str) -> str:
    """The name of the file, which ComfyUI shows in its menus."""
    return f"{run}-comfyui.safetensors"


def patch(made: Any, weight: torch.Tensor) -> Weights:
    """What ComfyUI needs to know to change one `weight` `[out, in, …]` as the parametrization `made` does.

    A form with magnitudes of rows or columns has `dora_scale`. Other forms (`bora`) have no equal in ComfyUI, so the difference
    of the whole weight is written.
    """
    import torch

    whole = made(weight) - weight
    kind, scale = made.adapter_type.removesuffix("-xs"), made.scaling
    if made.adapter_type.endswith("-xs"):
        up, down = made.U @ made.M_xs, made.V.T
    else:
        up, down = made.lora_B, made.lora_A
    low_rank = {
        "lora_up.weight": up,
        "lora_down.weight": down,
        "alpha": torch.tensor(float(made.lora_alpha)),
    }
    rows = weight.reshape(weight.shape[0], -1)
    ones = [1] * (weight.ndim - 1)
    if kind == "lora":
        return low_rank
    if kind == "dora-rows" and len(rows) > 1:
        # ComfyUI divides by the lengths of the rows of the weight as it was, where DoRA has those of the changed weight
        # (weight_decompose in comfy/weight_adapter/base.py, of 2025 and 2026). What it multiplies by makes up for that.
        lengths = rows.norm(dim=1) / (rows + scale * (up @ down)).norm(dim=1)
        return low_rank | {"dora_scale": (made.magnitude * lengths).reshape(-1, *ones)}
    if kind == "dora-cols" and len(rows) > 1 and rows.shape[1] == weight.shape[1]:
        return low_rank | {"dora_scale": made.magnitude.reshape(1, -1, *ones[1:])}
    return {"diff": whole}


def patched(weight: torch.Tensor, entry: Weights, strength: float = 1.0) -> torch.Tensor:
    """What ComfyUI makes of a weight at a strength, in float32.

    After LoRAAdapter.calculate_weight and weight_decompose (comfy/weight_adapter) and `diff` of calculate_weight (comfy/lora.py).
    """
    if "diff" in entry:
        return weight + strength * entry["diff"].float()
    up, down = entry["lora_up.weight"].float(), entry["lora_down.weight"].float()
    changed = weight + float(entry["alpha"]) / down.shape[0] * (up @ down).reshape(weight.shape)
    if (scale := entry.get("dora_scale")) is not None:
        by_rows = scale.shape[0] == weight.shape[0]
        changed = changed * scale / (row_lengths(weight) if by_rows else column_lengths(changed))
    return weight + strength * (changed - weight)


def row_lengths(weight: torch.Tensor) -> torch.Tensor:
    """`[out, 1, …]`: the length of each row of a weight `[out, in, …]`."""
    return weight.reshape(weight.shape[0], -1).norm(dim=1).reshape(-1, *[1] * (weight.ndim - 1))


def column_lengths(weight: torch.Tensor) -> torch.Tensor:
    """`[1, in, 1, …]`: the length of each column of a weight `[out, in, …]`."""
    return row_lengths(weight.transpose(0, 1)).transpose(0, 1)


FORM = Form(of_adapter=True, refusal=anything, write=write)
