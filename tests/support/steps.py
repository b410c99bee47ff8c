"""Small models and batches for one step of a training, and the section of a model config that describes it."""

from __future__ import annotations

import copy
import functools
import importlib
import math
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import torch
from sao.base.files import read_json
from sao.training.dataset import collate

FRAMES = 24


PROMPTS = ["Rain falls on a tin roof.", "A dog barks twice.", "Wind in the leaves", "Birds sing at dawn."]


def rectified_flow(config: dict) -> None:
    config["model"]["diffusion"]["diffusion_objective"] = "rectified_flow"


def shifted(config: dict) -> None:
    rectified_flow(config)
    config["model"]["diffusion"]["distribution_shift_options"] = {"min_length": 8, "max_length": 64}


def prepended(config: dict) -> None:
    config["model"]["diffusion"]["prepend_cond_ids"] = ["seconds_total"]
    config["model"]["diffusion"]["config"]["prepend_cond_dim"] = config["model"]["conditioning"]["cond_dim"]


def masked(config: dict) -> None:
    shifted(config)
    config["model"]["diffusion"] |= {"mask_padding_attention": True, "use_effective_length_for_schedule": True}


def inpainting(config: dict) -> None:
    """Of the form of Stable Audio 3."""
    masked(config)
    config["model_type"] = "diffusion_cond_inpaint"
    config["model"]["diffusion"]["local_add_cond_ids"] = ["inpaint_mask", "inpaint_masked_input"]
    config["model"]["diffusion"]["config"]["local_add_cond_dim"] = 65


VARIANTS: dict[str, Callable[[dict], None]] = {
    "v": lambda config: None,
    "rectified_flow": rectified_flow,
    "shifted": shifted,
    "prepended": prepended,
    "masked": masked,
    "inpainting": inpainting,
}


@functools.cache
def _made(base_model: Path, variant: str) -> torch.nn.Module:
    from sao.models.build import build, load_weights

    config = read_json(base_model / "model_config.json")
    VARIANTS[variant](config)
    torch.manual_seed(0)
    model = build(config, base_model / "hub")
    if variant == "v":
        load_weights(model, base_model / "model.safetensors")
    with torch.no_grad():
        for weight in model.model.parameters():
            if not weight.any():
                weight.normal_(std=0.1)
    return model


def make_model(base_model: Path, variant: str = "v") -> torch.nn.Module:
    """A model like the demo's, but without weights that are all zeros, because those would hide errors.

    All share the frozen autoencoder, whose weight norm cannot be copied, and the text encoder with its tokenizer.
    """
    model = _made(base_model, variant)
    prompt = model.conditioner.conditioners["prompt"]
    torch.manual_seed(0)
    return copy.deepcopy(
        model, {id(part): part for part in (model.pretransform, prompt.__dict__["model"], prompt.tokenizer)}
    )


@functools.cache
def shared_model(base_model: Path, variant: str = "v") -> torch.nn.Module:
    """A model of `make_model`, made once for each kind. Tests must not change it."""
    return make_model(base_model, variant)


def info(number: int, frames: int = FRAMES) -> dict:
    valid = (frames, 11, 7, 20)[number % 4]
    mask = torch.arange(frames) < valid
    return {
        "prompt": PROMPTS[number % 4],
        "seconds_start": number % 3,
        "seconds_total": 2 + number,
        "padding_mask": [mask],
    }


def with_conditions(batch: dict, model: torch.nn.Module) -> dict:
    """A batch with what the conditioners need, as the dataset gives it, from the `info` of its clips."""
    from sao.models.text import encode_caption

    infos, device = batch["info"], batch["noise"].device
    encoded = [encode_caption(model.conditioner.conditioners["prompt"], one["prompt"], device) for one in infos]
    text, mask = (torch.stack([part.clone() for part in parts]) for parts in zip(*encoded, strict=True))
    names = {model.conditioner.default_keys.get(key, key) for key in model.conditioner.conditioners} - {"prompt"}
    numbers = {name: torch.tensor([float(one[name]) for one in infos], device=device) for name in sorted(names)}
    ratio, rate = model.pretransform.downsampling_ratio, model.sample_rate
    lengths = [math.ceil(int(one["seconds_total"] * rate) / ratio) for one in infos]
    given = {"text": text, "text_mask": mask, "numbers": numbers, "length": torch.tensor(lengths, device=device)}
    return batch | given


def collated(items: list[dict]) -> dict:
    """A batch of items without conditions, with the `info` of each."""
    return collate([item | {"numbers": {}, "length": 0} for item in items]) | {"info": [item["info"] for item in items]}


def make_batch(model: torch.nn.Module, seed: int = 0, size: int = 4, keep: bool = True) -> dict:
    generator = torch.Generator().manual_seed(seed)
    t = torch.rand(size, generator=generator).tolist()
    items = [
        {
            "latents": torch.randn(64, FRAMES, generator=generator),
            "noise": torch.randn(64, FRAMES, generator=generator),
            "t": t[number],
            "keep": keep,
            "info": info(number),
            "heard": info(number)["padding_mask"][0],
            "source": (torch.arange(FRAMES)[None] < number).float(),
        }
        for number in range(size)
    ]
    return with_conditions(collated(items), model)


def upstream_training() -> ModuleType:
    """stable-audio-tools' `training.diffusion`.

    It imports, and does not use here, a part of torchaudio that is gone and a package that pins an old protobuf.
    """
    for name in ("torchaudio.prototype", "torchaudio.prototype.transforms", "audiotools"):
        sys.modules.setdefault(name, ModuleType(name))
    sys.modules["torchaudio.prototype.transforms"].ChromaSpectrogram = None
    return importlib.import_module("stable_audio_tools.training.diffusion")


def section(optimizer: dict | None = None, scheduler: dict | None = None) -> dict:
    """The `training` section of a model config."""
    entries = {"optimizer": optimizer or {"type": "AdamW", "config": {"lr": 0.1}}}
    return {"optimizer_configs": {"diffusion": entries | ({"scheduler": scheduler} if scheduler else {})}}
