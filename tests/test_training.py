"""What a training step is made of, against stable-audio-tools' and ema_pytorch's own."""

from __future__ import annotations

import copy
import functools
import json
import random
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import BASE_MODEL
from sao.base.command import InputError
from sao.base.files import read_json
from sao.models.config import training_config
from sao.training.dataset import collate
from sao.training.training import (
    Metrics,
    MovingAverage,
    Objective,
    PromptCache,
    differences,
    inverse_lr,
    low_precision,
    make_optimizer,
    make_scheduler,
    prepare,
    read_state,
    save_state,
    seed_step,
    versions,
)
from train import end_step

FRAMES = 24
PROMPTS = ["Rain falls on a tin roof.", "A dog barks twice.", "Wind in the leaves", "Birds sing at dawn."]


def rectified_flow(config: dict) -> None:
    config["model"]["diffusion"]["diffusion_objective"] = "rectified_flow"


def shifted(config: dict) -> None:
    rectified_flow(config)
    config["model"]["diffusion"]["distribution_shift_options"] = {"min_length": 8, "max_length": 64}


def prepended(config: dict) -> None:
    config["model"]["diffusion"]["prepend_cond_ids"] = ["seconds_total"]
    config["model"]["diffusion"]["config"]["prepend_cond_dim"] = 128


VARIANTS: dict[str, Callable[[dict], None]] = {
    "v": lambda config: None,
    "rectified_flow": rectified_flow,
    "shifted": shifted,
    "prepended": prepended,
}


@pytest.fixture(scope="module")
def make(base_model: Path) -> Callable[..., torch.nn.Module]:
    """Makes models like the demo's, but that have no weights of nothing but zeros: those would hide what is wrong."""
    from sao.models.build import build, load_weights

    def make(variant: str = "v") -> torch.nn.Module:
        config = read_json(BASE_MODEL / "model_config.json")
        VARIANTS[variant](config)
        torch.manual_seed(0)
        model = build(config, base_model / "hub")
        if variant == "v":
            load_weights(model, base_model / "model.safetensors")
        with torch.no_grad():
            for weight in model.model.parameters():
                if not weight.any():
                    weight.normal_(std=0.1)
        return model

    return make


@pytest.fixture(scope="module")
def build(make: Callable[..., torch.nn.Module]) -> Callable[..., torch.nn.Module]:
    """The same, each kind made once. Not to be changed."""
    return functools.cache(make)


def info(number: int, frames: int = FRAMES) -> dict:
    valid = (frames, 11, 7, 20)[number % 4]
    mask = torch.arange(frames) < valid
    return {
        "prompt": PROMPTS[number % 4],
        "seconds_start": number % 3,
        "seconds_total": 2 + number,
        "padding_mask": [mask],
    }


def make_batch(seed: int = 0, size: int = 4, keep: bool = True) -> dict:
    generator = torch.Generator().manual_seed(seed)
    t = torch.rand(size, generator=generator).tolist()
    return collate(
        [
            {
                "latents": torch.randn(64, FRAMES, generator=generator),
                "noise": torch.randn(64, FRAMES, generator=generator),
                "t": t[number],
                "keep": keep,
                "info": info(number),
            }
            for number in range(size)
        ]
    )


def stock_loss(
    model: torch.nn.Module, batch: dict, monkeypatch: pytest.MonkeyPatch, mask: bool = False, dropout: float = 0.0
) -> torch.Tensor:
    """What stable-audio-tools' training_step gives for the draws in a batch."""
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
def test_loss_is_stable_audio_tools(build: Callable, monkeypatch: pytest.MonkeyPatch, variant: str, mask: bool) -> None:
    model = build(variant)
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
    # It depends on each of the draws, and on the mask.
    for key, other in {"noise": -batch["noise"], "t": batch["t"] * 0.9, "latents": batch["latents"] + 0.1}.items():
        assert objective(batch | {key: other}, 0).mean().item() != pytest.approx(expected.item(), rel=1e-3)
    assert Objective(model, {"mask_padding": not mask}, 0)(batch, 0).mean().item() != pytest.approx(
        expected.item(), rel=1e-4
    )


