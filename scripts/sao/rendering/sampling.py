"""Sample audio from prompts. A clip depends only on model, prompts, seconds, seed and sampler, not on its batch.

stable-audio-tools' generate_diffusion_cond seeds a whole call. Here each clip has its own random generator, for its first
noise and for every later draw of the sampler. Samplers and denoisers are those of stable-audio-tools. On a CPU, a clip
equals the output of generate_diffusion_cond for this clip alone with its seed.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import sao.models.upstream  # noqa: F401
from sao.base.command import InputError, log, output_to_log

import numpy as np
import torch
from stable_audio_tools.inference import k_diffusion as K
from stable_audio_tools.inference.sampling import sample_diffusion
from torch.overrides import TorchFunctionMode

from sao.base.names import seed_for
from sao.models.autoencoder import decoded, load_audio, moments, padded, same_noise
from sao.models.build import enough_memory
from sao.models.config import SOURCE_INPUTS
from sao.models.device import this_device
from sao.rendering.brownian import Ahead, brownian
from sao.rendering.clips import Clip, masked
from sao.rendering.precision import compile_blocks

SDE = {"dpmpp-2m-sde": K.sampling.sample_dpmpp_2m_sde, "dpmpp-3m-sde": K.sampling.sample_dpmpp_3m_sde}
ALONE = ("k-dpm-adaptive",)  # samplers whose steps depend on the error of the whole batch
CPU_BATCH = 8  # clips; larger batches are hardly quicker (benchmarks/README.md)
GPU_BATCH = 16  # clips; enough to keep a GPU busy
COMPILED_FROM = 4000  # clips times steps; for fewer, compiling takes longer than it saves
HEADROOM = (
    6.0  # s after the end of a clip that attention may see, where a model masks padding (generate_diffusion_cond)
)
FREE_SHARE = 0.8  # of the free memory, because the estimate from two steps may be too low

Sampling = dict[str, Any]  # the config's `sampling`
Model = Any  # a torch.nn.Module; torch's types do not know the attributes of stable-audio-tools' models


class OwnNoise(TorchFunctionMode):
    """Noise with one generator per clip, for `draw` and, inside a `with` block, for every `torch.randn_like`.

    Samplers without a noise function draw with randn_like. The noise is drawn on the CPU, so that all devices get the
    same.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        super().__init__()
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def draw(self, *shape: int) -> torch.Tensor:
        """Normal noise `[clips, *shape]`."""
        return torch.stack([torch.randn(shape, generator=generator) for generator in self.generators])

    def seeds(self) -> list[int]:
        """One seed per clip, drawn as the Brownian tree of k-diffusion draws its own."""
        return [int(torch.randint(0, 2**63 - 1, [], generator=generator)) for generator in self.generators]

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.randn_like:
            return self.draw(*args[0].shape[1:]).to(args[0])
        return func(*args, **(kwargs or {}))


class Guidance:
    """One scale of guidance per clip of a batch, where stable-audio-tools takes one number for all.

    It only asks whether the scale is 1, and multiplies by the scale less 1 (DiffusionTransformer.forward, models/dit.py).
    """

    def __init__(self, scales: Sequence[float], like: torch.Tensor) -> None:
        self.guides = scales[0] != 1
        self.less_one = torch.tensor([scale - 1 for scale in scales]).to(like)[:, None, None]

    def __ne__(self, other: object) -> bool:
        assert other == 1
        return self.guides

    __hash__ = None  # type: ignore[assignment]

    def __sub__(self, other: float) -> torch.Tensor:
        assert other == 1
        return self.less_one


def source_latents(model: Model, clip: Clip, frames: int) -> torch.Tensor:
    """The latents `[latent channels, frames]` of a clip's source, followed by those of silence; zeros without a source.

    They are the means of the autoencoder's posterior, as the diffusion model takes them.
    """
    pretransform, parameter = model.pretransform, next(model.pretransform.parameters())
    if not clip.source:
        return torch.zeros(model.io_channels, frames, device=parameter.device)
    audio = load_audio(Path(clip.source), model.sample_rate, pretransform.io_channels)
    ratio = pretransform.downsampling_ratio
    audio = padded(audio[:, : max(round(clip.seconds * model.sample_rate), 1)], ratio, frames)[:, : frames * ratio]
    mean, _ = moments(pretransform.model, audio.to(parameter))
    return mean / pretransform.scale


