"""From a sound file to the latents of a clip, the same whether they are stored or made in a training step."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from sao.base.command import InputError

import soundfile
import torch
import torchaudio

from sao.models.config import ModelConfig, downsampling_ratio
from sao.sound.read import read_sound

LARGEST = 1 << 22  # numbers in torchaudio's table of filters, 8 bytes each


def resampled(audio: torch.Tensor, rate: int, wanted: int) -> torch.Tensor:
    """`[channels, samples]` of `rate` Hz at `wanted` Hz, float32, in bounded memory.

    torchaudio's filters are a table of new by old rate, without their common divisor: 160 by 147 for 44.1 to 48 kHz, but
    44,100 by 44,101 for a rate that a program got wrong by one. Beyond LARGEST numbers SciPy takes its place, which holds
    one filter and computes no output sample but those that are wanted.
    """
    common = math.gcd(rate, wanted)
    up, down = wanted // common, rate // common
    if up * down <= LARGEST:
        return torchaudio.functional.resample(audio, rate, wanted)
    from scipy.signal import resample_poly

    return torch.from_numpy(resample_poly(audio.numpy(), up, down, axis=1).astype("float32", copy=False))


def load_audio(path: Path, sample_rate: int, channels: int) -> torch.Tensor:
    """Audio `[channels, samples]` at `sample_rate` Hz, within full scale.

    Channels as stable-audio-tools does it: mono is repeated into stereo, stereo averaged into mono. Read with
    soundfile, because torchaudio.load needs FFmpeg's libraries. Raises InputError on silence, NaN, and what cannot be
    read.
    """
    try:
        data, rate = read_sound(path)
    except (soundfile.SoundFileError, OSError) as error:
        raise InputError(f"{path}: cannot be read ({error}): has it changed since the corpus was validated?") from None
    audio = torch.from_numpy(data.T.copy())
    if rate != sample_rate:
        audio = resampled(audio, rate, sample_rate)
    if not torch.isfinite(audio).all() or audio.abs().max() == 0:
        raise InputError(f"{path}: silent, or holds NaN: validate the corpus first")
    if audio.shape[0] != channels:
        audio = audio.mean(0, keepdim=True) if channels == 1 else audio[:1].repeat(channels, 1)
    return audio.clamp(-1, 1)


def padded(audio: torch.Tensor, ratio: int, frames: int) -> torch.Tensor:
    """`[channels, samples]` with zeros up to a whole latent frame of `ratio` samples, and to at least `frames` of them."""
    # Resampling rounds up: a sample more than a frame is no frame more.
    own = max(math.ceil((audio.shape[1] - 1) / ratio), 1)
    total = max(own, frames) * ratio
    return torch.nn.functional.pad(audio[:, :total], (0, max(total - audio.shape[1], 0)))


def moments(autoencoder: torch.nn.Module, audio: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation `[latent channels, frames]` of what the encoder gives for `audio [channels, samples]`.

    The standard deviation is 0 where the bottleneck does not sample. Unscaled: a training divides by the pretransform's
    `scale`. After VAEBottleneck and vae_sample (stable_audio_tools/models/bottleneck.py).
    """
    signal = audio[None]
    if autoencoder.pretransform is not None:
        signal = autoencoder.pretransform.encode(signal)
    encoded = autoencoder.encoder(signal)
    if type(autoencoder.bottleneck).__name__ == "VAEBottleneck":
        mean, scale = encoded[0].float().chunk(2, dim=0)
        return mean, torch.nn.functional.softplus(scale) + 1e-4
    if autoencoder.bottleneck is not None:
        encoded = autoencoder.bottleneck.encode(encoded)
    return encoded[0].float(), torch.zeros_like(encoded[0], dtype=torch.float32)


def clip_facts(samples: int, config: ModelConfig, frames: int) -> dict[str, Any]:
    """What the conditioners and the mask are told of a whole clip of `samples`, stored or encoded as `frames` frames."""
    valid = min(math.ceil(samples / downsampling_ratio(config)), frames)
    return {
        "sample_rate": config["sample_rate"],
        "samples_per_frame": downsampling_ratio(config),
        "seconds_start": 0,
        "seconds_total": math.ceil(samples / config["sample_rate"]),
        "padding_mask": [1] * valid + [0] * (frames - valid),
    }
