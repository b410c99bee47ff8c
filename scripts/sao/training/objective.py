"""The loss: from a batch, with all that was drawn for it, to one number for each clip."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.nn.functional import mse_loss

from sao.base.names import seed_for
from sao.models.autoencoder import moments
from sao.training.dataset import Item

# What the network computes in under autocast. Everything around it, the objective and its target, is float32.
AUTOCAST = {"32-true": None, "16-mixed": torch.float16, "bf16-mixed": torch.bfloat16, "bf16-true": torch.bfloat16}


class Objective(torch.nn.Module):
    """The loss of a conditioned latent diffusion model, after DiffusionCondTrainingWrapper of stable-audio-tools.

    Nothing in it is drawn at random: noise, timestep and dropout come with the batch (sao/training/dataset.py). Noised latents,
    timesteps, target and loss are float32 in every `precision`; only the diffusion transformer runs in a lower one.
    """

    def __init__(self, model: Any, training: dict[str, Any], seed: int, precision: str = "32-true") -> None:
        super().__init__()
        self.dit, self.conditioner = model.model, model.conditioner
        # Not registered: it is neither trained nor needed on the device where there are latents.
        self.model: Any
        self.__dict__["model"] = model
        self.scale = float(getattr(model.pretransform, "scale", 1.0))
        self.mask_padding = training.get("mask_padding", False)
        self.mask_dropout, self.seed = training.get("mask_padding_dropout", 0.0), seed
        self.lower = AUTOCAST[precision]

    def forward(self, batch: Item, number: int | None) -> torch.Tensor:
        """Mean squared error `[batch]` of each clip.

        `number` is that of the batch among all of the training, on all devices: a mask is dropped for a whole batch. None
        for a validation, which masks nothing.
        """
        device = batch["noise"].device.type
        with torch.autocast(device, enabled=False):
            noise, t = batch["noise"], batch["t"]
            x = self.latents(batch) / self.scale
            if self.model.dist_shift is not None and number is not None:
                t = self.model.dist_shift.time_shift(t, x.shape[2])
            if self.model.diffusion_objective == "v":
                alpha, sigma = torch.cos(t * math.pi / 2)[:, None, None], torch.sin(t * math.pi / 2)[:, None, None]
                target = noise * alpha - x * sigma
            else:  # rectified_flow, rf_denoiser
                alpha, sigma = 1 - t[:, None, None], t[:, None, None]
                target = noise - x
            noised = x * alpha + noise * sigma
            inputs = self.model.get_conditioning_inputs(self.conditioner(batch["info"], x.device))
            for key in ("cross_attn_cond", "prepend_cond"):  # as cfg_dropout_prob does (models/dit.py)
                if inputs[key] is not None:
                    inputs[key] = torch.where(batch["keep"][:, None, None], inputs[key], torch.zeros_like(inputs[key]))
        mask = None
        masked = self.mask_padding and number is not None
        # Dropped now and then, to learn the silence of the padding.
        if masked and seed_for(self.seed, "mask", number) / 2**32 >= self.mask_dropout:
            mask = torch.stack([info["padding_mask"][0] for info in batch["info"]]).to(x.device)
            inputs["mask"] = mask
        assert {noised.dtype, t.dtype, target.dtype} == {torch.float32}, "the objective has to be float32"
        with torch.autocast(device, dtype=self.lower, enabled=self.lower is not None):
            output = self.dit(noised, t, **inputs)
        error = mse_loss(output.float(), target, reduction="none").mean(dim=1)
        if mask is None:
            return error.mean(dim=1)
        # Over all that is heard in the batch, not clip by clip: as stable-audio-tools' MSELoss.
        return (error * mask).sum(dim=1) * len(mask) / mask.sum()

    def latents(self, batch: Item) -> torch.Tensor:
        """Latents `[batch, channels, frames]`, made from whole clips of audio where they were not stored."""
        if "latents" in batch:
            return batch["latents"]
        autoencoder, latents = self.model.pretransform.model.to(batch["noise"].device), []
        with torch.no_grad():
            for audio, start, posterior in zip(batch["audio"], batch["start"], batch["posterior"], strict=True):
                mean, std = moments(autoencoder, audio)
                window = slice(start, start + posterior.shape[1])
                latents.append(mean[:, window] + std[:, window] * posterior)
        return torch.stack(latents)
