"""A set of sounds as signals: the file that rule `signals` writes and rule `evaluate` reads. numpy only.

Spectrograms are as long as the sounds. So each is written as soon as it is computed, and read only when it is needed. A large
set needs no more memory than a small one.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sao.base.command import InputError

import numpy as np

from sao.evaluation.measure import Fact, Signal

ARRAYS = ("log_mel", "thumbnail")


def write_signals(path: Path, signals: Iterable[tuple[str, Signal]]) -> None:
    """Write the signals of clips, by clip_id, as a `.npz` without compression."""
    facts: dict[str, dict[str, Fact]] = {}
    with zipfile.ZipFile(path, "w") as archive:
        for clip, signal in signals:
            for name in ARRAYS:
                _write(archive, f"{name}/{len(facts)}", getattr(signal, name))
            facts[clip] = signal.facts
        _write(archive, "facts", np.array(json.dumps(facts)))


def _write(archive: zipfile.ZipFile, name: str, array: np.ndarray) -> None:
    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
        np.lib.format.write_array(member, array, allow_pickle=False)


class Signals:
    """The signals in a file. Raises InputError if rule `signals` did not write it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.archive = zipfile.ZipFile(path)
            self.facts: dict[str, dict[str, Any]] = json.loads(self._array("facts").item())
        except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise InputError(f"{path}: not a file of signals ({error}): delete it and run again") from None
        self.rows = {clip: row for row, clip in enumerate(self.facts)}

    def of(self, clip: str) -> Signal:
        """The signal of a clip. Raises InputError if it is missing."""
        log_mel, thumbnail = (self._array_of(clip, name) for name in ARRAYS)
        return Signal(self.facts[clip], log_mel, thumbnail)

    def thumbnail(self, clip: str) -> np.ndarray:
        """The thumbnail of a clip alone, which is far smaller than its spectrogram."""
        return self._array_of(clip, "thumbnail")

    def _array_of(self, clip: str, name: str) -> np.ndarray:
        if clip not in self.rows:
            raise InputError(f"{self.path}: has no signal of clip {clip}: delete it and run again")
        return self._array(f"{name}/{self.rows[clip]}")

    def _array(self, name: str) -> np.ndarray:
        with self.archive.open(f"{name}.npy") as member:
            return np.lib.format.read_array(member, allow_pickle=False)
