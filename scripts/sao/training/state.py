"""Training states: all that the next step depends on, in one file, with a digest that vouches for it.

A leg goes on from the state that lies furthest on its way: that of the leg before, of a leg that was interrupted, or of
an end that the run had before.
"""

from __future__ import annotations

import contextlib
import hashlib
import pickle
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

from sao.base.command import InputError, log

import torch

from sao.base.files import whole
from sao.base.names import write_known_digests
from sao.base.vouched import LISTING, leg_files
from sao.models.build import first_line

State = dict[str, Any]
INTERRUPTED = ".interrupted"  # folder of the states of legs that were stopped


class _Hashed:
    """A file that is written and hashed by threads, block by block, while torch fetches the next tensors from the GPU.

    Hashing is the slowest of the three. A block holds several tensors, so that it goes on while torch fetches one.
    """

    LARGEST = 1 << 28  # bytes of a block

    def __init__(self, handle: BinaryIO, expected: int) -> None:
        self.handle, self.hasher, self.pool = handle, hashlib.sha256(), ThreadPoolExecutor(2)
        self.running: list[Future[None]] = []
        # One is filled while the other is written. The memory that torch gives is used again as soon as `write` ends.
        self.block = max(min(expected // 8, self.LARGEST), 1 << 16)
        self.filling, self.waiting = (memoryview(bytearray(self.block)) for _ in range(2))
        self.filled = 0

    def write(self, data: memoryview) -> int:
        size, done = len(data), 0
        while done < size:
            part = min(size - done, self.block - self.filled)
            self.filling[self.filled : self.filled + part] = data[done : done + part]
            self.filled, done = self.filled + part, done + part
            if self.filled == self.block:
                self.hand_over()
        return size

    def hand_over(self) -> None:
        self.wait()
        block, begun = self.filling[: self.filled], threading.Barrier(3)
        self.running = [
            self.pool.submit(_after, begun, work, block) for work in (self.hasher.update, self.handle.write)
        ]
        begun.wait()  # while torch fetches a tensor, no other thread of Python can begin
        self.filling, self.waiting, self.filled = self.waiting, self.filling, 0

    def flush(self) -> None:
        self.hand_over()
        self.wait()
        self.handle.flush()

    def wait(self) -> None:
        for work in self.running:
            work.result()


def _after(begun: threading.Barrier, work: Callable[[memoryview], Any], block: memoryview) -> None:
    begun.wait()
    work(block)


def tensor_bytes(value: Any) -> int:
    """Bytes of all tensors in nested dicts and lists."""
    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size()
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return sum(map(tensor_bytes, parts))


def save_state(path: Path, state: State) -> str:
    """Write a training state, whole or not at all; returns its SHA-256."""
    size = tensor_bytes(state)
    with whole(path, size) as temporary, temporary.open("wb") as handle:
        hashed: Any = _Hashed(handle, size)
        with _without_crc32():  # the digest vouches for the file
            torch.save(state, hashed)
        hashed.flush()
    return hashed.hasher.hexdigest()


@contextlib.contextmanager
def _without_crc32() -> Iterator[None]:
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        yield
    finally:
        torch.serialization.set_crc32_options(before)


def read_state(path: Path) -> State:
    """A training state. Its tensors stay on the disk until they are used. Raises InputError on anything else."""
    try:
        try:
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except pickle.UnpicklingError as error:
            if "torchao" not in str(error):
                raise
            import torchao.optim  # noqa: F401 - which says that its states of 8 bits hold no code

            state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        missing = {"step", "provenance", "weights", "optimizer", "rows", "speeds"} - set(state)
    except Exception as error:  # noqa: BLE001 - a damaged or malicious file may raise anything
        raise InputError(
            f"{path}: not a training state that can be loaded safely ({first_line(error)}): delete it and the legs after "
            "it, then run again"
        ) from None
    if missing:
        raise InputError(f"{path}: a training state without {', '.join(sorted(missing))}: delete it, then run again")
    return state


def write_state(path: Path, state: State) -> None:
    """Write a training state and the listing that vouches for it."""
    listing = state_listing(path)
    listing.unlink(missing_ok=True)  # of a state that was here before
    saved = save_state(path, state)
    write_known_digests(listing, {path.name: saved})


def interrupted_state(run: Path, identity: str) -> Path:
    """The path at which a training of this identity keeps its state when it is stopped, in the folder of its run."""
    return run / INTERRUPTED / f"{identity}.ckpt"


def state_listing(path: Path) -> Path:
    """The file with the digest of a training state: the listing of its leg, or a file beside the state of an interrupted leg."""
    return path.with_suffix(".sha256") if path.parent.name == INTERRUPTED else path.with_name(LISTING)


def changed_state(path: Path) -> str | None:
    """Why a training state does not match its digest; None if it does."""
    listing = state_listing(path)
    files = leg_files(listing, path.name) if listing.is_file() else []
    if not files:
        return f"{path}: nothing vouches for it ({listing} does not): delete {path.parent} and run again"
    return files[0].wrong()


def find_state(
    resume: Path | None,
    folder: Path,
    provenance: dict[str, Any],
    end: int,
    changed: Callable[[Path], str | None] = changed_state,
) -> tuple[Path, State] | None:
    """The state to go on from, with its path: `resume`, or one of the same provenance that lies further on the way to `end`.

    `folder` is that of the leg. A training is a function of its provenance and the step, so any state on the way will do.
    Raises InputError where `resume` has another provenance, and where it changed after it was made; another state that
    changed is passed over. `changed` says what is wrong with a state.
    """
    candidates = [(resume, resumed_state(resume, folder, provenance))] if resume else []
    least = candidates[0][1]["step"] if candidates else 0
    for path in [*folder.parent.glob("*/state.ckpt"), *folder.parent.glob(f"{INTERRUPTED}/*.ckpt")]:
        try:
            state = read_state(path)
        except InputError as error:  # the training goes on without it
            log.warning("warning: %s", error)
            continue
        if state["provenance"] == provenance and least < state["step"] <= end:
            candidates.append((path, state))
    for path, state in sorted(candidates, key=lambda candidate: -candidate[1]["step"]):
        wrong = changed(path)
        if not wrong:
            return path, state
        if path == resume:
            raise InputError(wrong)
        log.warning("warning: not gone on from: %s", wrong)
    return None


def resumed_state(path: Path, folder: Path, provenance: dict[str, Any]) -> State:
    """The state that a leg was given. Raises InputError if it belongs to another training."""
    state = read_state(path)
    if changes := differences(state["provenance"], provenance):
        raise InputError(
            f"{path}: was trained from something else: {'; '.join(changes)}. Set that back, or delete {folder.parent} to "
            "train anew"
        )
    return state


def differences(then: Mapping[str, Any], now: Mapping[str, Any], at: str = "") -> list[str]:
    """The differences between two provenances, in words: `settings.seed (0 then, 1 now)`."""
    lines = []
    for key in sorted(set(then) | set(now)):
        old, new = then.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            lines += differences(old, new, f"{at}{key}.")
        elif old != new:
            lines.append(f"{at}{key} ({_short(old)} then, {_short(new)} now)")
    return lines


def _short(value: Any) -> str:
    return f"{value[:12]}…" if isinstance(value, str) and len(value) > 16 else str(value)
