"""Audio from prompts: a clip is a function of model, prompts, seconds, seed and sampler alone, in whatever batch.

stable-audio-tools' generate_diffusion_cond seeds a call. Here each clip has a generator of its own, for its first noise
and for all that a sampler draws later; samplers and denoisers are those of stable-audio-tools and k-diffusion. On a CPU
a clip is what generate_diffusion_cond gives for it alone with its seed.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from sao.base.command import InputError, log, output_to_log

import k_diffusion as K
import torch
from stable_audio_tools.inference.sampling import sample_k, sample_rf
from torch.overrides import TorchFunctionMode

from sao.rendering.clips import Clip

SDE = {"dpmpp-2m-sde": K.sampling.sample_dpmpp_2m_sde, "dpmpp-3m-sde": K.sampling.sample_dpmpp_3m_sde}
ALONE = ("k-dpm-adaptive",)  # its steps follow the error of the whole batch
CPU_BATCH = 8  # clips; more are hardly quicker (benchmarks/README.md)
GPU_BATCH = 64  # clips; by then a GPU is busy
CHUNK = 128  # latent frames, stable-audio-tools' own (AudioAutoencoder.decode_audio)
FREE_SHARE = 0.8  # of the free memory: what is estimated from one step may be short

Sampling = dict[str, Any]  # the config's `sampling`


class OwnNoise(TorchFunctionMode):
    """Noise from a generator a clip: drawn by `draw` and, where this is entered, by every `torch.randn_like`.

    On the CPU, so that it does not depend on the device. Samplers that take no noise function draw with randn_like.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        super().__init__()
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def draw(self, *shape: int) -> torch.Tensor:
        """Normal noise `[clips, *shape]`."""
        return torch.stack([torch.randn(shape, generator=generator) for generator in self.generators])

    def seeds(self) -> list[int]:
        """A seed a clip, drawn as k-diffusion's Brownian tree draws its own."""
        return [int(torch.randint(0, 2**63 - 1, [], generator=generator)) for generator in self.generators]

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func is torch.randn_like:
            return self.draw(*args[0].shape[1:]).to(args[0])
        return func(*args, **(kwargs or {}))


def condition(model: torch.nn.Module, clips: Sequence[Clip], negative: bool = False) -> dict[str, torch.Tensor | None]:
    """What the diffusion model is told of each clip, as generate_diffusion_cond gives it.

    One clip a call of the conditioners: what a prompt gives must not depend on its neighbours.
    """
    device = next(model.parameters()).device
    encoded = [
        model.conditioner(
            [
                {
                    "prompt": clip.negative_prompt if negative else clip.prompt,
                    "seconds_start": 0,
                    "seconds_total": math.ceil(clip.seconds),
                }
            ],
            device,
        )
        for clip in clips
    ]
    joined = {key: [torch.cat(parts) for parts in zip(*(e[key] for e in encoded), strict=True)] for key in encoded[0]}
    return model.get_conditioning_inputs(joined, negative=negative)


@torch.inference_mode()
def sample(model: torch.nn.Module, clips: Sequence[Clip], sampling: Sampling, frames: int) -> torch.Tensor:
    """Latents `[clips, latent channels, frames]` of clips of one cfg_scale, all or none with a negative prompt.

    After generate_diffusion_cond (stable_audio_tools/inference/generation.py).
    """
    device, sampler = next(model.parameters()).device, sampling["sampler"]
    noise = OwnNoise([clip.seed for clip in clips])
    x = noise.draw(model.io_channels, frames)
    told = {"cfg_scale": clips[0].cfg_scale, "batch_cfg": True, "rescale_cfg": True}
    with output_to_log():
        told |= condition(model, clips)
        if clips[0].negative_prompt is not None:
            told |= condition(model, clips, negative=True)
        if sampler in SDE:
            return _sample_sde(model, x, noise.seeds(), sampling, told, device)
        with noise:
            if model.diffusion_objective == "v":
                bounds = {"sigma_min": sampling["sigma_min"], "sigma_max": sampling["sigma_max"]}
                return sample_k(
                    model.model, x.to(device), None, sampling["steps"], sampler, **bounds, device=device, **told
                )
            return sample_rf(
                model.model, x.to(device), None, sampling["steps"], sampler, sampling["sigma_max"], device,
                dist_shift=model.dist_shift, **told,
            )  # fmt: skip


