"""Sampling gives the same clip as stable-audio-tools does for the clip alone, in any batch."""

from __future__ import annotations

import copy
import functools
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from sao.base.command import InputError
from sao.base.files import read_json
from sao.models.build import build, load_weights
from sao.models.config import SAMPLERS, check_sampler
from sao.models.device import Device
from sao.rendering.prompts import Clip

Models = dict[str, torch.nn.Module]
FRAMES = 16  # latent frames; few are enough to test which clip gets which noise
OPTIONS = {"sampler": "dpmpp-3m-sde", "steps": 4, "apg_scale": 0, "sigma_min": 0.3, "sigma_max": 50}
CHEAPER = {"k-dpm-adaptive": {"sigma_min": 5}, "rk4": {"steps": 2}}  # which call the model many times
CLIPS = [
    Clip(str(number), "prompts", f"A dog barks {number} times.", 0.5 + number, 100 + number, 4.0, None)
    for number in range(8)
]


@pytest.fixture(scope="module")
def models(base_model: Path) -> Models:
    """The demo's model, by diffusion objective. No weight of the diffusion model is all zeros, as in a trained model."""
    config, made = read_json(base_model / "model_config.json"), {}
    generator = torch.Generator().manual_seed(0)
    for objective in SAMPLERS:
        config = copy.deepcopy(config)
        config["model"]["diffusion"]["diffusion_objective"] = objective
        if objective != "v":
            config["model"]["diffusion"]["distribution_shift_options"] = {}
        with pytest.MonkeyPatch.context() as patch:  # undoes the settings of `build`
            patch.setenv("HF_HUB_CACHE", "")
            patch.setenv("HF_HUB_OFFLINE", "1")
            model = build(config, base_model / "hub")
        load_weights(model, base_model / "model.safetensors")
        for weight in model.model.parameters():
            weight.data += 0.05 * torch.randn(weight.shape, generator=generator)
        made[objective] = model.eval().requires_grad_(False)
    return made


@pytest.fixture(scope="module")
def sampling(models: Models) -> ModuleType:
    """The module sao.rendering.sampling, imported after `build`, which has to come before any library of Hugging Face."""
    import sao.rendering.sampling

    return sao.rendering.sampling


def upstream(model: torch.nn.Module, clip: Clip, options: dict) -> torch.Tensor:
    """The latents of one clip from stable-audio-tools' own function."""
    from stable_audio_tools.inference.generation import generate_diffusion_cond

    def told(prompt: str) -> list[dict]:
        return [{"prompt": prompt, "seconds_start": 0, "seconds_total": 1 + int(clip.seconds)}]

    most = options["sigma_max"] if model.diffusion_objective == "v" else 1.0  # upstream takes what it gets
    with torch.inference_mode():
        return generate_diffusion_cond(
            model, steps=options["steps"], cfg_scale=clip.cfg_scale, conditioning=told(clip.prompt),
            negative_conditioning=told(clip.negative_prompt) if clip.negative_prompt else None,
            sample_size=FRAMES * model.pretransform.downsampling_ratio, seed=clip.seed, device="cpu",
            sampler_type=options["sampler"], sigma_min=options["sigma_min"], sigma_max=most,
            return_latents=True, apg_scale=options["apg_scale"],
        )[0]  # fmt: skip


def render_all(
    sampling: ModuleType, model: torch.nn.Module, clips: list[Clip], size: int | None
) -> dict[str, torch.Tensor]:
    return {clip.clip_id: audio for clip, audio in sampling.render(model, clips, OPTIONS, FRAMES, size)}


@pytest.mark.parametrize(("objective", "sampler"), [(kind, name) for kind, names in SAMPLERS.items() for name in names])
def test_every_sampler_gives_each_clip_what_it_gives_it_alone(
    sampling: ModuleType, models: Models, objective: str, sampler: str
) -> None:
    options = OPTIONS | {"sampler": sampler} | CHEAPER.get(sampler, {})
    model, clips = models[objective], CLIPS[:2]
    batches = [[clip] for clip in clips] if sampler in sampling.ALONE else [clips]
    latents = torch.cat([sampling.sample(model, batch, options, FRAMES) for batch in batches])
    for clip, found in zip(clips, latents, strict=True):
        # The last stage of rk4 is at t = 1e-5, by which guidance divides: rounding grows with it.
        close = {"rtol": 1e-2, "atol": 2e-3} if sampler == "rk4" else {"rtol": 1e-3, "atol": 1e-4}
        torch.testing.assert_close(found, upstream(model, clip, options), **close)
    assert not torch.allclose(latents[0], latents[1], atol=0.1)


def test_batch_order_and_neighbours_change_nothing(sampling: ModuleType, models: Models) -> None:
    # Clips that also differ in settings that cannot be mixed in a batch, and one of another guidance, which can.
    clips = [*CLIPS[:5], replace(CLIPS[5], cfg_scale=1.0), replace(CLIPS[6], cfg_scale=7.3)]
    clips.append(replace(CLIPS[7], negative_prompt="A loud engine."))
    alone, threes = (render_all(sampling, models["v"], clips, size) for size in (1, 3))
    for order, size in ((clips, 3), (clips[::-1], 8), (clips[2:5], 2), (clips, None)):
        found = render_all(sampling, models["v"], order, size)
        assert set(found) == {clip.clip_id for clip in order}
        for name, audio in found.items():
            # The decoder takes logarithms of levels, so it multiplies rounding.
            assert (audio - alone[name]).norm() < 1e-4 * alone[name].norm()
        if size == 3:
            assert all(torch.equal(audio, threes[name]) for name, audio in found.items())


