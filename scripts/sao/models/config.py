"""What the graph needs to know of a stable-audio-tools `model_config.json`, without torch."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sao.base.command import InputError

from sao.base.files import read_json

ModelConfig = dict[str, Any]

# stable-audio-tools loads these by name (laion_clap knows one text encoder and cuts after 77 tokens).
CLAP_TEXT_ENCODER, CLAP_TOKENS = "roberta-base", 77
GIVEN = ("prompt", "seconds_start", "seconds_total")  # what a clip tells the conditioners
SAMPLERS = {
    "v": (
        "dpmpp-3m-sde",
        "dpmpp-2m-sde",
        "dpmpp-2m",
        "k-heun",
        "k-lms",
        "k-dpmpp-2s-ancestral",
        "k-dpm-2",
        "k-dpm-fast",
        "k-dpm-adaptive",
    ),
    "rectified_flow": ("euler", "rk4", "dpmpp", "pingpong"),
    "rf_denoiser": ("euler", "rk4", "dpmpp", "pingpong"),
}  # by diffusion objective (stable_audio_tools/inference/sampling.py)


def read_model_config(file: Path, source: str | None = None) -> ModelConfig:
    """The config of a `diffusion_cond` latent model; raises InputError on anything else and on what is missing in it.

    `source` is what messages call the file, where its path says nothing to a user.
    """
    path = source or file
    try:
        config = read_json(file)
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON ({error})") from None
    if not isinstance(config, dict):
        raise InputError(f"{path}: not a model config, but a {type(config).__name__}")
    if config.get("model_type") != "diffusion_cond":
        raise InputError(
            f"{path}: model_type is {config.get('model_type')!r}; only 'diffusion_cond' can be fine-tuned here"
        )
    model = _need(config, path, "model", dict)
    if "pretransform" not in model:
        raise InputError(f"{path}: has no model.pretransform: only latent models can be fine-tuned here")
    kind = _need(config, path, "model.pretransform.type", str)
    if kind != "autoencoder":
        raise InputError(f"{path}: model.pretransform.type is {kind!r}; only 'autoencoder' can be fine-tuned here")
    pretransform = "model.pretransform.config"
    sizes = ("downsampling_ratio", "io_channels")
    for key in ("sample_rate", "sample_size", "model.io_channels", *(f"{pretransform}.{size}" for size in sizes)):
        if _need(config, path, key, int) < 1:
            raise InputError(f"{path}: {key} is not positive: correct it")
    if config["sample_size"] < downsampling_ratio(config):
        raise InputError(f"{path}: sample_size is less than one latent frame (downsampling_ratio): correct it")
    _need(config, path, "model.diffusion.config", dict)
    kind = _need(config, path, "model.diffusion.type", str)
    if kind != "dit":
        raise InputError(f"{path}: model.diffusion.type is {kind!r}; only 'dit' can be fine-tuned here")
    patch = config["model"]["diffusion"]["config"].get("patch_size", 1)
    if not isinstance(patch, int) or isinstance(patch, bool) or patch < 1:
        raise InputError(
            f"{path}: model.diffusion.config.patch_size is {patch!r}, no positive whole number: correct it"
        )
    if objective(config) not in SAMPLERS:
        raise InputError(
            f"{path}: model.diffusion.diffusion_objective is {objective(config)!r}; known are {', '.join(SAMPLERS)}"
        )
    _need(config, path, "model.conditioning.cond_dim", int)
    for number, entry in enumerate(_need(config, path, "model.conditioning.configs", list)):
        for key, kind in (("id", str), ("type", str), ("config", dict)):
            if not isinstance(entry, dict) or not isinstance(entry.get(key), kind):
                raise InputError(f"{path}: model.conditioning.configs, entry {number + 1}: has no {key}")
    try:
        text = text_conditioner(config)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    default_keys = model["conditioning"].get("default_keys", {})
    for entry in model["conditioning"]["configs"]:
        key = entry["id"] if entry["id"] in GIVEN else default_keys.get(entry["id"], entry["id"])
        if key not in GIVEN or (key == "prompt") != (entry is text):
            raise InputError(
                f"{path}: conditioner {entry['id']!r} ({entry['type']}) needs what a clip does not tell: a caption "
                "goes to the text conditioner `prompt`, its length to `seconds_start` and `seconds_total`"
            )
    if not isinstance(text_max_length(config), int) or not isinstance(text_encoder_name(config), str):
        raise InputError(f"{path}: the t5 conditioner's t5_model_name is no text, or its max_length no whole number")
    return config


def _need(config: ModelConfig, path: object, key: str, kind: type) -> Any:
    """The value at a dotted key; raises InputError unless it is there and of this type."""
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    if not isinstance(value, kind) or isinstance(value, bool):
        names = {int: "a whole number", str: "text", list: "a list", dict: "an object"}
        found = "is missing" if value is None else f"is {str(value)[:60]!r}"
        raise InputError(f"{path}: {key} {found}; a model config has {names[kind]} there")
    return value


def objective(config: ModelConfig) -> str:
    """What the diffusion model was trained to predict (stable-audio-tools' default is v)."""
    return config["model"]["diffusion"].get("diffusion_objective", "v")


def check_sampler(config: ModelConfig, sampler: str, steps: int) -> None:
    """Raise InputError on a sampler that stable-audio-tools does not have for this kind of model."""
    allowed = SAMPLERS[objective(config)]
    if sampler not in allowed:
        raise InputError(
            f"sampling.sampler is {sampler!r}, and the model's diffusion objective is {objective(config)!r}: set "
            f"base_models.<name>.sampling.sampler to one of {', '.join(allowed)}"
        )
    if sampler.endswith("-sde") and steps < 2:  # k-diffusion's fail at the first
        raise InputError(f"sampling.steps is {steps}; {sampler} takes 2 or more")


def downsampling_ratio(config: ModelConfig) -> int:
    """Audio samples a latent frame."""
    return config["model"]["pretransform"]["config"]["downsampling_ratio"]


def window_frames(config: ModelConfig, train_seconds: float | None) -> int:
    """Latent frames of the training window: `train_seconds`, or the model's own `sample_size`, rounded up.

    Up to what the diffusion transformer can process: a whole number of its patches. Raises InputError when the window is
    longer than what the model was made for.
    """
    own, rate = config["sample_size"], config["sample_rate"]
    samples = own if train_seconds is None else max(round(train_seconds * rate), 1)
    if samples > own:
        raise InputError(
            f"train_seconds = {train_seconds:g} is longer than the model's window of {math.floor(1000 * own / rate) / 1000:g} s: set it to null or "
            "less"
        )
    patch = config["model"]["diffusion"]["config"].get("patch_size", 1)
    return math.ceil(samples / (downsampling_ratio(config) * patch)) * patch


def text_conditioner(config: ModelConfig) -> ModelConfig:
    """The T5 or CLAP entry of `model.conditioning.configs`, its `id` being the key that a caption goes to."""
    entries = [c for c in config["model"]["conditioning"]["configs"] if c["type"] in ("t5", "clap_text")]
    if len(entries) != 1:
        there = ", ".join(f"{c['id']} ({c['type']})" for c in config["model"]["conditioning"]["configs"]) or "none"
        raise InputError(
            f"has {len(entries)} t5 or clap_text conditioners; exactly one is supported; its conditioners: {there}"
        )
    return entries[0]


def has_clap(config: ModelConfig) -> bool:
    """Whether captions go through CLAP, whose checkpoint is a file of its own."""
    return text_conditioner(config)["type"] == "clap_text"


def text_encoder_name(config: ModelConfig) -> str:
    """The Hub name under which the text encoder is loaded (stable-audio-tools' default is t5-base)."""
    return CLAP_TEXT_ENCODER if has_clap(config) else text_conditioner(config)["config"].get("t5_model_name", "t5-base")


def text_max_length(config: ModelConfig) -> int:
    """Tokens after which the text encoder truncates (stable-audio-tools' default is 128)."""
    return CLAP_TOKENS if has_clap(config) else text_conditioner(config)["config"].get("max_length", 128)


def snapshot_folder(hub: Path, repo: str) -> Path:
    """The one snapshot of a repository in a Hub cache."""
    root = hub / f"models--{repo.replace('/', '--')}"
    return root / "snapshots" / (root / "refs" / "main").read_text(encoding="utf-8").strip()


def training_config(config: ModelConfig, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The `training` section of a model config with the run's changes; raises InputError where it makes no training."""
    training = copy.deepcopy(config.get("training") or {})
    chosen = (training.get("optimizer_configs") or {}).get("diffusion") or {}
    if not chosen:  # stable-audio-tools' own default
        chosen = {"optimizer": {"type": "Adam", "config": {"lr": training.get("learning_rate")}}}
    if settings["optimizer"] is not None:
        chosen["optimizer"] = copy.deepcopy(settings["optimizer"])
    if settings["scheduler"] is not None:
        chosen["scheduler"] = settings["scheduler"]
    for part in ("optimizer", *(["scheduler"] if chosen.get("scheduler") else [])):
        if not isinstance(chosen.get(part), dict) or not isinstance(chosen[part].get("type"), str):
            raise InputError(
                f"the model config's training.optimizer_configs.diffusion.{part} has no type: set the run's {part}"
            )
    options = chosen["optimizer"]["config"] = chosen["optimizer"].get("config") or {}
    if settings["learning_rate"] is not None:
        options["lr"] = settings["learning_rate"]
    if options.get("lr") is None:
        raise InputError("the optimiser has no learning rate: set learning_rate in the run")
    if settings["ema"] is None:
        training["use_ema"] = (
            training.get("use_ema", True) and settings["method"] == "full" and settings["precision"] != "bf16-true"
        )
    else:
        training["use_ema"] = settings["ema"]
    if settings["precision"] == "bf16-true" and training["use_ema"]:
        raise InputError("a moving average in bfloat16 does not move: set ema to false")
    return training | {"optimizer_configs": {"diffusion": chosen}}
