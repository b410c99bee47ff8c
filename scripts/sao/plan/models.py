"""The chapter of rules/models.smk: base models, and the settings of the runs that train them."""

from __future__ import annotations

from pathlib import Path

from sao.base.files import content_key
from sao.config.resolve import Config
from sao.config.settings import ModelSource, Sampling, TrainingSettings, pick
from sao.plan.runs import Runs


class Models:
    def __init__(self, config: Config, runs: Runs) -> None:
        self.base_models, self.runs = config["base_models"], runs

    def source(self, base_model: str) -> ModelSource:
        """Where model config, weights and text encoder come from."""
        return pick(ModelSource, self.base_models[base_model])

    def files(self, base_model: str) -> list[str]:
        """The files of a local base model: a change in them is a change of the model.

        One that is missing is left to base_model.py, which says what to do.
        """
        return [file for file in self._files(base_model) if Path(file).is_file()]

    def _files(self, base_model: str) -> list[str]:
        entry = self.base_models[base_model]
        names = [entry["model_config"], entry["weights"]]
        names += [f"text_encoder/{name}" for name in ("model.safetensors", "config.json", "tokenizer.json")]
        clap = [entry["clap"]["path"]] if "path" in entry.get("clap", {}) else []
        return [f"{entry['path']}/{name}" for name in names if "path" in entry] + clap

    def content(self, base_model: str) -> list[str]:
        """What is in those files: their time stamps mean nothing."""
        return [content_key(Path(file)) for file in self._files(base_model)]

    def place_mb(self, base_model: str) -> int:
        """Memory to bring it into place: converting a pickled checkpoint takes the model's own, all else is streamed."""
        entry = self.base_models[base_model]
        return 500 if entry["weights"].endswith(".safetensors") and "clap" not in entry else self.mb(base_model)

    def mb(self, base_model: str) -> int:
        """Memory of a process that holds it."""
        return self.base_models[base_model]["memory_mb"]

    def gpus(self, base_model: str) -> int:
        return self.base_models[base_model]["gpus"]

    def trainings(self, base_model: str) -> dict[str, Config]:
        """By run, the settings that decide the weights that a base model is trained to, and its steps.

        How long a run is decides no weight, but a schedule has to last so long.
        """
        runs = {name: run for name, run in self.runs.runs.items() if run["base_model"] == base_model}
        return {name: {**pick(TrainingSettings, run), "steps": run.get("steps")} for name, run in runs.items()}

    # By run: of what it is rendered or trained with.

    def folder(self, run: str) -> str:
        return f"results/models/{self.runs.base_model(run)}"

    def parts(self, run: str) -> list[str]:
        """What a base model is built from, beside its weights."""
        return [f"{self.folder(run)}/model_config.json", f"{self.folder(run)}/hub"]

    def weights(self, run: str) -> str:
        return f"{self.folder(run)}/model.safetensors"

    def digest(self, run: str) -> str:
        return f"{self.folder(run)}/checksums.sha256"

    def downloads(self) -> list[str]:
        return list(dict.fromkeys(map(self.digest, self.runs.runs)))

    def run_mb(self, run: str) -> int:
        return self.mb(self.runs.base_model(run))

    def run_gpus(self, run: str) -> int:
        return self.gpus(self.runs.base_model(run))

    def sampling(self, run: str) -> Sampling:
        return self.base_models[self.runs.base_model(run)]["sampling"]
