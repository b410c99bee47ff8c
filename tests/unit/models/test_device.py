"""One place knows the device: what the config asks for, and what the device cannot do."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest
import torch
from conftest import SCRIPTS
from sao.base.command import InputError
from sao.models.device import KINDS, Device, is_there, this_device


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    this_device.cache_clear()
    yield
    this_device.cache_clear()


def test_auto_takes_the_first_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    for wanted in ("auto", ""):
        monkeypatch.setenv("SAO_DEVICE", wanted)
        for there in KINDS:
            monkeypatch.setattr("sao.models.device.is_there", lambda kind, there=there: kind in (there, "cpu"))
            this_device.cache_clear()
            assert this_device().kind == there
    torch.backends.cuda.matmul.allow_tf32 = True
    this_device.cache_clear()
    assert this_device() and not torch.backends.cuda.matmul.allow_tf32


@pytest.mark.parametrize(
    ("wanted", "message"),
    [("gpu", "device is 'gpu'; known are auto, cuda, xpu, mps, cpu"), ("mps", "'mps', and PyTorch .* finds none")],
)
def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch, wanted: str, message: str) -> None:
    monkeypatch.setenv("SAO_DEVICE", wanted)
    monkeypatch.setattr("sao.models.device.is_there", lambda kind: kind == "cpu")
    with pytest.raises(InputError, match=message):
        this_device()


def test_what_a_kind_can_do() -> None:
    assert [Device(kind).double for kind in KINDS] == [torch.float64, torch.float64, torch.float32, torch.float64]
    assert [Device(kind).pins_memory for kind in KINDS] == [True, True, False, False]
    assert [Device(kind).accelerator for kind in ("cuda", "mps", "cpu")] == ["cuda", "mps", "cpu"]
    with pytest.raises(InputError, match="Lightning Fabric does not train on it"):
        _ = Device("xpu").accelerator
    cpu = Device("cpu")
    assert (cpu.count(), cpu.name(), cpu.peak()) == (1, "cpu", None) and cpu.free() > 2**28 and is_there("cpu")
    cpu.select(0)
    cpu.reset_peak()
    cpu.empty_cache()


def test_what_is_asked_exists_in_torch() -> None:
    """Nobody has run the lines for xpu and mps: at least the functions are there."""
    for kind in ("cuda", "xpu"):
        for name in (
            "is_available", "device_count", "get_device_name", "set_device", "mem_get_info", "max_memory_allocated",
            "reset_peak_memory_stats", "memory_allocated", "memory_reserved", "empty_cache",
        ):  # fmt: skip
            assert callable(getattr(getattr(torch, kind), name)), (kind, name)
    for name in ("device_count", "recommended_max_memory", "driver_allocated_memory", "empty_cache"):
        assert callable(getattr(torch.mps, name)), name
    assert callable(torch.backends.mps.is_available)


def test_no_other_module_asks_torch() -> None:
    kinds = ("torch.cuda.", "torch.xpu.", "torch.mps.", "torch.accelerator.", "torch.backends.mps.")
    for path in set(SCRIPTS.rglob("*.py")) - {SCRIPTS / "sao/models/device.py"}:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        asked = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        assert not [name for name in asked if name.startswith(kinds)], path
