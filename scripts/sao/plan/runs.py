"""The first chapter of the plan: the runs of a config, their base models and corpora, and the legs of each."""

from __future__ import annotations

import re

from sao.config.resolve import Config, renders
from sao.data.corpora import used_corpora


def leg_name(unit: str, at: int) -> str:
    """`step-00000500`. The names of legs sort in the order of training."""
    return f"{unit}-{at:08d}"


def pattern(names: list[str]) -> str:
    """A regular expression that matches these names, for wildcards. Without names it matches nothing."""
    return "|".join(map(re.escape, names)) or "(?!)"


class Runs:
    """The runs of a config, and the models to render.

    `run` names a folder of renders or checkpoints: a run (`demo`), one of its legs (`demo@step-00000500` for renders,
    `demo/step-00000500` for checkpoints), or a base model.
    """

    def __init__(self, config: Config) -> None:
        self.runs = config["runs"]
        self.rendered = renders(config)
        self.used_corpora = used_corpora(config)

    def entry(self, run: str) -> Config:
        return self.rendered[re.split("[@/]", run)[0]]

    def base_model(self, run: str) -> str:
        return self.entry(run)["base_model"]

    def corpus(self, run: str) -> str:
        return self.entry(run)["corpus"]

    def is_base(self, run: str) -> bool:
        """Whether this is an untouched base model."""
        return self.entry(run)["run"] is None

    def base(self, run: str) -> str:
        """The untouched base model that a run is compared with, as a folder of renders: in the training's window."""
        entry = self.entry(run)
        pair = (None, entry["base_model"], entry["corpus"])
        return next(k for k, v in self.rendered.items() if (v["run"], v["base_model"], v["corpus"]) == pair)

    def processes(self, run: str) -> int:
        """The number of processes of a training: one per device and node."""
        return self.runs[run]["devices"] * self.runs[run]["num_nodes"]

    def length(self, run: str) -> tuple[str, int, int]:
        """The length of a training: the unit (step or epoch), the number in all, the number per leg."""
        settings = self.runs[run]
        unit = "step" if "steps" in settings else "epoch"
        return unit, settings[f"{unit}s"], settings["checkpoint_every"]

    def legs(self, run: str) -> list[str]:
        """Names of the legs of a run's training, in order: `step-00000500`, …, or `epoch-00000001`, …"""
        unit, end, every = self.length(run)
        return [leg_name(unit, at) for at in [*range(every, end, every), end]]

    def last_leg(self, run: str) -> str:
        return self.legs(run)[-1]

    def leg_length(self, run: str, leg: str) -> int:
        """The number of steps or epochs of a leg."""
        every, at = self.runs[run]["checkpoint_every"], int(leg.split("-")[1])
        return at - (at - 1) // every * every

    def leg_before(self, run: str, leg: str) -> str | None:
        """The leg that a leg continues from, or None for the first."""
        at = int(leg.split("-")[1]) - self.leg_length(run, leg)
        return leg_name(self.length(run)[0], at) if at else None

    def legs_pattern(self) -> str:
        """A pattern of `run/leg` for all legs that can be requested, even past the end of the run."""
        return "|".join(rf"{re.escape(run)}/{self.length(run)[0]}-(?!0+\b)\d{{8}}" for run in self.runs)

    def exported_pattern(self) -> str:
        """A pattern of the folder of checkpoints of a run or of one of its legs."""
        return f"{pattern(list(self.runs))}|{self.legs_pattern()}"
