"""The device that a process of a training takes, the memory that is free on it, and the log line about both."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from conftest import SCRIPTS, assert_succeeds
from forks import Forks
from sao.base.command import InputError
from sao.models.device import Device
from sao.training.processes import check_agreement, free_memory, local_rank


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


SEATS = """
import sys
import torch.distributed
scripts, store, rank = sys.argv[1:]
sys.path.insert(0, scripts)
from sao.training.processes import seats
shared = torch.distributed.FileStore(store, 2)
torch.distributed.init_process_group("gloo", store=shared, rank=int(rank), world_size=2)
print(*seats(torch.device("cpu")), sep="\\n")
"""


def test_every_process_is_told_of(forks: Forks, tmp_path: Path) -> None:
    program = tmp_path / "seats.py"
    program.write_text(SEATS, encoding="utf-8")
    started = []
    for rank, gpus in enumerate(("0,1", None)):
        env = {"SLURM_LOCALID": str(rank), "CUDA_VISIBLE_DEVICES": gpus, "SLURMD_NODENAME": "n1"}
        given = (SCRIPTS, tmp_path / "store", rank)
        started.append(forks.program(program, *given, cwd=tmp_path, env=env))
    for result in [each.finish(60) for each in started]:
        assert_succeeds(result)
        assert result.stdout.splitlines() == [
            "process 0: cpu on n1, SLURM_LOCALID 0, CUDA_VISIBLE_DEVICES 0,1",
            "process 1: cpu on n1, SLURM_LOCALID 1",
        ]


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
