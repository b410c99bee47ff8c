"""Sounds that start from another sound: what stable-audio-tools makes of it, and the source outside of a mask."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from media import write_media
from sao.base.command import InputError
from sao.rendering.clips import Clip, masked
from sao.rendering.sources import copy_source, facts_of
from sao.sound.read import read_sound
from steps import shared_model

WINDOW = 80  # latent frames of 1,024 samples at 16 kHz: 5.1 s
RATIO, RATE = 1024, 16000
OPTIONS = {
    "diffusion": {"sampler": "dpmpp-3m-sde", "steps": 4, "apg_scale": 0, "sigma_min": 0.3, "sigma_max": 50},
    "inpainting": {"sampler": "euler", "steps": 3, "apg_scale": 1, "sigma_min": 0.3, "sigma_max": 1},
}
SECONDS = 4.0


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound of 4 s at another rate than the model's, in mono: notes that come and go."""
    rate, path = 44100, tmp_path_factory.mktemp("source") / "notes.wav"
    time = np.arange(4 * rate) / rate
    notes = np.sin(2 * np.pi * 220 * 2 ** np.floor(4 * time) * time) * np.exp(-6 * (time % 0.25))
    soundfile.write(path, 0.5 * notes, rate, "PCM_24")
    return path


@pytest.fixture(scope="module", params=list(OPTIONS))
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def model(base_model: Path, kind: str) -> Iterator[Any]:
    yield shared_model(base_model, "v" if kind == "diffusion" else kind).eval().requires_grad_(False)


def clip(source: Path, **more: Any) -> Clip:
    settings = {"prompt": "A bell.", "seconds": SECONDS, "seed": 3, "cfg_scale": 4.0, "negative_prompt": None} | more
    return Clip(clip_id="a", split="prompts", source=str(source), source_sha256="0", **settings)


def upstream(model: Any, kind: str, clip: Clip, **more: Any) -> torch.Tensor:
    """The latents of stable-audio-tools, whose autoencoder gives the mean of its posterior instead of a draw."""
    from stable_audio_tools.inference import generation
    from stable_audio_tools.models import bottleneck

    audio, rate = soundfile.read(clip.source, dtype="float32")
    sound = (rate, torch.from_numpy(audio)[None])
    if clip.init_noise_level is not None:
        more |= {"init_audio": sound, "init_noise_level": clip.init_noise_level}
    if clip.mask_start is not None:
        more |= {"inpaint_audio": sound, "inpaint_mask_start_seconds": clip.mask_start}
        more |= {"inpaint_mask_end_seconds": clip.mask_end}
    options = OPTIONS[kind]
    generate = generation.generate_diffusion_cond if kind == "diffusion" else generation.generate_diffusion_cond_inpaint
    told = [{"prompt": clip.prompt, "seconds_start": 0, "seconds_total": math.ceil(clip.seconds)}]
    with torch.inference_mode(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(bottleneck, "vae_sample", lambda mean, scale: (mean, torch.tensor(0.0)))
        return generate(
            model, steps=options["steps"], cfg_scale=clip.cfg_scale, conditioning=told, seed=clip.seed, device="cpu",
            sample_size=WINDOW * RATIO, sampler_type=options["sampler"], apg_scale=options["apg_scale"],
            sigma_min=options["sigma_min"], sigma_max=options["sigma_max"], return_latents=True, **more,
        )[0]  # fmt: skip


def sampled(model: Any, kind: str, clip: Clip) -> torch.Tensor:
    from sao.rendering import sampling

    ((frames, group),) = sampling.groups(model, [clip], WINDOW, 1)
    return sampling.sample(model, group, OPTIONS[kind], frames)[0]


def test_a_varied_source_is_what_stable_audio_tools_makes_of_it(model: Any, kind: str, source: Path) -> None:
    from sao.rendering.sampling import source_latents

    low, high = (0.5, 20.0) if kind == "diffusion" else (0.2, 0.9)
    distances = []
    for level in (low, high):
        varied = clip(source, init_noise_level=level)
        latents = sampled(model, kind, varied)
        torch.testing.assert_close(latents, upstream(model, kind, varied), rtol=1e-3, atol=1e-3)
        distances.append(float((latents - source_latents(model, varied, latents.shape[1])).square().mean()))
    assert distances[0] < distances[1]  # less noise leaves more of the source


@pytest.mark.slow
def test_every_sampler_starts_from_the_source(model: Any, kind: str, source: Path) -> None:
    from sao.models.config import SAMPLERS
    from sao.rendering import sampling

    level = 1.0 if kind == "diffusion" else 0.5
    # stable-audio-tools' rk4 knows no schedule by the length of a clip.
    for sampler in set(SAMPLERS[model.diffusion_objective]) - ({"rk4"} if kind == "inpainting" else set()):
        options = OPTIONS[kind] | {"sampler": sampler, "sigma_max": level}
        one, other = clip(source, init_noise_level=level), clip(source, init_noise_level=level, prompt="Rain.", seed=4)
        latents = sampling.sample(model, [one] if sampler in sampling.ALONE else [one, other], options, 40)
        whole = sampling.sample(model, [replace(one, init_noise_level=None)], options, 40)
        assert latents.isfinite().all() and not torch.allclose(latents[:1], whole, atol=0.1), sampler


@pytest.mark.parametrize("kind", ["inpainting"], indirect=True)
def test_a_mask_is_filled_as_stable_audio_tools_does_and_the_rest_is_the_source(
    model: Any, kind: str, source: Path
) -> None:
    from sao.models.autoencoder import decoded
    from sao.rendering.sampling import decode, given_frames, source_latents

    start, end = 20 * RATIO / RATE, 32 * RATIO / RATE  # both between two frames, where upstream's mask is the same
    for level in (None, 0.6):
        inpainted = clip(source, mask_start=start, mask_end=end, init_noise_level=level)
        latents = sampled(model, kind, inpainted)
        original = source_latents(model, inpainted, latents.shape[1])
        inside = given_frames(model, inpainted, latents.shape[1])[0] == 0
        heard = math.ceil(SECONDS * RATE / RATIO)
        assert torch.equal(torch.nonzero(inside[:heard])[:, 0], torch.arange(20, 32))
        torch.testing.assert_close(
            latents[:, inside], upstream(model, kind, inpainted)[:, inside], rtol=1e-3, atol=1e-4
        )
        assert torch.equal(latents[:, :20], original[:, :20])
        assert torch.equal(latents[:, 32:heard], original[:, 32:heard])
        # To the ear: sample for sample what the autoencoder alone makes of the source, but where its decoder looks across.
        audio, alone = decode(model, latents, 0), decoded(model.pretransform, original * model.pretransform.scale)
        for first, stop in ((0, 10), (42, heard - 10)):  # frames
            part = slice(first * RATIO, stop * RATIO)
            torch.testing.assert_close(audio[:, part], alone[:, part], rtol=0, atol=1e-5)
        filled = slice(22 * RATIO, 30 * RATIO)
        assert not torch.allclose(audio[:, filled], alone[:, filled], atol=1e-2)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["inpainting"], indirect=True)