def given_frames(model: Model, clip: Clip, frames: int) -> torch.Tensor:
    """`[1, frames]`: 1 where an inpainting model is given the source of a clip, 0 where it generates."""
    mask = torch.zeros(1, frames)
    if clip.mask_start is not None and clip.mask_end is not None:
        rate, ratio = model.sample_rate, model.pretransform.downsampling_ratio
        mask[:] = 1
        mask[:, masked(clip.mask_start, clip.mask_end, clip.seconds, rate, ratio)] = 0
        if model.mask_padding_attention:  # as in training, where nothing is given after the end of the clip
            mask[:, math.ceil(math.ceil(clip.seconds) * rate / ratio) :] = 0
    return mask.to(next(model.parameters()).device)


def condition(
    model: Model, clips: Sequence[Clip], frames: int, sources: torch.Tensor, masks: torch.Tensor, negative: bool = False
) -> dict[str, torch.Tensor | None]:
    """The conditioning of each clip, as generate_diffusion_cond and generate_diffusion_cond_inpaint compute it.

    The conditioners get one clip per call, so that the result does not depend on other clips. `sources` `[clips, latent
    channels, frames]` and `masks` `[clips, 1, frames]` are for inpainting models.
    """
    device = next(model.parameters()).device
    encoded = [
        model.conditioner(
            [
                {
                    "prompt": clip.negative_prompt if negative else clip.prompt,
                    "seconds_start": 0,
                    "seconds_total": math.ceil(clip.seconds),
                    **clip.numbers,
                }
            ],
            device,
        )
        for clip in clips
    ]
    joined = {key: [torch.cat(parts) for parts in zip(*(e[key] for e in encoded), strict=True)] for key in encoded[0]}
    for key, given in zip(SOURCE_INPUTS, (masks, sources * masks), strict=True):
        if key in (*model.local_add_cond_ids, *model.input_concat_ids):
            joined[key] = [given]
    return model.get_conditioning_inputs(joined, negative=negative)


@torch.inference_mode()
def sample(
    model: Model, clips: Sequence[Clip], sampling: Sampling, frames: int, ahead: Ahead | None = None
) -> torch.Tensor:
    """Latents `[clips, latent channels, frames]` of clips that may share a batch (`groups`).

    Based on generate_diffusion_cond and generate_diffusion_cond_inpaint (stable_audio_tools/inference/generation.py). `ahead`
    draws the noise of SDE samplers. Outside of a clip's mask the latents are those of its source; in stable-audio-tools they
    are what the model made of them.
    """
    device, sampler = next(model.parameters()).device, sampling["sampler"]
    noise = OwnNoise([clip.seed for clip in clips])
    x = noise.draw(model.io_channels, frames).to(device)
    guidance = Guidance([clip.cfg_scale for clip in clips], x)
    inputs: dict[str, Any] = {"cfg_scale": guidance, "batch_cfg": True, "rescale_cfg": True}
    inputs["apg_scale"] = sampling["apg_scale"]
    with output_to_log():
        sources = torch.stack([source_latents(model, clip, frames) for clip in clips])
        masks = torch.stack([given_frames(model, clip, frames) for clip in clips])
        conditioning = condition(model, clips, frames, sources, masks)
        if clips[0].negative_prompt is not None:
            conditioning |= condition(model, clips, frames, sources, masks, negative=True)
        sampling = with_level(model, clips[0], sampling)
        start = None if clips[0].init_noise_level is None else sources
        if sampler in SDE:
            made = _sample_sde(model, x, start, noise.seeds(), sampling, conditioning | inputs, ahead)
        else:
            with noise:
                made = sample_diffusion(
                    model.model,
                    x,
                    conditioning,
                    model.diffusion_objective,
                    sampling["steps"],
                    conditioning=[{"seconds_total": math.ceil(clip.seconds)} for clip in clips],
                    sample_rate=model.sample_rate,
                    pretransform=model.pretransform,
                    mask_padding_attention=model.mask_padding_attention,
                    use_effective_length_for_schedule=model.use_effective_length_for_schedule,
                    headroom_seconds=HEADROOM,
                    dist_shift=model.sampling_dist_shift,
                    sampler_type=sampler,
                    init_data=start,
                    init_noise_level=sampling["sigma_max"],
                    sigma_min=sampling["sigma_min"],  # which sample_diffusion leaves out for rectified flow
                    sigma_max=sampling["sigma_max"],
                    decode=False,
                    disable_tqdm=True,
                    **inputs,
                )
        return torch.where(masks == 1, sources, made)


