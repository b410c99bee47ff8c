"""An Oobleck autoencoder of stable-audio-tools as a component of a diffusers pipeline: a copy of this file lies in `vae/`.

For autoencoders that `diffusers.AutoencoderOobleck` cannot express: ELU instead of snake activations, another number of blocks in
encoder and decoder, a final tanh, patches of samples as channels, latents on a scale. The names of the weights are those of
stable-audio-tools (stable_audio_tools/models/autoencoders.py).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.autoencoders.autoencoder_oobleck import (
    AutoencoderOobleckOutput,
    OobleckDecoderOutput,
    OobleckDiagonalGaussianDistribution,
)
from diffusers.models.modeling_utils import ModelMixin
from torch import nn
from torch.nn.utils import weight_norm


class Snake(nn.Module):
    """x + sin²(a x) / b, with a and b as logarithms per channel (SnakeBeta in stable_audio_tools/models/blocks.py)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(channels))
        self.beta = nn.Parameter(torch.zeros(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        alpha, beta = self.alpha.exp()[:, None], self.beta.exp()[:, None]
        return x + torch.sin(alpha * x).square() / (beta + 1e-9)


class Layers(nn.Module):
    """Modules in a row, whose weights have names that begin with `layers`."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self.layers(x)
        return made


class Residual(Layers):
    def __init__(self, channels: int, dilation: int, snake: bool) -> None:
        wide = nn.Conv1d(channels, channels, 7, dilation=dilation, padding=3 * dilation)
        super().__init__(
            activation(channels, snake),
            weight_norm(wide),
            activation(channels, snake),
            weight_norm(nn.Conv1d(channels, channels, 1)),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + super().forward(x)


def activation(channels: int, snake: bool) -> nn.Module:
    return Snake(channels) if snake else nn.ELU()


def residuals(channels: int, snake: bool) -> list[nn.Module]:
    return [Residual(channels, dilation, snake) for dilation in (1, 3, 9)]


def encoder(
    in_channels: int, channels: int, latent_dim: int, c_mults: list[int], strides: list[int], use_snake: bool
) -> nn.Module:
    widths = [channels * factor for factor in (1, *c_mults)]
    layers: list[nn.Module] = [weight_norm(nn.Conv1d(in_channels, widths[0], 7, padding=3))]
    for narrow, wide, stride in zip(widths, widths[1:], strides, strict=False):
        down = nn.Conv1d(narrow, wide, 2 * stride, stride=stride, padding=math.ceil(stride / 2))
        layers.append(Layers(*residuals(narrow, use_snake), activation(narrow, use_snake), weight_norm(down)))
    last = weight_norm(nn.Conv1d(widths[-1], latent_dim, 3, padding=1))
    return Layers(*layers, activation(widths[-1], use_snake), last)


def decoder(
    out_channels: int,
    channels: int,
    latent_dim: int,
    c_mults: list[int],
    strides: list[int],
    use_snake: bool,
    final_tanh: bool,
) -> nn.Module:
    widths = [channels * factor for factor in (1, *c_mults)]
    layers: list[nn.Module] = [weight_norm(nn.Conv1d(latent_dim, widths[-1], 7, padding=3))]
    for narrow, wide, stride in reversed(list(zip(widths, widths[1:], strides, strict=False))):
        up = nn.ConvTranspose1d(wide, narrow, 2 * stride, stride=stride, padding=math.ceil(stride / 2))
        layers.append(Layers(activation(wide, use_snake), weight_norm(up), *residuals(narrow, use_snake)))
    last = weight_norm(nn.Conv1d(widths[0], out_channels, 7, padding=3, bias=False))
    end = nn.Tanh() if final_tanh else nn.Identity()
    return Layers(*layers, activation(widths[0], use_snake), last, end)


class StableAudioToolsOobleck(ModelMixin, ConfigMixin):
    """The autoencoder. `encode` and `decode` are those of `diffusers.AutoencoderOobleck`, audio `[batch, channels, samples]`.

    `patch_size` samples of a channel are channels of the encoder's input; 1 leaves the audio as it is. Latents are divided by
    `latent_scale`.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        encoder_config: dict[str, Any],
        decoder_config: dict[str, Any],
        audio_channels: int,
        sampling_rate: int,
        hop_length: int,
        patch_size: int = 1,
        latent_scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.hop_length, self.sampling_rate = hop_length, sampling_rate
        self.patch_size, self.latent_scale = patch_size, latent_scale
        self.encoder, self.decoder = encoder(**encoder_config), decoder(**decoder_config)

    def encode(self, x: torch.Tensor, return_dict: bool = True) -> Any:
        batch, channels, samples = x.shape
        patch = self.patch_size
        x = nn.functional.pad(x, (0, -samples % patch))
        x = x.reshape(batch, channels, -1, patch).transpose(2, 3).reshape(batch, channels * patch, -1)
        found = ScaledGaussian(self.encoder(x), self.latent_scale)
        return AutoencoderOobleckOutput(latent_dist=found) if return_dict else (found,)

    def decode(self, z: torch.Tensor, return_dict: bool = True, generator: Any = None) -> Any:
        x, patch = self.decoder(z * self.latent_scale), self.patch_size
        batch, wide, patches = x.shape
        x = x.reshape(batch, wide // patch, patch, patches).transpose(2, 3).reshape(batch, wide // patch, -1)
        return OobleckDecoderOutput(sample=x) if return_dict else (x,)


class ScaledGaussian(OobleckDiagonalGaussianDistribution):
    """The posterior of latents that are divided by a scale."""

    def __init__(self, parameters: torch.Tensor, scale: float) -> None:
        super().__init__(parameters)
        self.mean: torch.Tensor = self.mean / scale
        self.std: torch.Tensor = self.std / scale
        self.var = self.std.square()
        self.logvar = self.var.log()
