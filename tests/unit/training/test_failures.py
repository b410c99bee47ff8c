"""What torch raises in a training becomes one line."""

from __future__ import annotations

import pytest
import torch
from sao.base.command import InputError
from sao.training.failures import explained


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_memory_that_is_short_is_told_with_settings(error: RuntimeError) -> None:
    with (
        pytest.raises(InputError, match=r"^run a: out of memory: lower batch_size .*, or method to lora$"),
        explained("a"),
    ):
        raise error


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(InputError, match=r"^run a: the loss is nan$"), explained("a"):
        raise InputError("run a: the loss is nan")
    with pytest.raises(RuntimeError, match=r"^mat1 and mat2"), explained("a"):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")
