"""The chapter of rules/rendering.smk: the clips to render, the weights to render them with, and the number of jobs."""

from __future__ import annotations

import math
from pathlib import Path

from sao.base.files import content_key
from sao.base.names import shard_name
from sao.config.resolve import Config
from sao.config.settings import PromptSettings, RenderSettings, pick
from sao.plan.data import Data
from sao.plan.models import Models
from sao.plan.resources import RENDERED, START, rows
from sao.plan.runs import Runs, pattern
from sao.plan.weights import GENERATOR, Weights
from sao.rendering.named import named_sounds


class Rendering:
    def __init__(self, config: Config, runs: Runs, data: Data, models: Models, weights: Weights) -> None:
        self.render, self.runs, self.data, self.models = config["render"], runs, data, models
        self.weights_of = weights
        self._sources = [path for file in self.prompts() for path in named_sounds(Path(file))]

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

    def sources(self) -> list[str]:
        """The sounds that the prompts start from."""
        return [path.as_posix() for path in self._sources]

    def source_keys(self) -> list[str]:
        return [content_key(path) for path in self._sources]

    def prompt_settings(self, corpus: str, base_model: str) -> PromptSettings:
        """The settings that decide which sounds are rendered, besides the file of prompts."""
        settings = self.render | self._model_settings(corpus, base_model)
        if not self.render["templates"] or not self.data.has_prompts(corpus):
            del settings["templates"]
        if self.render["takes"] == 1:
            del settings["takes"]
        return pick(PromptSettings, settings)

    def _model_settings(self, corpus: str, base_model: str) -> Config:
        """The settings of rendering that are not in `render`: those of the base model and of the corpus."""
        return {
            "sampling": self.models.base_models[base_model]["sampling"],
            "train_seconds": self.data.train_seconds(corpus, base_model),
        }

    # Rules render and gather.

    def clips(self, run: str) -> str:
        """The table of the sounds to render: the same for a base model and all its runs on a corpus."""
        return f"results/data/{self.runs.corpus(run)}/prompts/{self.runs.base_model(run)}.csv"

    def source_folder(self, run: str) -> str:
        """The folder of the sounds that prompts start from."""
        return self.clips(run).removesuffix(".csv")

    def settings(self, run: str) -> RenderSettings:
        """The settings that decide how a sound is rendered. The batch size and the number of shards decide nothing."""
        settings = self.render | self._model_settings(self.runs.corpus(run), self.runs.base_model(run))
        if self.runs.entry(run)["own_window"]:
            settings["train_seconds"] = None
        if settings["watermark"]:
            settings["watermark"] = self.watermark_settings()
        else:
            del settings["watermark"]
        return pick(RenderSettings, settings)

    def watermark_settings(self) -> Config:
        """How renders are marked, without the weights."""
        return {key: self.render["watermark"][key] for key in ("method", "message", "strength")}

    def watermark(self) -> list[str]:
        """The weights that mark every render, if the config asks for marks."""
        return [self.weights_of.output(GENERATOR)] if self.render["watermark"] else []

    def watermark_digest(self) -> list[str]:
        return [self.weights_of.digest(GENERATOR)] if self.render["watermark"] else []

    def window_files(self, run: str) -> list[str]:
        """The file of the window, if it follows from the lengths of the clips and sounds are rendered in it."""
        if self.runs.entry(run)["own_window"]:
            return []
        return self.data.window_files(self.runs.corpus(run), self.runs.base_model(run))

    def batch_size(self) -> list[int]:
        return [] if self.render["batch_size"] is None else [self.render["batch_size"]]

    def shards(self, run: str) -> list[str]:
        """The folders of the shards of a run's renders. The table of each lies beside it."""
        count = self.render["shards"]
        return [f"results/renders/.shards/{run}/{shard_name(shard, count)}" for shard in range(count)]

    def shard_tables(self, run: str) -> list[str]:
        return [f"{folder}.csv" for folder in self.shards(run)]

    def pattern(self, shards: bool) -> str:
        """A pattern of a run, one of its legs (`demo@step-00000500`) or a base model, for wildcards.

        With `shards` it matches nothing if renders are made in one job; without, nothing if they are made in shards.
        """
        return r"[^/@]+(@(step|epoch)-\d{8})?" if (self.render["shards"] > 1) == shards else pattern([])

    def minutes(self, run: str) -> float:
        """The time that rendering one shard needs. Raises FileNotFoundError while the table of clips does not exist."""
        return START + RENDERED / 60 * math.ceil(rows(self.clips(run)) / self.render["shards"])

    def threads(self, run: str) -> int:
        """On a GPU, processors that draw noise while it computes: as many as it takes to keep up with an H100."""
        return 6 if self.models.run_gpus(run) else 1

    def beside(self, run: str) -> list[str]:
        """The folders of the recordings and sources that a table of renders names."""
        return [*self.data.recordings(self.runs.corpus(run)), self.source_folder(run)]

    def with_beside(self, run: str) -> list[str]:
        """The flag to draw recordings and sources too. Only one model of a corpus has it, so that each is drawn once."""
        return ["--beside"] if run == self.runs.base(run) else []
