"""The chapter of rules/rendering.smk: what is rendered, with which weights, and in how many jobs."""

from __future__ import annotations

import math
from collections.abc import Sequence

from sao.base.names import shard_name
from sao.config.resolve import Config
from sao.config.settings import PromptSettings, RenderSettings, pick
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

    # Rule prompts.

    def prompts(self) -> list[str]:
        """The file of prompts that are rendered beside the clips, if there is one."""
        return [] if self.render["prompts"] is None else [self.render["prompts"]]

    def prompt_settings(self, corpus: str, base_model: str) -> PromptSettings:
        """What decides which sounds are rendered, but for the file of prompts."""
        return pick(PromptSettings, self.render | self._of_model(corpus, base_model))

    def _of_model(self, corpus: str, base_model: str) -> Config:
        return {
            "sampling": self.models.base_models[base_model]["sampling"],
            "train_seconds": self.data.corpora[corpus]["train_seconds"],
        }

    # Rules render and gather.

    def clips(self, run: str) -> str:
        """The table of the sounds to render: the same for a base model and all its runs on a corpus."""
        return f"results/data/{self.runs.corpus(run)}/prompts/{self.runs.base_model(run)}.csv"

    def settings(self, run: str) -> RenderSettings:
        """What decides how a sound is rendered; batch and shards decide nothing."""
        return pick(RenderSettings, self.render | self._of_model(self.runs.corpus(run), self.runs.base_model(run)))

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
        """For a shard; raises FileNotFoundError while the table of clips is not there."""
        return START + RENDERED / 60 * math.ceil(rows(self.clips(run)) / self.render["shards"])

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
