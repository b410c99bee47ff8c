"""Optimisers are made by name, and those that cannot step are refused."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sao.base.command import InputError
from sao.training import optimizer
from sao.training.objective import Objective
from sao.training.optimizer import make_optimizer, try_optimizer
from sao.training.prepare import low_precision, prepare
from sao.training.update import seed_step
from steps import make_batch, make_model, section

SETTINGS = {"precision": "32-true"}


def parameter() -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.ones(2))


def test_optimizers_by_name() -> None:
    from torchao.optim import Adam8bit, AdamW8bit

    options = {"lr": 0.1, "weight_decay": 0.25, "betas": [0.8, 0.9]}
    made = make_optimizer(section({"type": "AdamW", "config": options}), SETTINGS, [parameter()])
    assert type(made) is torch.optim.AdamW and made.defaults["weight_decay"] == 0.25 and options["betas"] == [0.8, 0.9]
    assert (
        type(make_optimizer(section({"type": "SGD", "config": {"lr": 1}}), SETTINGS, [parameter()])) is torch.optim.SGD
    )
    low = make_optimizer(section({"type": "AdamW", "config": options}), {"precision": "bf16-true"}, [parameter()])
    assert isinstance(low, AdamW8bit) and low.bf16_stochastic_round
    assert (low.defaults["betas"], low.defaults["eps"]) == ([0.8, 0.9], 1e-8)
    plain = {"type": "Adam", "config": {"lr": 0.1}}
    low = make_optimizer(section(plain), {"precision": "bf16-true"}, [parameter()])
    own = torch.optim.Adam([parameter()])
    assert isinstance(low, Adam8bit) and all(low.defaults[key] == own.defaults[key] for key in ("betas", "eps"))
    assert low.defaults["weight_decay"] == 0


# Entries of public model configs, and others that torch accepts.
@pytest.mark.parametrize("precision", ["32-true", "bf16-true"])
@pytest.mark.parametrize(
    "entry",
    [
        {"type": "AdamW", "config": {"lr": 1e-6, "betas": [0.9, 0.95], "eps": 1e-8, "weight_decay": 0.01, "foreach": True}},
        {"type": "AdamW", "config": {"lr": 1e-5, "fused": False}},
        {"type": "AdamW", "config": {"lr": 1e-5, "fused": True, "foreach": False}},
        {"type": "AdamW", "config": {"lr": 1e-5, "capturable": True}},
        {"type": "Adam", "config": {"lr": 4e-5}},
        {"type": "Adam", "config": {"lr": 4e-5, "foreach": True, "weight_decay": 0.1}},
        {"type": "AdamW8bit", "config": {"lr": 1e-5, "betas": [0.9, 0.999], "weight_decay": 0.01, "block_wise": True}},
    ],
    ids=lambda entry: str(entry) if isinstance(entry, str) else " ".join([entry["type"], *list(entry["config"])[1:]]),
)  # fmt: skip
def test_optimizers_of_public_configs_step(entry: dict, precision: str) -> None:
    before = json.dumps(entry)
    try_optimizer(section(entry), {"precision": precision})
    assert json.dumps(entry) == before


@pytest.mark.parametrize(
    "entry", [{"type": "SGD", "config": {"lr": 0.1, "foreach": True}}, {"type": "NAdam"}, {"type": "Muon"}]
)
def test_other_optimizers_step_or_are_refused(entry: dict) -> None:
    if entry["type"] == "Muon":  # takes only matrices
        with pytest.raises(InputError, match=r"Muon cannot be made .*set the run's optimizer"):
            try_optimizer(section(entry), SETTINGS)
    else:
        try_optimizer(section(entry), SETTINGS)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"type": "LBFGS"}, "LBFGS cannot take a step .*set the run's optimizer"),
        ({"type": "SparseAdam"}, "SparseAdam cannot take a step .*set the run's optimizer"),
        ({"type": "AdamW", "config": {"differentiable": True}}, "AdamW cannot be made .*differentiable"),
        ({"type": "AdamW8bit", "config": {"percentile_clipping": 95}}, "AdamW8bit cannot be made .*percentile_clipping"),
        ({"type": "FusedAdam", "config": {"lr": 1e-4}}, "no optimiser 'FusedAdam'"),
        ({"type": "MuonAdamW", "config": {"muon_lr": 1e-5}}, "no optimiser 'MuonAdamW'"),
        ({"type": "AdamW8bit", "config": {"amsgrad": True}}, "AdamW8bit .*no amsgrad"),
        ({"type": "SGD", "config": {"lr": 3e38, "weight_decay": 3e38}}, "SGD makes weights infinite"),
    ],
)  # fmt: skip
def test_optimizer_that_cannot_step_is_refused(entry: dict, words: str) -> None:
    with pytest.raises(InputError, match=words) as error:
        try_optimizer(section(entry), SETTINGS)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("entry", "precision", "words"),
    [
        ({"type": "Adamm"}, "32-true", "no optimiser 'Adamm'"),
        ({"type": "Optimizer_"}, "32-true", "no optimiser 'Optimizer_'"),
        ({"type": "lr_scheduler"}, "32-true", "no optimiser 'lr_scheduler'"),
        ({"type": "AdamW", "config": {"lr": 1, "momentum": 1}}, "32-true", "AdamW cannot be made with .*momentum"),
        ({"type": "AdamW", "config": {"lr": -1}}, "32-true", "AdamW cannot be made with .*-1"),
        ({"type": "SGD", "config": {"lr": 1}}, "bf16-true", "bf16-true has Adam and AdamW, not SGD"),
        ({"type": "AdamW", "config": {"lr": 1, "momentum": 1}}, "bf16-true", "AdamW cannot be made with .*momentum"),
    ],
)
def test_optimizer_that_cannot_be_made(entry: dict, precision: str, words: str) -> None:
    with pytest.raises(InputError, match=words) as error:
        make_optimizer(section(entry), {"precision": precision}, [parameter()])
    assert "\n" not in str(error.value)


ADAMW = {"type": "AdamW", "config": {"lr": 1e-3}}


@pytest.mark.parametrize(
    ("optimizer", "scheduler", "words"),
    [
        ({"type": "LBFGS"}, None, "optimiser LBFGS cannot take a step .*closure.*set the run's optimizer"),
        ({"type": "SparseAdam"}, None, "optimiser SparseAdam cannot take a step .*dense.*set the run's optimizer"),
        (ADAMW, {"type": "CosineAnnealingLR", "config": {"T_max": 0}}, "CosineAnnealingLR .*zero.*run's scheduler"),
        (ADAMW, {"type": "StepLR", "config": {"step_size": 0}}, "schedule StepLR cannot take a step .*run's scheduler"),
    ],
)
def test_what_cannot_step_is_told_with_what_to_set(optimizer: dict, scheduler: dict | None, words: str) -> None:
    with pytest.raises(InputError, match=words):
        try_optimizer(section(optimizer, scheduler), {"precision": "32-true"})


def test_a_trial_compiles_nothing_for_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes its steps on the CPU, for which a compiler needs a minute."""
    from torch._dynamo.utils import counters

    gpu = SimpleNamespace(kind="cuda", is_gpu=True, missing_compiler=lambda: None)
    monkeypatch.setattr(optimizer, "this_device", lambda: gpu)
    counters.clear()
    assert try_optimizer(section(ADAMW), {"precision": "bf16-true"}) > 0
    assert not counters["frames"]


