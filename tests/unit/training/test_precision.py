"""Two steps of every way of training that the config admits, compared with stable-audio-tools' own training.

The tests run on a CPU, which has autocast in float16 and a GradScaler too, and also on a GPU if there is one.
"""

from __future__ import annotations

import copy
import functools
import importlib.util
import itertools
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from conftest import BASE_MODEL, ROOT
from sao.base.command import InputError
from sao.base.files import read_json
from sao.data.corpora import resolve
from sao.training.memory import ADAPTER as DEFAULT_ADAPTER
from steps import collated, upstream_training, with_conditions

METHODS = ("full", "lora", "dora")
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed", "bf16-true")
# Latents or audio, gradient clip, accumulated batches, recomputed activations. Each value meets every pair of the others.
WAYS = [
    (latents, clip, accumulate, latents ^ (clip > 0) ^ (accumulate > 1))
    for latents, clip, accumulate in itertools.product((True, False), (0, 0.5), (1, 2))
]
FRAMES, BATCH, STEPS = 6, 2, 2
ADAPTER: dict[str, Any] = DEFAULT_ADAPTER | {"rank": 4, "alpha": 8}
RATE = 1e-3
# The largest differences of a loss and of the gradients (the norm of their difference), relative to those of stock. In low
# precision, stock also runs the text encoder and the autoencoder in it, and rounds timesteps. Ours are in float32.
LOW = (2e-3, 3e-2)
TOLERANCE = {"32-true": (1e-6, 1e-5), "16-mixed": (1e-3, 1e-2), "bf16-mixed": LOW, "bf16-true": LOW}
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]


def micro_config() -> dict:
    """The demo's model config with a transformer of one narrow block, whose matrices are just large enough for 8-bit states."""
    config = read_json(BASE_MODEL / "model_config.json")
    narrow = {"depth": 1, "embed_dim": 64, "num_heads": 1, "cond_token_dim": 64, "global_cond_dim": 128}
    config["model"]["diffusion"]["config"] |= narrow
    config["model"]["conditioning"]["cond_dim"] = 64
    config["model"]["pretransform"]["config"]["encoder"]["config"]["channels"] = 16
    config["model"]["pretransform"]["config"]["decoder"]["config"]["channels"] = 16
    return config


@pytest.fixture(scope="module")
def micro(base_model: Path) -> torch.nn.Module:
    """The model of `micro_config`. Tests must not change it."""
    from sao.models.build import build

    torch.manual_seed(0)
    model = build(micro_config(), base_model / "hub")
    # On a CPU, stock runs the text encoder under autocast in bfloat16, which takes no float16.
    model.conditioner.conditioners["prompt"].__dict__["model"].float()
    with torch.no_grad():
        for weight in model.model.parameters():
            if not weight.any():  # a weight of zeros would hide errors in later layers
                weight.normal_(std=0.1)
    return model


@functools.cache
def make_batches(model: torch.nn.Module, latents: bool, accumulate: int) -> list[list[dict]]:
    """The batches of each step, in the form in which a training's loader gives them. Tests must not change them."""
    generator = torch.Generator().manual_seed(0)
    drawn = functools.partial(torch.randn, generator=generator)

    def item(number: int) -> dict[str, Any]:
        heard = {"latents": drawn(64, FRAMES)}
        if not latents:
            heard = {"audio": 0.1 * drawn(2, FRAMES * 1024), "start": 0, "posterior": drawn(64, FRAMES)}
        mask = [torch.ones(FRAMES, dtype=torch.bool)]
        info = {"prompt": f"sound {number % 3}", "seconds_start": 0, "seconds_total": 2, "padding_mask": mask}
        t = (0.9985, 0.7013, 0.31, 0.05)[number % 4]
        drawn_for_it = {
            "noise": drawn(64, FRAMES),
            "t": t,
            "keep": True,
            "heard": mask[0],
            "source": torch.zeros(1, FRAMES),
        }
        return heard | drawn_for_it | {"info": info}

    numbers = itertools.count()

    def batch() -> dict:
        return with_conditions(collated([item(next(numbers)) for _ in range(BATCH)]), model)

    return [[batch() for _ in range(accumulate)] for _ in range(STEPS)]


def settings_of(method: str, precision: str, way: tuple, base: str = "fp32") -> dict[str, Any]:
    _, clip, accumulate, recompute = way
    run = {"method": method, "precision": precision, "gradient_clip": clip, "accumulate": accumulate, "seed": 0}
    return run | {"recompute_activations": recompute, "adapter": ADAPTER | {"base_precision": base}}


