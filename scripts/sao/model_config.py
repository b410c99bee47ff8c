"""What the graph needs to know of a stable-audio-tools `model_config.json`, without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .command import InputError
from .files import read_json

ModelConfig = dict[str, Any]


def read_model_config(path: Path) -> ModelConfig:
    """The config of a `diffusion_cond` latent model; raises InputError on anything else."""
    try:
        config = read_json(path)
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON ({error})") from None
    if not isinstance(config, dict):
        raise InputError(f"{path}: not a model config, but a {type(config).__name__}")
    if config.get("model_type") != "diffusion_cond":
        raise InputError(
            f"{path}: model_type is {config.get('model_type')!r}; only 'diffusion_cond' can be fine-tuned here"
        )
    if "pretransform" not in config.get("model", {}):
        raise InputError(f"{path}: has no model.pretransform: only latent models can be fine-tuned here")
    return config


def downsampling_ratio(config: ModelConfig) -> int:
    """Audio samples a latent frame."""
    return config["model"]["pretransform"]["config"]["downsampling_ratio"]


def window_frames(config: ModelConfig, window_seconds: float | None) -> int:
    """Latent frames of the training window: `window_seconds` rounded up, or the model's own `sample_size`.

    Raises InputError when the window is longer than what the model was made for.
    """
    ratio, own = downsampling_ratio(config), config["sample_size"]
    if window_seconds is None:
        return own // ratio
    frames = -(-round(window_seconds * config["sample_rate"]) // ratio)
    if frames * ratio > own:
        raise InputError(
            f"window_seconds = {window_seconds} is longer than the model's window of {own / config['sample_rate']:.2f} s; "
            "set it to null or less"
        )
    return frames


def text_conditioner(config: ModelConfig) -> ModelConfig:
    """The T5 entry of `model.conditioning.configs`, its `id` being the key that a caption goes to."""
    entries = [c for c in config["model"]["conditioning"]["configs"] if c["type"] == "t5"]
    if len(entries) != 1:
        raise InputError(f"model_config.json: has {len(entries)} t5 conditioners; exactly one is supported")
    return entries[0]


def text_encoder_name(config: ModelConfig) -> str:
    """The Hub name under which stable-audio-tools loads the text encoder (its default is t5-base)."""
    return text_conditioner(config)["config"].get("t5_model_name", "t5-base")


def text_max_length(config: ModelConfig) -> int:
    """Tokens after which the text encoder truncates (stable-audio-tools' default is 128)."""
    return text_conditioner(config)["config"].get("max_length", 128)


def snapshot_folder(hub: Path, repo: str) -> Path:
    """The one snapshot of a repository in a Hub cache."""
    root = hub / f"models--{repo.replace('/', '--')}"
    return root / "snapshots" / (root / "refs" / "main").read_text(encoding="utf-8").strip()