@pytest.mark.slow
@pytest.mark.parametrize("size", [4096, 1024], ids=["8-bit states", "too small for 8-bit states"])
def test_training_in_bfloat16_follows_the_gradient(size: int) -> None:
    """If gradients fall to a tenth, the steps are those of Adam in float32. A second moment in bfloat16 would never decay."""
    sizes = {}
    for precision, dtype in (("32-true", torch.float32), ("bf16-true", torch.bfloat16)):
        torch.manual_seed(0)
        weight = torch.nn.Parameter(torch.randn(size).to(dtype))
        generator = torch.Generator().manual_seed(1)
        entry = {"type": "AdamW", "config": {"lr": 5e-5, "betas": [0.9, 0.999], "weight_decay": 1e-3}}
        optimizer = make_optimizer(section(entry), {"precision": precision}, [weight])
        moved = []
        for step in range(1500):
            scale = 1e-3 if step < 500 else 1e-4
            weight.grad = (torch.randn(size, generator=generator) * scale).to(dtype)
            before = weight.detach().clone()
            optimizer.step()
            moved.append(float((weight.detach().float() - before.float()).abs().mean()))
        sizes[precision] = [np.mean(moved[at - 250 : at]) for at in (500, 1500)]
    assert sizes["bf16-true"] == pytest.approx(sizes["32-true"], rel=0.1)