def with_level(model: Model, clip: Clip, sampling: Sampling) -> Sampling:
    """The settings of sampling with the noise that a clip begins with: that on its source, or the most there is."""
    most = sampling["sigma_max"] if model.diffusion_objective == "v" else min(sampling["sigma_max"], 1.0)
    return sampling | {"sigma_max": most if clip.init_noise_level is None else clip.init_noise_level}


def _sample_sde(
    model: Model,
    x: torch.Tensor,
    start: torch.Tensor | None,
    seeds: list[int],
    sampling: Sampling,
    inputs: dict[str, Any],
    ahead: Ahead | None,
) -> torch.Tensor:
    """Like `sample_k` of stable-audio-tools, but with one Brownian tree per clip. `sample_k` gives its SDE samplers none."""
    device, sigmas, shape = next(model.parameters()).device, levels(sampling), (x.shape[1], x.shape[2])
    if ahead is not None:
        drawn = ahead.take(shape, sigmas.tolist(), seeds)
    else:
        of_seed = {seed: brownian(shape, sigmas.tolist(), seed) for seed in set(seeds)}
        drawn = torch.from_numpy(np.stack([of_seed[seed] for seed in seeds], axis=1))
    steps = iter(drawn)  # a sampler asks for the noise of each step once, and in their order

    return SDE[sampling["sampler"]](
        K.external.VDenoiser(model.model),
        x * sigmas[0].to(device) + (0 if start is None else start),
        sigmas.to(device),
        noise_sampler=lambda *_: next(steps).to(device, non_blocking=True),
        extra_args=inputs,
        disable=True,
    )


def levels(sampling: Sampling) -> torch.Tensor:
    """The noise levels `[steps + 1]` of k-diffusion's samplers, from the highest to 0."""
    sigmas: torch.Tensor = K.sampling.get_sigmas_polyexponential(
        sampling["steps"], sampling["sigma_min"], sampling["sigma_max"]
    )
    return sigmas


def tree_seeds(clips: Sequence[Clip], channels: int, frames: int) -> list[int]:
    """The seeds of the clips' Brownian trees, which each clip's generator draws after its first noise."""
    noise = OwnNoise([clip.seed for clip in clips])
    noise.draw(channels, frames)
    return noise.seeds()


@torch.inference_mode()
def decode(model: Model, latents: torch.Tensor, seed: int) -> torch.Tensor:
    """Decode latents `[latent channels, frames]` of one clip to audio `[channels, samples]` on the CPU.

    `seed` is for the noise that some decoders add.
    """
    pretransform = model.pretransform
    # The noise that a decoder draws follows the order of the latents in memory.
    latents = latents.contiguous().to(next(pretransform.parameters()).dtype) * pretransform.scale
    with same_noise(latents.device, seed):
        return decoded(pretransform, latents).float().cpu()


def frames_of(model: Model, clip: Clip, window: int, chunk: int) -> int:
    """The latent frames to generate for a clip: the window's, or fewer where the model takes sounds of any length.

    Such a model gets the clip's seconds and HEADROOM, in whole chunks (generate_diffusion_cond).
    """
    if not (model.mask_padding_attention or model.use_effective_length_for_schedule):
        return window
    samples = (math.ceil(clip.seconds) + HEADROOM) * model.sample_rate
    return min(math.ceil(int(samples) / (model.pretransform.downsampling_ratio * chunk)) * chunk, window)


def groups(model: Model, clips: Sequence[Clip], window: int, chunk: int) -> list[tuple[int, list[Clip]]]:
    """`(latent frames, clips)` of clips that may share a batch.

    All have guidance or none, all negative prompts or none, and they begin with one level of noise.
    """

    def key(clip: Clip) -> tuple[int, bool, bool, float]:
        level = math.inf if clip.init_noise_level is None else clip.init_noise_level
        return frames_of(model, clip, window, chunk), clip.cfg_scale != 1, clip.negative_prompt is not None, level

    return [(of[0], list(group)) for of, group in itertools.groupby(sorted(clips, key=key), key)]


def fitting(model: Model, clip: Clip, sampling: Sampling, frames: int) -> int:
    """The batch size that fits a GPU's free memory, from the peaks of two steps with one clip and with two."""
    (used, _), there = this_device().held(), this_device()
    peaks = []
    for count in (1, 2):
        there.reset_peak()
        try:
            sample(model, [clip] * count, sampling | {"steps": 2}, frames)
        except torch.OutOfMemoryError:
            return 1
        peaks.append(there.peak() or 0)
    free = there.free() + there.held()[1] - used
    each = max(peaks[1] - peaks[0], 1)
    return max(1, min(GPU_BATCH, 1 + int((FREE_SHARE * free - (peaks[0] - used)) / each)))


