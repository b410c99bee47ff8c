"""A set of sounds as vectors: the file that rule `embed` writes and rule `evaluate` reads. numpy only."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sao.base.command import InputError

import numpy as np

from sao.base.names import corpus_of


@dataclass
class Embedded:
    """The contents of a `.npz` of rule `embed`: `vectors [clips, dim]` in the order of `ids`.

    If the embedding has them: vectors of the prompts (`text`), vectors of all windows of each clip `[windows, dim]`, and the
    probabilities of classes `[clips, classes]`.
    """

    ids: list[str]
    splits: list[str]
    vectors: np.ndarray
    text: np.ndarray | None
    provenance: dict[str, Any]
    windows: list[np.ndarray] | None = None  # without rows for clips of splits that are not rendered
    classes: np.ndarray | None = None

    def write(self, path: Path) -> None:
        arrays: dict[str, Any] = {
            "ids": np.array(self.ids, dtype=str),
            "splits": np.array(self.splits, dtype=str),
            "vectors": self.vectors,
            "provenance": np.array(json.dumps(self.provenance)),
        }
        if self.text is not None:
            arrays["text"] = self.text.astype(np.float32)
        if self.windows is not None:
            arrays["windows"] = np.concatenate(self.windows).astype(np.float32)
            arrays["window_counts"] = np.array([len(each) for each in self.windows])
        if self.classes is not None:
            arrays["classes"] = self.classes.astype(np.float32)
        with path.open("wb") as handle:
            np.savez(handle, **arrays)

    @classmethod
    def read(cls, path: Path) -> Embedded:
        """Read a file. Raises InputError if rule `embed` did not write it."""
        try:
            with np.load(path, allow_pickle=False) as arrays:
                text = arrays.get("text")
                lists = arrays["ids"].tolist(), arrays["splits"].tolist()
                provenance = json.loads(arrays["provenance"].item())
                windows = None
                if "windows" in arrays:
                    windows = np.split(arrays["windows"], np.cumsum(arrays["window_counts"])[:-1])
                return cls(*lists, arrays["vectors"], text, provenance, windows, arrays.get("classes"))
        except (ValueError, KeyError, OSError, EOFError) as error:
            raise InputError(f"{path}: not a file of embeddings ({error}): delete it and run again") from None

    def of(self, ids: Sequence[str]) -> Embedded:
        """The set of these clips, in this order. Raises KeyError if one is missing."""
        by_id = {clip: row for row, clip in enumerate(self.ids)}
        return self._rows([by_id[clip] for clip in ids])

    def rows_of(self, renders: Embedded) -> list[int | None]:
        """The row of each render's own recording, of which this is the set; None for a prompt, which has none."""
        rows = {clip: row for row, clip in enumerate(zip(self.ids, self.splits, strict=True))}
        return [rows.get(clip) for clip in zip(renders.ids, renders.splits, strict=True)]

    def of_splits(self, *splits: str) -> Embedded:
        """The set of the clips of these splits."""
        return self._rows([row for row, split in enumerate(self.splits) if split in splits])

    def of_corpus(self, corpus: str) -> Embedded:
        """The set of the clips of one corpus of a mixture; all, if it is empty."""
        return self._rows([row for row, clip in enumerate(self.ids) if corpus in ("", corpus_of(clip))])

    def _rows(self, rows: list[int]) -> Embedded:
        text = None if self.text is None else self.text[rows]
        ids, splits = [self.ids[row] for row in rows], [self.splits[row] for row in rows]
        windows = None if self.windows is None else [self.windows[row] for row in rows]
        classes = None if self.classes is None else self.classes[rows]
        return Embedded(ids, splits, self.vectors[rows], text, self.provenance, windows, classes)


def stack(vectors: Sequence[np.ndarray]) -> np.ndarray:
    """Stack vectors of unequal length as `[clips, dim]`, padded with zeros at their ends."""
    width = max(map(len, vectors))
    return np.stack([np.pad(v, (0, width - len(v))) for v in vectors])