@pytest.mark.parametrize("variant", ["v", "prepended"])
def test_dropped_conditioning_is_stable_audio_tools(
    build: Callable, monkeypatch: pytest.MonkeyPatch, variant: str
) -> None:
    model = build(variant)
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


def test_validation_neither_masks_nor_shifts(build: Callable) -> None:
    model, batch = build("shifted"), make_batch()
    masked = Objective(model, {"mask_padding": True}, 0)
    assert torch.equal(masked(batch, None), Objective(model, {}, 0)(batch, None))
    assert not torch.allclose(masked(batch, None), Objective(model, {}, 0)(batch, 0))


def test_mask_is_dropped_now_and_then(build: Callable) -> None:
    model, batch = build(), make_batch()
    with torch.no_grad():
        whole, masked = (Objective(model, {"mask_padding": m}, 0)(batch, 0).sum().item() for m in (False, True))
        objective = Objective(model, {"mask_padding": True, "mask_padding_dropout": 0.5}, 0)
        found = [objective(batch, step).sum().item() for step in range(40)]
    assert set(found) == {whole, masked} and 8 <= found.count(whole) <= 32


def test_loss_of_a_clip_does_not_depend_on_its_batch(build: Callable) -> None:
    objective, batch = Objective(build(), {}, 0), make_batch()
    together = objective(batch, 0)
    for number in range(4):
        alone = {key: value[number : number + 1] for key, value in batch.items()}
        assert objective(alone, 0).item() == pytest.approx(together[number].item(), rel=1e-5)


def test_moving_average_is_ema_pytorchs() -> None:
    from ema_pytorch import EMA

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
    stock = EMA(model, beta=0.9999, power=3 / 4, update_every=1, update_after_step=1, include_online_model=False)
    weights = dict(model.named_parameters())
    ours = MovingAverage(weights)
    for _ in range(20):
        with torch.no_grad():
            for weight in weights.values():
                weight.add_(torch.randn_like(weight))
        ours.update()
        stock.update()
        for key, value in stock.ema_model.named_parameters():
            torch.testing.assert_close(ours.average[key], value, rtol=1e-6, atol=1e-7)
    assert all((ours.average[key] - weights[key]).abs().max() > 0.1 for key in weights)


def test_moving_average_swaps_there_and_back() -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    average = MovingAverage({"w": weight})
    average.average["w"].zero_()
    average.swap()
    assert weight.tolist() == [0, 0, 0] and average.average["w"].tolist() == [1, 1, 1]
    average.swap()
    assert weight.tolist() == [1, 1, 1] and average.average["w"].tolist() == [0, 0, 0]


