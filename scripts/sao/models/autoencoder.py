"""From a sound file to the latents of a clip. Rule `encode` and a training from audio use the same functions."""

from __future__ import annotations

import contextlib
import functools
import math
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sao.base.command import InputError

import soundfile
import torch
import torchaudio

from sao.models.config import ModelConfig, downsampling_ratio
from sao.models.device import this_device
from sao.sound.read import read_sound

LARGEST = 1 << 22  # numbers in torchaudio's table of filters, 8 bytes each
CHUNK = 1024  # latent frames that a convolutional autoencoder gets at once: 48 s of Stable Audio Open
MARGIN = 32  # latent frames more on each side, several times as far as its convolutions reach
UPSTREAM_CHUNK = 128  # latent frames, as in stable-audio-tools (AudioAutoencoder.decode_audio)
CONVOLUTIONAL = ("OobleckEncoder", "OobleckDecoder")


def resampled(audio: torch.Tensor, rate: int, new_rate: int) -> torch.Tensor:
    """Resample `[channels, samples]` from `rate` to `new_rate` Hz, in float32 and bounded memory.

    torchaudio keeps a table of filters whose sides are the two rates without their common divisor: 160 by 147 for 44.1 to
    48 kHz, but 44,100 by 44,101 for a rate that a program got wrong by one. Beyond LARGEST numbers SciPy is used instead.
    It keeps one filter and computes only the samples of the result.
    """
    common = math.gcd(rate, new_rate)
    up, down = new_rate // common, rate // common
    if up * down <= LARGEST:
        return torchaudio.functional.resample(audio, rate, new_rate)
    from scipy.signal import resample_poly

    return torch.from_numpy(resample_poly(audio.numpy(), up, down, axis=1).astype("float32", copy=False))


def load_audio(path: Path, sample_rate: int, channels: int) -> torch.Tensor:
    """Read audio `[channels, samples]` at `sample_rate` Hz, clipped to full scale.

    Channels are converted as in stable-audio-tools: mono is repeated into stereo, stereo is averaged into mono. It reads
    with `sao.sound.read`, because torchaudio.load needs FFmpeg's libraries for every file. Raises InputError on silence, NaN, and files that
    cannot be read.
    """
    try:
        data, rate = read_sound(path)
    except (soundfile.SoundFileError, OSError) as error:
        raise InputError(f"{path}: cannot be read ({error}): has it changed since the corpus was validated?") from None
    audio = torch.from_numpy(data.T.copy())
    if rate != sample_rate:
        audio = resampled(audio, rate, sample_rate)
    if not torch.isfinite(audio).all() or audio.abs().max() == 0:
        raise InputError(f"{path}: is silent or holds NaN: validate the corpus first")
    if audio.shape[0] != channels:
        audio = audio.mean(0, keepdim=True) if channels == 1 else audio[:1].repeat(channels, 1)
    return audio.clamp(-1, 1)


def padded(audio: torch.Tensor, ratio: int, frames: int) -> torch.Tensor:
    """Pad `[channels, samples]` with zeros to whole latent frames of `ratio` samples, and to at least `frames` of them."""
    # Resampling rounds up, so a single extra sample does not count as another frame.
    own = max(math.ceil((audio.shape[1] - 1) / ratio), 1)
    total = max(own, frames) * ratio
    return torch.nn.functional.pad(audio[:, :total], (0, max(total - audio.shape[1], 0)))


