"""The estimated memory of a training, compared with the peak of real training steps, and the advice in errors."""

from __future__ import annotations

import contextlib
import copy
import functools
import json
import math
import weakref
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import BASE_MODEL
from hypothesis import given
from hypothesis import strategies as st
from sao.base.command import InputError
from sao.training import memory
from sao.training.adapters import add_adapters
from sao.training.memory import ADAPTER as DEFAULT_ADAPTER

CONFIG = json.loads((BASE_MODEL / "model_config.json").read_text(encoding="utf-8"))
WEIGHTS = BASE_MODEL / "model.safetensors"
COUNTS = memory.parameter_counts(WEIGHTS)
FRAMES = 48
ADAPTER: dict[str, Any] = DEFAULT_ADAPTER | {"rank": 4, "alpha": 4}
FULL = {
    "method": "full",
    "strategy": "auto",
    "adapter": ADAPTER,
    "precision": "32-true",
    "batch_size": 8,
    "accumulate": 1,
    "ema": False,
    "recompute_activations": False,
    "compile": False,
}


# Transformers of the form of Stable Audio 3, small and medium; the rest of the model is the demo's.
DITS: dict[str, dict[str, Any]] = {
    name: {
        "global_cond_type": "adaLN",
        "timestep_features_type": "expo",
        "attn_kwargs": {"qk_norm": "rms", "differential": name == "medium"},
        "norm_type": "rms_norm",
        "norm_kwargs": {"force_fp32": True},
        "ff_kwargs": {"mult": 4.0},
        "num_memory_tokens": 8,
    }
    for name in ("small", "medium")
}


# A block is like every other, so two of them are enough.
SHALLOW = {"depth": 2}


def config_of(dit: str) -> dict[str, Any]:
    config = copy.deepcopy(CONFIG)
    config["model"]["diffusion"]["config"] |= SHALLOW | DITS.get(dit, {})
    return config


@functools.cache
def counts_of(dit: str) -> memory.Counts:
    from sao.training.rehearsal import rehearse

    return memory.counted(rehearse(config_of(dit), "micro", {}))


@functools.cache
def built(hub: Path, dit: str) -> Any:
    """A model without its autoencoder, as a training on latents has it. Tests must not change it."""
    from sao.models.build import build

    model = build(config_of(dit), hub)
    model.pretransform = None
    return model


def needed(changes: dict[str, Any], frames: int = FRAMES) -> int:
    return memory.total(memory.estimate(CONFIG, COUNTS, FULL | changes, frames, True))


