"""How ComfyUI loads a LoRA file into a diffusion model, written anew after its own steps.

After `load_lora`, `model_lora_keys_unet` and `calculate_weight` (comfy/lora.py), `LoRAAdapter` (comfy/weight_adapter/lora.py) and
`weight_decompose` (comfy/weight_adapter/base.py) of ComfyUI 0.30.0.
"""

from __future__ import annotations

import torch

Weights = dict[str, torch.Tensor]


def in_comfyui(model: Weights) -> Weights:
    """The weights of a model of stable-audio-tools as ComfyUI's diffusion model names them."""
    start = "model.model."
    return {f"diffusion_model.{key.removeprefix(start)}": v for key, v in model.items() if key.startswith(start)}


def loaded(model: Weights, lora: Weights, strength: float) -> tuple[Weights, set[str]]:
    """The patched weights by ComfyUI's names, and the keys of the file that no patch took."""
    unused, found = set(lora), {}
    for key in model:
        name = key.removesuffix(".weight")
        if key == name:
            continue
        parts = {part: lora[f"{name}.{part}"] for part in PARTS if f"{name}.{part}" in lora}
        unused -= {f"{name}.{part}" for part in parts}
        if "diff" in parts:
            found[key] = model[key].float() + strength * parts["diff"].to(torch.float32)
        elif "lora_up.weight" in parts:
            found[key] = with_low_rank(model[key].float(), parts, strength)
    return found, unused


PARTS = ("lora_up.weight", "lora_down.weight", "alpha", "dora_scale", "diff")


def with_low_rank(weight: torch.Tensor, parts: Weights, strength: float) -> torch.Tensor:
    up, down = parts["lora_up.weight"].float(), parts["lora_down.weight"].float()
    alpha = parts["alpha"].item() / down.shape[0] if "alpha" in parts else 1.0
    change = torch.mm(up.flatten(start_dim=1), down.flatten(start_dim=1)).reshape(weight.shape)
    if "dora_scale" not in parts:
        return weight + strength * alpha * change
    scale, changed = parts["dora_scale"].float(), weight + alpha * change
    if scale.shape[0] == changed.shape[0]:
        norm = weight.reshape(len(weight), -1).norm(dim=1, keepdim=True).reshape(len(weight), *[1] * (weight.dim() - 1))
    else:
        turned = changed.transpose(0, 1)
        norm = turned.reshape(len(turned), -1).norm(dim=1, keepdim=True)
        norm = norm.reshape(len(turned), *[1] * (weight.dim() - 1)).transpose(0, 1)
    changed = changed * (scale / (norm + torch.finfo(torch.float32).eps))
    return changed if strength == 1 else weight + strength * (changed - weight)