def render(
    model: Model,
    clips: Sequence[Clip],
    sampling: Sampling,
    window: int,
    batch_size: int | None = None,
    chunk: int = 1,
    workers: int = 0,
) -> Iterator[tuple[Clip, torch.Tensor]]:
    """Yield each clip with its audio `[channels, samples]`, in another order.

    `window` and `chunk` are the latent frames of the training window and of the autoencoder's chunks. Without a `batch_size`, a
    GPU takes as many clips as its memory holds, up to `GPU_BATCH`, and a CPU takes `CPU_BATCH`. If a batch does not fit, it is
    halved. `workers` processes draw the noise of SDE samplers. Raises InputError if a single clip does not fit.
    """
    batches, size = groups(model, clips, window, chunk), batch_size or CPU_BATCH
    ahead = Ahead(workers) if workers and sampling["sampler"] in SDE else None
    with contextlib.closing(ahead) if ahead else contextlib.nullcontext():
        if ahead and batches:
            announce(ahead, model, batches[0][1][:GPU_BATCH], sampling, batches[0][0])
        if sampling["sampler"] in ALONE:
            size = 1
        elif batch_size is None and clips and this_device().peak() is not None:
            # If any clip has guidance, try that one, because guidance doubles the batch.
            size = fitting(model, max(clips, key=lambda clip: clip.cfg_scale != 1), sampling, window)
            log.info("%d clips per batch", size)
        compiled = sampling["steps"] * len(clips) >= COMPILED_FROM and compile_blocks(model, this_device())
        yield from _render(model, batches, sampling, size, ahead, compiled)


def announce(ahead: Ahead, model: Model, clips: Sequence[Clip], sampling: Sampling, frames: int) -> None:
    """Let the noise of clips of one group be drawn."""
    sigmas = levels(with_level(model, clips[0], sampling))
    ahead.announce((model.io_channels, frames), sigmas.tolist(), tree_seeds(clips, model.io_channels, frames))


def _render(
    model: Model,
    groups: list[tuple[int, list[Clip]]],
    sampling: Sampling,
    size: int,
    ahead: Ahead | None,
    compiled: bool,
) -> Iterator[tuple[Clip, torch.Tensor]]:
    for frames, group in groups:
        while group:
            if ahead is not None:  # of this batch and the next
                announce(ahead, model, group[: 2 * size], sampling, frames)
            latents, batch = None, group[:size]
            if compiled:  # each size of a batch would be compiled by itself
                batch += batch[-1:] * (size - len(batch))
            try:
                latents = sample(model, batch, sampling, frames, ahead)
            except torch.OutOfMemoryError:
                if size == 1:
                    raise InputError("the GPU's memory does not hold one clip: render on a larger one") from None
            if latents is None:  # outside the except block, because the error keeps the memory allocated
                size //= 2
                this_device().empty_cache()
                log.warning("warning: the GPU's memory is short: %d clips per batch from now on", size)
                continue
            for clip, latent in zip(group[:size], latents[: len(group)], strict=True):
                with enough_memory(f"clip {clip.clip_id}", "its latents cannot be decoded: render on a larger GPU"):
                    audio = decode(model, latent, seed_for(clip.seed, "decode"))
                yield clip, audio
            group = group[size:]


def batch_of(
    model: Model,
    clips: Sequence[Clip],
    clip: Clip,
    sampling: Sampling,
    window: int,
    batch_size: int | None = None,
    chunk: int = 1,
) -> tuple[int, int]:
    """`(size, place)` of the batch in which `render` computes one of `clips` on a CPU. A GPU's free memory decides: `(1, 0)`."""
    size = (
        1 if sampling["sampler"] in ALONE or (batch_size is None and this_device().is_gpu) else batch_size or CPU_BATCH
    )
    for _, group in groups(model, clips, window, chunk):
        at = next((at for at, each in enumerate(group) if each.clip_id == clip.clip_id), None)
        if at is not None:
            return min(size, len(group) - at // size * size), at % size
    raise KeyError(clip.clip_id)


def render_in_batch(
    model: Model, clip: Clip, sampling: Sampling, window: int, size: int, place: int, chunk: int = 1
) -> torch.Tensor:
    """The sound `[channels, samples]` of a clip at a place of a batch of this size, beside copies of itself.

    Which kernels compute a batch, and how they round, depends on its size. The other sounds in it change nothing.
    """
    frames = frames_of(model, clip, window, chunk)
    latents = sample(model, [clip] * size, sampling, frames)[place]
    return decode(model, latents, seed_for(clip.seed, "decode"))
