"""The learning rate of each step, from the schedule that a model config or a run names."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from sao.base.command import InputError

import torch

from sao.models.build import first_line

SCHEDULED = 10_000  # steps of a schedule that are tried; what ends later says so itself


def make_scheduler(config: dict[str, Any], optimizer: torch.optim.Optimizer) -> Any:
    """The learning-rate schedule of a model config's `training` section, or a constant one; raises InputError."""
    entry = config["optimizer_configs"]["diffusion"].get("scheduler") or {"type": "constant"}
    kind, options = entry["type"], entry.get("config") or {}
    schedulers = torch.optim.lr_scheduler
    try:
        if kind == "constant" and not options:
            return schedulers.LambdaLR(optimizer, lambda _: 1.0)
        if kind == "InverseLR":
            return schedulers.LambdaLR(optimizer, inverse_lr(optimizer.defaults["lr"], **options))
        make = getattr(schedulers, kind, None)
        if not isinstance(make, type) or not issubclass(make, schedulers.LRScheduler) or kind == "ReduceLROnPlateau":
            raise InputError(
                f"there is no schedule {kind!r}: set scheduler.type to InverseLR, constant, or a class in "
                "torch.optim.lr_scheduler that needs no metric"
            )
        return make(optimizer, **options)
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise InputError(
            f"schedule {kind} cannot be made with {options} ({first_line(error)}): set the run's scheduler"
        ) from None


def inverse_lr(
    base: float, inv_gamma: float = 1.0, power: float = 1.0, warmup: float = 0.0, final_lr: float = 0.0
) -> Callable[[int], float]:
    """stable-audio-tools' InverseLR as a factor of the base rate; its own class cannot be made with torch 2.7 or later."""
    if not 0 <= warmup < 1:
        raise ValueError(f"warmup is {warmup}, not in [0, 1)")
    return lambda n: (1 - warmup ** (n + 1)) * max(final_lr / base, (1 + n / inv_gamma) ** -power)


def check_schedule(config: dict[str, Any], steps: int) -> None:
    """Raise InputError where the schedule of a `training` section cannot be followed for `steps` steps.

    It is stepped alone, on a made-up weight, which takes a tenth of a second: a schedule that ends before the training
    (OneCycleLR) raises only then, after hours.
    """
    entry = config["optimizer_configs"]["diffusion"]
    kind = (entry.get("scheduler") or {"type": "constant"})["type"]
    rate = (entry["optimizer"].get("config") or {}).get("lr", 1e-3)
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=rate)
    scheduler = make_scheduler(config, optimizer)
    ends = getattr(scheduler, "total_steps", None)
    cure = f"set the run's scheduler so that it lasts for the {steps} steps of the training"
    if ends is not None and ends < steps:
        raise InputError(f"schedule {kind} ends after {ends} of {steps} steps: {cure}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the optimiser did not step
        for step in range(min(steps, SCHEDULED)):
            try:
                scheduler.step()
            except Exception as error:  # noqa: BLE001 - whatever a schedule raises, the user hears of it now
                raise InputError(
                    f"schedule {kind} fails at step {step + 1} ({type(error).__name__}: {first_line(error)}): {cure}"
                ) from None