def moments(autoencoder: Any, audio: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation `[latent channels, frames]` of the posterior for `audio [channels, samples]`.

    The standard deviation is 0 if the bottleneck does not sample. Both are unscaled: a training divides by the
    pretransform's `scale`. Based on VAEBottleneck and vae_sample (stable_audio_tools/models/bottleneck.py). A convolutional
    encoder gets long audio in parts.
    """
    if type(autoencoder.encoder).__name__ in CONVOLUTIONAL:
        ratio = int(autoencoder.downsampling_ratio)
        parts = [
            [each[:, kept] for each in _moments(autoencoder, audio[:, frames.start * ratio : frames.stop * ratio])]
            for frames, kept in in_parts(math.ceil(audio.shape[1] / ratio))
        ]
        mean, std = (torch.cat(each, dim=1) for each in zip(*parts, strict=True))
        return mean, std
    return _moments(autoencoder, audio)


def in_parts(frames: int) -> list[tuple[slice, slice]]:
    """`(latent frames to compute, those of them to keep)` of the parts in which a convolutional autoencoder gets a clip.

    Each part has `MARGIN` frames beside it that belong to its neighbours, so the parts together equal the whole.
    """
    if frames <= CHUNK + 2 * MARGIN:
        return [(slice(0, frames), slice(0, frames))]
    parts = []
    for start in range(0, frames, CHUNK):
        first, stop = max(start - MARGIN, 0), min(start + CHUNK, frames)
        parts.append((slice(first, min(stop + MARGIN, frames)), slice(start - first, stop - first)))
    return parts


def decoded(pretransform: Any, latents: torch.Tensor) -> torch.Tensor:
    """Audio `[channels, samples]` of `latents [channels, frames]`, scaled as the decoder takes them.

    A convolutional decoder gets long latents in parts. Other ones are cut up by stable-audio-tools if the model says so, but
    not latents that are shorter than a chunk, on which it fails.
    """
    with quick_convolutions(latents.device):
        return _decoded(pretransform, latents)


def _decoded(pretransform: Any, latents: torch.Tensor) -> torch.Tensor:
    autoencoder, frames = pretransform.model, latents.shape[1]
    if type(autoencoder.decoder).__name__ in CONVOLUTIONAL:
        ratio, parts = int(autoencoder.downsampling_ratio), []
        for taken, kept in in_parts(frames):
            audio = autoencoder.decode_audio(latents[None, :, taken], chunked=False)[0]
            parts.append(audio[:, kept.start * ratio : kept.stop * ratio])
        return torch.cat(parts, dim=1)
    chunked = pretransform.chunked and frames >= UPSTREAM_CHUNK
    return autoencoder.decode_audio(latents[None], chunked=chunked, chunk_size=UPSTREAM_CHUNK)[0]


def _moments(autoencoder: Any, audio: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    signal = audio[None]
    with same_noise(audio.device), quick_convolutions(audio.device):
        if autoencoder.pretransform is not None:
            signal = autoencoder.pretransform.encode(signal)
        encoded = autoencoder.encoder(signal)
    if type(autoencoder.bottleneck).__name__ == "VAEBottleneck":
        mean, scale = encoded[0].float().chunk(2, dim=0)
        return mean, torch.nn.functional.softplus(scale) + 1e-4
    if autoencoder.bottleneck is not None:
        encoded = autoencoder.bottleneck.encode(encoded)
    return encoded[0].float(), torch.zeros_like(encoded[0], dtype=torch.float32)


@contextlib.contextmanager
def quick_convolutions(device: torch.device) -> Iterator[None]:
    """Let an autoencoder compute fast on NVIDIA's GPUs, for differences far below those of its own noise.

    Convolutions multiply in TF32, and if a compiler is there, the snake activations become one kernel, where the eager form
    passes over the longest tensors of the model eight times. The differences are in benchmarks/README.md.
    """
    if device.type != "cuda":
        yield
        return
    _compile_snakes()
    before, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, True
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def compile_encoder(autoencoder: Any) -> bool:
    """Compile a convolutional encoder on NVIDIA's GPUs if a compiler is there; returns whether.

    Convolutions read the channels of a sample beside each other, as tensor cores take them, and their sums become part of
    the kernels of the snake activations. It takes about 15 s.
    """
    device = this_device()
    quick = device.kind == "cuda" and not device.missing_compiler()
    if quick and type(autoencoder.encoder).__name__ in CONVOLUTIONAL:
        channels_last(autoencoder.encoder)
        autoencoder.encoder.compile()  # for the first length, and from the second on for any
        return True
    return False


def channels_last(module: torch.nn.Module) -> None:
    """Let the convolutions in a module compute with the channels of a sample beside each other in memory."""
    for layer in module.modules():
        if isinstance(layer, torch.nn.Conv1d) and layer.padding_mode == "zeros" and not isinstance(layer.padding, str):
            with contextlib.suppress(ValueError):  # a layer without weight norm
                torch.nn.utils.remove_weight_norm(layer)
            layer.forward = types.MethodType(_convolved, layer)  # type: ignore[method-assign]


def _convolved(layer: torch.nn.Conv1d, x: torch.Tensor) -> torch.Tensor:
    """What Conv1d computes of `[batch, channels, samples]`. In torch only 2-d convolutions know the order of channels last."""
    signal, weight = (each.unsqueeze(2).contiguous(memory_format=torch.channels_last) for each in (x, layer.weight))
    stride, padding, dilation = (1, layer.stride[0]), (0, int(layer.padding[0])), (1, layer.dilation[0])
    return torch.nn.functional.conv2d(signal, weight, layer.bias, stride, padding, dilation, layer.groups).squeeze(2)


@functools.cache
def _compile_snakes() -> None:
    from stable_audio_tools.models import blocks

    if this_device().missing_compiler() is None:
        blocks.snake_beta = torch.compile(blocks.snake_beta, dynamic=True)


@contextlib.contextmanager
def same_noise(device: torch.device, seed: int = 0) -> Iterator[None]:
    """Let a model draw the same noise whenever it runs: some autoencoders add a little, in training or not.

    Otherwise the latents of a clip, and a render, would depend on what was computed before.
    """
    others = [device] if device.type in ("cuda", "xpu") else []
    with torch.random.fork_rng(others, device_type=device.type if others else "cuda"):
        torch.manual_seed(seed)
        yield


def clip_facts(samples: int, config: ModelConfig, frames: int) -> dict[str, Any]:
    """Inputs of the conditioners and the mask for a whole clip of `samples` samples in `frames` latent frames."""
    valid = min(math.ceil(samples / downsampling_ratio(config)), frames)
    return {
        "sample_rate": config["sample_rate"],
        "samples_per_frame": downsampling_ratio(config),
        "seconds_start": 0,
        "seconds_total": math.ceil(samples / config["sample_rate"]),
        "padding_mask": [1] * valid + [0] * (frames - valid),
    }
