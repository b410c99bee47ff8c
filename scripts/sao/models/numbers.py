"""The numbers that a model's conditioners take beside a caption: `bpm`, `syncopation`. They come from columns of metadata.

A column of the corpus's metadata becomes `value_<column>` of the manifest. Dataset configs and renders take it from there.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection
from dataclasses import dataclass

from sao.base.command import InputError

from sao.models.config import CLIP_INPUTS, NUMBERS, ModelConfig, input_of

Numbers = dict[str, float | int]


@dataclass(frozen=True)
class Number:
    """A conditioner that takes a number."""

    name: str  # of the column
    whole: bool
    low: float
    high: float

    def read(self, text: str) -> float | int:
        """The number in a cell. Raises ValueError, whose text goes after the name of the cell, unless the model can take it.

        stable-audio-tools would move a number outside of the conditioner's range to its nearer end, without a word.
        """
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or (self.whole and value != int(value)):
            raise ValueError(f"is {text[:40]!r}, not a {'whole ' if self.whole else ''}number")
        if not self.low <= value <= self.high:
            raise ValueError(f"is {text[:40]!r}; the model knows {self.low:g} to {self.high:g}")
        return int(value) if self.whole else value


def numbers_of(config: ModelConfig) -> list[Number]:
    """The numbers that a model takes from columns of the metadata.

    The ranges' defaults are those of NumberConditioner and IntConditioner (stable_audio_tools/models/conditioners.py). The
    latter takes a number for the row of a table that has `max_val - min_val + 1` rows, and does not subtract `min_val`.
    """
    found = []
    for entry in config["model"]["conditioning"]["configs"]:
        name, whole = input_of(config, entry), entry["type"] == "int"
        if entry["type"] in NUMBERS and name not in CLIP_INPUTS:
            options = {"min_val": 0, "max_val": 512 if whole else 1} | entry["config"]
            low, high = options["min_val"], options["max_val"]
            found.append(Number(name, whole, *((max(low, 0), min(high, high - low)) if whole else (low, high))))
    return found


def column_of(number: Number) -> str:
    """The column of a manifest, and of the tables made of it."""
    return f"value_{number.name}"


def check_columns(numbers: list[Number], columns: Collection[str], place: object) -> None:
    """Raise InputError if a table lacks a column that the model takes a number from."""
    for number in numbers:
        if column_of(number) not in columns:
            raise InputError(
                f"{place}: the model has a conditioner {number.name!r}, which takes a number from the metadata: name its "
                "column in the corpus's `columns`"
            )


def as_text(numbers: Numbers) -> str:
    """Numbers as they are in the table of sounds to render."""
    return json.dumps(numbers) if numbers else ""
