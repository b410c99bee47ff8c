"""Building stable-audio-tools models offline and loading weights without a silent mismatch."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from .command import InputError, output_to_log
from .model_config import ModelConfig

if TYPE_CHECKING:
    import torch


def build(config: ModelConfig, hub: Path) -> torch.nn.Module:
    """The model of `config`, randomly initialised, its text encoder taken from the Hub cache `hub`.

    stable-audio-tools loads the text encoder by name while it builds. Has to be called before anything imports
    huggingface_hub, which reads its settings once.
    """
    os.environ["HF_HUB_CACHE"] = str(hub.resolve())
    os.environ["HF_HUB_OFFLINE"] = "1"
    with output_to_log():
        warnings.filterwarnings("ignore", category=FutureWarning)
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message="pkg_resources")
        from stable_audio_tools.models.factory import create_model_from_config

        return create_model_from_config(config)


def load_weights(model: torch.nn.Module, path: Path) -> None:
    """Load a safetensors file into `model`; raises InputError unless every key matches, with equal shape."""
    state = read_safetensors(path)
    assert_same_keys({k: v.shape for k, v in state.items()}, {k: v.shape for k, v in model.state_dict().items()}, path)
    model.load_state_dict(state, strict=True)


def read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """Tensors by key; raises InputError on anything that is not a safetensors file."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise InputError(f"{path}: not a whole safetensors file ({error})") from None


def assert_same_keys(found: dict[str, tuple], expected: dict[str, tuple], path: Path) -> None:
    """Raise InputError, with counts and an example, unless `found` has the keys and shapes of `expected`."""
    missing = sorted(set(expected) - set(found))
    unexpected = sorted(set(found) - set(expected))
    wrong = sorted(k for k in set(found) & set(expected) if tuple(found[k]) != tuple(expected[k]))
    complaints = [f"{len(missing)} keys are missing ({missing[0]} …)"] if missing else []
    complaints += [f"{len(unexpected)} are unexpected ({unexpected[0]} …)"] if unexpected else []
    complaints += [
        f"{len(wrong)} have another shape ({k}: {tuple(found[k])}, not {tuple(expected[k])})" for k in wrong[:1]
    ]
    if complaints:
        raise InputError(f"{path}: does not fit the model of {len(expected)} keys: {'; '.join(complaints)}")


def pick_device() -> str:
    """`cuda` where there is a GPU, else `cpu`."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
