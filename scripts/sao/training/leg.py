"""One leg of a training, as the command line describes it: what it reads, what identifies it, where it ends.

Scripts and trainer share it. It is read without torch, so that what is wrong with it is said at once.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sao.base.files import digest, read_json, sha256
from sao.config.settings import RunningSettings, TrainingSettings


@dataclasses.dataclass(frozen=True)
class Leg:
    """Its fields are the options of scripts/train.py."""

    run: str
    leg: str  # step-00000500 or epoch-00000003
    last: str | None  # the last leg of the training
    resume: Path | None  # training state of the leg before
    settings: TrainingSettings
    running: RunningSettings
    dataset_configs: Path
    datasets_digest: Path
    sound_digest: list[Path]
    captions: Path
    captions_digest: Path
    model: Path
    model_digest: Path
    base_digest: Path | None  # of the base model that encoded the clips, if the weights to start from are others
    code: str
    output: Path

    @classmethod
    def of(cls, args: argparse.Namespace) -> Leg:
        return cls(**{field.name: getattr(args, field.name) for field in dataclasses.fields(cls)})

    @property
    def encoded_with(self) -> Path:
        """The listing of the base model that encoded latents and captions."""
        return self.base_digest or self.model_digest

    @property
    def processes(self) -> int:
        """The number of processes that train together: one for each device of each node."""
        return self.settings["devices"] * self.settings["num_nodes"]

    @property
    def items_per_step(self) -> int:
        """Items of one step of the optimiser, of all processes and all accumulated batches."""
        return self.settings["batch_size"] * self.processes * passes(self.settings)

    def end(self, items: int) -> int:
        """The step at which this leg ends, where an epoch has `items` items."""
        return end_step(self.leg, items, self.items_per_step)

    def last_end(self, items: int) -> int:
        """The step at which the training ends: that of its last leg, or of this one if none is named."""
        return end_step(self.last or self.leg, items, self.items_per_step)


def passes(settings: TrainingSettings) -> int:
    """How many batches make a step. With `auto` one batch is a step, which may be taken in parts."""
    accumulate = settings["accumulate"]
    return 1 if isinstance(accumulate, str) else accumulate


def least_batch(settings: Mapping[str, Any]) -> int:
    """The clips that pass together, at least: with `auto` a step may be taken one by one."""
    return 1 if settings["accumulate"] == "auto" else int(settings["batch_size"])


def end_step(leg: str, items: int, batch: int) -> int:
    """The optimiser step at which `step-00000500` or `epoch-00000003` ends, where one step takes `batch` items."""
    unit, at = leg.split("-")
    return int(at) if unit == "step" else math.ceil(int(at) * items / batch)


def provenance(leg: Leg) -> dict[str, Any]:
    """Everything that decides the weights after a given step. Two legs with the same provenance belong to one training."""
    return {
        "settings": leg.settings,
        "corpus": sha256(leg.datasets_digest),
        "sounds": digest([sha256(path) for path in leg.sound_digest]),
        "captions": read_json(leg.captions_digest)["sha256"],
        "base_model": sha256(leg.model_digest),
        "code": leg.code,
    } | versions()


def versions() -> dict[str, str]:
    """The versions of the libraries whose code computes the weights."""
    return {name: importlib.metadata.version(name) for name in ("torch", "stable-audio-tools")}
