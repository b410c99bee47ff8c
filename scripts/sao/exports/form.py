"""What a form of export is. This module needs no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sao.models.config import ModelConfig

if TYPE_CHECKING:
    import torch

EXACT = "float32"
PRECISIONS = (EXACT, "float16", "bfloat16")

Weights = dict[str, "torch.Tensor"]


@dataclass(frozen=True)
class Source:
    """What an export is made of. `base`, `adapter` and `tensors` are of an adapter."""

    name: str  # of the run
    config: ModelConfig
    config_file: Path
    model: Weights  # the merged model, by the keys of stable-audio-tools
    hub: Path  # cache with the model's text encoder
    window: int  # latent frames of the training window
    sampling: dict[str, Any]
    base: Weights  # the weights that the adapter was trained on
    adapter: Path | None  # lora.safetensors of the leg


@dataclass(frozen=True)
class Form:
    """A form of export: whether it is of the adapter or of the merged model, and how it is written.

    `refusal` says what of a model the form cannot express, or None. `write` fills a folder, and returns the weights of the
    model that a program has after it loaded the form, by the keys of stable-audio-tools. These need not be all.
    """

    of_adapter: bool
    refusal: Callable[[ModelConfig], str | None]
    write: Callable[[Source, str, Path], Weights]


def anything(_: ModelConfig) -> None:
    """The `refusal` of a form that can express every model."""
