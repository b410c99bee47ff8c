"""Schedules of the learning rate, compared with those of stable-audio-tools."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from sao.base.command import InputError
from sao.training.schedule import check_schedule, inverse_lr, make_scheduler
from steps import section

ADAMW = {"type": "AdamW", "config": {"lr": 1e-3}}


def parameter() -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.ones(2))


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
        make_scheduler(section(scheduler=entry), torch.optim.SGD([parameter()], lr=0.1))
    assert "\n" not in str(error.value)


def rates(scheduler: dict | None, steps: int) -> list[float]:
    optimizer = torch.optim.SGD([parameter()], lr=0.1)
    schedule = make_scheduler(section(scheduler=scheduler), optimizer)
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


def test_schedule_has_to_last_as_long_as_the_training() -> None:
    def once(steps: int) -> dict:
        return section(ADAMW, {"type": "OneCycleLR", "config": {"max_lr": 0.1, "total_steps": steps}})

    for steps in (1, 7, 20_000):
        check_schedule(once(steps), steps)
        check_schedule(once(steps + 1), steps)
        with pytest.raises(InputError, match=f"OneCycleLR ends after {steps} of {steps + 1} steps"):
            check_schedule(once(steps), steps + 1)
    check_schedule(section(ADAMW), 99_999_999)
