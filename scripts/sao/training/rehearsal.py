"""Build and run a model on torch's meta device, so that its errors show before gigabytes are fetched.

Tensors on this device have shapes but no values. So a rehearsal needs no weights, hardly any memory, and about a second.
"""

from __future__ import annotations

from typing import Any

from sao.base.command import InputError, about, output_to_log

import torch

from sao.models.autoencoder import moments
from sao.models.build import create, first_line
from sao.models.config import (
    CLAP_TOKENS,
    SOURCE_INPUTS,
    ModelConfig,
    downsampling_ratio,
    has_clap,
    inpaints,
    text_conditioner,
    text_max_length,
    training_config,
    window_frames,
)
from sao.models.header import Shapes
from sao.models.text import without_text_encoder
from sao.training import draws
from sao.training.adapters import adapted_modules
from sao.training.inpainting import inpaint_mask
from sao.training.optimizer import try_optimizer
from sao.training.schedule import check_schedule


def rehearse(config: ModelConfig, source: object, trainings: dict[str, dict[str, Any]]) -> Shapes:
    """Build the model of `config`, encode, denoise and decode one window with it, and prepare each of `trainings`.

    `trainings` has the settings of runs by name. `source` names the origin of the config in messages. Returns the shapes
    of the model's weights by key. Raises InputError on the first thing that would not work.
    """
    with torch.device("meta"), torch.no_grad():
        with without_text_encoder(clap_has_to_be_there=True):
            model = create(config, source)
        try:
            with about(source), output_to_log():
                _run(config, model)
        except InputError:
            raise
        except Exception as error:  # noqa: BLE001 - a model may raise anything; it becomes one clear line
            raise InputError(
                f"{source}: the model cannot process a clip of {window_frames(config, None)} latent frames "
                f"({type(error).__name__}: {first_line(error)}): correct its dimensions"
            ) from None
    for name, settings in trainings.items():
        with about(f"run {name}"):
            check_training(config, settings, model)
    return {key: tuple(weight.shape) for key, weight in model.state_dict().items()}


def check_training(config: ModelConfig, settings: dict[str, Any], model: Any = None) -> None:
    """Raise InputError if a run's optimiser, schedule or timesteps cannot be made. With a `model`, check the adapter too."""
    training = training_config(config, settings)
    try_optimizer(training, settings)
    if settings.get("steps"):
        check_schedule(training, settings["steps"])
    sampler = training.get("timestep_sampler", "uniform")
    try:
        draws.timestep(0.5, sampler, training.get("timestep_sampler_options") or {})
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(f"the model config's training.timestep_sampler is not usable ({first_line(error)})") from None
    if (inpainting := training.get("inpainting")) is not None:
        try:
            inpaint_mask(torch.ones(8, dtype=torch.bool), inpainting.get("mask_kwargs", {}), False, "rehearsal")
        except (ValueError, TypeError, IndexError) as error:
            raise InputError(
                f"training.inpainting.mask_kwargs cannot be used ({first_line(error)}): correct it"
            ) from None
    if model is not None and settings["method"] != "full":
        names = adapted_modules(model.model, settings["adapter"])
        if settings["method"].endswith("-xs"):
            from sao.training.forms import check_rank

            check_rank(model.model, names, settings["method"], settings["adapter"]["rank"])


def _run(config: ModelConfig, model: Any) -> None:
    """Raise InputError unless a window passes through the autoencoder and the diffusion model with the expected shapes."""
    frames, ratio, width = window_frames(config, None), downsampling_ratio(config), config["model"]["io_channels"]
    autoencoder = model.pretransform.model
    channels = model.pretransform.io_channels
    mean, _ = moments(autoencoder, torch.empty(channels, frames * ratio))
    if tuple(mean.shape) != (width, frames):
        raise InputError(
            f"the autoencoder makes latents of {mean.shape[0]} channels and {mean.shape[1]} frames from {frames * ratio} "
            f"samples, but model.io_channels is {width} and downsampling_ratio {ratio}: correct the config"
        )
    audio = autoencoder.decode(mean[None])
    if tuple(audio.shape) != (1, channels, frames * ratio):
        raise InputError(
            f"the autoencoder's decoder makes audio of shape {tuple(audio.shape[1:])} from {frames} latent frames, instead "
            f"of {channels} channels and {frames * ratio} samples: correct the config"
        )
    conditions: dict[str, tuple[torch.Tensor, torch.Tensor | None]] = {}
    for entry in config["model"]["conditioning"]["configs"]:
        length = _tokens(config) if entry is text_conditioner(config) else 1
        shape = (1, length, config["model"]["conditioning"]["cond_dim"])
        conditions[entry["id"]] = (torch.empty(shape), torch.ones(shape[:2], dtype=torch.bool))
    if inpaints(config):
        conditions |= {
            key: (torch.empty(1, size, frames), None) for key, size in zip(SOURCE_INPUTS, (1, width), strict=True)
        }
    output = model.model(torch.empty(1, width, frames), torch.empty(1), **model.get_conditioning_inputs(conditions))
    if tuple(output.shape) != (1, width, frames):
        raise InputError(
            f"the diffusion model makes shape {tuple(output.shape[1:])} from latents of shape {(width, frames)}: correct "
            "the config"
        )


def _tokens(config: ModelConfig) -> int:
    """The number of vectors that the text conditioner gives for a prompt. CLAP gives one, unless it uses text features."""
    if has_clap(config):
        return CLAP_TOKENS if text_conditioner(config)["config"].get("use_text_features") else 1
    return text_max_length(config)
