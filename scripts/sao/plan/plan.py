"""Which files the config asks for: from a resolved config to paths, command-line options and resources.

Where those depend on what is on the disk, that is looked at: a user's folder, the length of a table. The rules call these and nothing else; Snakemake is not known here.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import shlex
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sao.base.command import InputError
from sao.base.files import content_key
from sao.base.names import shard_name
from sao.config.resolve import ROLES, WHOLE, Config, file_name, published_splits, renders
from sao.data.folder import own_tables
from sao.evaluation.embedding_names import THUMBNAIL, Choice, choice
from sao.plan.listing import update_listing
from sao.plan.resources import MARGIN, RENDERED, START, STEP, grown, rows


def options(arguments: dict[str, Any]) -> str:
    """Command-line options, quoted for the shell."""
    return " ".join(f"--{key.replace('_', '-')} {shlex.quote(str(value))}" for key, value in arguments.items())


class Plan:
    """The paths of a resolved config. `run` is the name of a folder in `renders`: a run, or a base model's render."""

    def __init__(self, config: Config) -> None:
        self.corpora, self.base_models, self.runs = config["corpora"], config["base_models"], config["runs"]
        self.render, self.on_latents, self.shards = (
            config["render"],
            config["latents"]["enabled"],
            config["latents"]["shards"],
        )
        self.renders = renders(config)
        self.evaluation = config["evaluation"]
        self._listed: set[str] = set()
        self.walltime, self.scratch = config["cluster"]["walltime"], config["cluster"]["scratch"]

    def used_corpora(self) -> list[str]:
        """Those that a run trains on."""
        return list(dict.fromkeys(run["corpus"] for run in self.runs.values()))

    def files(self, corpus: str, used: bool = False) -> list[Config]:
        """The published files of a corpus: all, or those of the splits that are used."""
        entry = self.corpora[corpus]
        published = entry.get("splits", {})
        splits = [published[s] for s in published_splits(entry) if s in published] if used else published.values()
        return [file for split in splits for kind in ("archives", "captions", "metadata") for file in split[kind]]

    def file_names(self) -> str:
        """A pattern of the names of all published files, for wildcards; matches nothing where there is none."""
        return pattern(sorted({file_name(file["url"]) for corpus in self.corpora for file in self.files(corpus)}))

    def _file(self, corpus: str, name: str) -> Config:
        return next(file for file in self.files(corpus) if file_name(file["url"]) == name)

    def download_check(self, corpus: str, name: str) -> str:
        """What decides whether a file that a corpus keeps under this name is the right one."""
        file = self._file(corpus, name)
        algorithm = "sha256" if "sha256" in file else "md5"
        size = {"size": file["size"]} if "size" in file else {}
        return options({"algorithm": algorithm, "checksum": file[algorithm], **size})

    def download_source(self, corpus: str, name: str) -> str:
        """Where to fetch it."""
        mirror = self.corpora[corpus]["mirror"]
        return options({"url": self._file(corpus, name)["url"]} | ({"mirror": mirror} if mirror else {}))

    def is_remote(self, corpus: str, name: str) -> bool:
        """Whether fetching it takes the network."""
        mirror = self.corpora[corpus]["mirror"] or "https:"
        return all(urlsplit(url).scheme in ("http", "https") for url in (self._file(corpus, name)["url"], mirror))

    def downloads(self) -> list[str]:
        """All that the runs need from elsewhere: the files of their corpora, and their base models."""
        names = [
            (corpus, file_name(file["url"])) for corpus in self.used_corpora() for file in self.files(corpus, used=True)
        ]
        paths = [f"results/data/{corpus}/archives/{name}" for corpus, name in names]
        models = [f"results/models/{run['base_model']}/checksums.sha256" for run in self.runs.values()]
        return list(dict.fromkeys(paths + models))

    def archives(self, corpus: str, split: str) -> list[str]:
        return self._archives(corpus, split, "archives")

    def archive_digests(self, corpus: str, split: str) -> list[str]:
        folder = f"results/data/{corpus}/archives"
        return [path.replace(folder, f"{folder}/checksums") + ".txt" for path in self.archives(corpus, split)]

    def captions(self, corpus: str, split: str) -> list[str]:
        """The tables of captions: published ones, or the one that was read from a folder."""
        if self.corpora[corpus]["format"] == "audiofolder":
            return [f"results/data/{corpus}/captions/{split}.csv"]
        return self._archives(corpus, split, "captions")

    def metadata(self, corpus: str, split: str) -> list[str]:
        return [] if self.corpora[corpus]["format"] == "audiofolder" else self._archives(corpus, split, "metadata")

    def _archives(self, corpus: str, split: str, kind: str) -> list[str]:
        entries = self.corpora[corpus]["splits"][split][kind]
        return [f"results/data/{corpus}/archives/{file_name(entry['url'])}" for entry in entries]

    def audio(self, corpus: str, split: str) -> str:
        """The folder that the paths of a published split's sounds are relative to; a user's own is read in place."""
        entry = self.corpora[corpus]
        if entry["format"] == "clotho":
            return f"results/data/{corpus}/audio/{split}"
        return Path(entry["path"], "" if split == WHOLE else split).as_posix()

    def recordings(self, corpus: str) -> list[str]:
        """The folders of a corpus's sounds; none where they are a user's own, which are read where they lie."""
        if self.corpora[corpus]["format"] == "audiofolder":
            return []
        return [self.audio(corpus, split) for split in published_splits(self.corpora[corpus])]

    def top(self, corpus: str, split: str) -> str | None:
        """The folder of a user's own whose top folders are the splits, if they are."""
        return None if split == WHOLE else Path(self.corpora[corpus]["path"]).as_posix()

    def with_format(self, name: str) -> str:
        """A pattern of the corpora of a format, for wildcards; matches nothing where there is none."""
        return pattern([k for k, v in self.corpora.items() if v["format"] == name])

    def listing(self, corpus: str, split: str) -> str:
        """The list of what is in a user's folder, brought up to date: once, however often Snakemake asks."""
        listing, digests = (
            f"results/data/{corpus}/{part}" for part in (f"folder/{split}.txt", f"audio/{split}.sha256")
        )
        if listing not in self._listed:
            top = self.top(corpus, split)
            above = own_tables(Path(top)) if top else []
            update_listing(Path(listing), Path(self.audio(corpus, split)), above, Path(digests))
            self._listed.add(listing)
        return listing

    def scan_options(self, corpus: str, split: str) -> str:
        entry, top = self.corpora[corpus], self.top(corpus, split)
        given = {"caption_columns": entry["caption_columns"], "splits": published_splits(entry) if top else None}
        more = {key: json.dumps(value, ensure_ascii=False) for key, value in given.items() if value}
        return options({"folder": self.audio(corpus, split)} | ({"top": top} if top else {}) | more)

    def manifest_options(self, corpus: str, split: str) -> str:
        """Where the sounds are, and the further columns that the split goes by."""
        entry = self.corpora[corpus]["split"]
        more = {"split_column": entry["column"]} if entry["method"] == "column" else {}
        more |= {"group_column": entry["group"]} if entry["group"] else {}
        return options({"audio": self.audio(corpus, split)} | more)

    def manifests(self, corpus: str) -> list[str]:
        splits = published_splits(self.corpora[corpus])
        return [f"results/data/{corpus}/manifests/{split}.csv" for split in splits]

    def split(self, corpus: str) -> str:
        """JSON: what assigns clips to train, validation and evaluation, without what the method does not use."""
        entry = self.corpora[corpus]
        method, seed = entry["split"]["method"], entry["split"]["seed"]
        drawn = {"seed": seed, "fractions": {role: entry["split"][role] for role in ("validation", "evaluation")}}
        sides = {role: entry[role] for role in ROLES}
        return json.dumps({"method": method} | sides | (drawn if method == "fraction" else {}))

    def validate_options(self, corpus: str) -> str:
        entry = self.corpora[corpus]
        allow = {} if entry["licenses"] is None else {"licenses": json.dumps(entry["licenses"]["allow"])}
        policies = {key: entry[key] for key in ("on_invalid", "on_leak")}
        chosen = {"split": self.split(corpus)} | policies | allow
        window = "" if entry["random_crop"] else self.window_options(corpus)
        return f"{options(chosen)} --silence-dbfs={entry['silence_dbfs']} {window}"

    def window_options(self, corpus: str) -> str:
        """Nothing where the model's own window is used."""
        seconds = self.corpora[corpus]["train_seconds"]
        return "" if seconds is None else options({"train_seconds": seconds})

    def crop_options(self, corpus: str) -> str:
        """The training window, and whether clips may be longer."""
        return self.window_options(corpus) + (" --random-crop" if self.corpora[corpus]["random_crop"] else "")

    def dataset_options(self, corpus: str, base_model: str) -> str:
        """Where a training finds the clips: latents in shards, or the audio itself."""
        if self.on_latents:
            return options({"latents": f"results/latents/{base_model}/{corpus}", "shards": self.shards})
        splits = published_splits(self.corpora[corpus])
        return options(
            {"audio": json.dumps({split: self.audio(corpus, split) for split in splits}, ensure_ascii=False)}
        )

    def base_model_source_options(self, base_model: str) -> str:
        """Where model config and weights of a base model come from."""
        entry = self.base_models[base_model]
        return options({k: entry[k] for k in ("path", "repo", "revision", "model_config", "weights") if k in entry})

    def base_model_options(self, base_model: str) -> str:
        """Where a base model comes from."""
        entry = self.base_models[base_model]
        encoder = {f"text_encoder_{key}": value for key, value in entry.get("text_encoder", {}).items()}
        clap = {f"clap_{key}": value for key, value in entry.get("clap", {}).items()}
        return f"{self.base_model_source_options(base_model)} {options({**encoder, **clap})}".strip()

    def base_model_files(self, base_model: str) -> list[str]:
        """The files of a local base model: a change in them is a change of the model.

        One that is missing is left to base_model.py, which says what to do.
        """
        return [file for file in self._base_model_files(base_model) if Path(file).is_file()]

    def _base_model_files(self, base_model: str) -> list[str]:
        entry = self.base_models[base_model]
        names = [entry["model_config"], entry["weights"]]
        names += [f"text_encoder/{name}" for name in ("model.safetensors", "config.json", "tokenizer.json")]
        clap = [entry["clap"]["path"]] if "path" in entry.get("clap", {}) else []
        return [f"{entry['path']}/{name}" for name in names if "path" in entry] + clap

    def base_model_memory(self, base_model: str) -> int:
        """In MB; converting a pickled checkpoint takes the model's own, everything else is streamed."""
        entry = self.base_models[base_model]
        return 500 if entry["weights"].endswith(".safetensors") and "clap" not in entry else entry["memory_mb"]

    def trainings(self, base_model: str) -> str:
        """JSON: by run, the settings that decide the weights that a base model is trained to."""
        names = [name for name, run in self.runs.items() if run["base_model"] == base_model]
        # How long it is decides no weight, but a schedule has to last so long.
        length = {name: {"steps": self.runs[name].get("steps")} for name in names}
        return json.dumps({name: json.loads(self.leg_settings(name)) | length[name] for name in names})

    def base_model_content(self, base_model: str) -> list[str]:
        """What is in those files: their time stamps mean nothing."""
        return [content_key(Path(file)) for file in self._base_model_files(base_model)]

    def base_model_source(self, run: str) -> str:
        """JSON: what the model card says of where the base model is from."""
        name = self.base_model(run)
        keys = ("repo", "revision", "path", "text_encoder", "clap")
        return json.dumps({"name": name} | {k: v for k, v in self.base_models[name].items() if k in keys})

    def _entry(self, run: str) -> Config:
        """What is rendered under this name, which may be that of one leg of a run (`demo@…`, `demo/step-00000500`)."""
        return self.renders[re.split("[@/]", run)[0]]

    def base_model(self, run: str) -> str:
        return self._entry(run)["base_model"]

    def corpus(self, run: str) -> str:
        return self._entry(run)["corpus"]

    def model_folder(self, run: str) -> str:
        return f"results/models/{self.base_model(run)}"

    def model_files(self, run: str) -> list[str]:
        """What a base model is built from, beside its weights."""
        return [f"{self.model_folder(run)}/model_config.json", f"{self.model_folder(run)}/hub"]

    def reports(self) -> list[str]:
        """The validation reports of the corpora that are used."""
        return [f"results/data/{corpus}/validation.json" for corpus in self.used_corpora()]

    def batches(self, corpus: str, base_model: str) -> str:
        """JSON: what has to fill a batch, for each run that trains on this."""
        return json.dumps(
            {
                name: {"batch": run["batch_size"] * self.processes(name), "captions": run["captions"]}
                for name, run in self.runs.items()
                if (run["corpus"], run["base_model"]) == (corpus, base_model)
            }
        )

    def datasets(self, run: str) -> str:
        """Folder of the dataset configs; its digest lies beside it."""
        return f"results/data/{self.corpus(run)}/dataset_configs/{self.base_model(run)}"

    def trained_splits(self, run: str) -> list[str]:
        """The published splits that a run trains or validates on."""
        corpus = self.corpora[self.corpus(run)]
        splits = published_splits(corpus)
        if corpus["split"]["method"] != "column":
            splits = [split for split in splits if split not in corpus["evaluation"]]
        return splits

    def sounds(self, run: str) -> list[str]:
        """What a run reads beside the dataset configs: folders of latents, or of audio."""
        if not self.on_latents:
            return [self.audio(self.corpus(run), split) for split in self.trained_splits(run)]
        return [path.removesuffix(".json") for path in self.sound_digests(run)]

    def sound_digests(self, run: str) -> list[str]:
        """Small files that vouch for them."""
        corpus = self.corpus(run)
        if not self.on_latents:
            return [f"results/data/{corpus}/audio/{split}.csv" for split in self.trained_splits(run)]
        folder = f"results/latents/{self.base_model(run)}/{corpus}"
        return [
            f"{folder}/{split}/{shard_name(shard, self.shards)}.json"
            for split in self.trained_splits(run)
            for shard in range(self.shards)
        ]

    def legs(self, run: str) -> list[str]:
        """Names of the legs of a run's training, in order: `step-00000500`, …, or `epoch-00000001`, …"""
        unit, end, every = self._length(run)
        return [leg_name(unit, at) for at in [*range(every, end, every), end]]

    def _length(self, run: str) -> tuple[str, int, int]:
        """`(step or epoch, how many, how many a leg)` of a training."""
        settings = self.runs[run]
        unit = "step" if "steps" in settings else "epoch"
        return unit, settings[f"{unit}s"], settings["checkpoint_every"]

    def last_leg(self, run: str) -> str:
        return f"results/checkpoints/{run}/{self.legs(run)[-1]}"

    def leg_state(self, run: str, leg: str, file: str = "state.ckpt") -> list[str]:
        """The training state that a leg goes on from, or another `file` beside it; none for the first leg.

        It is that of the last before it that a leg ends with.
        """
        unit, _, every = self._length(run)
        before = (int(leg.split("-")[1]) - 1) // every * every
        return [f"results/checkpoints/{run}/{leg_name(unit, before)}/{file}"] if before else []

    def legs_pattern(self) -> str:
        """A pattern of `run/leg`: all that can be asked for, past the end of the run too."""
        return "|".join(rf"{re.escape(run)}/{self._length(run)[0]}-(?!0+\b)\d{{8}}" for run in self.runs)

    def kept_states(self) -> str:
        """A pattern of `run/leg` whose training state stays: the last, and the last that a longer training needs."""
        kept = []
        for run, settings in self.runs.items():
            unit, end, every = self._length(run)
            kept += [f"{run}/{leg_name(unit, at)}" for at in (end, end // every * every)]
            kept += [f"{run}/{leg}" for leg in self.legs(run) if settings["keep_states"] == "all"]
        return pattern(sorted(set(kept)))

    def leg_settings(self, run: str, moving: bool = True) -> str:
        """JSON: the settings of a run that move its weights, or the others.

        How far the training goes is none of them: raising that repeats no leg.
        """
        aside = ("wandb", "tensorboard", "workers", "validate_every", "scratch")
        elsewhere = ("steps", "epochs", "checkpoint_every", "keep_states", "checkpoint", "publish", "seconds_per_step")
        settings = {key: value for key, value in self.runs[run].items() if key not in elsewhere}
        settings["scratch"] = self.scratch
        return json.dumps({key: value for key, value in settings.items() if (key in aside) != moving})

    def to_export(self, exported: str, file: str) -> list[str]:
        """Files of the legs that an export chooses from: a given one (`demo/step-00000500`), the last, or all."""
        run, _, leg = exported.partition("/")
        legs = [leg] if leg else self.legs(run)
        chosen = legs if self.runs[run]["checkpoint"] == "best" else legs[-1:]
        return [f"results/checkpoints/{run}/{leg}/{file}" for leg in chosen]

    def exported(self, run: str) -> str:
        """The folder of a run's exported model; `run` may name one leg: `demo@step-00000500`."""
        return f"results/checkpoints/{run.replace('@', '/')}"

    def weights(self, run: str) -> str:
        """The exported model of a run, or the base model itself."""
        if self.is_base(run):
            return f"{self.model_folder(run)}/model.safetensors"
        return f"{self.exported(run)}/model.safetensors"

    def weights_digest(self, run: str) -> str:
        if self.is_base(run):
            return f"{self.model_folder(run)}/checksums.sha256"
        return f"{self.exported(run)}/export.json"

    def rendered_splits(self, run: str) -> list[str]:
        return [f"results/data/{self.corpus(run)}/splits/{role}.csv" for role in self.render["clips"]]

    def prompts(self) -> list[str]:
        """The file of prompts that are rendered beside the clips, if there is one."""
        return [] if self.render["prompts"] is None else [self.render["prompts"]]

    def render_settings(self) -> str:
        """JSON: what decides a render, but for the prompts, which are an input; batch and shards decide nothing."""
        return json.dumps({k: v for k, v in self.render.items() if k not in ("prompts", "batch_size", "shards")})

    def renderings(self) -> str:
        """JSON: by run, the settings that it is rendered with, for a page that tells them."""
        render = {key: value for key, value in self.render.items() if key not in ("batch_size", "shards")}
        sampling = {run: self.base_models[entry["base_model"]]["sampling"] for run, entry in self.runs.items()}
        return json.dumps({run: {"render": render, "sampling": chosen} for run, chosen in sampling.items()})

    def is_base(self, run: str) -> bool:
        return self._entry(run)["run"] is None

    def batch_options(self) -> str:
        size = self.render["batch_size"]
        return "" if size is None else options({"batch_size": size})

    def render_shards(self, run: str) -> list[str]:
        """The folders that a run is rendered in where there are several; their tables lie beside them."""
        count = self.render["shards"]
        return [f"results/renders/.shards/{run}/{shard_name(shard, count)}" for shard in range(count)]

    def rendered_pattern(self, shards: bool) -> str:
        """A pattern of a run, one of its legs (`demo@step-00000500`) or a base model, for wildcards.

        Matches nothing where renders are not made in one job, or not in `shards`.
        """
        return r"[^/@]+(@(step|epoch)-\d{8})?" if (self.render["shards"] > 1) == shards else pattern([])

    def processes(self, run: str) -> int:
        """How many a training has: one for each device of each node."""
        return self.runs[run]["devices"] * self.runs[run]["num_nodes"]

    def resources(self, run: str, what: str) -> int | str | None:
        """What a training asks for: memory in MB, GPUs and CPU `threads` for each node, and how many tasks.

        On SLURM every process sees all GPUs that the job has on its node: Lightning takes the one with the number of the
        process there. So nothing is asked for by GPU or by task: that would show each task a part of them.
        """
        settings, several = self.runs[run], self.processes(run) > 1
        devices, nodes = settings["devices"], settings["num_nodes"]
        gpus = self.base_models[settings["base_model"]]["gpus"] * devices
        threads = settings["threads"] + settings["workers"]
        return {
            "mem_mb": self.memory(run) * devices,
            # `gpu` is how many there are in all, of which SLURM may give three to one node and one to the other.
            "gpu": gpus if nodes == 1 else None,
            "gres": f"gpu:{gpus}" if nodes > 1 and gpus else None,
            "threads": threads * devices,
            "cpus_per_task": threads if several else None,
            # Without it, SLURM may divide the tasks unevenly, too. The executor refuses to ask for one a node.
            "tasks_per_node": devices if devices > 1 else None,
            "tasks": nodes if nodes > 1 and devices == 1 else None,
            # None would have the executor ask for as many tasks for each GPU as there are in all.
            "tasks_per_gpu": 0 if several else None,
        }[what]

    def launcher(self, run: str) -> str:
        """What starts the processes of a training inside a job of SLURM; elsewhere Lightning starts them itself."""
        if self.processes(run) == 1:
            return ""
        settings = self.runs[run]
        given = {"nodes": settings["num_nodes"], "ntasks": self.processes(run), "ntasks-per-node": settings["devices"]}
        given["cpus-per-task"] = self.resources(run, "cpus_per_task")
        # In a job called `bash` or `interactive` Lightning would not look for the other processes.
        given["job-name"] = "train"
        # Of an allocation that somebody made by hand: with these, srun would show each process one GPU, or refuse to start.
        unset = " ".join(
            f"-u SLURM_{name}" for name in ("NTASKS_PER_GPU", "GPUS_PER_TASK", "TRES_PER_TASK", "GPU_BIND")
        )
        options = " ".join(f"--{key}={value}" for key, value in given.items())
        return f"${{SLURM_JOB_ID:+env {unset} srun --kill-on-bad-exit {options}}} "

    def memory(self, run: str) -> int:
        """Main memory, in MB, of a process that holds the model of a run."""
        return self.base_models[self.base_model(run)]["memory_mb"]

    def minutes(self, needed: float, attempt: int = 1) -> int:
        """What a job asks for: more at each attempt, and no more than the longest that a scheduler gives."""
        return min(grown(needed, attempt), self.walltime or sys.maxsize)

    def leg_minutes(self, run: str, leg: str) -> float:
        """The time that a leg needs, with a margin."""
        settings = self.runs[run]
        unit, at = leg.split("-")
        every = settings["checkpoint_every"]
        length = int(at) - (int(at) - 1) // every * every
        return START + length * self._unit_minutes(run, unit)

    def seconds_per_step(self, run: str) -> float:
        """As configured; else the most that a leg with the run's present settings took; else a guess."""
        if (configured := self.runs[run]["seconds_per_step"]) is not None:
            return configured
        settings, measured = json.loads(self.leg_settings(run)), []
        for path in Path("results/checkpoints", run).glob("*/speed.json"):
            with contextlib.suppress(FileNotFoundError, ValueError):  # just being removed, or written elsewhere
                speed = json.loads(path.read_text(encoding="utf-8"))
                measured += [speed["seconds_per_step"]] if speed["settings"] == settings else []
        return max(filter(None, measured), default=STEP)

    def _unit_minutes(self, run: str, unit: str) -> float:
        """The time of a step or an epoch, with a margin."""
        settings = self.runs[run]
        minutes = MARGIN / 60 * self.seconds_per_step(run)
        if unit == "epoch":
            clips = Path(f"results/data/{settings['corpus']}/splits/train.csv")
            # Not known before the corpus is there; a job is asked again when it is ready to run.
            count = rows(clips) if clips.is_file() else 0
            minutes *= math.ceil(count / (self.processes(run) * settings["batch_size"] * settings["accumulate"]))
        return minutes

    def check_walltime(self) -> None:
        """Raises InputError where a leg cannot fit."""
        for run in self.runs if self.walltime else ():
            unit, _, every = self._length(run)
            needed = grown(self.leg_minutes(run, self.legs(run)[0]))  # none is longer than the first
            if needed > self.walltime:
                fits = int(round((self.walltime - START) / self._unit_minutes(run, unit), 6))
                raise InputError(
                    f"config: runs.{run}: a leg of {every} {unit}s takes up to {needed} min (seconds_per_step, half as "
                    f"much again, and {START} min), more than cluster.walltime, {self.walltime} min: "
                    + (f"set checkpoint_every to {fits} or less" if fits > 0 else "raise walltime")
                    + ", or seconds_per_step to what was measured"
                )

    def render_minutes(self, clips: dict[str, int], prompts: int) -> float:
        """For a shard, given how many clips each split has."""
        wanted = self.render["clips"]
        count = prompts + sum(n if wanted[role] == "all" else min(n, wanted[role]) for role, n in clips.items())
        return START + RENDERED / 60 * math.ceil(count / self.render["shards"])

    # Rules embedding_model, embed, evaluate and compare.

    def embeddings(self) -> list[str]:
        """The names of the embeddings, as folders."""
        return [choice(entry).folder for entry in self.evaluation["embeddings"]]

    def _embedding(self, name: str) -> tuple[Config | str, Choice]:
        entries = [*self.evaluation["embeddings"], THUMBNAIL]
        return next((entry, choice(entry)) for entry in entries if choice(entry).folder == name)

    def embeddings_pattern(self) -> str:
        return pattern([*self.embeddings(), THUMBNAIL])

    def clap_pattern(self) -> str:
        """A pattern of those whose weights are fetched."""
        return pattern([name for name in self.embeddings() if self._embedding(name)[1].is_clap])

    def embedding_models(self, name: str) -> list[str]:
        """Checksums of the weights of an embedding, where they are fetched."""
        return [f"results/embeddings/{name}/model/checksums.sha256"] if self._embedding(name)[1].is_clap else []

    def embedding_hubs(self, name: str) -> list[str]:
        """The folders of the weights themselves."""
        return [path.replace("checksums.sha256", "hub") for path in self.embedding_models(name)]

    def embedding_downloads(self) -> list[str]:
        return [path for name in self.embeddings() for path in self.embedding_models(name)]

    def embedding_source(self, name: str) -> str:
        chosen = self._embedding(name)[1]
        return options({"repo": chosen.name, "revision": chosen.revision})

    def embedding_options(self, name: str) -> str:
        entry, chosen = self._embedding(name)
        model = {"model": f"results/embeddings/{name}/model/hub"} if chosen.is_clap else {}
        return options({"embedding": json.dumps(entry)} | model)

    def embedding_gpus(self, name: str) -> int:
        """A GPU for what torch computes, where the runs have one."""
        learned = self._embedding(name)[1].name not in (THUMBNAIL, "log-mel")
        return int(learned and any(self.base_models[run["base_model"]]["gpus"] for run in self.runs.values()))

    def embedded_tables(self, kind: str, name: str) -> list[str]:
        """The tables of a set of sounds: the recordings of a corpus, or the renders of a run."""
        if kind == "renders":
            return [f"results/renders/{name}.csv"]
        return [f"results/data/{name}/splits/{role}.csv" for role in ROLES]

    def embedded_sounds(self, kind: str, name: str) -> list[str]:
        """The folders that they are in."""
        if kind == "renders":
            return [f"results/renders/{name}", *self.recordings(self.corpus(name))]  # the table names them, too
        return [self.audio(name, split) for split in published_splits(self.corpora[name])]

    def embedded(self, kind: str, name: str) -> list[str]:
        """The set in each of the embeddings."""
        return [f"results/embeddings/{embedding}/{kind}/{name}.npz" for embedding in self.embeddings()]

    def thumbnails(self, corpus: str) -> str:
        return f"results/embeddings/{THUMBNAIL}/corpora/{corpus}.npz"

    def evaluated(self) -> list[str]:
        """What is measured: base models, runs and, if asked for, the legs before them."""
        names = []
        for name, entry in self.renders.items():
            if self.evaluation["legs"] and entry["run"]:
                # The last one is the run itself, unless the best is.
                legs = self.legs(name) if self.runs[name]["checkpoint"] == "best" else self.legs(name)[:-1]
                names += [f"{name}@{leg}" for leg in legs]
            names.append(name)
        return names

    def evaluated_runs(self) -> list[str]:
        """Runs with several legs to draw over their steps."""
        return [run for run in self.runs if any(name.startswith(f"{run}@") for name in self.evaluated())]

    def evaluated_as(self, run: str) -> str:
        """The name of what is measured in tables and on pages: `base`, a run, or a run's leg."""
        return run if "@" in run else self._entry(run)["label"]

    def evaluation_source(self, run: str) -> str:
        """JSON: what it is of."""
        entry = self._entry(run)
        return json.dumps({"folder": run} | {key: entry[key] for key in ("run", "base_model", "corpus")})

    def evaluation_leg(self, run: str) -> list[str]:
        """The file that names the leg of a fine-tuned model."""
        return [] if self.is_base(run) else [self.weights_digest(run)]

    def evaluation_options(self) -> str:
        entries = {"embeddings": json.dumps(self.evaluation["embeddings"])}
        return options(entries | {key: self.evaluation[key] for key in ("bootstrap", "level", "seed")})

    # Rules model_card and upload.

    def card(self, run: str) -> str:
        return f"{self.exported(run)}/README.md"

    def card_measures(self, exported: str) -> list[str]:
        """What was measured of an exported model (`demo`, `demo/step-00000500`), and of its base model."""
        entry = self._entry(exported)
        pair = (None, entry["base_model"], entry["corpus"])
        base = next(k for k, v in self.renders.items() if (v["run"], v["base_model"], v["corpus"]) == pair)
        return [f"results/evaluation/{name}.json" for name in (exported.replace("/", "@"), base)]

    def uploads(self) -> list[str]:
        """What says that a run was published, for each that is to be."""
        return [f"results/published/{name}.json" for name, run in self.runs.items() if run["publish"]]

    def nothing_to_publish(self) -> str:
        """What a user is told where none is."""
        return (
            f"config: no run is to be published: set runs.NAME.publish.repo, NAME being one of {', '.join(self.runs)}"
        )

    def upload_pattern(self) -> str:
        """A pattern of the runs that are to be published."""
        return pattern([name for name, run in self.runs.items() if run["publish"]])

    def upload_options(self, run: str) -> str:
        chosen = self.runs[run]["publish"]
        return options({"repo": chosen["repo"]}) + ("" if chosen["private"] else " --public")


def leg_name(unit: str, at: int) -> str:
    """`step-00000500`: sorts as it was trained."""
    return f"{unit}-{at:08d}"


def pattern(names: list[str]) -> str:
    """A regular expression of these names, for wildcards; matches nothing where there is none."""
    return "|".join(map(re.escape, names)) or "(?!)"
