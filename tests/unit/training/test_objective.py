"""The loss, compared with that of stable-audio-tools."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from sao.training.objective import Objective
from steps import VARIANTS, make_batch, shared_model, upstream_training


def stock_loss(model: torch.nn.Module, batch: dict, monkeypatch: pytest.MonkeyPatch, **options: object) -> torch.Tensor:
    """The loss that stable-audio-tools' training_step computes for the draws in a batch."""
    diffusion = upstream_training()
    options = {"cfg_dropout_prob": 0.0, "mask_loss_weight": 1.0} | options
    if "inpainting" in options:
        options["inpainting_config"] = options.pop("inpainting")
    wrapper = diffusion.DiffusionCondTrainingWrapper(
        model, lr=1e-3, use_ema=False, pre_encoded=True, sample_rate=model.sample_rate, **options
    )
    wrapper.rng = SimpleNamespace(draw=lambda count: batch["t"][:, None])
    wrapper._staggered_logger = SimpleNamespace(log=lambda *_: None)
    wrapper._trainer = SimpleNamespace(optimizers=[SimpleNamespace(param_groups=[{"lr": 1.0}])])
    with monkeypatch.context() as patch:
        patch.setattr(torch, "randn_like", lambda _: batch["noise"])
        source = batch["source"]
        patch.setattr(diffusion, "random_inpaint_mask", lambda x, **_: (x * source, source))
        return wrapper.training_step((batch["latents"], batch["info"]), 0)


WAYS = [
    *((variant, {}) for variant in VARIANTS if variant != "inpainting"),
    ("v", {"mask_loss_weight": 0.0}),
    ("shifted", {"mask_loss_weight": 0.3}),
    ("rectified_flow", {"ot_coupling": True}),
    *(("rectified_flow", {"loss_normalization": way}) for way in ("timestep", "sample", "sample_channel")),
    ("masked", {"loss_normalization": "sample_channel"}),
    ("inpainting", {"inpainting": {"mask_kwargs": {}}, "mask_loss_weight": 1.0}),
    ("inpainting", {"inpainting": {"mask_kwargs": {}}, "mask_loss_weight": 0.0}),
]


@pytest.mark.parametrize(("variant", "training"), WAYS, ids=str)
def test_loss_is_stable_audio_tools(
    base_model: Path, monkeypatch: pytest.MonkeyPatch, variant: str, training: dict
) -> None:
    model = shared_model(base_model, variant)
    batch = make_batch(model)
    objective = Objective(model, training)
    found, expected = objective(batch), stock_loss(model, batch, monkeypatch, **training)
    assert found.shape == (4,) and found.requires_grad
    assert found.mean().item() == pytest.approx(expected.item(), rel=1e-6)
    weights = [weight for weight in model.model.parameters() if weight.requires_grad]
    left, right = (torch.autograd.grad(loss, weights, allow_unused=True) for loss in (found.mean(), expected))
    for one, two in zip(left, right, strict=True):
        assert (one is None) == (two is None)
        if one is not None:
            torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-7)
    # The loss depends on each of the draws, and on each setting.
    for key, other in {"noise": -batch["noise"], "t": batch["t"] * 0.9, "latents": batch["latents"] + 0.1}.items():
        assert objective(batch | {key: other}).mean().item() != pytest.approx(expected.item(), rel=2e-5)
    if training and "inpainting" not in training:
        assert Objective(model, {})(batch).mean().item() != pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize("variant", ["v", "prepended"])
def test_dropped_conditioning_is_stable_audio_tools(
    base_model: Path, monkeypatch: pytest.MonkeyPatch, variant: str
) -> None:
    model = shared_model(base_model, variant)
    dropped = make_batch(model, keep=False)
    expected = stock_loss(model, dropped, monkeypatch, cfg_dropout_prob=1.0).item()
    objective = Objective(model, {})
    assert objective(dropped).mean().item() == pytest.approx(expected, rel=1e-6)
    kept = dropped | {"keep": torch.ones(4, dtype=torch.bool)}
    assert objective(kept, 0).mean().item() != pytest.approx(expected, rel=1e-5)
    one = objective(dropped | {"keep": torch.tensor([True, False, False, True])}).tolist()
    assert one == pytest.approx(
        [objective(b).tolist()[n] for n, b in enumerate([kept, dropped, dropped, kept])], rel=1e-5
    )


def test_validation_does_not_shift(base_model: Path) -> None:
    batch = make_batch(shared_model(base_model))
    shifted, plain = (Objective(shared_model(base_model, variant), {}) for variant in ("shifted", "rectified_flow"))
    assert torch.equal(shifted(batch, validating=True), plain(batch))
    assert not torch.allclose(shifted(batch), plain(batch))


def test_loss_of_a_clip_does_not_depend_on_its_batch(base_model: Path) -> None:
    objective, batch = Objective(shared_model(base_model), {}), make_batch(shared_model(base_model))
    together = objective(batch)
    for number in range(4):
        alone = {key: value[number : number + 1] for key, value in batch.items() if key != "numbers"}
        alone["numbers"] = {name: values[number : number + 1] for name, values in batch["numbers"].items()}
        assert objective(alone).item() == pytest.approx(together[number].item(), rel=1e-5)
