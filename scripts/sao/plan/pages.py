"""The chapter for rules/pages.smk: the inputs of the page of samples."""

from __future__ import annotations

from sao.config.resolve import Config
from sao.plan.models import Models
from sao.plan.rendering import Rendering
from sao.plan.runs import Runs
from sao.plan.training import Training


class Pages:
    def __init__(self, runs: Runs, models: Models, training: Training, rendering: Rendering) -> None:
        self.runs, self.models, self.training, self.rendering = runs, models, training, rendering

    def beside(self) -> list[str]:
        """The folders of the recordings of all corpora that the runs train on, and of the sources of prompts."""
        return list(dict.fromkeys(path for run in self.runs.rendered for path in self.rendering.beside(run)))

    def datasets(self) -> list[str]:
        """The dataset configs of all rendered models. They list the clips that were left out."""
        return list(dict.fromkeys(map(self.training.dataset_folder, self.runs.rendered)))

    def dropped(self) -> list[str]:
        return [f"{folder}/dropped.csv" for folder in self.datasets()]

    def corpora(self) -> list[str]:
        """The corpus of each of them."""
        corpora = {self.training.dataset_folder(run): self.runs.corpus(run) for run in self.runs.rendered}
        return [corpora[folder] for folder in self.datasets()]

    def cards(self) -> list[str]:
        """The model cards of all runs, so that every model on the page has one."""
        return [f"results/checkpoints/{run}/README.md" for run in self.runs.runs]

    def rendering_settings(self) -> dict[str, Config]:
        """The settings that each run is rendered with, to show on the page."""
        render = {
            key: value
            for key, value in self.rendering.render.items()
            if key not in ("batch_size", "shards", "own_window")
        }
        return {run: {"render": render, "sampling": self.models.sampling(run)} for run in self.runs.runs}
