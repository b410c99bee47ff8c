"""Captions as the text encoder understands them: one file per corpus and base model, which a training reads from."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sao.base.command import InputError

import torch

from sao.base.files import read_json
from sao.models.text import Encoded

IN_MEMORY = 1 << 27  # bytes; the captions or latents of a corpus that are no more than this stay in main memory
DIGEST = 32  # bytes of the SHA-256 by which a caption is found


def captions_of(datasets: Path) -> list[str]:
    """The captions that trainings on a folder of dataset configs may use, each once: all to train, the first to validate."""
    found: dict[str, None] = {}
    for path in sorted(datasets.rglob("captions.json")):
        validates = path.relative_to(datasets).parts[0] == "validation"
        for captions in read_json(path).values():
            found.update(dict.fromkeys(captions[:1] if validates else captions))
    return list(found)


def key_of(caption: str) -> bytes:
    return hashlib.sha256(caption.encode("utf-8")).digest()


def packed(captions: Iterable[str], encoded: Iterable[Encoded], keep_padding: bool) -> dict[str, torch.Tensor]:
    """The tensors of the file: `keys [captions, 32]`, `mask` and `kept [captions, tokens]`, and `states [kept, width]`.

    Of padding, nothing is kept unless it reaches the model.
    """
    keys, masks, kept, states = [], [], [], []
    for caption, (state, mask) in zip(captions, encoded, strict=True):
        stays = torch.ones_like(mask) if keep_padding else mask
        keys.append(torch.frombuffer(bytearray(key_of(caption)), dtype=torch.uint8))
        masks.append(mask.cpu())
        kept.append(stays.cpu())
        states.append(state[stays].cpu())
    return {
        "keys": torch.stack(keys),
        "mask": torch.stack(masks),
        "kept": torch.stack(kept),
        "states": torch.cat(states),
    }


class EncodedCaptions:
    """Reads the file. States of captions are read as they are asked for, so that workers share them in main memory."""

    def __init__(self, path: Path) -> None:
        self.path, self.opened = path, (0, None)
        with self._open() as file:
            keys = file.get_tensor("keys").numpy().tobytes()
            self.mask, self.kept = file.get_tensor("mask"), file.get_tensor("kept")
            width = file.get_slice("states").get_shape()[1]
        self.rows = {keys[at : at + DIGEST]: number for number, at in enumerate(range(0, len(keys), DIGEST))}
        self.ends = self.kept.sum(1).cumsum(0).tolist()
        self.stays = 2 * self.kept.numel() * width <= IN_MEMORY  # states are of half precision
        self.read_before: dict[int, Encoded] = {}

    def of(self, caption: str) -> Encoded:
        """`states [tokens, width]`, zero where nothing was kept, and `mask [tokens]`. Raises InputError on an unknown one."""
        row = self.rows.get(key_of(caption))
        if row is None:
            raise InputError(f"{self.path}: does not have the caption {caption[:60]!r}: delete it and run again")
        if row in self.read_before:
            return self.read_before[row]
        known = self._states()[self.ends[row - 1] if row else 0 : self.ends[row]]
        states = torch.zeros(self.kept.shape[1], known.shape[1], dtype=known.dtype)
        states[self.kept[row]] = known
        if self.stays:
            self.read_before[row] = states, self.mask[row]
        return states, self.mask[row]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"opened": (0, None), "read_before": {}}  # an open file does not travel to a worker

    def _open(self) -> Any:
        from safetensors import SafetensorError, safe_open

        try:
            return safe_open(self.path, "pt")
        except SafetensorError as error:
            raise InputError(f"{self.path}: not a whole safetensors file ({error}): delete it and run again") from None

    def _states(self) -> Any:
        """The states in the file, which each process opens for itself."""
        process, states = self.opened
        if process != os.getpid():
            states = self._open().get_slice("states")
            self.opened = os.getpid(), states
        return states