def measured(model: Any, run: dict[str, Any], counts: memory.Counts) -> int:
    """The bytes of live tensors at the peak of two training steps of a model, without the frozen text encoder."""
    import torch
    from sao.training.objective import Objective
    from sao.training.optimizer import make_optimizer
    from sao.training.prepare import low_precision
    from sao.training.processes import strategy
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    PRODUCTS = {torch.ops.aten.mm.default, torch.ops.aten.addmm.default, torch.ops.aten.bmm.default}

    class Alive(TorchDispatchMode):
        """Counts the bytes of each storage that operators return, until it is freed."""

        def __init__(self) -> None:
            super().__init__()
            self.seen, self.now, self.peak = {}, 0, 0

        def see(self, tensor: torch.Tensor) -> None:
            storage = tensor.untyped_storage()
            if id(storage) not in self.seen:
                self.seen[id(storage)] = storage.nbytes()
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self.forget, id(storage))

        def forget(self, key: int) -> None:
            self.now -= self.seen.pop(key)

        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if function in PRODUCTS:  # only their sizes count
                left, right = args[-2:]
                returned = left.new_zeros(*left.shape[:-1], right.shape[-1])
            else:
                returned = function(*args, **(kwargs or {}))
            for tensor in tree_leaves(returned):
                # A state of 8 bits is a tensor made of several tensors.
                parts = tensor.tensor_attrs if hasattr(tensor, "tensor_attrs") else []
                for part in [getattr(tensor, name) for name in parts] or [tensor]:
                    if isinstance(part, torch.Tensor):
                        self.see(part)
            return returned

    low = run["precision"] == "bf16-true"
    encoder = model.conditioner.conditioners["prompt"].__dict__["model"]
    model = copy.deepcopy(model, {id(encoder): encoder})
    if low:
        low_precision(model.model)
    dit = model.model.model
    if run["method"] != "full":
        for weight in dit.parameters():  # rows of zeros have no direction
            if not weight.any():
                weight.data.normal_(std=0.02)
        add_adapters(model, run["method"], ADAPTER, 0)
        adapters = sum(p.numel() for p in model.parameters() if p.requires_grad)
        assert adapters == memory.adapter_parameters(counts, run)
    if not run["recompute_activations"]:
        dit.transformer.forward = functools.partial(dit.transformer.forward, use_checkpointing=False)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if low:
        entry = {"optimizer": {"type": "AdamW", "config": {"lr": 1e-4}}}
        optimizer = make_optimizer({"optimizer_configs": {"diffusion": entry}}, run, trained)
    else:
        optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True)
    followers = [copy.deepcopy(model.model)] if run["ema"] else []
    several = memory.synchronises(run)
    if several:  # a group of one process has the same buckets
        torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)

    alive = Alive()
    for module in (model, *followers):
        for tensor in module.state_dict().values():
            alive.see(tensor)
    objective: Any = Objective(model, {}, run["precision"])
    with alive:
        if several:
            objective = torch.nn.parallel.DistributedDataParallel(objective, **strategy(run)._ddp_kwargs)
        for _ in range(2):
            for part in range(run["accumulate"]):
                batch = made_up(run["batch_size"])
                apart = several and part < run["accumulate"] - 1
                with objective.no_sync() if apart else contextlib.nullcontext():
                    objective(batch).mean().backward()
                del batch
            optimizer.step()
            optimizer.zero_grad()
    if several:
        torch.distributed.destroy_process_group()
    return alive.peak


def made_up(size: int) -> dict[str, Any]:
    """A batch for the demo's model, as it comes to a device."""
    import torch

    shape, tokens, width = (size, CONFIG["model"]["io_channels"], FRAMES), 64, 512  # of the demo's text encoder
    return {
        "latents": torch.randn(shape),
        "noise": torch.randn(shape),
        "t": torch.rand(size),
        "keep": torch.ones(size, dtype=torch.bool),
        "heard": torch.ones(size, FRAMES, dtype=torch.bool),
        "length": torch.full((size,), FRAMES),
        "text": torch.randn(size, tokens, width),
        "text_mask": torch.ones(size, tokens, dtype=torch.bool),
        "numbers": {name: torch.rand(size) for name in ("seconds_start", "seconds_total")},
    }


MEASURED = [
    {},
    {"recompute_activations": True},
    {"batch_size": 1},
    {"batch_size": 1, "recompute_activations": True, "ema": True},
    {"batch_size": 32},
    {"batch_size": 32, "recompute_activations": True},
    {"batch_size": 16, "accumulate": 2},
    {"precision": "bf16-true", "batch_size": 2},
    {"precision": "bf16-true", "recompute_activations": True, "batch_size": 4},
    {"precision": "bf16-mixed", "batch_size": 4},
    {"method": "lora"},
    {"method": "lora", "recompute_activations": True, "batch_size": 32},
    {"method": "dora", "precision": "bf16-mixed", "batch_size": 4},
    {"method": "bora"},
    {"method": "dora-cols-xs", "precision": "bf16-mixed", "batch_size": 4},
    {"devices": 2},
    {"devices": 2, "batch_size": 1, "recompute_activations": True, "ema": True},
    {"num_nodes": 2, "batch_size": 1, "accumulate": 2},
    {"devices": 2, "batch_size": 1, "accumulate": 3, "recompute_activations": True},
    {"devices": 2, "batch_size": 1, "precision": "bf16-true"},
    {"devices": 2, "method": "lora"},
    {"dit": "small"},
    {"dit": "small", "batch_size": 32, "recompute_activations": True},
    {"dit": "small", "method": "lora", "batch_size": 16},
    {"dit": "medium"},
    {"dit": "medium", "batch_size": 32},
    {"dit": "medium", "batch_size": 16, "recompute_activations": True},
    {"dit": "medium", "method": "lora", "batch_size": 16},
    {"dit": "medium", "method": "dora", "precision": "bf16-mixed", "batch_size": 4},
]


