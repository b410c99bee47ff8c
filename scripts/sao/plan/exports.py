"""The chapter of rules/exports.smk: models and adapters in the forms of other programs."""

from __future__ import annotations

from pathlib import Path

from sao.base.command import InputError

from sao.config.resolve import Config
from sao.config.settings import ConvertSettings
from sao.exports.form import EXACT, PRECISIONS
from sao.exports.forms import FORMS, model_refusal, refusal
from sao.models.config import read_model_config
from sao.plan.data import Data
from sao.plan.models import Models
from sao.plan.resources import RENDERED, START
from sao.plan.runs import Runs, pattern
from sao.plan.training import Training

# By what `publish.send` names: the forms that are sent.
SENT = {"model": ("model",), "adapter": ("stable_audio_tools", "comfyui"), "diffusers": ("diffusers",)}


class Exports:
    def __init__(self, runs: Runs, data: Data, models: Models, training: Training) -> None:
        self.runs, self.data, self.models, self.training = runs, data, models, training

    def _entry(self, run: str) -> Config:
        return self.runs.runs[run]["exports"] or {"forms": [], "precision": EXACT}

    def forms(self, run: str) -> list[str]:
        """The forms that the config names for a run, and those that it publishes."""
        return list(dict.fromkeys([*self._entry(run)["forms"], *self.sent(run)]))

    def precision(self, run: str) -> str:
        return str(self._entry(run)["precision"])

    def sent(self, run: str) -> list[str]:
        """The forms that a run publishes, but the merged model as rule `export` writes it."""
        published = self.runs.runs[run]["publish"]
        forms = [form for part in (published["send"] if published else ()) for form in SENT[part]]
        return [form for form in forms if form != "model" or self.precision(run) != EXACT]

    def folder(self, run: str, form: str) -> str:
        """The folder of an export. Its record, a JSON, lies beside it."""
        return f"results/exports/{run}/{form}-{self.precision(run)}"

    def all(self) -> list[str]:
        """The records of all exports that the config names."""
        return [f"{self.folder(run, form)}.json" for run in self.runs.runs for form in self._entry(run)["forms"]]

    def nothing(self) -> str:
        """The error message if the config names no export."""
        names = ", ".join(self.runs.runs)
        return f"config: no run has exports: set runs.NAME.exports.forms, with NAME one of {names}"

    def check(self) -> None:
        """Raise InputError on a form that a run's adapter or model does not have.

        A model config that is not on the disk yet is checked by rule `rehearse`, before anything else is done.
        """
        for run, settings in self.runs.runs.items():
            if settings["init_from"] and "adapter" in (settings["publish"] or {"send": ()})["send"]:
                raise InputError(
                    f"config: runs.{run}.publish.send: the run starts from other weights than the base model's (init_from), which its "
                    "adapter does not have: send the model"
                )
            for form in self.forms(run):
                if reason := self.refusal(run, form):
                    raise InputError(f"config: runs.{run}: {reason}")

    def refusal(self, exported: str, form: str) -> str | None:
        """What speaks against an export of a run or of one of its legs, or None."""
        run = exported.split("/")[0]
        if reason := refusal(form, self.runs.runs[run]["method"]):
            return reason
        path = self._model_config(self.runs.base_model(run))
        if path is None:
            return None
        reason = model_refusal(form, read_model_config(path))
        return f"{path}: {reason}" if reason else None

    def _model_config(self, base_model: str) -> Path | None:
        """The config of a base model, if it is on the disk."""
        entry = self.models.base_models[base_model]
        own = [Path(entry["path"], entry["model_config"])] if "path" in entry else []
        return next(
            (path for path in [*own, Path(f"results/models/{base_model}/model_config.json")] if path.is_file()), None
        )

    def forms_by_run(self, base_model: str) -> dict[str, list[str]]:
        """The forms of export of each run of a base model, for rule `rehearse`."""
        return {run: self.forms(run) for run in self.runs.runs if self.runs.base_model(run) == base_model}

    # Rule convert.

    def form_pattern(self) -> str:
        return pattern(list(FORMS))

    def precision_pattern(self) -> str:
        return pattern(list(PRECISIONS))

    def settings(self, exported: str, form: str, precision: str) -> ConvertSettings:
        base_model = self.runs.base_model(exported)
        return {
            "form": form,
            "precision": precision,
            "sampling": self.models.sampling(exported),
            "train_seconds": self.data.train_seconds(self.runs.corpus(exported), base_model),
        }

    def name(self, exported: str) -> str:
        return exported.split("/")[0]

    def _of_adapter(self, exported: str, form: str, files: list[str]) -> list[str]:
        """`files`, if the form is that of an adapter."""
        return files if FORMS[form].of_adapter else []

    def trained(self, exported: str, form: str) -> list[str]:
        """The weights folders of the legs that an export of the adapter chooses from."""
        return self._of_adapter(exported, form, self.training.exported_weights(exported))

    def checksums(self, exported: str, form: str) -> list[str]:
        return self._of_adapter(exported, form, self.training.exported_checksums(exported))

    def start(self, exported: str, form: str) -> list[str]:
        """The weights that an adapter was trained on."""
        return self._of_adapter(exported, form, [self.models.start_weights(exported)])

    def start_folder(self, exported: str, form: str) -> list[str]:
        return self._of_adapter(exported, form, [self.models.start(exported)])

    def start_digest(self, exported: str, form: str) -> list[str]:
        return self._of_adapter(exported, form, [self.models.start_digest(exported)])

    def kept(self, exported: str) -> str:
        return self.data.kept(self.runs.corpus(exported), self.runs.base_model(exported))

    def window_files(self, exported: str) -> list[str]:
        return self.data.window_files(self.runs.corpus(exported), self.runs.base_model(exported))

    def mb(self, exported: str) -> int:
        """Memory for the model, and for its weights before and after."""
        return 2 * self.models.run_mb(exported)

    def minutes(self) -> float:
        """Time for two sounds, beside reading and writing."""
        return 2 * START + 2 * RENDERED / 60
