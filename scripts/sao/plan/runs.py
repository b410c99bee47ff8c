"""The chapter before all others: which runs there are, of what they are made, and the legs of each."""

from __future__ import annotations

import re

from sao.config.resolve import Config, renders


def leg_name(unit: str, at: int) -> str:
    """`step-00000500`: sorts as it was trained."""
    return f"{unit}-{at:08d}"


def pattern(names: list[str]) -> str:
    """A regular expression of these names, for wildcards; matches nothing where there is none."""
    return "|".join(map(re.escape, names)) or "(?!)"


class Runs:
    """The runs of a config, and what is rendered.

    `run` is the name of a folder of renders: a run (`demo`), one of its legs (`demo@step-00000500`, or
    `demo/step-00000500` where it is a folder of checkpoints), or a base model.
    """

    def __init__(self, config: Config) -> None:
        self.runs = config["runs"]
        self.rendered = renders(config)

    def used_corpora(self) -> list[str]:
        """Those that a run trains on."""
        return list(dict.fromkeys(run["corpus"] for run in self.runs.values()))

    def entry(self, run: str) -> Config:
        return self.rendered[re.split("[@/]", run)[0]]

    def base_model(self, run: str) -> str:
        return self.entry(run)["base_model"]

    def corpus(self, run: str) -> str:
        return self.entry(run)["corpus"]

    def is_base(self, run: str) -> bool:
        """Whether it is an untouched base model."""
        return self.entry(run)["run"] is None

    def base(self, run: str) -> str:
        """The untouched base model that a run is compared with, as a folder of renders."""
        entry = self.entry(run)
        pair = (None, entry["base_model"], entry["corpus"])
        return next(k for k, v in self.rendered.items() if (v["run"], v["base_model"], v["corpus"]) == pair)

    def processes(self, run: str) -> int:
        """How many a training has: one for each device of each node."""
        return self.runs[run]["devices"] * self.runs[run]["num_nodes"]

    def length(self, run: str) -> tuple[str, int, int]:
        """`(step or epoch, how many, how many per leg)` of a training."""
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
        """How many steps or epochs a leg has."""
        every, at = self.runs[run]["checkpoint_every"], int(leg.split("-")[1])
        return at - (at - 1) // every * every

    def leg_before(self, run: str, leg: str) -> str | None:
        """The leg that a leg goes on from: the last before it that a leg ends with."""
        at = int(leg.split("-")[1]) - self.leg_length(run, leg)
        return leg_name(self.length(run)[0], at) if at else None

    def legs_pattern(self) -> str:
        """A pattern of `run/leg`: all that can be asked for, past the end of the run too."""
        return "|".join(rf"{re.escape(run)}/{self.length(run)[0]}-(?!0+\b)\d{{8}}" for run in self.runs)

    def exported_pattern(self) -> str:
        """A pattern of a run or one of its legs, as a folder of checkpoints."""
        return rf"[^/]+|{self.legs_pattern()}"