def make_model(micro: torch.nn.Module, settings: dict[str, Any], device: str) -> tuple[torch.nn.Module, dict]:
    """A copy of the model, prepared as train.py does, and its trained weights."""
    from sao.training.adapters import add_adapters
    from sao.training.prepare import low_precision, prepare

    # The autoencoder and the text encoder are frozen, and the autoencoder cannot be copied.
    frozen = [micro.pretransform, micro.conditioner.conditioners["prompt"].__dict__["model"]]
    model = copy.deepcopy(micro, {id(module): module for module in frozen}).to(device)
    if settings["method"] != "full":
        add_adapters(model, settings["method"], settings["adapter"], 0)
        with torch.no_grad():  # a new adapter is all zeros, so half of its gradients would be zero
            for key, weight in model.named_parameters():
                if "lora_B" in key:
                    weight.copy_(0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
    elif settings["precision"] == "bf16-true":
        low_precision(model.model)
    prepare(model, settings["recompute_activations"], False)
    return model, {key: weight for key, weight in model.named_parameters() if weight.requires_grad}


OPTIMIZER = {"type": "AdamW", "config": {"lr": RATE, "betas": [0.9, 0.999], "weight_decay": 1e-3, "foreach": True}}
TRAINING = {"optimizer_configs": {"diffusion": {"optimizer": OPTIMIZER}}}
Found = list[tuple[float, dict[str, torch.Tensor]]]  # for each step, the loss and the gradients that the optimiser gets


@functools.cache
def fabric_of(device: str) -> Any:
    from lightning_fabric import Fabric

    return Fabric(accelerator="gpu" if device == "cuda" else "cpu", devices=1, precision="32-true")


def ours(micro: torch.nn.Module, settings: dict[str, Any], batches: list[list[dict]], device: str) -> Found:
    from sao.training.objective import Objective
    from sao.training.optimizer import make_optimizer
    from sao.training.update import Update

    model, trained = make_model(micro, settings, device)
    fabric = fabric_of(device)
    objective = Objective(model, TRAINING, settings["precision"]).to(device)
    optimizer = make_optimizer(TRAINING, settings, list(trained.values()))
    objective, optimizer = fabric.setup(objective, optimizer)
    update = Update(fabric, objective, optimizer, list(trained.values()), settings)
    stream = map(fabric.to_device, itertools.chain.from_iterable(copy.deepcopy(batches)))
    found = []
    for step in range(STEPS):
        loss = float(update.backward(stream, step))
        assert math.isfinite(update.clip())
        found.append((loss, {key: weight.grad.float() for key, weight in trained.items()}))
        before = {key: weight.detach().clone() for key, weight in trained.items()}
        update.apply(step)
        assert any(not torch.equal(weight, before[key]) for key, weight in trained.items())
        assert all(weight.grad is None for weight in trained.values())
    return found


def stock(
    micro: torch.nn.Module, settings: dict[str, Any], batches: list[list[dict]], device: str, patch: pytest.MonkeyPatch
) -> Found:
    """The same from stable-audio-tools' training_step, under the autocast that Lightning would put around it."""
    from sao.training.objective import AUTOCAST
    from sao.training.optimizer import make_optimizer
    from sao.training.update import seed_step

    DiffusionCondTrainingWrapper = upstream_training().DiffusionCondTrainingWrapper

    model, trained = make_model(micro, settings, device)
    latents = "latents" in batches[0][0]
    wrapper = DiffusionCondTrainingWrapper(model, lr=1.0, use_ema=False, pre_encoded=latents, cfg_dropout_prob=0.0)
    wrapper.log_dict = lambda *_, **__: None
    wrapper._trainer = SimpleNamespace(optimizers=[SimpleNamespace(param_groups=[{"lr": 1.0}])])
    wrapper.to(device)
    low = AUTOCAST[settings["precision"]]
    # Stock's optimiser for training in float32. In bfloat16 both use ours, with the same draws for rounding.
    optimizer = make_optimizer(TRAINING, settings, list(trained.values()))
    if settings["precision"] != "bf16-true":
        optimizer = torch.optim.AdamW(list(trained.values()), **OPTIMIZER["config"])
    scaler = torch.amp.GradScaler(device, enabled=settings["precision"] == "16-mixed")
    found = []
    for step, parts in enumerate(batches):
        total = 0.0
        for batch in parts:
            draws = [batch["noise"]] if latents else [batch["posterior"], batch["noise"]]
            with patch.context() as patched, torch.autocast(device, dtype=low, enabled=low is not None):
                patched.setattr(torch, "randn_like", lambda x, draws=draws: draws.pop(0).to(x.device))
                wrapper.rng = SimpleNamespace(draw=lambda _, batch=batch: batch["t"][:, None])
                heard = batch["latents"] if latents else torch.stack(batch["audio"])
                loss = wrapper.training_step((heard.to(device), batch["info"]), 0) / len(parts)
            assert not draws
            scaler.scale(loss).backward()
            total += loss.item()
        scaler.unscale_(optimizer)
        if settings["gradient_clip"]:
            torch.nn.utils.clip_grad_norm_(list(trained.values()), settings["gradient_clip"])
        found.append((total, {key: weight.grad.float() for key, weight in trained.items()}))
        if step + 1 == STEPS:
            break
        seed_step(0, step, -1)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
    return found


def difference(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> float:
    """The norm of the difference between two gradients, relative to the second."""
    assert one.keys() == two.keys()
    apart = sum(float((one[key] - two[key]).square().sum()) for key in two)
    return math.sqrt(apart / sum(float(value.square().sum()) for value in two.values()))


def admitted(method: str, precision: str) -> bool:
    """Whether the config admits a way of training. If not, the error says what to set."""
    config = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    config["runs"]["demo"] |= {"method": method, "precision": precision}
    try:
        resolve(config, [ROOT / "config.yaml"])
    except InputError as error:
        assert "\n" not in str(error) and "for method full; for " in str(error) and "set bf16-mixed" in str(error)
        return False
    return True


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.slow
def test_training_is_stable_audio_tools(
    micro: torch.nn.Module, monkeypatch: pytest.MonkeyPatch, method: str, precision: str, device: str
) -> None:
    expected = method == "full" or precision != "bf16-true"
    assert admitted(method, precision) == expected
    if not expected:
        return
    worst = [0.0, 0.0]
    bases = ("fp32", "bf16") if method != "full" and precision == "bf16-mixed" else ("fp32",)
    ways = WAYS
    if (
        precision != "bf16-true"
    ):  # which one method has; the others have a half each, so that each method and precision has all
        other = (METHODS.index(method) + PRECISIONS.index(precision)) % 2
        ways = [way for way in WAYS if (way[1] > 0) ^ (way[2] > 1) == other]
    for way, base in itertools.product(ways, bases):
        settings, batches = settings_of(method, precision, way, base), make_batches(micro, way[0], way[2])
        found = ours(micro, settings, batches, device)
        for (loss, gradient), (stock_loss, own) in zip(
            found, stock(micro, settings, batches, device, monkeypatch), strict=True
        ):
            worst = [max(worst[0], abs(loss / stock_loss - 1)), max(worst[1], difference(gradient, own))]
    assert worst[0] <= TOLERANCE[precision][0] and worst[1] <= TOLERANCE[precision][1], worst


@pytest.mark.parametrize("precision", PRECISIONS)
def test_timesteps_and_latents_reach_the_network_as_they_were_drawn(
    micro: torch.nn.Module, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    """In bfloat16, 0.9985 would be 1, and only 27 timesteps would lie above 0.9, where a quarter of the sampling lies."""
    from sao.training.objective import Objective

    settings = settings_of("full", precision, WAYS[0])
    model, _ = make_model(micro, settings, "cpu")
    (batch, *_), *_ = make_batches(micro, True, 1)
    times = torch.linspace(0.9, 1, 200)[:, None]
    exact = model.model.model.timestep_features(times)
    seen: list[torch.Tensor] = []
    features = model.model.model.timestep_features.forward

    def look(t: torch.Tensor) -> torch.Tensor:
        seen.append(t)
        found = features(t)
        assert torch.equal(features(times), exact) and len(exact.unique(dim=0)) == 200
        return found

    monkeypatch.setattr(model.model.model.timestep_features, "forward", look)
    inputs: list[torch.Tensor] = []
    model.model.register_forward_pre_hook(lambda _, given: inputs.extend(given))
    objective = fabric_of("cpu").setup(Objective(model, TRAINING, precision))
    for validation in (False, True):
        with torch.no_grad():
            (objective.module if validation else objective)(batch, validating=validation)
        assert torch.equal(seen[-1][:, 0], batch["t"]) and seen[-1].dtype == torch.float32
    noised, t, again, _ = inputs
    assert noised.dtype == t.dtype == torch.float32 and torch.equal(noised, again)
    angle = batch["t"][:, None, None] * math.pi / 2
    scale = model.pretransform.scale
    assert torch.equal(noised, batch["latents"] / scale * torch.cos(angle) + batch["noise"] * torch.sin(angle))


def test_training_of_which_nothing_was_compiled_is_ended() -> None:
    """That compiled blocks have the same losses is in tests/scripts/test_train.py."""
    from sao.training.prepare import compiled_graphs

    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    with pytest.raises(InputError, match="compiled nothing, and runs eagerly: set compile to false"):
        compiled_graphs()


@pytest.mark.parametrize(
    ("variables", "gpu", "triton", "words"),
    [
        ({"CXX": "no-such-compiler"}, False, True, r"a C\+\+ compiler \(no-such-compiler\)"),
        ({"CC": "no-such-compiler"}, True, True, r"a C compiler \(no-such-compiler\)"),
        ({}, True, False, "the Python package triton"),
    ],
)
def test_compiler_that_is_missing_is_named(
    micro: torch.nn.Module, monkeypatch: pytest.MonkeyPatch, variables: dict, gpu: bool, triton: bool, words: str
) -> None:
    from sao.models.device import Device
    from sao.training.prepare import prepare

    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sao.training.prepare.this_device", lambda: Device("cuda" if gpu else "cpu"))
    if not triton:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    model, _ = make_model(micro, settings_of("full", "32-true", WAYS[0]), "cpu")
    with pytest.raises(InputError, match=f"compile needs {words}, which is not installed: install it, or set compile"):
        prepare(model, recompute_activations=False, compile_blocks=True)
