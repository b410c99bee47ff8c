"""Read and check a stable-audio-tools `model_config.json`, and answer questions about it. This module needs no torch."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sao.base.command import InputError, about

from sao.base.files import read_json
from sao.config.settings import TrainSeconds

ModelConfig = dict[str, Any]

MODEL_TYPES = ("diffusion_cond", "diffusion_cond_inpaint")
# stable-audio-tools loads text encoders by name. By the type of their conditioner: the key of the name, and its default.
TEXT_ENCODERS = {"t5": ("t5_model_name", "t5-base"), "t5gemma": ("model_name", "google/t5gemma-b-b-ul2")}
# laion_clap knows one text encoder, and cuts after 77 tokens.
CLAP_TEXT_ENCODER, CLAP_TOKENS = "roberta-base", 77
CLIP_INPUTS = ("prompt", "seconds_start", "seconds_total")  # values that every clip has for the conditioners
NUMBERS = ("number", "int")  # types of conditioners that take a number, from CLIP_INPUTS or a column of the metadata
CHUNKED, CHUNK_DEFAULT = ("taae_v2", "same"), 128  # types of encoders that attend within chunks, of so many tokens
SOURCE_INPUTS = ("inpaint_mask", "inpaint_masked_input")  # what an inpainting model is given of the source
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
    """Read the config of a latent diffusion model with conditioners. Raises InputError on other models and missing parts.

    `source` is the name of the file in messages, if its path means nothing to a user.
    """
    path = source or file
    try:
        config = read_json(file)
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON ({error})") from None
    if not isinstance(config, dict):
        raise InputError(f"{path}: not a model config but a {type(config).__name__}")
    if config.get("model_type") not in MODEL_TYPES:
        raise InputError(
            f"{path}: model_type is {config.get('model_type')!r}; only {' and '.join(map(repr, MODEL_TYPES))} can be "
            "fine-tuned here"
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
            f"{path}: model.diffusion.config.patch_size is {patch!r}, not a positive whole number: correct it"
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
    with about(path):
        _check_inputs(config)
    return config


def _check_inputs(config: ModelConfig) -> None:
    """Raise InputError on an input of the model that clips, their metadata and their captions cannot give."""
    text = text_conditioner(config)
    for entry in config["model"]["conditioning"]["configs"]:
        takes_caption = input_of(config, entry) == "prompt"
        if takes_caption != (entry is text) or (entry is not text and entry["type"] not in NUMBERS):
            raise InputError(
                f"conditioner {entry['id']!r} ({entry['type']}) needs a value that clips do not have: a caption goes to the "
                f"text conditioner `prompt`, and a number from the metadata to one of type {' or '.join(NUMBERS)}"
            )
    if not isinstance(text_max_length(config), int) or not isinstance(text_encoder_name(config), str):
        raise InputError(
            f"the {text['type']} conditioner's name of a text encoder is not text, or its max_length is not a whole number"
        )
    if trained := next((key for key in ("enable_grad", "finetune") if text["config"].get(key)), None):
        raise InputError(
            f"the {text['type']} conditioner has {trained}, but text encoders are not trained here: set it to false"
        )
    if text["config"].get("model_path"):
        raise InputError(
            f"the {text['type']} conditioner has a model_path, a folder of the machine that wrote the config: remove it, and "
            "name the repository of the text encoder"
        )
    known = {entry["id"] for entry in config["model"]["conditioning"]["configs"]}
    known |= set(SOURCE_INPUTS) if inpaints(config) else set()
    for place, names in config["model"]["diffusion"].items():
        if unknown := [name for name in names if name not in known] if place.endswith("_ids") else []:
            raise InputError(f"model.diffusion.{place} names {unknown[0]!r}, and the model has no such conditioner")


def input_of(config: ModelConfig, entry: ModelConfig) -> str:
    """The name of the value that a conditioner takes: its id, or the key that the config has for it instead."""
    default_keys = config["model"]["conditioning"].get("default_keys", {})
    return entry["id"] if entry["id"] in CLIP_INPUTS else default_keys.get(entry["id"], entry["id"])


def inpaints(config: ModelConfig) -> bool:
    """Whether the model is given a part of the sound, and generates the rest."""
    return config["model_type"] == "diffusion_cond_inpaint"


def _need(config: ModelConfig, path: object, key: str, kind: type) -> Any:
    """The value at a dotted key. Raises InputError if it is missing or of another type."""
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    if not isinstance(value, kind) or isinstance(value, bool):
        names = {int: "a whole number", str: "text", list: "a list", dict: "an object"}
        fault = "is missing" if value is None else f"is {str(value)[:60]!r}"
        raise InputError(f"{path}: {key} {fault}; a model config has {names[kind]} there")
    return value


def objective(config: ModelConfig) -> str:
    """The diffusion model's training objective (stable-audio-tools' default is v)."""
    return config["model"]["diffusion"].get("diffusion_objective", "v")


def is_distilled(config: ModelConfig) -> bool:
    """Whether the model was trained further, to make a sound in few steps without guidance (ARC post-training)."""
    return objective(config) == "rf_denoiser"


def check_sampler(config: ModelConfig, sampler: str, steps: int) -> None:
    """Raise InputError on a sampler that stable-audio-tools does not have for this kind of model."""
    allowed = SAMPLERS[objective(config)]
    if sampler not in allowed:
        raise InputError(
            f"sampling.sampler is {sampler!r}, and the model's diffusion objective is {objective(config)!r}: set "
            f"base_models.<name>.sampling.sampler to one of {', '.join(allowed)}"
        )
    # It takes the first row of a table of schedules for the schedule, and returns the noise that it began with.
    if sampler == "rk4" and config["model"]["diffusion"].get("use_effective_length_for_schedule"):
        raise InputError(
            "sampling.sampler is 'rk4', which in stable-audio-tools has no schedule by the length of a sound, as the model "
            "wants it: set base_models.<name>.sampling.sampler to euler, dpmpp or pingpong"
        )
    if sampler.endswith("-sde") and steps < 2:  # k-diffusion's SDE samplers fail with one step
        raise InputError(f"sampling.steps is {steps}; {sampler} needs 2 or more")


def downsampling_ratio(config: ModelConfig) -> int:
    """Audio samples per latent frame."""
    return config["model"]["pretransform"]["config"]["downsampling_ratio"]


def window_frames(config: ModelConfig, train_seconds: TrainSeconds) -> int:
    """Latent frames of the training window: `train_seconds`, or the model's own `sample_size`.

    The number is rounded up to whole patches of the diffusion transformer and whole chunks of the autoencoder. Raises
    InputError if the window is longer than the model's own.
    """
    if isinstance(train_seconds, str):
        train_seconds = read_json(Path(train_seconds))["train_seconds"]
    own, rate = config["sample_size"], config["sample_rate"]
    samples = own if train_seconds is None else max(round(train_seconds * rate), 1)
    if samples > own:
        raise InputError(
            f"train_seconds = {train_seconds:g} is longer than the model's window of {math.floor(1000 * own / rate) / 1000:g} s: set it to null or "
            "less"
        )
    whole = math.lcm(config["model"]["diffusion"]["config"].get("patch_size", 1), chunk_frames(config))
    return math.ceil(samples / (downsampling_ratio(config) * whole)) * whole


def chunk_frames(config: ModelConfig) -> int:
    """The latent frames of a chunk of an autoencoder whose transformer attends within chunks; 1 for others.

    Such an autoencoder pads its input to whole chunks. See `latent_align` in stable_audio_tools/inference/generation.py.
    """
    encoder = config["model"]["pretransform"]["config"].get("encoder") or {}
    options = encoder.get("config") or {}
    if encoder.get("type") not in CHUNKED or options.get("sliding_window") is not None:
        return 1
    return max(1, options.get("chunk_size", CHUNK_DEFAULT) // options["strides"][0])


def text_conditioner(config: ModelConfig) -> ModelConfig:
    """The entry of `model.conditioning.configs` that takes a clip's caption, whose key is its `id`."""
    kinds = (*TEXT_ENCODERS, "clap_text")
    entries = [c for c in config["model"]["conditioning"]["configs"] if c["type"] in kinds]
    if len(entries) != 1:
        names = ", ".join(f"{c['id']} ({c['type']})" for c in config["model"]["conditioning"]["configs"]) or "none"
        raise InputError(
            f"has {len(entries)} text conditioners ({', '.join(kinds)}); exactly one is supported; its conditioners: {names}"
        )
    return entries[0]


