"""In 16 bits a model renders nearly the same, and only its transformer's blocks have them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from sao.models.device import Device
from sao.rendering.precision import PRECISIONS, chosen, lower
from sao.rendering.prompts import Clip
from steps import make_model

SAMPLING = {"sampler": "dpmpp-3m-sde", "steps": 8, "apg_scale": 0, "sigma_min": 0.3, "sigma_max": 50}
CLIP = Clip("a", "prompts", "A dog barks.", 1.0, 3, 6.0, None)
FARTHEST = {"fp32": 0.0, "fp16": 0.01, "bf16": 0.08}  # the norm of the difference from float32, relative to the latents


@pytest.mark.parametrize("precision", PRECISIONS)
def test_latents_are_near_those_in_float32(base_model: Path, precision: str) -> None:
    from sao.rendering.sampling import sample

    model = make_model(base_model).eval().requires_grad_(False)
    expected = sample(model, [CLIP], SAMPLING, 24)
    times, seen = torch.linspace(0.9, 1, 50)[:, None], []
    features = model.model.model.timestep_features(times)
    lower(model, precision)
    kinds = {weight.dtype for weight in model.model.model.transformer.layers.parameters() if weight.ndim == 2}
    assert kinds == {PRECISIONS[precision]}
    others = [weight for name, weight in model.named_parameters() if ".transformer.layers." not in name]
    assert {weight.dtype for weight in others} == {torch.float32}
    model.model.register_forward_hook(lambda _, given, output: seen.append({output.dtype, *(x.dtype for x in given)}))
    found = sample(model, [CLIP], SAMPLING, 24)
    difference = float((found - expected).norm() / expected.norm())
    assert difference <= FARTHEST[precision] and (difference > 0) == (precision != "fp32")
    assert seen and all(kinds == {torch.float32} for kinds in seen)
    assert torch.equal(model.model.model.timestep_features(times), features)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_clip_does_not_depend_on_its_batch(base_model: Path, precision: str) -> None:
    from sao.rendering.sampling import sample

    model = make_model(base_model).eval().requires_grad_(False)
    lower(model, precision)
    other = Clip("b", "prompts", "Rain falls.", 1.0, 4, 6.0, None)
    together, alone = sample(model, [CLIP, other], SAMPLING, 24), sample(model, [CLIP], SAMPLING, 24)
    assert float((together[:1] - alone).norm() / alone.norm()) < FARTHEST[precision]


def test_what_auto_means() -> None:
    assert [chosen("auto", Device(kind)) for kind in ("cuda", "mps", "cpu")] == ["fp16", "fp16", "fp32"]
    assert [chosen(precision, Device("cuda")) for precision in PRECISIONS] == list(PRECISIONS)