@pytest.mark.parametrize("changes", MEASURED, ids=lambda changes: " ".join(map(str, changes.values())))
def test_the_estimate_is_close_to_the_measured_peak(base_model: Path, changes: dict[str, Any]) -> None:
    dit, run = changes.get("dit", ""), FULL | changes
    counts = counts_of(dit)
    peak = measured(built(base_model / "hub", dit), run, counts)
    estimate = memory.total(memory.estimate(config_of(dit), counts, run, FRAMES, True))
    low, high = (1.0, 1.16) if "method" in changes else (0.96, 1.08)  # too low an estimate lets a training fail
    assert low * peak <= estimate <= high * peak, estimate / peak


RUNS = st.fixed_dictionaries(
    {
        "method": st.sampled_from(("full", "lora", "dora")),
        "precision": st.sampled_from(("32-true", "16-mixed", "bf16-mixed", "bf16-true")),
        "batch_size": st.sampled_from((1, 2, 6, 16, 31)),
        "accumulate": st.sampled_from((1, 3)),
        "ema": st.booleans(),
        "recompute_activations": st.booleans(),
        "devices": st.sampled_from((1, 2)),
    }
)


@given(RUNS, st.integers(1, 64), st.integers(0, 64), st.integers(1, 1024), st.integers(0, 1024))
def test_a_larger_batch_or_a_longer_window_never_needs_less(
    run: dict[str, Any], batch: int, clips: int, frames: int, longer: int
) -> None:
    least = needed(run | {"batch_size": batch}, frames)
    assert least <= needed(run | {"batch_size": batch + clips}, frames)
    assert least <= needed(run | {"batch_size": batch}, frames + longer)
    assert least < needed(run | {"batch_size": 1000 * batch}, frames)


def advised(message: str) -> dict[str, Any]:
    """The settings that an error line advises."""
    changes: dict[str, Any] = {}
    for line in message.split(": set ")[1].split(", "):
        key, value = line.split(": ")
        if key == "adapter.base_precision":
            changes["adapter"] = ADAPTER | {"base_precision": value}
        else:
            changes[key] = yaml.safe_load(value)
    return changes


@given(RUNS, st.floats(0.01, 0.999), st.booleans())
def test_the_advice_fits_and_names_nothing_needless(run: dict[str, Any], share: float, on_latents: bool) -> None:
    def check(changes: dict[str, Any]) -> dict[str, int]:
        return memory.check(CONFIG, COUNTS, FULL | run | changes, FRAMES, on_latents, available)

    parts = memory.estimate(CONFIG, COUNTS, FULL | run, FRAMES, on_latents)
    available = math.ceil(memory.total(parts) / memory.USABLE)
    assert check({}) == parts
    available = int(share * available)
    with pytest.raises(InputError) as error:
        check({})
    message = str(error.value)
    assert "\n" not in message
    if message.endswith("take a larger device"):
        smallest = {"method": "lora", "batch_size": 1, "ema": False, "recompute_activations": True}
        smallest["accumulate"] = run["accumulate"] * run["batch_size"]
        with pytest.raises(InputError):
            check(smallest | {"precision": "bf16-true"})
        return
    changes = advised(message)
    assert memory.total(check(changes)) <= available
    if "batch_size" in changes:
        accumulated = changes["batch_size"] * changes["accumulate"]
        assert accumulated == run["batch_size"] * run["accumulate"]
    for key in changes.keys() - {"batch_size", "accumulate"}:
        with pytest.raises(InputError):
            check({k: v for k, v in changes.items() if k != key})


