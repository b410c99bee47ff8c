"""The chapter of rules/rendering.smk: what is rendered, with which weights, and in how many jobs."""

from __future__ import annotations

import math
from collections.abc import Sequence

from sao.base.names import shard_name
from sao.config.resolve import Config
from sao.config.settings import RenderSettings, pick
from sao.plan.data import Data
from sao.plan.models import Models
from sao.plan.resources import RENDERED, START, rows
from sao.plan.runs import Runs, pattern


class Rendering:
    def __init__(self, config: Config, runs: Runs, data: Data, models: Models) -> None:
        self.render, self.runs, self.data, self.models = config["render"], runs, data, models

    def exported(self, run: str) -> str:
        """The folder of a run's exported model; `run` may name one leg: `demo@step-00000500`."""
        return f"results/checkpoints/{run.replace('@', '/')}"

    def weights(self, run: str) -> str:
        """The exported model of a run, or the base model itself."""
        return self.models.weights(run) if self.runs.is_base(run) else f"{self.exported(run)}/model.safetensors"

    def weights_digest(self, run: str) -> str:
        return self.models.digest(run) if self.runs.is_base(run) else f"{self.exported(run)}/export.json"

    def clips(self, run: str) -> list[str]:
        """The tables of the clips whose captions are rendered, one for each side."""
        return [f"{self.splits(run)}/{role}.csv" for role in self.render["clips"]]

    def splits(self, run: str) -> str:
        """The folder that they are in."""
        return self.data.split_folder(self.runs.corpus(run))

    def prompts(self) -> list[str]:
        """The file of prompts that are rendered beside the clips, if there is one."""
        return [] if self.render["prompts"] is None else [self.render["prompts"]]

    def settings(self, run: str) -> RenderSettings:
        """What decides a render, but for the prompts, which are an input; batch and shards decide nothing."""
        given = {
            "sampling": self.models.sampling(run),
            "train_seconds": self.data.corpora[self.runs.corpus(run)]["train_seconds"],
        }
        return pick(RenderSettings, self.render | given)

    def batch_size(self) -> list[int]:
        return [] if self.render["batch_size"] is None else [self.render["batch_size"]]

    def shards(self, run: str) -> list[str]:
        """The folders that a run is rendered in where there are several; their tables lie beside them."""
        count = self.render["shards"]
        return [f"results/renders/.shards/{run}/{shard_name(shard, count)}" for shard in range(count)]

    def shard_tables(self, run: str) -> list[str]:
        return [f"{folder}.csv" for folder in self.shards(run)]

    def pattern(self, shards: bool) -> str:
        """A pattern of a run, one of its legs (`demo@step-00000500`) or a base model, for wildcards.

        Matches nothing where renders are not made in one job, or not in `shards`.
        """
        return r"[^/@]+(@(step|epoch)-\d{8})?" if (self.render["shards"] > 1) == shards else pattern([])

    def minutes(self, run: str) -> float:
        """For a shard; raises FileNotFoundError while the tables of clips are not there."""
        wanted, counts = self.render["clips"], dict(zip(self.render["clips"], map(rows, self.clips(run)), strict=True))
        clips = sum(n if wanted[role] == "all" else min(n, wanted[role]) for role, n in counts.items())
        return START + RENDERED / 60 * math.ceil((clips + sum(map(rows, self.prompts()))) / self.render["shards"])

    def recordings(self, run: str) -> list[str]:
        """The folders of what a table of renders names as references."""
        return self.data.recordings(self.runs.corpus(run))

    def with_references(self, run: str) -> list[str]:
        """A flag for the base model, which is rendered once: what belongs to no run is drawn with it."""
        return ["--references"] if self.runs.is_base(run) else []

    def all(self) -> Sequence[str]:
        """The names of all that is rendered."""
        return list(self.runs.rendered)

    def labels(self) -> list[str]:
        """What they are called on pages."""
        return [entry["label"] for entry in self.runs.rendered.values()]
