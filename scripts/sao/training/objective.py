"""The loss: from a batch, with all that was drawn for it, to one number for each clip."""

from __future__ import annotations

import math
from typing import Any

import torch

from sao.models.autoencoder import moments
from sao.training.conditioning import condition
from sao.training.dataset import Item

# What the network computes in under autocast. Everything around it, the objective and its target, is float32.
AUTOCAST = {"32-true": None, "16-mixed": torch.float16, "bf16-mixed": torch.bfloat16, "bf16-true": torch.bfloat16}


class Objective(torch.nn.Module):
    """The loss of a conditioned latent diffusion model, after DiffusionCondTrainingWrapper of stable-audio-tools 0.0.20.

    Nothing in it is drawn at random: noise, timestep, dropout and masks come with the batch (sao/training/dataset.py). Noised
    latents, timesteps, target and loss are float32 in every `precision`; only the diffusion transformer runs in a lower one.
    """

    def __init__(self, model: Any, training: dict[str, Any], precision: str = "32-true") -> None:
        super().__init__()
        self.dit, self.conditioner = model.model, model.conditioner
        # Not registered: it is neither trained nor needed on the device where there are latents.
        self.model: Any
        self.__dict__["model"] = model
        self.scale = float(getattr(model.pretransform, "scale", 1.0))
        self.normalization = training.get("loss_normalization", "none")
        self.epsilon = training.get("loss_norm_eps", 1e-6)
        self.weight = float(training.get("mask_loss_weight", 1.0))
        self.coupled = training.get("ot_coupling", False)
        self.inpaints = training.get("inpainting") is not None
        self.lower = AUTOCAST[precision]

    def forward(self, batch: Item, validating: bool = False) -> torch.Tensor:
        """Mean squared error `[batch]` of each clip. A validation neither shifts timesteps nor couples noise."""
        device = batch["noise"].device.type
        with torch.autocast(device, enabled=False):
            noise, t = batch["noise"], batch["t"]
            x = self.latents(batch) / self.scale
            if not validating:
                t = self.shifted(t, batch["length"], x.shape[2])
                noise = coupled(x, noise) if self.coupled else noise
            if self.model.diffusion_objective == "v":
                alpha, sigma = torch.cos(t * math.pi / 2)[:, None, None], torch.sin(t * math.pi / 2)[:, None, None]
                target = noise * alpha - x * sigma
            else:  # rectified_flow, rf_denoiser
                alpha, sigma = 1 - t[:, None, None], t[:, None, None]
                target = noise - x
            noised = x * alpha + noise * sigma
            conditioning: dict[str, Any] = dict(condition(self.conditioner, batch))
            if self.inpaints:
                conditioning |= {"inpaint_mask": [batch["source"]], "inpaint_masked_input": [x * batch["source"]]}
            inputs = self.model.get_conditioning_inputs(conditioning)
            for key in ("cross_attn_cond", "prepend_cond"):  # as cfg_dropout_prob does (models/dit.py)
                if inputs[key] is not None:
                    inputs[key] = torch.where(batch["keep"][:, None, None], inputs[key], torch.zeros_like(inputs[key]))
            if self.model.mask_padding_attention:
                inputs["padding_mask"] = batch["heard"]
        assert {noised.dtype, t.dtype, target.dtype} == {torch.float32}, "the objective has to be float32"
        with torch.autocast(device, dtype=self.lower, enabled=self.lower is not None):
            output = self.dit(noised, t, **inputs)
        return self.loss(output.float(), target, batch)

    def shifted(self, t: torch.Tensor, lengths: torch.Tensor, frames: int) -> torch.Tensor:
        """Timesteps `[batch]` moved as the model config says, by the window's length or, where it says so, by each clip's."""
        if self.model.dist_shift is None:
            return t
        if not self.model.use_effective_length_for_schedule:
            return self.model.dist_shift.shift(t, frames)
        return self.model.dist_shift.shift(t, lengths)

    def loss(self, output: torch.Tensor, target: torch.Tensor, batch: Item) -> torch.Tensor:
        """The loss `[batch]` of outputs `[batch, channels, frames]` (compute_masked_loss, training/utils.py).

        What is to be generated counts in full. Padding, and the source around an inpainted part, count by
        `mask_loss_weight`: 1 is the plain mean over all frames.
        """
        error = (output - target) ** 2
        generated = batch["heard"]
        if self.inpaints:
            generated = generated & (batch["source"][:, 0] == 0)
        if self.normalization != "none":
            error = torch.where(generated[:, None], error / self.magnitude(target, generated), error)
        frames = error.mean(dim=1)
        if not self.model.mask_padding_attention:
            if self.weight == 1:
                return frames.mean(dim=1)
            weights = torch.where(generated, 1.0, self.weight)
            return (frames * weights).sum(dim=1) / (weights.sum(dim=1) + 1e-8)
        loss = mean_where(frames, generated)
        if self.inpaints and self.weight > 0:
            loss = loss + self.weight * mean_where(frames, batch["heard"] & (batch["source"][:, 0] == 1))
        return loss

    def magnitude(self, target: torch.Tensor, counted: torch.Tensor) -> torch.Tensor:
        """The variance of the target that `loss_normalization` divides by: of each frame, clip, or channel of a clip."""
        if self.normalization == "timestep":
            return target.var(dim=1, keepdim=True, correction=0) + self.epsilon
        over = (1, 2) if self.normalization == "sample" else (2,)
        known = torch.where(counted[:, None], target, torch.nan)
        mean = torch.nanmean(known, dim=over, keepdim=True)
        variance = torch.nanmean((known - mean) ** 2, dim=over, keepdim=True)
        return torch.nan_to_num(variance, nan=1 - self.epsilon) + self.epsilon  # a clip of which nothing counts

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


def mean_where(values: torch.Tensor, counted: torch.Tensor) -> torch.Tensor:
    """The mean `[batch]` of `values [batch, frames]` where `counted`; 0 where nothing is."""
    return torch.where(counted, values, 0.0).sum(dim=1) / (counted.sum(dim=1) + 1e-8)


def coupled(x: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """The noises of a batch in the order that brings each near its clip: minibatch optimal transport.

    MelodyFlow (Le Lan et al. 2024, arXiv:2407.03648, section 2.5.2), with the Sinkhorn iteration and the greedy
    assignment of stable-audio-tools (training/diffusion.py).
    """
    with torch.no_grad():
        data, drawn = x.flatten(1), noise.flatten(1)
        cost = (data * data).sum(1, keepdim=True) + (drawn * drawn).sum(1) - 2 * data @ drawn.T
        plan = -cost / cost.mean()
        for _ in range(20):
            plan = plan - plan.logsumexp(dim=1, keepdim=True)
            plan = plan - plan.logsumexp(dim=0, keepdim=True)
        plan, order = plan.exp(), []
        for row in range(len(plan)):
            order.append(plan[row].argmax())
            plan[:, order[-1]] = -1
        return noise[torch.stack(order)]