@pytest.mark.parametrize(
    ("run", "share", "words"),
    [
        ({"batch_size": 32}, 0.6, ["recompute_activations: true"]),
        ({"batch_size": 32, "recompute_activations": True}, 0.6, ["batch_size: 4, accumulate: 8"]),
        ({"batch_size": 1, "recompute_activations": True, "ema": True}, 0.85, ["ema: false"]),
        ({"batch_size": 1, "recompute_activations": True}, 0.7, ["precision: bf16-true"]),
        ({"batch_size": 1, "recompute_activations": True}, 0.4, ["method: lora"]),
        # A smaller batch would accumulate, and need more memory with several processes.
        ({"batch_size": 2, "devices": 2, "recompute_activations": True}, 0.65, ["precision: bf16-true"]),
        ({"batch_size": 1, "method": "lora", "recompute_activations": True}, 0.75, ["adapter.base_precision: bf16"]),
    ],
)
def test_the_least_harmful_change_is_named(run: dict[str, Any], share: float, words: list[str]) -> None:
    with pytest.raises(InputError) as error:
        memory.check(CONFIG, COUNTS, FULL | run, FRAMES, True, int(share * needed(run) / memory.USABLE))
    assert str(error.value).split(": set ")[1] == ", ".join(words)


AUTO = {"accumulate": "auto", "recompute_activations": None}


def chosen(run: dict[str, Any], share: float) -> tuple[int, int, bool]:
    """`(clips at once, parts, whether activations are recomputed)` where there is a share of what the run needs at once."""
    available = int(share * needed(run) / memory.USABLE)
    way = memory.resolved(CONFIG, COUNTS, FULL | run | AUTO, FRAMES, True, available)
    assert way["batch_size"] * way["accumulate"] == run["batch_size"]
    return way["batch_size"], way["accumulate"], way["recompute_activations"]


def test_a_step_is_taken_as_the_memory_allows() -> None:
    run = {"batch_size": 32}
    assert chosen(run, 1.01) == (32, 1, False)
    shares = [1.01, *(share / 100 for share in range(95, 5, -5))]
    ways = [chosen(run, share) for share in shares]
    slowness = [memory._slowness({"batch_size": size, "recompute_activations": again}) for size, _, again in ways]
    needs = [
        needed({"batch_size": size, "accumulate": parts, "recompute_activations": again}) for size, parts, again in ways
    ]
    assert slowness == sorted(slowness) and len(set(ways)) > 3
    fits = [need <= share * needed(run) for need, share in zip(needs, shares, strict=True)]
    assert fits == sorted(fits, reverse=True), "where something fits, it is taken"
    assert needs[-1] == min(
        needed({"batch_size": 32 // parts, "accumulate": parts, "recompute_activations": again})
        for parts in (1, 2, 4, 8, 16, 32)
        for again in (False, True)
    )


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"accumulate": 2, "recompute_activations": True}, (8, 2, True)),
        ({"accumulate": 2, "recompute_activations": None}, (8, 2, False)),
        ({"accumulate": "auto", "recompute_activations": True}, (8, 1, True)),
    ],
)
def test_what_a_run_sets_is_kept(given: dict[str, Any], expected: tuple[int, int, bool]) -> None:
    way = memory.resolved(CONFIG, COUNTS, FULL | {"batch_size": 8} | given, FRAMES, True, 10**12)
    assert (way["batch_size"], way["accumulate"], way["recompute_activations"]) == expected


def test_a_training_from_audio_needs_the_autoencoder() -> None:
    parts = memory.estimate(CONFIG, COUNTS, FULL, FRAMES, False)
    assert parts["autoencoder"] >= 4 * COUNTS["pretransform"] > 0


def test_parameters_are_counted_from_the_header() -> None:
    from safetensors.torch import load_file

    tensors = load_file(WEIGHTS)
    for part in ("model", "conditioner", "pretransform"):
        assert COUNTS[part] == sum(t.numel() for key, t in tensors.items() if key.startswith(f"{part}."))
    assert COUNTS["shapes"] == {key: tuple(t.shape) for key, t in tensors.items() if key.startswith("model.")}


@pytest.mark.parametrize("kept", [0, 5, 8, 1000, -1])
def test_a_cut_file_of_weights_is_refused(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(WEIGHTS.read_bytes()[:kept])
    with pytest.raises(InputError, match=r"model\.safetensors: not a whole safetensors file") as error:
        memory.parameter_counts(path)
    assert "\n" not in str(error.value)


def test_something_else_is_no_file_of_weights(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    for content in (b"[1]", b'{"a": 1}', b'{"model.a": {"data_offsets": [0, 0]}}', b"\xff\xfe"):
        path.write_bytes(len(content).to_bytes(8, "little") + content)
        with pytest.raises(InputError, match="not a whole safetensors file"):
            memory.parameter_counts(path)
