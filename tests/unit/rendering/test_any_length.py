"""Renders of models of the form of Stable Audio 3, which take sounds of any length and inpaint."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from sao.rendering.clips import Clip
from steps import shared_model

OPTIONS = {"sampler": "euler", "steps": 3, "apg_scale": 1, "sigma_min": 0.3, "sigma_max": 1}
WINDOW = 200  # latent frames of 1,024 samples at 16 kHz: 12.8 s


def clip(name: str, seconds: float, **more: Any) -> Clip:
    settings = {"cfg_scale": 4.0, "negative_prompt": None} | more
    return Clip(
        clip_id=name, split="prompts", prompt=f"The sound of {name}.", seconds=seconds, seed=len(name), **settings
    )


CLIPS = [clip("a bee", 1.2), clip("rain", 3), clip("wind", 2.7), clip("a long river", 12.1), clip("a door", 0.5)]


@pytest.fixture(scope="module")
def model(base_model: Path) -> Iterator[torch.nn.Module]:
    yield shared_model(base_model, "inpainting").eval().requires_grad_(False)


def upstream(model: Any, clip: Clip) -> torch.Tensor:
    from stable_audio_tools.inference.generation import generate_diffusion_cond_inpaint

    told = [{"prompt": clip.prompt, "seconds_start": 0, "seconds_total": math.ceil(clip.seconds)}]
    with torch.inference_mode():
        return generate_diffusion_cond_inpaint(
            model, steps=OPTIONS["steps"], cfg_scale=clip.cfg_scale, conditioning=told, seed=clip.seed, device="cpu",
            sample_size=WINDOW * model.pretransform.downsampling_ratio, sampler_type=OPTIONS["sampler"],
            sigma_max=OPTIONS["sigma_max"], apg_scale=OPTIONS["apg_scale"], return_latents=True,
        )[0]  # fmt: skip


def test_each_clip_is_what_stable_audio_tools_makes_of_it_alone(model: Any) -> None:
    from sao.rendering import sampling

    for frames, group in sampling.groups(model, CLIPS, WINDOW, 1):
        for each, latents in zip(group, sampling.sample(model, group, OPTIONS, frames), strict=True):
            expected = upstream(model, each)
            assert expected.shape[1] == frames
            torch.testing.assert_close(latents, expected, rtol=1e-3, atol=1e-4)


def test_a_clip_gets_frames_for_its_own_length_in_whole_chunks(model: Any, base_model: Path) -> None:
    from sao.rendering.sampling import frames_of

    per_second = model.sample_rate / model.pretransform.downsampling_ratio
    assert [frames_of(model, each, WINDOW, 1) for each in CLIPS] == [
        *(math.ceil((math.ceil(each.seconds) + 6) * per_second) for each in CLIPS[:3]),
        WINDOW,
        math.ceil(7 * per_second),
    ]
    assert {frames_of(model, each, WINDOW, 8) % 8 for each in CLIPS} == {0}
    assert frames_of(shared_model(base_model), CLIPS[0], WINDOW, 1) == WINDOW


@pytest.mark.slow
def test_neighbours_and_batches_change_nothing(model: Any) -> None:
    from sao.rendering.sampling import render

    def sounds(clips: list[Clip], size: int | None) -> dict[str, torch.Tensor]:
        return {each.clip_id: audio for each, audio in render(model, clips, OPTIONS, WINDOW, size)}

    alone = sounds(CLIPS, 1)
    for order, size in ((CLIPS[::-1], 2), (CLIPS[1:3], None)):
        for name, audio in sounds(order, size).items():
            torch.testing.assert_close(audio, alone[name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("scale", [0, 0.5, 1])
def test_adaptive_projected_guidance_is_that_of_stable_audio_tools(
    model: Any, scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sao.rendering import sampling

    guided = clip("a bee", 1.2, cfg_scale=30.0)  # so much that the scale is seen
    monkeypatch.setitem(OPTIONS, "apg_scale", scale)
    frames = sampling.frames_of(model, guided, WINDOW, 1)
    found = sampling.sample(model, [guided], OPTIONS, frames)[0]
    torch.testing.assert_close(found, upstream(model, guided), rtol=1e-3, atol=1e-4)
    monkeypatch.setitem(OPTIONS, "apg_scale", 1 if scale == 0 else 0)
    assert not torch.allclose(found, sampling.sample(model, [guided], OPTIONS, frames)[0], atol=5e-3)
