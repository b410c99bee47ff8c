"""The chapter of rules/publish.smk: model cards and uploads."""

from __future__ import annotations

from sao.config.resolve import Config
from sao.config.settings import CardSettings
from sao.plan.data import Data
from sao.plan.exports import Exports
from sao.plan.models import Models
from sao.plan.rendering import Rendering
from sao.plan.runs import Runs, pattern


class Publish:
    def __init__(self, runs: Runs, data: Data, models: Models, rendering: Rendering, exports: Exports) -> None:
        self.runs, self.data, self.models, self.rendering, self.exports = runs, data, models, rendering, exports

    def measures(self, exported: str) -> list[str]:
        """The files of the measures of an exported model (`demo`, `demo/step-00000500`) and of its base model."""
        names = (exported.replace("/", "@"), self.runs.base(exported))
        return [f"results/evaluation/{name}.json" for name in names]

    def kept(self, exported: str) -> str:
        """The table of the clips that an exported model was trained, validated and evaluated on."""
        return self.data.kept(self.runs.corpus(exported), self.runs.base_model(exported))

    def card(self, exported: str) -> CardSettings:
        """The settings of a model card: base model, sampling, training window."""
        name = self.runs.base_model(exported)
        keys = ("repo", "revision", "path", "text_encoder", "clap")
        settings: CardSettings = {
            "source": {"name": name} | {k: v for k, v in self.models.base_models[name].items() if k in keys},
            "corpora": self.data.weights(self.runs.corpus(exported)),
            "sampling": self.models.sampling(exported),
            "train_seconds": self.data.train_seconds(self.runs.corpus(exported), name),
        }
        if self.records(exported):
            settings["sent"] = self._published(exported)["send"]
            settings["source"]["weights"] = self.models.base_models[name]["weights"]
        if self.rendering.render["watermark"]:
            settings["watermark"] = self.rendering.watermark_settings()
        return settings

    def records(self, exported: str) -> list[str]:
        """The records of the exports that a run publishes. The card of a single leg shows none."""
        return [f"{folder}.json" for folder in self.folders(exported)]

    def folders(self, exported: str) -> list[str]:
        """Their folders."""
        if exported not in self.runs.runs:
            return []
        return [self.exports.folder(exported, form) for form in self.exports.sent(exported)]

    def send(self, run: str) -> list[str]:
        """What a run publishes: the model, its adapter, a pipeline."""
        return list(self._published(run)["send"])

    def window_files(self, exported: str) -> list[str]:
        return self.data.window_files(self.runs.corpus(exported), self.runs.base_model(exported))

    def _published(self, run: str) -> Config:
        return self.runs.runs[run]["publish"]

    def uploads(self) -> list[str]:
        """The records of publication of all runs that the config publishes."""
        return [f"results/published/{run}.json" for run in self.runs.runs if self._published(run)]

    def nothing_to_publish(self) -> str:
        """The error message if the config publishes no run."""
        names = ", ".join(self.runs.runs)
        return f"config: no run has a repository to publish to: set runs.NAME.publish.repo, with NAME one of {names}"

    def pattern(self) -> str:
        """A pattern of the runs that the config publishes."""
        return pattern([run for run in self.runs.runs if self._published(run)])

    def repo(self, run: str) -> str:
        return self._published(run)["repo"]

    def visibility(self, run: str) -> list[str]:
        """The flag that asks for a public repository, if any."""
        return [] if self._published(run)["private"] else ["--public"]
