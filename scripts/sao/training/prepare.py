"""The base model on its way to its training: which weights have 16 bits, what is compiled."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from sao.base.command import InputError, log

import torch

from sao.models.device import this_device
from sao.training.adapters import add_adapters
from sao.training.memory import is_quantized, split


def make_trainable(model: Any, settings: Mapping[str, Any], compile_blocks: bool) -> dict[str, torch.nn.Parameter]:
    """Make a model ready for the training that a run's settings describe; returns the weights that are trained, by key."""
    if settings["method"] != "full":
        add_adapters(model, settings["method"], settings["adapter"], settings["seed"])
    elif settings["precision"] == "bf16-true":
        low_precision(model.model)
    prepare(model, settings["recompute_activations"], compile_blocks)
    return trainable(model)


def trainable(model: Any) -> dict[str, torch.nn.Parameter]:
    """The weights of a model that are trained, by key."""
    return {key: weight for key, weight in model.named_parameters() if weight.requires_grad}


def compiles(settings: Mapping[str, Any]) -> bool:
    """Whether blocks are compiled: as the run says, and where it says nothing, on NVIDIA's GPUs if a compiler is there.

    Blocks whose weights are split are not: they would be compiled with what fetches the weights.
    """
    wanted = settings["compile"]
    if wanted is not None or this_device().kind != "cuda" or split(settings):
        return bool(wanted)
    if missing := this_device().missing_compiler():
        log.info("not compiled, for want of %s: steps take up to one and a half times as long", missing)
    return not missing


def prepare(model: Any, recompute_activations: bool, compile_blocks: bool) -> None:
    """Recompute activations or keep them; compile the transformer's blocks.

    stable-audio-tools recomputes activations always, which a large model needs and a small one only pays for
    (`use_checkpointing`, stable_audio_tools/models/transformer.py). Raises InputError where blocks cannot be compiled.
    """
    dit = model.model.model
    dit.timestep_features.forward = functools.partial(in_float32, dit.timestep_features.forward)
    if not recompute_activations:
        dit.transformer.forward = functools.partial(dit.transformer.forward, use_checkpointing=False)
    if compile_blocks:
        if missing := this_device().missing_compiler():
            raise InputError(f"compile needs {missing}, which is not installed: install it, or set compile to false")
        # stable-audio-tools turns this on as it is imported: what cannot be compiled would run eagerly, without a word.
        torch._dynamo.config.suppress_errors = False
        for block in dit.transformer.layers:
            block.compile(dynamic=False)


def in_float32(forward: Any, t: torch.Tensor) -> torch.Tensor:
    """Call `forward`, the Fourier features of the timesteps `t [batch, 1]`, past autocast.

    Autocast would round timesteps to 8 binary digits (0.9985 to 1.0), and angles of up to 20 as well, while rendering
    does neither.
    """
    with torch.autocast(t.device.type, enabled=False):
        return forward(t.float())


def low_precision(module: torch.nn.Module) -> None:
    """Keep the matrices of linear layers and convolutions in bfloat16.

    All else stays float32: norms, biases, the embedding of timesteps, and matrices that are too small for 8-bit states.
    """
    for name, layer in module.named_modules():
        if isinstance(layer, torch.nn.Linear | torch.nn.Conv1d) and is_quantized(f"{name}.", layer.weight.numel()):
            layer.weight.data = layer.weight.data.to(torch.bfloat16)


def compiled_graphs() -> int:
    """How many graphs `torch.compile` has made in this process; raises InputError if none."""
    graphs = int(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    if not graphs:
        raise InputError("compile: torch compiled nothing, and runs eagerly: set compile to false")
    return graphs
