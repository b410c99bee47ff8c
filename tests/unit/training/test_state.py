"""Training states are read back unchanged, with the provenance of their training."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from sao.base.command import InputError
from sao.training.leg import versions
from sao.training.state import differences, read_state, save_state


def test_differences_are_named() -> None:
    past = {"torch": "2.0", "settings": {"seed": 1, "adapter": {"rank": 4}}, "corpus": "a" * 64}
    assert differences(past, copy.deepcopy(past)) == []
    now = {
        "torch": "2.0",
        "settings": {"seed": 2, "adapter": {"rank": 8}, "ema": None},
        "corpus": "b" * 64,
        "code": "x",
    }
    assert differences(past, now) == [
        "code (None then, x now)",
        f"corpus ({'a' * 12}… then, {'b' * 12}… now)",
        "settings.adapter.rank (4 then, 8 now)",
        "settings.seed (1 then, 2 now)",
    ]
    assert differences({"adapter": None}, {"adapter": {"rank": 4}}) == ["adapter (None then, {'rank': 4} now)"]


def test_state_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "leg/state.ckpt"
    state = {
        "step": 3,
        "provenance": versions(),
        "weights": {"a": torch.randn(3)},
        "optimizer": {},
        "rows": [[1, None]],
        "speeds": [[2.5, None]],
    }
    save_state(path, state)
    found = read_state(path)
    assert torch.equal(found["weights"].pop("a"), state["weights"].pop("a")) and found == state
    assert [file.name for file in path.parent.iterdir()] == ["state.ckpt"]
    save_state(path, {"step": 3, "rows": [], "speeds": []})
    with pytest.raises(InputError, match=r"a training state without optimizer, provenance, weights: delete it"):
        read_state(path)
    with pytest.raises(InputError, match="not a training state"):
        read_state(tmp_path / "none.ckpt")