def test_neighbours_and_batches_change_nothing(model: Any, kind: str, source: Path) -> None:
    from sao.rendering.sampling import render

    plain = replace(clip(source), source="", source_sha256="")
    clips = [
        plain,
        clip(source, mask_start=0.5, mask_end=1.0),
        clip(source, mask_start=0.0, mask_end=SECONDS, seed=9),
        clip(source, init_noise_level=0.4),
        clip(source, init_noise_level=0.4, mask_start=1.0, mask_end=1.5),
        clip(source, init_noise_level=0.8, seconds=1.0),
    ]
    clips = [replace(each, clip_id=str(number)) for number, each in enumerate(clips)]
    alone = {each.clip_id: audio for each, audio in render(model, clips, OPTIONS[kind], WINDOW, 1)}
    for order in (clips, clips[::-1], clips[1:4]):
        for each, audio in render(model, order, OPTIONS[kind], WINDOW, 4):
            torch.testing.assert_close(audio, alone[each.clip_id], rtol=1e-3, atol=1e-4)
    assert len({tuple(audio[0, :2000].tolist()) for audio in alone.values()}) == len(clips)


def test_generated_frames_lie_within_the_mask() -> None:
    assert list(masked(0.0, 1.0, 2.0, 16000, 1024)) == list(range(15))
    assert list(masked(0.1, 1.0, 1.0, 16000, 1024)) == list(range(2, 16))  # to the end of the sound
    assert not masked(0.07, 0.135, 1.0, 16000, 1024)
    assert list(masked(0.064, 0.128, 1.0, 16000, 1024)) == [1]


def test_a_copy_holds_what_the_sound_starts_from(source: Path, tmp_path: Path) -> None:
    whole, rate = soundfile.read(source, dtype="float32")
    for seconds in (0.5, 2.0, 3.0, 1e-6):
        copy_source(clip(source, seconds=seconds), tmp_path / "copy.wav")
        copied, copied_rate = soundfile.read(tmp_path / "copy.wav", dtype="float32")
        assert copied_rate == rate and np.array_equal(copied, whole[: max(round(seconds * rate), 1)])


def test_unusable_sources_are_refused(tmp_path: Path) -> None:
    def written(audio: np.ndarray, name: str = "a.wav", rate: int = 8000) -> Path:
        soundfile.write(tmp_path / name, audio, rate)
        return tmp_path / name

    faults = [
        (tmp_path / "none.wav", "p.csv, row 2: the init_audio .*none.wav' does not exist: its path counts from"),
        (written(np.zeros(800)), "a.wav' is silent"),
        (written(np.ones((800, 3)) / 2, "b.wav"), "b.wav' has 3 channels"),
        (written(np.zeros(0), "c.wav"), "c.wav' has no samples"),
        (tmp_path / "d.wav", "d.wav' cannot be read"),
    ]
    (tmp_path / "d.wav").write_text("not a sound")
    for path, message in faults:
        with pytest.raises(InputError, match=message) as error:
            facts_of(path, "p.csv, row 2")
        assert "\n" not in str(error.value)


def test_source_that_ffmpeg_reads_is_copied_to_a_wav(tmp_path: Path) -> None:
    rate = 44100
    path = write_media(tmp_path / "a.m4a", 0.3 * np.sin(np.arange(3 * rate) / 20)[:, None])
    facts = facts_of(path, "prompts.csv, row 2")
    copy_source(replace(clip(path), seconds=2.0), tmp_path / "a.wav")
    copied, hertz = soundfile.read(tmp_path / "a.wav", dtype="float32", always_2d=True)
    assert hertz == rate == facts.sample_rate and len(copied) == 2 * rate
    assert np.abs(copied - read_sound(path)[0][: len(copied)]).max() < 2**-22
