"""A step of the optimiser is a function of seed and step, runs no text encoder, and reads nothing back from the device."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sao.training.average import MovingAverage
from sao.training.memory import ADAPTER as DEFAULT_ADAPTER
from sao.training.objective import Objective
from sao.training.optimizer import make_optimizer
from sao.training.prepare import make_trainable
from sao.training.schedule import make_scheduler
from sao.training.update import Update, seed_step
from steps import make_batch, make_model, section
from torch.utils._python_dispatch import TorchDispatchMode

STEPS = 3
READS = ("aten._local_scalar_dense.default", "aten.equal.default", "aten.is_nonzero.default", "aten.nonzero.default")
ADAPTER: dict[str, Any] = DEFAULT_ADAPTER | {"rank": 2, "alpha": 2, "target_modules": ["to_qkv"]}


class Counted(TorchDispatchMode):
    """Counts operations, and moves between devices, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls[str(function)] += 1
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("clip", [0, 1.0], ids=["unclipped", "clipped"])
@pytest.mark.parametrize("precision", ["32-true", pytest.param("bf16-mixed", marks=pytest.mark.slow)])
@pytest.mark.parametrize("method", ["full", "lora"])
def test_steps_read_nothing_and_encode_no_text(
    base_model: Path, monkeypatch: pytest.MonkeyPatch, method: str, precision: str, clip: float
) -> None:
    from lightning_fabric import Fabric

    model = make_model(base_model)
    del model.model.model.transformer.layers[1:]
    batches = [make_batch(model, seed, size=2) for seed in range(2)]
    conditioner = model.conditioner.conditioners["prompt"]
    monkeypatch.setattr(conditioner, "tokenizer", None)
    conditioner.__dict__["model"] = None
    settings = {"method": method, "adapter": ADAPTER, "precision": precision, "recompute_activations": False, "seed": 0}
    settings |= {"accumulate": 2, "gradient_clip": clip}
    weights = make_trainable(model, settings, compile_blocks=False)
    training = section({"type": "AdamW", "config": {"lr": 1e-4}}, {"type": "InverseLR", "config": {"inv_gamma": 10.0}})
    fabric = Fabric(accelerator="cpu", devices=1, precision="32-true")
    objective, optimizer = fabric.setup(
        Objective(model, {}, precision), make_optimizer(training, settings, [*weights.values()])
    )
    scheduler, average = make_scheduler(training, optimizer.optimizer), MovingAverage(weights)
    update, stream, losses = (
        Update(fabric, objective, optimizer, [*weights.values()], settings),
        itertools.cycle(batches),
        [],
    )

    def step(number: int) -> None:
        losses.append(torch.stack([update.backward(stream, number), update.clip().double()]))
        update.apply(number)
        scheduler.step()
        average.update()

    step(0)
    with Counted() as counted:
        for number in range(1, STEPS + 1):
            step(number)
    assert {name: counted.calls[name] for name in READS if counted.calls[name]} == {}
    found = torch.stack(losses)
    assert torch.isfinite(found).all() and found[-1, 0] < found[0, 0]
    # Every step runs the same operations.
    assert all(count % STEPS == 0 for count in counted.calls.values()), counted.calls


def test_a_step_seeds_all_generators() -> None:
    def drawn(*key: int) -> tuple:
        seed_step(*key)
        return random.random(), float(np.random.random()), float(torch.rand(1))

    first = drawn(0, 5, 0)
    assert drawn(0, 5, 0) == first
    for other in ((1, 5, 0), (0, 6, 0), (0, 5, 1)):
        assert not set(drawn(*other)) & set(first)
    # torch.manual_seed would keep a traceback of every call for a GPU that is not there.
    waiting = len(torch.cuda._queued_calls)
    drawn(0, 5, 0)
    assert len(torch.cuda._queued_calls) == waiting
