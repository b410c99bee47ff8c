"""Find a model to try by its name: a run of the config, one of its legs, a base model, or a folder."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from sao.base.command import DEVICE, InputError

from sao.base.files import digest, read_json, sha256
from sao.base.vouched import LISTING, leg_files, model_files
from sao.config.files import read_config
from sao.config.resolve import deref, exporting_run, fill_defaults, initial_run, read_schema
from sao.config.settings import PromptSettings, RenderSettings, pick
from sao.data.corpora import resolve
from sao.hub.place import snapshot
from sao.models.config import (
    SAMPLERS,
    ModelConfig,
    objective,
    read_model_config,
    text_encoder_folder,
    text_encoder_name,
)
from sao.plan.plan import Plan
from sao.plan.runs import leg_name
from sao.rendering.trying import Adapter, Model

BASE = "base"
ADAPTER = "lora.safetensors"  # in the folder `weights` of a leg
ENCODER = ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors")


def models_of(files: Sequence[Path], values: Sequence[str], scratch: Path) -> Models:
    """The models of this folder's config, by the files and values of Snakemake's options `--configfile` and `--config`.

    Models run on the device that it names. Raises InputError on a config that is wrong.
    """
    config = resolve(*read_config(files, values))
    if config["device"] != "auto":
        os.environ[DEVICE] = config["device"]
    given = [f"--configfile={path}" for path in files]
    return Models(Plan(config), [*given, *(["--config", *values] if values else [])], scratch)


class Models:
    """The models of a plan. `given` are the options of Snakemake that chose its config, for the commands in messages.

    `scratch` is a folder for Hub caches of text encoders that lie elsewhere.
    """

    def __init__(self, plan: Plan, given: Sequence[str], scratch: Path) -> None:
        self.plan, self.given, self.scratch = plan, list(given), scratch

    def names(self) -> list[str]:
        """The names of all models that are there: base models, runs, legs."""
        rendering, runs = self.plan.rendering, self.plan.runs
        models = [name for name in runs.rendered if Path(rendering.weights(name)).is_file()]
        legs = [f"{run}@{leg}" for run in runs.runs for leg in runs.legs(run)]
        found = [*models, *(leg for leg in legs if Path(rendering.weights(leg)).is_file())]
        return [self.label(name) for name in found]

    def label(self, name: str) -> str:
        """The shortest name of a model of the plan: `base` for the only base model."""
        rendered = self.plan.runs.rendered
        return rendered[name]["label"] if name in rendered else name

    def find(self, name: str, beside: Model | None = None, text_encoder: Path | None = None) -> Model:
        """The model of a name. `base` is the base model of the model `beside`, or the only one.

        Raises InputError if there is no such model, or if it is not built yet.
        """
        if found := self._rendered(name, beside):
            return self._of_plan(found)
        if Path(name, "model.safetensors").is_file():
            run = exporting_run(name, self.plan.runs.runs)
            inside = Path(name).as_posix().partition("results/checkpoints/")[2]
            leg = initial_run(inside, self.plan.runs.runs) if run else None
            return self._of_plan("@".join(filter(None, leg))) if leg else self._of_folder(Path(name), text_encoder)
        if Path(name).is_dir():
            raise InputError(f"{name}: has no model.safetensors: name the folder of a model")
        runs = self.plan.runs
        labels = ", ".join(dict.fromkeys(map(self.label, self.plan.runs.rendered)))
        run = next(iter(runs.runs))
        raise InputError(
            f"{name!r} is no model: name one of {labels}, a leg such as {run}@{runs.last_leg(run)}, or a folder with a "
            "model.safetensors"
        )

    def _rendered(self, name: str, beside: Model | None) -> str | None:
        """The name under which the graph renders a model."""
        runs, rendered = self.plan.runs, self.plan.runs.rendered
        if name in rendered:
            return name
        if name == BASE:
            if beside is not None and re.split("[@/]", beside.name)[0] in rendered:
                return runs.base(beside.name)
            bases = list(dict.fromkeys(runs.base(run) for run in runs.runs))
            if len(bases) > 1:
                raise InputError(f"'base' is one of {', '.join(bases)}: name it in full")
            return bases[0]
        if by_label := [folder for folder, entry in rendered.items() if entry["label"] == name]:
            return by_label[0]
        run, at, leg = name.partition("@")
        if run in runs.runs and at:
            leg = leg_name(runs.length(run)[0], int(leg)) if leg.isdecimal() else leg
            found = (run, leg)
        else:
            found = initial_run(name, runs.runs) or ("", "")  # type: ignore[assignment]
            run, leg = found
        if not run or not leg:
            return None
        weights = Path(self.plan.rendering.weights(f"{run}@{leg}"))
        if leg not in runs.legs(run) and not weights.is_file():
            raise InputError(f"run {run!r} has no leg {leg!r}: name one of {', '.join(runs.legs(run))}")
        return f"{run}@{leg}"

    def _of_plan(self, name: str) -> Model:
        """A model that the graph renders."""
        rendering, models, runs = self.plan.rendering, self.plan.models, self.plan.runs
        folder, digest_file = Path(models.folder(name)), Path(rendering.weights_digest(name))
        weights = Path(rendering.weights(name))
        self._need(weights.as_posix() if not runs.is_base(name) else models.digest(name), [weights, digest_file])
        self._need(models.digest(name), [Path(models.digest(name)), folder / "model_config.json", folder / "hub"])
        for window in rendering.window_files(name):
            self._need(window, [Path(window)])
        corpus, base_model = runs.corpus(name), runs.base_model(name)
        prompts = rendering.prompt_settings(corpus, base_model)
        settings = rendering.settings(name)
        return Model(
            name=name,
            weights=weights,
            weights_digest=digest_file,
            base=folder,
            base_digest=Path(models.digest(name)),
            rendering=settings,
            prompts={**prompts, "train_seconds": settings["train_seconds"]},
            table=Path(rendering.clips(name)),
            file=next(map(Path, rendering.prompts()), None),
            shards=rendering.render["shards"],
            batch_size=rendering.render["batch_size"],
            threads=min(rendering.threads(name), os.cpu_count() or 1),
            adapter=None if runs.is_base(name) else self._adapter(name, digest_file),
            watermark=self._watermark(),
        )

    def _watermark(self) -> tuple[Path, Path] | None:
        """The weights that mark renders and their listing, if the config has renders marked."""
        rendering = self.plan.rendering
        files = [Path(file) for file in (*rendering.watermark(), *rendering.watermark_digest())]
        if not files:
            return None
        self._need("downloads", files)
        return files[0], files[1]

    def _adapter(self, name: str, exported: Path) -> Adapter | None:
        """The adapter of a run or leg, if it trained one and both are still there."""
        run = name.split("@")[0]
        leg = Path("results/checkpoints", run, read_json(exported)["leg"])
        path, start = leg / "weights" / ADAPTER, Path(self.plan.models.start_weights(run))
        listing = Path(self.plan.models.start_digest(run))
        if not all(file.is_file() for file in (path, start, listing, leg / LISTING)):
            return None
        vouched = [*leg_files(leg / LISTING, "weights"), *model_files(start.parent, listing, text_encoder=False)]
        return Adapter(path, start, tuple(vouched))

    def _need(self, target: str, files: Sequence[Path]) -> None:
        """Raise InputError, with the command that builds the target, unless all its files are there."""
        for file in files:
            if not file.exists():
                command = shlex.join(["uv", "run", "snakemake", "--cores", "all", target, *self.given])
                raise InputError(f"{file}: not built yet: run `{command}`")

    # A folder of a user's.

    def _of_folder(self, folder: Path, text_encoder: Path | None) -> Model:
        """A model in a folder: its text encoder is there too, or in the folder `text_encoder`, or with its base model."""
        file = folder / "model_config.json"
        if not file.is_file():
            raise InputError(f"{file}: missing; a model needs its model_config.json beside its model.safetensors")
        config = read_model_config(file)
        base_model = self._base_model(config)
        rendering, prompts = self._settings(base_model, config)
        if text_encoder or (folder / "text_encoder").is_dir():
            base, listing = self._placed(file, config, text_encoder or folder / "text_encoder"), None
        elif (folder / "hub").is_dir():
            base, listing = folder, folder / LISTING if (folder / LISTING).is_file() else None
        elif base_model:
            base = Path("results/models", base_model)
            listing = base / LISTING
        else:
            raise InputError(
                f"{folder}: has no text encoder, and no base model of the config that is built has this model's form: name "
                f"the folder of its text encoder with --text-encoder ({', '.join(ENCODER)})"
            )
        return Model(
            name=folder.as_posix(),
            weights=folder / "model.safetensors",
            weights_digest=None,
            base=base,
            base_digest=listing,
            rendering=rendering,
            prompts=prompts,
            watermark=self._watermark(),
        )

    def _base_model(self, config: ModelConfig) -> str | None:
        """The base model of the config, among those that are built, that a model is of the form of."""
        for name in self.plan.models.base_models:
            built = Path("results/models", name, LISTING)
            if built.is_file() and read_model_config(built.with_name("model_config.json"))["model"] == config["model"]:
                return name
        return None

    def _settings(self, base_model: str | None, config: ModelConfig) -> tuple[RenderSettings, PromptSettings]:
        """The config's settings of rendering, with the sampling of a base model, or else stable-audio-tools' own sampler."""
        if base_model:
            sampling = self.plan.models.base_models[base_model]["sampling"]
        else:
            schema = read_schema()
            sampling = {"sampler": SAMPLERS[objective(config)][0]}
            fill_defaults(sampling, deref(schema["$defs"]["sampling"], schema), schema)
        rendering = self.plan.rendering
        settings = rendering.render | {"sampling": sampling, "train_seconds": None}
        if settings.pop("watermark"):
            settings["watermark"] = rendering.watermark_settings()
        return pick(RenderSettings, settings), pick(PromptSettings, settings)

    def _placed(self, file: Path, config: ModelConfig, encoder: Path) -> Path:
        """A folder with a model config and a Hub cache of links to the files of a text encoder."""
        for name in ENCODER:
            if not (encoder / name).is_file():
                raise InputError(f"{encoder / name}: missing; a text encoder needs {', '.join(ENCODER)}")
        folder = self.scratch / digest([str(file.resolve()), str(encoder.resolve())])[:16]
        revision = digest([sha256(encoder / name) for name in ENCODER])[:40]
        for name in ENCODER:
            inside = Path(text_encoder_folder(config), name).as_posix()
            link = folder / snapshot(text_encoder_name(config), revision, inside)
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.exists():
                link.symlink_to((encoder / name).resolve())
        root = folder / snapshot(text_encoder_name(config), revision, "x").partition("/snapshots/")[0]
        (root / "refs").mkdir(exist_ok=True)
        (root / "refs" / "main").write_text(revision, encoding="utf-8")
        (folder / file.name).write_bytes(file.read_bytes())
        return folder