def _sample_sde(
    model: torch.nn.Module, x: torch.Tensor, seeds: list[int], sampling: Sampling, told: dict, device: torch.device
) -> torch.Tensor:
    """As `sample_k` of stable-audio-tools, which hands its SDE samplers no noise: with a Brownian tree a clip."""
    sigmas = K.sampling.get_sigmas_polyexponential(sampling["steps"], sampling["sigma_min"], sampling["sigma_max"])

    tree = K.sampling.BrownianTreeNoiseSampler(x, sigmas[-2], sigmas[0], seed=seeds)

    def between(sigma: torch.Tensor, sigma_next: torch.Tensor) -> torch.Tensor:
        return tree(sigma.cpu(), sigma_next.cpu()).to(device)

    return SDE[sampling["sampler"]](
        K.external.VDenoiser(model.model),
        x.to(device) * sigmas[0].to(device),
        sigmas.to(device),
        noise_sampler=between,
        extra_args=told,
        disable=True,
    )


@torch.inference_mode()
def decode(model: torch.nn.Module, latents: torch.Tensor) -> torch.Tensor:
    """Audio `[channels, samples]` on the CPU from latents `[latent channels, frames]`: one clip, whose memory is bounded."""
    pretransform = model.pretransform
    latents = latents[None].to(next(pretransform.parameters()).dtype) * pretransform.scale
    # In chunks where the model says so; stable-audio-tools fails on latents that do not fill one.
    chunked = pretransform.chunked and latents.shape[2] >= CHUNK
    return pretransform.model.decode_audio(latents, chunked=chunked, chunk_size=CHUNK)[0].float().cpu()


def groups(clips: Sequence[Clip]) -> list[list[Clip]]:
    """The clips that may be in one batch: guidance has one scale a call, and negative prompts for all or for none."""

    def key(clip: Clip) -> tuple[float, bool]:
        return clip.cfg_scale, clip.negative_prompt is not None

    return [list(group) for _, group in itertools.groupby(sorted(clips, key=key), key)]


def fitting(model: torch.nn.Module, clip: Clip, sampling: Sampling, frames: int) -> int:
    """Clips a batch that the free memory of a GPU holds, from the peaks of two steps with one clip and with two."""
    used = torch.cuda.memory_allocated()
    peaks = []
    for count in (1, 2):
        torch.cuda.reset_peak_memory_stats()
        try:
            sample(model, [clip] * count, sampling | {"steps": 2}, frames)
        except torch.OutOfMemoryError:
            return 1
        peaks.append(torch.cuda.max_memory_allocated())
    free = torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved() - used
    each = max(peaks[1] - peaks[0], 1)
    return max(1, min(GPU_BATCH, 1 + int((FREE_SHARE * free - (peaks[0] - used)) / each)))


def render(
    model: torch.nn.Module, clips: Sequence[Clip], sampling: Sampling, frames: int, batch_size: int | None = None
) -> Iterator[tuple[Clip, torch.Tensor]]:
    """Each clip with its audio `[channels, samples of the window]`, not in the order given.

    `batch_size` None: what the GPU's memory holds, `CPU_BATCH` on a CPU. It is halved where it does not fit; raises
    InputError where a single clip does not.
    """
    size = batch_size or CPU_BATCH
    if sampling["sampler"] in ALONE:
        size = 1
    elif batch_size is None and clips and next(model.parameters()).is_cuda:
        # With guidance, if any clip has it: that doubles what is computed.
        size = fitting(model, max(clips, key=lambda clip: clip.cfg_scale != 1), sampling, frames)
        log.info("%d clips a batch", size)
    for group in groups(clips):
        while group:
            latents = None
            try:
                latents = sample(model, group[:size], sampling, frames)
            except torch.OutOfMemoryError:
                if size == 1:
                    raise InputError("the GPU's memory does not hold one clip: render on a larger one") from None
            if latents is None:  # out here, where the error no longer holds what was allocated
                size //= 2
                torch.cuda.empty_cache()
                log.warning("warning: the GPU's memory is short: %d clips a batch from here on", size)
                continue
            for clip, latent in zip(group[:size], latents, strict=True):
                yield clip, decode(model, latent)
            group = group[size:]
