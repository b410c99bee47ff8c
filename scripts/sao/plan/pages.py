"""The chapter for rules/pages.smk: the inputs of the page of samples, and the votes of those who listened."""

from __future__ import annotations

from pathlib import Path

from sao.config.resolve import Config
from sao.config.settings import VotesSettings, pick
from sao.evaluation.votes import read_votes
from sao.plan.evaluation import Evaluation
from sao.plan.models import Models
from sao.plan.rendering import Rendering
from sao.plan.runs import Runs
from sao.plan.training import Training

VOTES = Path("results/votes")


class Pages:
    """Raises InputError if a file in the folder of votes is not one that the page saved."""

    def __init__(
        self, runs: Runs, models: Models, training: Training, rendering: Rendering, evaluation: Evaluation
    ) -> None:
        self.runs, self.models, self.training = runs, models, training
        self.rendering, self.evaluation = rendering, evaluation
        # A listener puts files there. The graph makes none of them.
        self._votes = sorted(path for path in VOTES.glob("*.json") if not path.name.startswith("."))
        for path in self._votes:
            read_votes(path)

    def shown(self) -> list[str]:
        """The names of all models on the page: base models, runs and, if they are measured, the legs of the runs."""
        return self.evaluation.evaluated()

    def labels(self) -> list[str]:
        """What they are called on the page."""
        return [self.evaluation.label(name) for name in self.shown()]

    # Rule votes.

    def votes(self) -> list[str]:
        return [path.as_posix() for path in self._votes]

    def vote_settings(self) -> VotesSettings:
        return pick(VotesSettings, self.evaluation.evaluation)

    # Rule collect.

    def counted(self) -> list[str]:
        """The count of the votes, if there are any."""
        return ["results/evaluation/votes.json"] if self._votes else []

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
            if key not in ("batch_size", "shards", "own_window", "watermark") and (key, value) != ("takes", 1)
        }
        if self.rendering.render["watermark"]:
            render["watermark"] = self.rendering.watermark_settings()
        return {run: {"render": render, "sampling": self.models.sampling(run)} for run in self.runs.runs}
