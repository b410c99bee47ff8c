"""A pipeline of diffusers computes what the model computes in stable-audio-tools; what it cannot is named."""

from __future__ import annotations

import copy
import json
import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import BASE_MODEL
from micro import stable_audio_3, stable_audio_open, stable_audio_open_small
from sao.base.command import InputError
from sao.base.files import read_json
from sao.exports import pipeline
from sao.exports.form import Source
from sao.exports.forms import model_refusal
from sao.models.build import read_safetensors
from sao.models.config import read_model_config
from steps import shared_model

FRAMES = 48
DEMO = read_json(BASE_MODEL / "model_config.json")
SAMPLING = {"sampler": "dpmpp-2m-sde", "steps": 20, "sigma_min": 0.3, "sigma_max": 100.0, "apg_scale": 0.0}


def changed(place: str, value: Any) -> dict[str, Any]:
    """The demo's model config with another value at a dotted key; None takes the key away."""
    config: Any = copy.deepcopy(DEMO)
    *above, last = place.split(".")
    part = config
    for key in above:
        part = part[int(key)] if isinstance(part, list) else part.setdefault(key, {})
    if value is None:
        del part[last]
    else:
        part[last] = value
    return config


DIT, CODER = "model.diffusion.config", "model.pretransform.config"


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (changed("model_type", "diffusion_cond_inpaint"), "inpaints nothing"),
        (changed("model.diffusion.diffusion_objective", "rectified_flow"), "diffusion_objective is 'rectified_flow'"),
        (changed("model.conditioning.configs.0.type", "clap_text"), "text conditioner is of type 'clap_text'"),
        (changed("model.conditioning.configs.0.config.padding_mode", "learned"), "padding_mode 'learned'"),
        (changed("model.conditioning.configs.1.config.fourier_features_type", "expo"), "seconds_start is no number"),
        (changed("model.conditioning.configs.2.config.max_val", 256), "other ranges, (0, 512) and (0, 256)"),
        (changed("model.conditioning.configs.2.id", "bpm"), "conditioners are prompt, seconds_start, bpm"),
        (changed("model.diffusion.global_cond_ids", ["seconds_total"]), "global_cond_ids are seconds_total"),
        (changed("model.diffusion.prepend_cond_ids", ["prompt"]), "prepend_cond_ids are prompt"),
        (changed("model.diffusion.global_cond_ids", None), "has no global_cond_ids"),
        (changed(f"{DIT}.attn_kwargs", {"qk_norm": "ln"}), "attn_kwargs.qk_norm 'ln'"),
        (changed(f"{DIT}.global_cond_type", "adaLN"), "global_cond_type 'adaLN'"),
        (changed(f"{DIT}.num_memory_tokens", 64), "num_memory_tokens 64"),
        (changed(f"{DIT}.patch_size", 2), "patch_size 2"),
        (changed(f"{DIT}.a_novelty", True), "a_novelty True"),
        (changed(f"{DIT}.num_heads", 6), "heads are 32 wide"),
        (changed(f"{CODER}.encoder.type", "dac"), "encoder is of type 'dac'"),
        (changed(f"{CODER}.decoder.config.use_nearest_upsample", True), "decoder has use_nearest_upsample"),
        (changed(f"{CODER}.bottleneck.type", "tanh"), "bottleneck is of type 'tanh'"),
        (changed(f"{CODER}.pretransform.type", "pqmf"), "pretransform of type 'pqmf'"),
        (stable_audio_open_small(), "diffusion_objective is 'rectified_flow'"),
        (stable_audio_3("same", "a/b"), "inpaints nothing"),
    ],
)
def test_what_a_pipeline_cannot_express_is_named(config: dict[str, Any], words: str) -> None:
    assert words in (model_refusal("diffusers", config) or "")
    assert all(model_refusal(form, config) is None for form in ("model", "comfyui", "stable_audio_tools"))


def test_a_model_that_fits_is_not_refused() -> None:
    assert model_refusal("diffusers", DEMO) is None and model_refusal("diffusers", stable_audio_open()) is None


