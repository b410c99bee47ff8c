"""The chapter of rules/listening.smk: a few sounds of each leg, to listen to while the training goes on."""

from __future__ import annotations

from sao.config.resolve import Config
from sao.config.settings import AudioLogSettings, ListenSettings, pick
from sao.plan.models import Models
from sao.plan.rendering import Rendering
from sao.plan.resources import RENDERED, START, rows
from sao.plan.runs import Runs, pattern

PAGE = "results/listen/index.html"


class Listening:
    """`run` names a leg of a run (`demo@step-00000500`), or the base model that the legs are compared with."""

    def __init__(self, config: Config, runs: Runs, models: Models, rendering: Rendering) -> None:
        self.listen, self.runs, self.models, self.rendering = config["listen"], runs, models, rendering

    def page(self) -> list[str]:
        """The page, if the target of all samples includes it."""
        return [PAGE] if self.listen["enabled"] else []

    def shown(self) -> list[str]:
        """All that is listened to: the base model of each run, and after it the legs of its runs, in order."""
        legs = {run: [f"{run}@{leg}" for leg in self.runs.legs(run)] for run in self.runs.runs}
        of_base: dict[str, list[str]] = {}
        for run in self.runs.runs:
            of_base.setdefault(self.runs.base(run), []).extend(legs[run])
        return [name for base, names in of_base.items() for name in (base, *names)]

    def summaries(self) -> list[str]:
        return [f"results/listen/{name}.json" for name in self.shown()]

    def pattern(self) -> str:
        bases = dict.fromkeys(self.runs.base(run) for run in self.runs.runs)
        return f"{pattern(list(bases))}|{self.leg_pattern(list(self.runs.runs))}"

    @staticmethod
    def leg_pattern(runs: list[str]) -> str:
        return rf"({pattern(runs)})@(step|epoch)-\d{{8}}"

    # Rules listen_prompts and render_listened.

    def settings(self) -> ListenSettings:
        return pick(ListenSettings, self.listen)

    def clips(self, run: str) -> str:
        """The table of the sounds to listen to."""
        return f"results/data/{self.runs.corpus(run)}/listen/{self.runs.base_model(run)}.csv"

    def weights(self, run: str) -> str:
        """The base model, or a leg's model, which is removed once it has rendered."""
        return self.models.weights(run) if self.runs.is_base(run) else f"{self._exported(run)}/model.safetensors"

    def weights_digest(self, run: str) -> str:
        return self.models.digest(run) if self.runs.is_base(run) else f"{self._exported(run)}/export.json"

    @staticmethod
    def _exported(run: str) -> str:
        return f"results/checkpoints/.listen/{run.replace('@', '/')}"

    def minutes(self, run: str) -> float:
        """The time that rendering needs. Raises FileNotFoundError while the table of the sounds does not exist."""
        return START + RENDERED / 60 * rows(self.clips(run))

    # Rule listen.

    def training(self, run: str) -> list[str]:
        """The summary of a leg. A base model has none."""
        return [] if "@" not in run else [f"results/checkpoints/{run.replace('@', '/')}/training.json"]

    def base(self, run: str) -> list[str]:
        """What is listened to of a leg's base model. A base model has none."""
        return [f"results/listen/{self.runs.base(run)}.json"] if "@" in run else []

    def before(self, run: str) -> list[str]:
        """What is listened to of the leg before. So legs land in order, and the first is never older than the others."""
        return [f"results/listen/{name}.json" for name in self._before(run)]

    def _before(self, run: str) -> list[str]:
        name, _, leg = run.partition("@")
        before = self.runs.leg_before(name, leg) if leg else None
        return [f"{name}@{before}"] if before else []

    # Rule log_audio.

    def logging(self, run: str) -> AudioLogSettings:
        return pick(AudioLogSettings, self.runs.runs[run.split("@")[0]])

    def logging_runs(self) -> list[str]:
        """The runs that log to TensorBoard, or to Weights & Biases."""
        runs = self.runs.runs
        return [run for run in runs if runs[run]["tensorboard"] or self._sends(runs[run]["wandb"])]

    @staticmethod
    def _sends(wandb: Config | None) -> bool:
        return wandb is not None and wandb["mode"] != "disabled"

    def logged_pattern(self) -> str:
        return self.leg_pattern(self.logging_runs())

    def logged(self) -> list[str]:
        runs = self.logging_runs()
        return [f"results/listen/logged/{name}.json" for name in self.shown() if name.split("@")[0] in runs]

    def logged_before(self, run: str) -> list[str]:
        """What the leg before has logged: two processes at a time cannot log to one run of Weights & Biases."""
        return [f"results/listen/logged/{name}.json" for name in self._before(run)]

    def logged_base(self, run: str) -> list[str]:
        """The base model and the recordings, which are logged with the first leg."""
        return [] if self._before(run) else self.base(run)

    def folders(self, run: str) -> list[str]:
        """The folders of the sounds to log."""
        return [f"results/listen/{run}", *(path.removesuffix(".json") for path in self.logged_base(run))]

    def log_folder(self, run: str) -> str:
        """The folder with the logs of a run."""
        return f"results/checkpoints/{run.split('@')[0]}"
