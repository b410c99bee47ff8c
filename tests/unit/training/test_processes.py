"""The device that a process of a training takes, the memory that is free on it, and the log line about both."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import pytest
import torch
from sao.base.command import InputError
from sao.models.device import Device
from sao.training.processes import check_agreement, free_memory, local_rank, seats


@pytest.mark.parametrize(
    ("given", "rank"),
    [({}, 0), ({"SLURM_LOCALID": "3"}, 3), ({"LOCAL_RANK": "1"}, 1), ({"LOCAL_RANK": "1", "SLURM_LOCALID": "0"}, 1)],
    ids=str,
)
def test_the_gpu_is_chosen_before_it_is_asked(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], rank: int
) -> None:
    for name in ("LOCAL_RANK", "SLURM_LOCALID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    current = [0]
    asked: list[int] = []

    def free_of_current() -> tuple[int, int]:
        asked.append(current[0])
        return 1000 + current[0], 2000

    monkeypatch.setattr("sao.training.processes.this_device", lambda: Device("cuda"))
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: current.__setitem__(0, device))
    monkeypatch.setattr(torch.cuda, "mem_get_info", free_of_current)
    assert local_rank() == rank
    assert free_memory(4) == 1000 + rank
    assert asked == [rank]  # no other process has a context now


def test_the_processes_of_a_node_share_its_main_memory() -> None:
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert free_memory(1) == whole
    assert free_memory(4) == whole // 4


def _process(rank: int, store: str, said: multiprocessing.Queue) -> None:
    os.environ |= {"SLURM_LOCALID": str(rank), "CUDA_VISIBLE_DEVICES": "0,1", "SLURMD_NODENAME": "n1"}
    if rank == 1:
        del os.environ["CUDA_VISIBLE_DEVICES"]
    torch.distributed.init_process_group("gloo", store=torch.distributed.FileStore(store, 2), rank=rank, world_size=2)
    said.put((rank, seats(torch.device("cpu"))))


def test_every_process_is_told_of(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    said = context.Queue()
    processes = [context.Process(target=_process, args=(rank, str(tmp_path / "store"), said)) for rank in range(2)]
    for process in processes:
        process.start()
    lines = dict(said.get(timeout=120) for _ in processes)
    for process in processes:
        process.join(timeout=60)
    assert (
        lines[0]
        == lines[1]
        == [
            "process 0: cpu on n1, SLURM_LOCALID 0, CUDA_VISIBLE_DEVICES 0,1",
            "process 1: cpu on n1, SLURM_LOCALID 1",
        ]
    )


def test_processes_that_take_a_step_differently_are_told() -> None:
    class Fabric:
        device = "cpu"

        def __init__(self, *chosen: list[int]) -> None:
            self.chosen = torch.tensor(chosen)

        def all_gather(self, mine: torch.Tensor) -> torch.Tensor:
            assert torch.equal(mine, self.chosen[0])
            return self.chosen

    settings = {"batch_size": 8, "accumulate": 2, "recompute_activations": False}
    check_agreement(Fabric([8, 2, 0], [8, 2, 0]), settings)
    with pytest.raises(InputError, match=r"differs.* \(clips at once: 8, 4\): set accumulate"):
        check_agreement(Fabric([8, 2, 0], [4, 4, 0]), settings)