def has_clap(config: ModelConfig) -> bool:
    """Whether captions go through CLAP, which has a checkpoint file of its own."""
    return text_conditioner(config)["type"] == "clap_text"


def text_encoder_name(config: ModelConfig) -> str:
    """The repository on the Hub that stable-audio-tools loads the text encoder from."""
    return text_encoder_names(config)[0]


def text_encoder_names(config: ModelConfig) -> list[str]:
    """The repositories on the Hub that have the text encoder: the one that it is loaded from, and that of its makers."""
    if has_clap(config):
        return [CLAP_TEXT_ENCODER]
    entry = text_conditioner(config)
    key, default = TEXT_ENCODERS[entry["type"]]
    named = entry["config"].get(key, default)
    return list(dict.fromkeys([entry["config"].get("repo_id") or named, named]))


def text_encoder_folder(config: ModelConfig) -> str:
    """The folder of the text encoder in its repository; empty for the repository itself."""
    return text_conditioner(config)["config"].get("subfolder") or ""


def text_max_length(config: ModelConfig) -> int:
    """The number of tokens after which a caption is cut (stable-audio-tools' default is 128)."""
    return CLAP_TOKENS if has_clap(config) else text_conditioner(config)["config"].get("max_length", 128)


def snapshot_folder(hub: Path, repo: str) -> Path:
    """The folder of a repository's only snapshot in a Hub cache."""
    root = hub / f"models--{repo.replace('/', '--')}"
    return root / "snapshots" / (root / "refs" / "main").read_text(encoding="utf-8").strip()


