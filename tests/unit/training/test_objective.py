"""The loss, compared with that of stable-audio-tools."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from sao.training.objective import Objective
from steps import VARIANTS, make_batch, shared_model


def stock_loss(
    model: torch.nn.Module, batch: dict, monkeypatch: pytest.MonkeyPatch, mask: bool = False, dropout: float = 0.0
) -> torch.Tensor:
    """The loss that stable-audio-tools' training_step computes for the draws in a batch."""
    from stable_audio_tools.training.diffusion import DiffusionCondTrainingWrapper

    wrapper = DiffusionCondTrainingWrapper(
        model, lr=1e-3, mask_padding=mask, use_ema=False, pre_encoded=True, cfg_dropout_prob=dropout
    )
    wrapper.rng = SimpleNamespace(draw=lambda count: batch["t"][:, None])
    wrapper.log_dict = lambda *_, **__: None
    wrapper._trainer = SimpleNamespace(optimizers=[SimpleNamespace(param_groups=[{"lr": 1.0}])])
    with monkeypatch.context() as patch:
        patch.setattr(torch, "randn_like", lambda _: batch["noise"])
        return wrapper.training_step((batch["latents"], batch["info"]), 0)


@pytest.mark.parametrize("mask", [False, True], ids=["whole", "masked"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_loss_is_stable_audio_tools(
    base_model: Path, monkeypatch: pytest.MonkeyPatch, variant: str, mask: bool
) -> None:
    model = shared_model(base_model, variant)
    batch = make_batch()
    objective = Objective(model, {"mask_padding": mask}, 0)
    found, expected = objective(batch, 0), stock_loss(model, batch, monkeypatch, mask)
    assert found.shape == (4,) and found.requires_grad
    assert found.mean().item() == pytest.approx(expected.item(), rel=1e-6)
    weights = [weight for weight in model.model.parameters() if weight.requires_grad]
    left, right = (torch.autograd.grad(loss, weights, allow_unused=True) for loss in (found.mean(), expected))
    for one, two in zip(left, right, strict=True):
        assert (one is None) == (two is None)
        if one is not None:
            torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-7)
    # The loss depends on each of the draws, and on the mask.
    for key, other in {"noise": -batch["noise"], "t": batch["t"] * 0.9, "latents": batch["latents"] + 0.1}.items():
        assert objective(batch | {key: other}, 0).mean().item() != pytest.approx(expected.item(), rel=1e-3)
    assert Objective(model, {"mask_padding": not mask}, 0)(batch, 0).mean().item() != pytest.approx(
        expected.item(), rel=1e-4
    )


@pytest.mark.parametrize("variant", ["v", "prepended"])
def test_dropped_conditioning_is_stable_audio_tools(
    base_model: Path, monkeypatch: pytest.MonkeyPatch, variant: str
) -> None:
    model = shared_model(base_model, variant)
    dropped = make_batch(keep=False)
    expected = stock_loss(model, dropped, monkeypatch, dropout=1.0).item()
    objective = Objective(model, {}, 0)
    assert objective(dropped, 0).mean().item() == pytest.approx(expected, rel=1e-6)
    kept = dropped | {"keep": torch.ones(4, dtype=torch.bool)}
    assert objective(kept, 0).mean().item() != pytest.approx(expected, rel=1e-5)
    one = objective(dropped | {"keep": torch.tensor([True, False, False, True])}, 0).tolist()
    assert one == pytest.approx(
        [objective(b, 0).tolist()[n] for n, b in enumerate([kept, dropped, dropped, kept])], rel=1e-5
    )


def test_validation_neither_masks_nor_shifts(base_model: Path) -> None:
    model, batch = shared_model(base_model, "shifted"), make_batch()
    masked = Objective(model, {"mask_padding": True}, 0)
    assert torch.equal(masked(batch, None), Objective(model, {}, 0)(batch, None))
    assert not torch.allclose(masked(batch, None), Objective(model, {}, 0)(batch, 0))


def test_mask_is_dropped_now_and_then(base_model: Path) -> None:
    model, batch = shared_model(base_model), make_batch()
    with torch.no_grad():
        whole, masked = (Objective(model, {"mask_padding": m}, 0)(batch, 0).sum().item() for m in (False, True))
        objective = Objective(model, {"mask_padding": True, "mask_padding_dropout": 0.5}, 0)
        found = [objective(batch, step).sum().item() for step in range(40)]
    assert set(found) == {whole, masked} and 8 <= found.count(whole) <= 32


def test_loss_of_a_clip_does_not_depend_on_its_batch(base_model: Path) -> None:
    objective, batch = Objective(shared_model(base_model), {}, 0), make_batch()
    together = objective(batch, 0)
    for number in range(4):
        alone = {key: value[number : number + 1] for key, value in batch.items()}
        assert objective(alone, 0).item() == pytest.approx(together[number].item(), rel=1e-5)