def test_every_part_of_a_clip_is_heard(sampling: ModuleType, models: Models) -> None:
    clip = CLIPS[0]
    changes = (
        {"prompt": "Rain."},
        {"seconds": 3.0},
        {"seed": 1},
        {"cfg_scale": 2.0},
        {"negative_prompt": "Rain."},
    )
    first = sampling.sample(models["v"], [clip], OPTIONS, FRAMES)
    for change in changes:
        assert not torch.allclose(
            first, sampling.sample(models["v"], [replace(clip, **change)], OPTIONS, FRAMES), atol=1e-4
        )
    # Without guidance a negative prompt has no effect.
    plain = replace(clip, cfg_scale=1.0)
    away = sampling.sample(models["v"], [replace(plain, negative_prompt="Rain.")], OPTIONS, FRAMES)
    assert torch.equal(sampling.sample(models["v"], [plain], OPTIONS, FRAMES), away)


def test_negative_prompts_are_those_of_the_clips(sampling: ModuleType, models: Models) -> None:
    clips = [replace(clip, negative_prompt=text) for clip, text in zip(CLIPS, ("Rain.", "A bell rings."), strict=False)]
    latents = sampling.sample(models["v"], clips, OPTIONS, FRAMES)
    for clip, found in zip(clips, latents, strict=True):
        torch.testing.assert_close(found, upstream(models["v"], clip, OPTIONS), rtol=1e-3, atol=1e-4)


def test_few_steps(sampling: ModuleType, models: Models) -> None:
    for sampler, steps in (("dpmpp-3m-sde", 2), ("dpmpp-2m-sde", 2), ("dpmpp-2m", 1), ("k-dpm-fast", 1), ("k-heun", 1)):
        found = sampling.sample(models["v"], CLIPS[:2], OPTIONS | {"sampler": sampler, "steps": steps}, FRAMES)
        assert found.shape == (2, 64, FRAMES) and found.isfinite().all()
    check_sampler({"model": {"diffusion": {}}}, "dpmpp-3m-sde", 2)
    with pytest.raises(InputError, match="steps is 1; dpmpp-3m-sde needs 2"):
        check_sampler({"model": {"diffusion": {}}}, "dpmpp-3m-sde", 1)
    by_length = {"diffusion_objective": "rectified_flow", "use_effective_length_for_schedule": True}
    for sampler in ("euler", "dpmpp", "pingpong"):
        check_sampler({"model": {"diffusion": by_length}}, sampler, 1)
    with pytest.raises(InputError, match="no schedule by the length of a sound"):
        check_sampler({"model": {"diffusion": by_length}}, "rk4", 1)


def test_decoding_gives_the_window(sampling: ModuleType, models: Models) -> None:
    assert sampling.decode(models["v"], torch.zeros(64, FRAMES), 0).shape == (2, FRAMES * 1024)


def test_groups_hold_what_one_call_can_guide(sampling: ModuleType, models: Models) -> None:
    clips = [
        replace(CLIPS[0], cfg_scale=scale, negative_prompt=text)
        for scale in (1.0, 4.0, 7.3)
        for text in (None, "a", "b")
    ]
    found = sampling.groups(models["v"], clips[::-1], FRAMES, 1)
    assert sorted(len(group) for _, group in found) == [1, 2, 2, 4]
    for frames, group in found:
        assert frames == FRAMES
        assert len({(clip.cfg_scale == 1, clip.negative_prompt is None) for clip in group}) == 1


def short_of_memory(model: object, clips: list[Clip], *_: object, most: int) -> torch.Tensor:
    if len(clips) > most:
        raise torch.OutOfMemoryError("CUDA out of memory.")
    return torch.zeros(len(clips), 1, 1)


@pytest.mark.parametrize("most", [1, 3, 8])
def test_batch_is_halved_where_memory_is_short(
    sampling: ModuleType, models: Models, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(sampling, "sample", functools.partial(short_of_memory, most=most))
    monkeypatch.setattr(sampling, "decode", lambda _, latent, seed: latent)
    assert set(render_all(sampling, models["v"], CLIPS, 8)) == {clip.clip_id for clip in CLIPS}


def test_clip_that_does_not_fit_is_one_line(
    sampling: ModuleType, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "sample", functools.partial(short_of_memory, most=0))
    with pytest.raises(InputError, match="does not hold one clip"):
        render_all(sampling, models["v"], CLIPS, 8)


def test_batch_that_fits_a_gpu(sampling: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model takes 1 GB, a batch 1 GB more, and each clip 2 GB more. Of 41 GB free, 32.8 GB may be used."""
    giga, peak = 10**9, [0]

    def run(_: object, clips: list[Clip], *__: object) -> None:
        peak[0] = (2 + 2 * len(clips)) * giga

    monkeypatch.setattr(sampling, "sample", run)
    for name, value in (
        ("memory_allocated", giga), ("memory_reserved", giga), ("mem_get_info", (41 * giga, 80 * giga)),
        ("reset_peak_memory_stats", None),
    ):  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, lambda value=value: value)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: peak[0])
    monkeypatch.setattr(sampling, "this_device", lambda: Device("cuda"))
    assert sampling.fitting(None, CLIPS[0], OPTIONS, FRAMES) == 15
    monkeypatch.setattr(sampling, "sample", functools.partial(short_of_memory, most=1))
    assert sampling.fitting(None, CLIPS[0], OPTIONS, FRAMES) == 1