def text_encoder_place(hub: Path, config: ModelConfig) -> Path:
    """The folder of the model's text encoder in a Hub cache."""
    return snapshot_folder(hub, text_encoder_name(config)) / text_encoder_folder(config)


def training_config(config: ModelConfig, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The `training` section of a model config, with the run's changes. Raises InputError if it is incomplete."""
    training = copy.deepcopy(config.get("training") or {}) | copy.deepcopy(settings["training"])
    if training.get("ot_coupling") and settings.get("accumulate") == "auto":
        raise InputError(
            "ot_coupling pairs noise and clips that pass together, and accumulate: auto would let the device's memory decide how "
            "many: set accumulate to a number"
        )
    if "inpainting" in settings["training"] and not inpaints(config):
        raise InputError("training.inpainting is for inpainting models, and the base model is none: remove it")
    parts = (training.get("optimizer_configs") or {}).get("diffusion") or {}
    if not parts:  # stable-audio-tools' own default
        parts = {"optimizer": {"type": "Adam", "config": {"lr": training.get("learning_rate")}}}
    if settings["optimizer"] is not None:
        parts["optimizer"] = copy.deepcopy(settings["optimizer"])
    if settings["scheduler"] is not None:
        parts["scheduler"] = settings["scheduler"]
    for part in ("optimizer", *(["scheduler"] if parts.get("scheduler") else [])):
        if not isinstance(parts.get(part), dict) or not isinstance(parts[part].get("type"), str):
            raise InputError(
                f"the model config's training.optimizer_configs.diffusion.{part} has no type: set the run's {part}"
            )
    options = parts["optimizer"]["config"] = parts["optimizer"].get("config") or {}
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
    if training.pop("mask_padding_dropout", 0.0):
        raise InputError(
            "the model config's training.mask_padding_dropout is unknown to stable-audio-tools 0.0.20: remove it, and set "
            "training.mask_loss_weight between 0 and 1"
        )
    # Stable-audio-tools 0.0.20 has 0 where nothing is said. Models of before were trained on the silence after a clip, too.
    training.setdefault("mask_loss_weight", 0.0 if training.pop("mask_padding", False) else 1.0)
    if settings["precision"] == "bf16-true" and training["use_ema"]:
        raise InputError("a moving average in bfloat16 does not move: set ema to false")
    return training | {"optimizer_configs": {"diffusion": parts}}
