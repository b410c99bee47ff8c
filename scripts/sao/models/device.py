"""The device that models run on, and what it cannot do. No other module asks torch what there is.

This was run on CPUs and on NVIDIA's GPUs. The lines for Apple's (`mps`) and Intel's (`xpu`) follow PyTorch's documentation; nobody
has run them on one yet.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
from dataclasses import dataclass
from types import ModuleType

from sao.base.command import DEVICE, InputError

import torch

from sao.models.build import full_float32

KINDS = ("cuda", "xpu", "mps", "cpu")  # in the order in which `auto` looks for them


@dataclass(frozen=True)
class Device:
    """A kind of device."""

    kind: str

    @property
    def is_gpu(self) -> bool:
        return self.kind != "cpu"

    @property
    def _module(self) -> ModuleType:
        """torch.cuda, torch.xpu or torch.mps."""
        module: ModuleType = getattr(torch, self.kind)
        return module

    @property
    def double(self) -> torch.dtype:
        """The widest numbers: Apple's GPUs have no float64."""
        return torch.float32 if self.kind == "mps" else torch.float64

    @property
    def pins_memory(self) -> bool:
        return self.kind in ("cuda", "xpu")

    @property
    def accelerator(self) -> str:
        """The name that Lightning Fabric has for it. Raises InputError on a device that it does not train on."""
        if self.kind == "xpu":
            raise InputError("device is 'xpu', and Lightning Fabric does not train on it: set device to cpu")
        return self.kind

    def count(self) -> int:
        return int(self._module.device_count()) if self.is_gpu else 1

    def name(self) -> str:
        return str(self._module.get_device_name()) if self.kind in ("cuda", "xpu") else self.kind

    def select(self, number: int) -> None:
        """Choose one of several. Else a question would open a context on the first one, some hundred MB from each process."""
        if self.kind in ("cuda", "xpu"):
            self._module.set_device(number)

    def free(self) -> int:
        """Bytes that are free on it, or that the machine has."""
        if self.kind in ("cuda", "xpu"):
            return int(self._module.mem_get_info()[0])
        if self.kind == "mps":
            return int(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")

    def peak(self) -> int | None:
        """The most bytes that tensors had since `reset_peak`, where it counts them."""
        return int(self._module.max_memory_allocated()) if self.kind in ("cuda", "xpu") else None

    def reset_peak(self) -> None:
        if self.kind in ("cuda", "xpu"):
            self._module.reset_peak_memory_stats()

    def held(self) -> tuple[int, int]:
        """Bytes of tensors, and bytes that the allocator holds for them and for more."""
        return int(self._module.memory_allocated()), int(self._module.memory_reserved())

    def empty_cache(self) -> None:
        if self.is_gpu:
            self._module.empty_cache()

    def missing_compiler(self) -> str | None:
        """What `torch.compile` needs for it and does not find, or None."""
        if self.is_gpu:
            if importlib.util.find_spec("triton") is None:
                return "the Python package triton"
            names = [os.environ["CC"]] if os.environ.get("CC") else ["gcc", "clang", "cc"]
            return None if any(map(shutil.which, names)) else f"a C compiler ({' or '.join(names)})"
        name = os.environ.get("CXX", "g++")
        return None if shutil.which(name) else f"a C++ compiler ({name})"


def is_there(kind: str) -> bool:
    if kind == "mps":
        return torch.backends.mps.is_available()
    return kind == "cpu" or bool(getattr(torch, kind).is_available())


@functools.cache
def this_device() -> Device:
    """The device of this process: the config's `device`, or the first that there is. Raises InputError if it is not there."""
    full_float32()
    wanted = os.environ.get(DEVICE) or "auto"
    if wanted == "auto":
        return Device(next(filter(is_there, KINDS)))
    if wanted not in KINDS:
        raise InputError(f"device is {wanted!r}; known are auto, {', '.join(KINDS)}")
    if not is_there(wanted):
        raise InputError(f"device is {wanted!r}, and PyTorch {torch.__version__} finds none: set it to auto or cpu")
    return Device(wanted)