@pytest.mark.slow
def test_weight_decay_works_in_bfloat16() -> None:
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.ones(4096, dtype=torch.bfloat16))
    entry = {
        "type": "AdamW",
        "config": {"lr": 1e-2, "weight_decay": 0.1},
    }  # a step removes a quarter of the last binary digit
    optimizer = make_optimizer(section(entry), {"precision": "bf16-true"}, [weight])
    for _ in range(200):
        weight.grad = torch.zeros_like(weight)
        optimizer.step()
    assert float(weight.detach().float().mean()) == pytest.approx((1 - 1e-3) ** 200, rel=0.01)


RATE, STEPS = 5e-5, 20


@pytest.fixture(scope="module")
def curves(base_model: Path) -> dict[str, tuple[list[float], float]]:
    """`(losses, share of the weights that moved)` of one short training of a block's self-attention.

    It runs in float32, in bf16-true, and with weights rounded to the nearest bfloat16.
    """

    def train(precision: str, rounded: bool = False) -> tuple[list[float], float]:
        model, low = make_model(base_model), precision == "bf16-true"
        del model.model.model.transformer.layers[1:]
        # On a CPU, 8-bit states take most of the time, by the number of weights.
        model.requires_grad_(False)
        model.model.model.transformer.layers[0].self_attn.requires_grad_(True)
        if low:
            low_precision(model.model)
        prepare(model, recompute_activations=False, compile_blocks=False)
        weights = {key: weight for key, weight in model.named_parameters() if weight.requires_grad}
        before = {key: weight.detach().clone() for key, weight in weights.items()}
        entry = section({"type": "AdamW", "config": {"lr": RATE, "weight_decay": 0.001, "betas": (0.9, 0.999)}})
        optimizer = make_optimizer(entry, {"precision": precision}, list(weights.values()))
        if rounded:
            optimizer.bf16_stochastic_round = False
        objective, losses = Objective(model, {}, precision), []
        batches = [make_batch(model, seed, size=2) for seed in range(4)]
        for step in range(STEPS):
            loss = objective(batches[step % 4]).mean()
            loss.backward()
            seed_step(0, step, -1)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
        moved = sum((weight.detach() != before[key]).sum().item() for key, weight in weights.items())
        return losses, moved / sum(weight.numel() for weight in weights.values())

    return {
        "32": train("32-true"),
        "stochastic": train("bf16-true"),
        "rounded": train("bf16-true", rounded=True),
    }


@pytest.mark.slow
def test_bfloat16_with_stochastic_rounding_learns_as_float32_does(curves: dict[str, tuple[list[float], float]]) -> None:
    """Rounding to the nearest would lose an update of less than half the last of a weight's 8 binary digits."""
    losses = {name: np.array(found) for name, (found, _) in curves.items()}
    learnt = losses["32"][:4].mean() - losses["32"][-4:].mean()
    assert learnt > 0.008
    off = {name: np.abs(losses[name] - losses["32"])[-8:].mean() / learnt for name in ("stochastic", "rounded")}
    moved = {name: share for name, (_, share) in curves.items()}
    assert off["stochastic"] < 0.05 and off["rounded"] > 0.5
    assert moved["32"] > 0.99 and moved["stochastic"] > 0.5 and moved["rounded"] < 0.3
