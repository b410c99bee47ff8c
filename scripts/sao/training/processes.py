"""The processes that train together: which device each has, how much of its memory is free, and what each sees."""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from sao.base.command import InputError

import torch

from sao.models.device import this_device
from sao.training.memory import split, synchronises

if TYPE_CHECKING:
    from lightning_fabric import Fabric
    from lightning_fabric.strategies.ddp import DDPStrategy


def local_rank() -> int:
    """The number of this process among those of its node, from 0, which is that of the device that it trains on.

    Lightning gives it to the processes that it starts itself, srun to those that it starts.
    """
    return int(os.environ.get("LOCAL_RANK") or os.environ.get("SLURM_LOCALID") or 0)


def free_memory(processes: int) -> int:
    """Bytes that are free for this process: on its own GPU, or its share of main memory among those of its node."""
    this_device().select(local_rank())
    return this_device().free() if this_device().is_gpu else this_device().free() // processes


@contextlib.contextmanager
def _without_torchmetrics() -> Iterator[None]:
    """Let torchmetrics be missing. lightning_fabric asks for its version (lightning_fabric/utilities/imports.py) for a class
    that no training here uses. With it come transformers, torchvision and matplotlib: two seconds of every start.
    """
    if "torchmetrics" in sys.modules:
        yield
        return
    sys.modules["torchmetrics"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules["torchmetrics"]


def start_processes(settings: Mapping[str, Any]) -> Fabric:
    """Start the other processes of this node, unless srun did, and give each its device."""
    with _without_torchmetrics():
        from lightning_fabric import Fabric

    fabric = Fabric(
        accelerator=this_device().accelerator,
        devices=settings["devices"],
        num_nodes=settings["num_nodes"],
        strategy=strategy(settings),
        # Plain: the others round what comes in, timesteps too, before the objective has it.
        precision="32-true",
    )
    fabric.launch()
    return fabric


def check_agreement(fabric: Any, settings: Mapping[str, Any]) -> None:
    """Each process chose by its own device's memory how to take a step; all have to take it in the same way."""
    mine = [int(settings[key]) for key in ("batch_size", "accumulate", "recompute_activations")]
    chosen = fabric.all_gather(torch.tensor(mine, device=fabric.device)).reshape(-1, len(mine)).tolist()
    if any(each != chosen[0] for each in chosen):
        raise InputError(
            f"the free memory of the devices differs, and so do the ways to take a step in it (clips at once: "
            f"{', '.join(str(each[0]) for each in chosen)}): set accumulate to a number, and recompute_activations"
        )


def any_of(flag: bool) -> bool:
    """Whether `flag` is true in any process of the training. All have to ask.

    They tell each other through main memory: through a GPU, each would wait until its own is done.
    """
    if not torch.distributed.is_initialized():
        return flag
    told = torch.tensor(int(flag))
    torch.distributed.all_reduce(told, torch.distributed.ReduceOp.MAX, group=_hosts())
    return bool(told)


@functools.cache
def _hosts() -> torch.distributed.ProcessGroup:
    return torch.distributed.new_group(backend="gloo")


def strategy(settings: Mapping[str, Any]) -> DDPStrategy | str:
    """Lightning's, for the settings of a run, or ours. Where processes exchange gradients, those are views of what is exchanged.

    Else they would be copies, 4 bytes a trained parameter. Safe here: nothing detaches a gradient in place
    (`gradient_as_bucket_view`, torch.nn.parallel.DistributedDataParallel).
    """
    if split(settings):
        from sao.training.fsdp import Sharded

        return Sharded()
    from lightning_fabric.strategies.ddp import DDPStrategy

    return DDPStrategy(gradient_as_bucket_view=True) if synchronises(settings) else "auto"


def seats(device: torch.device) -> list[str]:
    """One line per process of the training, in order: its device, its node, and the GPUs that it sees. Each process has to call it."""
    names = ("SLURM_LOCALID", "CUDA_VISIBLE_DEVICES")
    given = "".join(f", {name} {os.environ[name]}" for name in names if name in os.environ)
    node = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
    lines = [""] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(lines, f"{device} on {node}{given}")
    return [f"process {rank}: {line}" for rank, line in enumerate(lines)]
