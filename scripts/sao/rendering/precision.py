"""The numbers that a model computes in while it renders: the transformer's blocks may have 16 bits, all else is float32.

Guidance multiplies the difference of two outputs by `cfg_scale`, and their rounding with it. So timesteps, the first and last
layers, the sum that runs through the blocks, guidance and the sampler keep float32 (measurements: benchmarks/README.md).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

from sao.models.device import Device

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def chosen(precision: str, device: Device) -> str:
    """The precision that `auto` means on a device: fp16 on a GPU, fp32 on a CPU, which has no fast arithmetic for others."""
    return precision if precision != "auto" else "fp16" if device.is_gpu else "fp32"


def lower(model: Any, precision: str) -> None:
    """Let the blocks of a model's diffusion transformer compute in `precision`, and keep their matrices in it."""
    kind = PRECISIONS[precision]
    if kind is torch.float32:
        return
    for block in model.model.model.transformer.layers:
        for layer in block.modules():
            if isinstance(layer, torch.nn.Linear):
                layer.weight.data = layer.weight.data.to(kind)
        block.forward = functools.partial(_inside, block.forward, kind)


def _inside(forward: Callable[..., torch.Tensor], kind: torch.dtype, x: torch.Tensor, *rest: Any, **more: Any) -> Any:
    with torch.autocast(x.device.type, dtype=kind):
        return forward(x, *rest, **more)


def compile_blocks(model: Any, device: Device) -> bool:
    """Compile the blocks of a model's diffusion transformer on NVIDIA's GPUs if a compiler is there; returns whether."""
    if device.kind != "cuda" or device.missing_compiler():
        return False
    for block in model.model.model.transformer.layers:
        block.compile()  # for the first shape, and from the second on for any
    return True