def decibels(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The level of the difference below that of what is expected."""
    difference = float((found.double() - expected.double()).norm() / expected.double().norm())
    return 20 * math.log10(max(difference, 1e-20))


def write(folder: Path, model_folder: Path, weights: dict[str, torch.Tensor], precision: str = "float32") -> Path:
    folder.mkdir()
    config = read_model_config(model_folder / "model_config.json")
    made = Source(
        "mine", config, model_folder / "model_config.json", weights, model_folder / "hub", FRAMES, SAMPLING, {}, None
    )
    pipeline.write(made, precision, folder)
    return folder


def load(folder: Path, **more: Any) -> Any:
    from diffusers import StableAudioPipeline

    return StableAudioPipeline.from_pretrained(folder, torch_dtype=torch.float32, trust_remote_code=True, **more)


@pytest.fixture(scope="module")
def demo(base_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """The demo's base model in stable-audio-tools and in diffusers."""
    model = shared_model(base_model, "v").eval()
    weights = read_safetensors(base_model / "model.safetensors")
    return model, load(write(tmp_path_factory.mktemp("pipeline") / "demo", base_model, weights))


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


PROMPT = "A flute plays a long tone."
# stable-audio-tools runs the text encoder in float16, and the demo's file has the frequencies of positions in float16 too, which
# diffusers computes anew: both differ by some parts of ten thousand.
ROUNDED = -55


def rotary(pipe: Any, frames: int) -> Any:
    from diffusers.models.embeddings import get_1d_rotary_pos_embed

    return get_1d_rotary_pos_embed(pipe.rotary_embed_dim, frames + 1, use_real=True, repeat_interleave_real=False)


def outputs(model: Any, pipe: Any, at: float) -> tuple[torch.Tensor, torch.Tensor]:
    """What both transformers make of the same latents and conditioning."""
    inputs = conditioning(model)
    latents = torch.randn(1, 64, FRAMES, generator=torch.Generator().manual_seed(2))
    mine = model.model(latents, torch.tensor([at]), **inputs)
    theirs = pipe.transformer(
        latents, torch.tensor([at]), encoder_hidden_states=inputs["cross_attn_cond"],
        global_hidden_states=inputs["global_cond"][:, None], rotary_embedding=rotary(pipe, FRAMES),
    ).sample  # fmt: skip
    return mine, theirs


def conditioning(model: Any) -> dict[str, Any]:
    found: dict[str, Any] = model.get_conditioning_inputs(
        model.conditioner([{"prompt": PROMPT, "seconds_start": 0, "seconds_total": 3}], "cpu")
    )
    return found


def test_conditioning_and_autoencoder_are_the_same(demo: tuple[Any, Any]) -> None:
    from sao.models.autoencoder import moments

    model, pipe = demo
    inputs = conditioning(model)
    start, end = pipe.encode_duration(0.0, 3.0, "cpu", False, 1)
    text = pipe.encode_prompt(PROMPT, "cpu", False)
    assert decibels(torch.cat([start, end], dim=2)[:, 0], inputs["global_cond"]) < -120
    assert decibels(torch.cat([text, start, end], dim=1), inputs["cross_attn_cond"]) < ROUNDED
    latents = torch.randn(2, 64, FRAMES, generator=torch.Generator().manual_seed(3))
    assert (
        decibels(pipe.vae.decode(latents).sample, model.pretransform.decode(latents)) < -90
    )  # one by one, or both at once
    audio = 0.1 * torch.randn(2, 49152, generator=torch.Generator().manual_seed(4))
    mean, deviation = moments(model.pretransform.model, audio)
    found = pipe.vae.encode(audio[None]).latent_dist
    scale = model.pretransform.scale
    assert decibels(found.mean[0], mean / scale) < -120 and decibels(found.std[0], deviation / scale) < -120
    assert pipe.vae.hop_length == 1024 and pipe.vae.config.sampling_rate == 16000


def test_transformers_agree_at_every_noise_level(demo: tuple[Any, Any]) -> None:
    model, pipe = demo
    frequencies = model.model.model.transformer.rotary_pos_emb.inv_freq
    rounded = frequencies.clone()
    for at in (0.02, 0.5, 0.99):
        mine, theirs = outputs(model, pipe, at)
        assert decibels(theirs, mine) < ROUNDED
    try:  # with the frequencies that diffusers computes, nothing is left but the order of sums
        half = torch.arange(0, 32, 2, dtype=torch.float64) / 32
        frequencies.copy_(10000**-half)
        for at in (0.02, 0.5, 0.99):
            mine, theirs = outputs(model, pipe, at)
            assert decibels(theirs, mine) < -100
    finally:
        frequencies.copy_(rounded)


def test_a_sound_is_our_render_from_the_same_noise(demo: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    import diffusers.schedulers.scheduling_cosine_dpmsolver_multistep as scheduling
    from sao.rendering.brownian import brownian
    from sao.rendering.clips import Clip
    from sao.rendering.sampling import OwnNoise, decode, levels, sample, tree_seeds

    model, pipe = demo
    clip = Clip("a", "train", PROMPT, 3.0, 5, 3.0, None)
    ours = decode(model, sample(model, [clip], SAMPLING, FRAMES)[0], 0)[:, :48000]
    seed = tree_seeds([clip], 64, FRAMES)[0]
    drawn = torch.from_numpy(brownian((64, FRAMES), levels(SAMPLING).tolist(), seed))

    class SameNoise:
        def __init__(self, *_: Any, **__: Any) -> None:
            self.steps = iter(drawn)

        def __call__(self, *_: Any) -> torch.Tensor:
            return next(self.steps, torch.zeros(64, FRAMES))[None]  # the last step adds none

    monkeypatch.setattr(scheduling, "BrownianTreeNoiseSampler", SameNoise)
    most = SAMPLING["sigma_max"]
    noise = OwnNoise([clip.seed]).draw(64, FRAMES) * most / math.sqrt(most**2 + 1)
    found = pipe(
        PROMPT, audio_end_in_s=3.0, num_inference_steps=SAMPLING["steps"], guidance_scale=clip.cfg_scale, latents=noise
    ).audios[0]
    assert found.shape == ours.shape and ours.abs().max() > 0.01
    assert decibels(found, ours) < -40


def snaky(config: dict[str, Any]) -> None:
    """An autoencoder of the form of Stable Audio Open 1.0, in fewer blocks."""
    coder = {"channels": 128, "c_mults": [1, 1], "strides": [2, 4], "use_snake": True}
    part = config["model"]["pretransform"]
    del part["scale"], part["config"]["pretransform"]
    part["config"]["downsampling_ratio"] = 8
    part["config"]["encoder"]["config"] = coder | {"in_channels": 2, "latent_dim": 128}
    part["config"]["decoder"]["config"] = coder | {"out_channels": 2, "latent_dim": 64, "final_tanh": False}


def projected(config: dict[str, Any]) -> None:
    config["model"]["diffusion"]["config"] |= {
        "project_cond_tokens": True,
        "embed_dim": 128,
        "num_heads": 2,
        "depth": 1,
    }


@pytest.mark.parametrize("change", [snaky, projected])
def test_other_models_of_the_family_need_no_code_of_ours_or_have_other_widths(
    base_model: Path, tmp_path: Path, change: Callable[[dict], None]
) -> None:
    from micro import random_weights
    from sao.models.build import load_model, write_safetensors

    config = copy.deepcopy(DEMO)
    change(config)
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model_config.json").write_text(json.dumps(config))
    shutil.copytree(base_model / "hub", folder / "hub", symlinks=True)
    weights = {key: torch.from_numpy(value) for key, value in random_weights(config).items()}
    name = "model.model.transformer.rotary_pos_emb.inv_freq"
    weights[name] = (10000 ** -(torch.arange(0, 32, 2, dtype=torch.float64) / 32)).float()
    write_safetensors(weights, folder / "model.safetensors")
    model: Any = load_model(config, base_model / "hub", folder / "model.safetensors").eval()
    written = write(tmp_path / "pipeline", folder, weights)
    assert bool(list(written.rglob("*.py"))) == (change is projected)
    pipe = load(written)
    mine, theirs = outputs(model, pipe, 0.4)
    assert decibels(theirs, mine) < -100
    latents = torch.randn(1, 64, 6, generator=torch.Generator().manual_seed(3))
    assert decibels(pipe.vae.decode(latents).sample, model.pretransform.decode(latents)) < -100

    weights[name] = weights[name] * 1.5
    with pytest.raises(InputError, match="positions of its transformer"):
        write(tmp_path / "other", folder, weights)


def test_half_precision_is_half_as_large_and_loads(base_model: Path, tmp_path: Path) -> None:
    weights = read_safetensors(base_model / "model.safetensors")
    folder = write(tmp_path / "half", base_model, weights, "float16")
    for part, file in (
        ("transformer", "diffusion_pytorch_model"),
        ("vae", "diffusion_pytorch_model"),
        ("text_encoder", "model"),
    ):
        found = read_safetensors(folder / part / f"{file}.safetensors")
        size = sum(value.numel() * value.element_size() for value in found.values())
        assert size < 0.52 * sum(4 * value.numel() for value in found.values()), part
    pipe = load(folder)
    assert {part.dtype for part in (pipe.transformer, pipe.vae, pipe.projection_model, pipe.text_encoder)} == {
        torch.float32
    }
    audio = pipe(PROMPT, audio_end_in_s=2.5, num_inference_steps=2, guidance_scale=1.0).audios
    assert audio.shape == (1, 2, 40000) and audio.isfinite().all()