class T5(torch.nn.Module):
    """Counts what it is asked, and answers with a function of the prompt."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple] = []

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> dict[str, torch.Tensor]:
        assert input_ids.shape == attention_mask.shape and len(input_ids) == 1
        self.asked.append(tuple(input_ids[0].tolist()))
        return {"last_hidden_state": (input_ids * attention_mask)[..., None].float().repeat(1, 1, 2)}


def test_prompt_cache_asks_once_for_each_prompt() -> None:
    inner = T5()
    cache = PromptCache(inner)
    ids = torch.tensor([[1, 2, 0], [3, 4, 5], [1, 2, 0]])
    mask = (ids > 0).long()
    expected = ids[..., None].float().repeat(1, 1, 2)
    for rows in ([0, 1, 2], [2, 1], [1]):
        assert torch.equal(cache(input_ids=ids[rows], attention_mask=mask[rows])["last_hidden_state"], expected[rows])
    assert inner.asked == [(1, 2, 0), (3, 4, 5)]


def test_prompt_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PromptCache, "LIMIT", 2)
    inner = T5()
    cache = PromptCache(inner)
    ids = torch.arange(1, 6)[:, None]
    for _ in range(2):
        states = cache(input_ids=ids, attention_mask=torch.ones_like(ids))["last_hidden_state"]
        assert states[:, 0, 0].tolist() == [1, 2, 3, 4, 5]
    assert len(cache.kept) == 2 and len(inner.asked) == 5 + 3


def test_prepared_model_has_the_same_loss(build: Callable, make: Callable) -> None:
    model, batch = make(), make_batch()
    expected = Objective(build(), {}, 0)(batch, 0)
    prepare(model, recompute_activations=False, compile_blocks=False)
    cache = model.conditioner.conditioners["prompt"].model
    assert isinstance(cache, PromptCache)
    for _ in range(2):
        torch.testing.assert_close(Objective(model, {}, 0)(batch, 0), expected, rtol=1e-5, atol=0)
    assert len(cache.kept) == len(PROMPTS)


SETTINGS = {"precision": "32-true"}


def config(optimizer: dict | None = None, scheduler: dict | None = None) -> dict:
    chosen = {"optimizer": optimizer or {"type": "AdamW", "config": {"lr": 0.1}}}
    return {"optimizer_configs": {"diffusion": chosen | ({"scheduler": scheduler} if scheduler else {})}}


def parameter() -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.ones(2))


def test_optimizers_by_name() -> None:
    from torchao.optim import Adam8bit, AdamW8bit

    options = {"lr": 0.1, "weight_decay": 0.25, "betas": [0.8, 0.9]}
    made = make_optimizer(config({"type": "AdamW", "config": options}), SETTINGS, [parameter()])
    assert type(made) is torch.optim.AdamW and made.defaults["weight_decay"] == 0.25 and options["betas"] == [0.8, 0.9]
    assert (
        type(make_optimizer(config({"type": "SGD", "config": {"lr": 1}}), SETTINGS, [parameter()])) is torch.optim.SGD
    )
    low = make_optimizer(config({"type": "AdamW", "config": options}), {"precision": "bf16-true"}, [parameter()])
    assert isinstance(low, AdamW8bit) and low.bf16_stochastic_round
    assert (low.defaults["betas"], low.defaults["eps"]) == ([0.8, 0.9], 1e-8)
    plain = {"type": "Adam", "config": {"lr": 0.1}}
    low = make_optimizer(config(plain), {"precision": "bf16-true"}, [parameter()])
    own = torch.optim.Adam([parameter()])
    assert isinstance(low, Adam8bit) and all(low.defaults[key] == own.defaults[key] for key in ("betas", "eps"))
    assert low.defaults["weight_decay"] == 0


# As public model configs hold them, and what else torch takes.
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
    from sao.training.training import try_optimizer

    before = json.dumps(entry)
    try_optimizer(config(entry), {"precision": precision})
    assert json.dumps(entry) == before


@pytest.mark.parametrize(
    "entry", [{"type": "SGD", "config": {"lr": 0.1, "foreach": True}}, {"type": "NAdam"}, {"type": "Muon"}]
)
def test_other_optimizers_step_or_are_refused(entry: dict) -> None:
    from sao.training.training import try_optimizer

    if entry["type"] == "Muon":  # for matrices alone
        with pytest.raises(InputError, match=r"Muon cannot be made .*set the run's optimizer"):
            try_optimizer(config(entry), SETTINGS)
    else:
        try_optimizer(config(entry), SETTINGS)


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
    from sao.training.training import try_optimizer

    with pytest.raises(InputError, match=words) as error:
        try_optimizer(config(entry), SETTINGS)
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_training_in_bfloat16_follows_the_gradient() -> None:
    """As Adam in float32 does, where gradients fall to a tenth; a second moment in bfloat16 would never decay."""
    sizes = {}
    for precision, dtype in (("32-true", torch.float32), ("bf16-true", torch.bfloat16)):
        torch.manual_seed(0)
        weight = torch.nn.Parameter(torch.randn(4096).to(dtype))
        generator = torch.Generator().manual_seed(1)
        entry = {"type": "AdamW", "config": {"lr": 5e-5, "betas": [0.9, 0.999], "weight_decay": 1e-3}}
        optimizer = make_optimizer(config(entry), {"precision": precision}, [weight])
        moved = []
        for step in range(5000):
            scale = 1e-3 if step < 2000 else 1e-4
            weight.grad = (torch.randn(4096, generator=generator) * scale).to(dtype)
            before = weight.detach().clone()
            optimizer.step()
            moved.append(float((weight.detach().float() - before.float()).abs().mean()))
        sizes[precision] = [np.mean(moved[at - 500 : at]) for at in (2000, 5000)]
    assert sizes["bf16-true"] == pytest.approx(sizes["32-true"], rel=0.1)


@pytest.mark.slow
def test_weight_decay_works_in_bfloat16() -> None:
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.ones(4096, dtype=torch.bfloat16))
    entry = {"type": "AdamW", "config": {"lr": 1e-3, "weight_decay": 0.1}}
    optimizer = make_optimizer(config(entry), {"precision": "bf16-true"}, [weight])
    for _ in range(2000):
        weight.grad = torch.zeros_like(weight)
        optimizer.step()
    assert float(weight.detach().float().mean()) == pytest.approx((1 - 1e-4) ** 2000, rel=0.01)


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
        make_optimizer(config(entry), {"precision": precision}, [parameter()])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"type": "Cosine"}, "no schedule 'Cosine': .*scheduler.type"),
        ({"type": "ReduceLROnPlateau"}, "no schedule 'ReduceLROnPlateau'"),
        ({"type": "EPOCH_DEPRECATION_WARNING"}, "no schedule"),
        ({"type": "StepLR"}, "StepLR cannot be made with {} .*step_size"),
        ({"type": "StepLR", "config": {"step_size": 3, "x": 1}}, "StepLR cannot be made .*x"),
        ({"type": "InverseLR", "config": {"warmup": 1.0}}, "InverseLR cannot be made .*warmup is 1.0"),
        ({"type": "InverseLR", "config": {"gamma": 1.0}}, "InverseLR cannot be made .*gamma"),
    ],
)
def test_schedule_that_cannot_be_made(entry: dict, words: str) -> None:
    with pytest.raises(InputError, match=words) as error:
        make_scheduler(config(scheduler=entry), torch.optim.SGD([parameter()], lr=0.1))
    assert "\n" not in str(error.value)


def rates(scheduler: dict | None, steps: int) -> list[float]:
    optimizer = torch.optim.SGD([parameter()], lr=0.1)
    schedule = make_scheduler(config(scheduler=scheduler), optimizer)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"inv_gamma": 10, "power": 0.5, "warmup": 0.9},
        {"inv_gamma": 10, "power": 0.5, "warmup": 0.9, "final_lr": 0.05},
        {"inv_gamma": 1000000, "power": 0.5, "warmup": 0.99},
    ],
)
def test_inverse_lr_is_stable_audio_tools_schedule(options: dict) -> None:
    from stable_audio_tools.training.utils import InverseLR

    given = {"inv_gamma": 1.0, "power": 1.0, "warmup": 0.0, "final_lr": 0.0} | options
    expected = [
        InverseLR._get_closed_form_lr(SimpleNamespace(last_epoch=step, base_lrs=[0.1], **given))[0]
        for step in range(100)
    ]
    assert rates({"type": "InverseLR", "config": options}, 100) == pytest.approx(expected, rel=1e-12)
    assert inverse_lr(0.1, **options)(7) * 0.1 == pytest.approx(expected[7])


def test_other_schedules() -> None:
    assert rates(None, 5) == rates({"type": "constant"}, 5) == [0.1] * 5
    assert rates({"type": "StepLR", "config": {"step_size": 2}}, 4) == pytest.approx([0.1, 0.1, 0.01, 0.01])


def test_differences_are_named() -> None:
    past = {"torch": "2.0", "settings": {"seed": 1, "adapter": {"rank": 4}}, "corpus": "a" * 64}
    assert differences(past, copy.deepcopy(past)) == []
    now = {
        "torch": "2.0",
        "settings": {"seed": 2, "adapter": {"rank": 8}, "ema": None},
        "corpus": "b" * 64,
        "code": "x",
    }
    assert differences(past, now) == [
        "code (None then, x now)",
        f"corpus ({'a' * 12}… then, {'b' * 12}… now)",
        "settings.adapter.rank (4 then, 8 now)",
        "settings.seed (1 then, 2 now)",
    ]
    assert differences({"adapter": None}, {"adapter": {"rank": 4}}) == ["adapter (None then, {'rank': 4} now)"]


def test_state_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "leg/state.ckpt"
    state = {
        "step": 3,
        "provenance": versions(),
        "weights": {"a": torch.randn(3)},
        "optimizer": {},
        "rows": [[1, None]],
    }
    save_state(path, state)
    found = read_state(path)
    assert torch.equal(found["weights"].pop("a"), state["weights"].pop("a")) and found == state
    assert [file.name for file in path.parent.iterdir()] == ["state.ckpt"]
    save_state(path, {"step": 3, "rows": []})
    with pytest.raises(InputError, match=r"a training state without optimizer, provenance, weights: delete it"):
        read_state(path)
    with pytest.raises(InputError, match="not a training state"):
        read_state(tmp_path / "none.ckpt")


def test_a_step_seeds_all_generators() -> None:
    def drawn(*key: int) -> tuple:
        seed_step(*key)
        return random.random(), float(np.random.random()), float(torch.rand(1))

    first = drawn(0, 5, 0)
    assert drawn(0, 5, 0) == first
    for other in ((1, 5, 0), (0, 6, 0), (0, 5, 1)):
        assert not set(drawn(*other)) & set(first)


def test_metrics_average_the_steps_since_the_last_row() -> None:
    metrics = Metrics([], [])
    metrics.losses += [1.0, 2.0]
    assert metrics.close_row(2, 0.1) == [2, 1.5, None, 0.1]
    assert metrics.close_row(2, 0.1, 3.0) is None
    metrics.losses.append(0.123456789)
    metrics.close_row(3, 0.1, 1 / 3)
    assert metrics.csv() == "step,train_loss,validation_loss,learning_rate\n2,1.5,,0.1\n3,0.12345679,0.33333333,0.1\n"


@pytest.mark.parametrize(
    ("leg", "items", "batch", "expected"),
    [
        ("step-00000500", 7, 3, 500),
        ("epoch-00000002", 16, 5, 7),
        ("epoch-00000002", 16, 8, 4),
        ("epoch-00000003", 1, 1, 3),
        ("epoch-00000001", 17, 16, 2),
    ],
)
def test_end_of_a_leg(leg: str, items: int, batch: int, expected: int) -> None:
    assert end_step(leg, items, batch) == expected


def test_settings_go_over_the_models_config() -> None:
    settings = {
        "optimizer": None,
        "scheduler": None,
        "learning_rate": None,
        "ema": None,
        "method": "full",
        "precision": "32-true",
    }
    own = {"optimizer": {"type": "AdamW", "config": {"lr": 1.0, "eps": 0.5}}, "scheduler": {"type": "InverseLR"}}
    model = {"training": {"optimizer_configs": {"diffusion": own}, "mask_padding": True}}
    before = json.dumps(model)

    def chosen(model_config: dict = model, **changes: object) -> dict:
        return training_config(model_config, settings | changes)

    def optimizer(*given: dict, **changes: object) -> dict:
        return chosen(*given, **changes)["optimizer_configs"]["diffusion"]["optimizer"]

    assert optimizer() == own["optimizer"] and chosen()["mask_padding"] is True
    assert optimizer(learning_rate=0.25) == {"type": "AdamW", "config": {"lr": 0.25, "eps": 0.5}}
    assert optimizer(optimizer={"type": "SGD"}, learning_rate=0.25) == {"type": "SGD", "config": {"lr": 0.25}}
    assert optimizer({"training": {"learning_rate": 5.0}}) == {"type": "Adam", "config": {"lr": 5.0}}
    assert optimizer({"training": {"learning_rate": 5.0}}, learning_rate=1.0)["config"] == {"lr": 1.0}
    changed = chosen(scheduler={"type": "constant"})["optimizer_configs"]["diffusion"]
    assert changed == {"optimizer": own["optimizer"], "scheduler": {"type": "constant"}}
    for unset in ({"training": {}}, {}):
        with pytest.raises(InputError, match="set learning_rate"):
            chosen(unset)
    with pytest.raises(InputError, match="set learning_rate"):
        chosen(optimizer={"type": "SGD"})
    assert json.dumps(model) == before


@pytest.mark.parametrize(
    ("changes", "own", "expected"),
    [
        ({}, {}, True),
        ({}, {"use_ema": False}, False),
        ({"ema": True}, {"use_ema": False}, True),
        ({"ema": False}, {}, False),
        ({"method": "lora"}, {"use_ema": True}, False),
        ({"precision": "bf16-true"}, {"use_ema": True}, False),
        ({"method": "dora", "ema": True}, {}, True),
    ],
)
def test_when_there_is_a_moving_average(changes: dict, own: dict, expected: bool) -> None:
    settings = {"optimizer": None, "scheduler": None, "learning_rate": 1.0, "ema": None, "method": "full"}
    settings |= {"precision": "32-true"} | changes
    assert training_config({"training": own}, settings)["use_ema"] is expected


RATE, STEPS = 3e-5, 40


@pytest.fixture(scope="module")
def curves(make: Callable) -> dict[str, tuple[list[float], float]]:
    """`(losses, share of the weights that moved)` of the same short training in float32, in bf16-true, and with its
    weights rounded to the nearest bfloat16.
    """

    def train(precision: str, rounded: bool = False) -> tuple[list[float], float]:
        model, low = make(), precision == "bf16-true"
        if low:
            low_precision(model.model)
        prepare(model, recompute_activations=False, compile_blocks=False)
        weights = {key: weight for key, weight in model.named_parameters() if weight.requires_grad}
        matrices = {
            key: w for key, w in weights.items() if key.startswith("model.") and "transformer" in key and w.ndim == 2
        }
        before = {key: weight.detach().clone() for key, weight in matrices.items()}
        entry = config({"type": "AdamW", "config": {"lr": RATE, "weight_decay": 0.001, "betas": (0.9, 0.999)}})
        optimizer = make_optimizer(entry, {"precision": precision}, list(weights.values()))
        if rounded:
            optimizer.bf16_stochastic_round = False
        objective, losses = Objective(model, {}, 0, precision), []
        batches = [make_batch(seed) for seed in range(4)]
        for step in range(STEPS):
            loss = objective(batches[step % 4], step).mean()
            loss.backward()
            seed_step(0, step, -1)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
        moved = sum((weight.detach() != before[key]).sum().item() for key, weight in matrices.items())
        return losses, moved / sum(weight.numel() for weight in matrices.values())

    return {
        "32": train("32-true"),
        "stochastic": train("bf16-true"),
        "rounded": train("bf16-true", rounded=True),
    }


@pytest.mark.slow
def test_bfloat16_with_stochastic_rounding_learns_as_float32_does(curves: dict[str, tuple[list[float], float]]) -> None:
    """Rounded to the nearest, an update smaller than half the last of a weight's 8 binary digits is lost."""
    losses = {name: np.array(found) for name, (found, _) in curves.items()}
    learnt = losses["32"][:4].mean() - losses["32"][-4:].mean()
    assert learnt > 0.5
    off = {name: np.abs(losses[name] - losses["32"])[-8:].mean() / learnt for name in ("stochastic", "rounded")}
    moved = {name: share for name, (_, share) in curves.items()}
    assert off["stochastic"] < 0.05 and off["rounded"] > 0.5
    assert moved["32"] > 0.99 and moved["stochastic"] > 0.5 and moved["rounded"] < 0.2


ADAMW = {"type": "AdamW", "config": {"lr": 1e-3}}


def section(optimizer: dict, scheduler: dict | None = None) -> dict:
    return {"optimizer_configs": {"diffusion": {"optimizer": optimizer, "scheduler": scheduler}}}


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
    from sao.training.training import try_optimizer

    with pytest.raises(InputError, match=words):
        try_optimizer(section(optimizer, scheduler), {"precision": "32-true"})


def test_schedule_has_to_last_as_long_as_the_training() -> None:
    from sao.training.training import check_schedule

    def once(steps: int) -> dict:
        return section(ADAMW, {"type": "OneCycleLR", "config": {"max_lr": 0.1, "total_steps": steps}})

    for steps in (1, 7, 20_000):
        check_schedule(once(steps), steps)
        check_schedule(once(steps + 1), steps)
        with pytest.raises(InputError, match=f"OneCycleLR ends after {steps} of {steps + 1} steps"):
            check_schedule(once(steps), steps + 1)
    check_schedule(section(ADAMW), 99_999_999)
