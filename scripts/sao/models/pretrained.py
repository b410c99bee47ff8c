"""Read the files in which others publish networks: safetensors, or pickles, of which only the tensors are read."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from sao.base.command import InputError

import torch

from sao.models.build import first_line, read_safetensors

# All that the tensors in a file are made with. None of it runs code from the file.
ALLOWED = {
    ("collections", "OrderedDict"),
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_parameter"),
    ("torch", "Size"),
}
NESTED = ("best_state", "state_dict", "model")  # keys under which files keep their weights


class _Left:
    """Stands for an object of a class that is not a tensor's. It keeps and does nothing."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __call__(self, *_: Any, **__: Any) -> _Left:
        return self

    def __setstate__(self, _: Any) -> None: ...

    def __setitem__(self, _: Any, __: Any) -> None: ...

    append = extend = __setstate__


class _Unpickler(pickle.Unpickler):
    """Reads pickles as data: whatever is not part of a tensor becomes a `_Left`."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in ALLOWED or (module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)):
            return super().find_class(module, name)
        return _Left


def _load(file: io.BufferedIOBase, **_: Any) -> Any:
    return _Unpickler(file).load()


def read_published(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a published network, by key. Raises InputError on a file that holds none, without running code of it."""
    with path.open("rb") as handle:
        head = handle.read(9)
    if head[8:] == b"{":
        return read_safetensors(path)
    state = _read_pickle(path)
    while isinstance(state, dict) and (inner := next((state[key] for key in NESTED if _holds(state, key)), None)):
        state = inner
    tensors = (
        {k: v.detach() for k, v in state.items() if isinstance(v, torch.Tensor)} if isinstance(state, dict) else {}
    )
    if not tensors:
        raise InputError(f"{path}: holds no weights: take the file from the place where it was published")
    return tensors


def _holds(state: dict[str, Any], key: str) -> bool:
    return isinstance(state.get(key), dict)


def _read_pickle(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 - a damaged or malicious file may raise anything
        reason = first_line(error)
    try:
        # Some files hold settings beside the weights, in classes of other packages.
        reader = SimpleNamespace(__name__="pickle", Unpickler=_Unpickler, load=_load)
        return torch.load(path, map_location="cpu", weights_only=False, pickle_module=reader)
    except Exception:  # noqa: BLE001
        raise InputError(
            f"{path}: cannot be loaded safely ({reason}): take it from the place where it was published"
        ) from None
