"""The chapter for rules/models.smk: base models, and the settings of the runs that train them."""

from __future__ import annotations

from pathlib import Path

from sao.base.files import content_key
from sao.config.resolve import Config, exporting_run, initial_run
from sao.config.settings import InitSettings, ModelSource, Sampling, TrainingSettings, pick
from sao.plan.runs import Runs, pattern


class Models:
    def __init__(self, config: Config, runs: Runs) -> None:
        self.base_models, self.runs, self.device = config["base_models"], runs, config["device"]

    def source(self, base_model: str) -> ModelSource:
        """The place that model config, weights and text encoder come from."""
        return pick(ModelSource, self.base_models[base_model])

    def files(self, base_model: str) -> list[str]:
        """The files of a local base model. A change in them is a change of the model.

        Missing ones are left out here; base_model.py reports them. Those of a run of this config are made first.
        """
        return [file for file in self._files(base_model) if Path(file).is_file() or self._is_exported(file)]

    def _files(self, base_model: str) -> list[str]:
        entry = self.base_models[base_model]
        encoder = entry.get("text_encoder", {})
        folder = encoder.get("path", f"{entry['path']}/text_encoder" if "path" in entry and not encoder else None)
        files = [f"{entry['path']}/{name}" for name in (entry["model_config"], entry["weights"]) if "path" in entry]
        files += [f"{folder}/{name}" for name in ("model.safetensors", "config.json", "tokenizer.json") if folder]
        return files + ([entry["clap"]["path"]] if "path" in entry.get("clap", {}) else [])

    def _is_exported(self, file: str) -> bool:
        """Whether a run of this config exports the file."""
        return exporting_run(str(Path(file).parent), self.runs.runs) is not None

    def exported(self, base_model: str) -> list[str]:
        """What tells that a run of this config exported the model anew, if it comes from one."""
        path = f"{self.base_models[base_model].get('path', '')}/export.json"
        return [path] if self._is_exported(path) else []

    def content(self, base_model: str) -> list[str]:
        """Keys of the content of those files, as a rerun trigger in place of their time stamps."""
        return [content_key(Path(file)) for file in self._files(base_model) if not self._is_exported(file)]

    def place_mb(self, base_model: str) -> int:
        """Memory to fetch a model. To convert a pickled checkpoint takes the model's own; everything else is streamed."""
        entry = self.base_models[base_model]
        return 500 if entry["weights"].endswith(".safetensors") and "clap" not in entry else self.mb(base_model)

    def mb(self, base_model: str) -> int:
        """Memory of a process that holds the model."""
        return self.base_models[base_model]["memory_mb"]

    def gpus(self, base_model: str) -> int:
        return 0 if self.device == "cpu" else self.base_models[base_model]["gpus"]

    def trainings(self, base_model: str) -> dict[str, Config]:
        """The settings that decide the trained weights, and the number of steps, of each run of a base model.

        The number of steps decides no weight, but a schedule must not end before the training.
        """
        runs = {name: run for name, run in self.runs.runs.items() if run["base_model"] == base_model}
        return {name: {**pick(TrainingSettings, run), "steps": run.get("steps")} for name, run in runs.items()}

    # Rule init: the weights that a run starts from, if they are not the base model's.

    def initialised(self) -> str:
        """A pattern of the runs that start from others' weights."""
        return pattern([name for name, run in self.runs.runs.items() if run["init_from"]])

    def init(self, run: str) -> InitSettings:
        return pick(InitSettings, self.runs.runs[run])

    def init_weights(self, run: str) -> str:
        """The file or folder of the weights."""
        found = self._initial_run(run)
        return f"results/checkpoints/{'/'.join(found)}/model.safetensors" if found else self.runs.runs[run]["init_from"]

    def _initial_run(self, run: str) -> list[str]:
        """The run of the config that a run starts from, and its leg if one is named."""
        found = initial_run(self.runs.runs[run]["init_from"], self.runs.runs)
        return [part for part in found if part] if found else []

    def init_trained(self, run: str) -> list[str]:
        """The same, if a run of the config makes it."""
        return [self.init_weights(run)] if self._initial_run(run) else []

    def init_export(self, run: str) -> list[str]:
        """The summary that vouches for it."""
        return [path.replace("model.safetensors", "export.json") for path in self.init_trained(run)]

    def init_before(self, run: str) -> list[str]:
        """What the run that a run starts from started from itself, if it did not start from the base model."""
        before = self._initial_run(run)[:1]
        return [f"results/initial/{name}/source.json" for name in before if self.runs.runs[name]["init_from"]]

    def init_files(self, run: str) -> list[str]:
        """A user's own files of such weights. A change in them is a change of the training."""
        path = Path(self.init_weights(run))
        if self.init_trained(run) or not path.exists():
            return []
        files = sorted(path.glob("*")) if path.is_dir() else [path]
        return [file.as_posix() for file in files if file.is_file()]

    def init_content(self, run: str) -> list[str]:
        return [content_key(Path(file)) for file in self.init_files(run)]

    def start(self, run: str) -> str:
        """The folder of the weights that a run (`demo`, `demo/step-00000500`) starts from."""
        name = run.split("/")[0]
        return f"results/initial/{name}" if self.runs.runs[name]["init_from"] else self.folder(run)

    def start_weights(self, run: str) -> str:
        return f"{self.start(run)}/model.safetensors"

    def start_config(self, run: str) -> str:
        return f"{self.start(run)}/model_config.json"

    def start_digest(self, run: str) -> str:
        return f"{self.start(run)}/checksums.sha256"

    def base_digest(self, run: str) -> list[str]:
        """The listing of the base model, for a run that starts from other weights."""
        return [self.digest(run)] if self.start(run) != self.folder(run) else []

    def start_source(self, run: str) -> list[str]:
        """What the weights are, if they are not the base model's."""
        return [f"{self.start(run)}/source.json"] if self.start(run) != self.folder(run) else []

    # The base model that a run renders or trains with.

    def folder(self, run: str) -> str:
        return f"results/models/{self.runs.base_model(run)}"

    def parts(self, run: str) -> list[str]:
        """The files that a base model is built from, without its weights."""
        return [f"{self.folder(run)}/model_config.json", f"{self.folder(run)}/hub"]

    def weights(self, run: str) -> str:
        return f"{self.folder(run)}/model.safetensors"

    def digest(self, run: str) -> str:
        return f"{self.folder(run)}/checksums.sha256"

    def source_file(self, run: str) -> str:
        return f"{self.folder(run)}/source.json"

    def downloads(self) -> list[str]:
        return list(dict.fromkeys(map(self.digest, self.runs.runs)))

    def run_mb(self, run: str) -> int:
        return self.mb(self.runs.base_model(run))

    def run_gpus(self, run: str) -> int:
        return self.gpus(self.runs.base_model(run))

    def sampling(self, run: str) -> Sampling:
        return self.base_models[self.runs.base_model(run)]["sampling"]
