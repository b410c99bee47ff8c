"""Which files the config asks for: pure functions from a resolved config to paths and command-line options.

The rules call these and nothing else; Snakemake is not known here.
"""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .config import ROLES, WHOLE, Config, file_name, published_splits, renders
from .files import content_key
from .folder import files_below, own_tables


def options(arguments: dict[str, Any]) -> str:
    """Command-line options, quoted for the shell."""
    return " ".join(f"--{key.replace('_', '-')} {shlex.quote(str(value))}" for key, value in arguments.items())


class Plan:
    """The paths of a resolved config. `run` is the name of a folder in `renders`: a run, or a base model's render."""

    def __init__(self, config: Config) -> None:
        self.corpora, self.base_models, self.runs = config["corpora"], config["base_models"], config["runs"]
        self.render = config["render"]
        self.renders = renders(config)

    def files(self, corpus: str, used: bool = False) -> list[Config]:
        """The published files of a corpus: all, or those of the splits that are used."""
        entry = self.corpora[corpus]
        published = entry.get("splits", {})
        splits = [published[s] for s in published_splits(entry) if s in published] if used else published.values()
        return [file for split in splits for kind in ("archives", "captions", "metadata") for file in split[kind]]

    def file_names(self) -> str:
        """A pattern of the names of all published files, for wildcards; matches nothing where there is none."""
        names = {file_name(file["url"]) for corpus in self.corpora for file in self.files(corpus)}
        return "|".join(re.escape(name) for name in sorted(names)) or "(?!)"

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
        corpora = dict.fromkeys(run["corpus"] for run in self.runs.values())
        names = [(corpus, file_name(file["url"])) for corpus in corpora for file in self.files(corpus, used=True)]
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

    def top(self, corpus: str, split: str) -> str | None:
        """The folder of a user's own whose top folders are the splits, if they are."""
        return None if split == WHOLE else Path(self.corpora[corpus]["path"]).as_posix()

    def with_format(self, name: str) -> str:
        """A pattern of the corpora of a format, for wildcards; matches nothing where there is none."""
        return "|".join(re.escape(k) for k, v in self.corpora.items() if v["format"] == name) or "(?!)"

    def folder_files(self, corpus: str, split: str) -> list[str]:
        """The files of a user's folder. Snakemake would take braces in a name for wildcards: see `folder_rest`."""
        root, top = self.audio(corpus, split), self.top(corpus, split)
        files = [f"{root}/{name}" for name in files_below(Path(root))]
        files += [path.as_posix() for path in own_tables(Path(top))] if top else []
        return [file for file in files if not {"{", "}"} & set(file)]

    def folder_rest(self, corpus: str, split: str) -> list[str]:
        """What is in the files that have braces in their names."""
        root = Path(self.audio(corpus, split))
        return [name + content_key(root / name) for name in files_below(root) if {"{", "}"} & set(f"{root}/{name}")]

    def scan_options(self, corpus: str, split: str) -> str:
        columns, top = self.corpora[corpus]["caption_columns"], self.top(corpus, split)
        more = {"caption_columns": json.dumps(columns, ensure_ascii=False)} if columns else {}
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
        chosen = {"split": self.split(corpus), "on_invalid": entry["on_invalid"]} | allow
        return f"{options(chosen)} --silence-dbfs={entry['silence_dbfs']} {self.window_options(corpus)}"

    def window_options(self, corpus: str) -> str:
        """Nothing where the model's own window is used."""
        seconds = self.corpora[corpus]["window_seconds"]
        return "" if seconds is None else options({"window_seconds": seconds})

    def base_model_options(self, base_model: str) -> str:
        """Where a base model comes from."""
        entry = self.base_models[base_model]
        names = {key: entry[key] for key in ("path", "repo", "revision", "model_config", "weights") if key in entry}
        encoder = {f"text_encoder_{key}": value for key, value in entry.get("text_encoder", {}).items()}
        clap = {f"clap_{key}": value for key, value in entry.get("clap", {}).items()}
        return options({**names, **encoder, **clap})

    def base_model_files(self, base_model: str) -> list[str]:
        """The files of a local base model: a change in them is a change of the model."""
        entry = self.base_models[base_model]
        names = [entry["model_config"], entry["weights"]]
        names += [f"text_encoder/{name}" for name in ("model.safetensors", "config.json", "tokenizer.json")]
        clap = [entry["clap"]["path"]] if "path" in entry.get("clap", {}) else []
        return [f"{entry['path']}/{name}" for name in names if "path" in entry] + clap

    def base_model_memory(self, base_model: str) -> int:
        """In MB; converting a pickled checkpoint takes the model's own, everything else is streamed."""
        entry = self.base_models[base_model]
        return 500 if entry["weights"].endswith(".safetensors") and "clap" not in entry else entry["memory_mb"]

    def base_model_content(self, base_model: str) -> list[str]:
        """What is in those files: their time stamps mean nothing."""
        return [content_key(Path(file)) for file in self.base_model_files(base_model)]

    def base_model_source(self, run: str) -> str:
        """JSON: what the model card says of where the base model is from."""
        entry = self.base_models[self.base_model(run)]
        return json.dumps({key: entry[key] for key in ("repo", "revision", "path") if key in entry})

    def base_model(self, run: str) -> str:
        return self.renders[run]["base_model"]

    def corpus(self, run: str) -> str:
        return self.renders[run]["corpus"]

    def model_folder(self, run: str) -> str:
        return f"results/models/{self.base_model(run)}"

    def reports(self) -> list[str]:
        """The validation reports of the corpora that are used."""
        corpora = dict.fromkeys(run["corpus"] for run in self.runs.values())
        return [f"results/data/{corpus}/validation.json" for corpus in corpora]

    def batches(self, corpus: str, base_model: str) -> str:
        """JSON: what has to fill a batch, for each run that trains on this."""
        runs = {k: v for k, v in self.runs.items() if (v["corpus"], v["base_model"]) == (corpus, base_model)}
        return json.dumps({name: {key: run[key] for key in ("batch_size", "captions")} for name, run in runs.items()})

    def datasets(self, run: str) -> str:
        """Folder of the dataset configs; its digest lies beside it."""
        return f"results/data/{self.corpus(run)}/dataset_configs/{self.base_model(run)}"

    def latents(self, run: str, suffix: str = "") -> list[str]:
        """Latents (or, with a suffix, what lies beside them) of every split that a run trains or validates on."""
        folder = f"results/latents/{self.base_model(run)}/{self.corpus(run)}"
        corpus = self.corpora[self.corpus(run)]
        splits = published_splits(corpus)
        if corpus["split"]["method"] != "column":
            splits = [split for split in splits if split not in corpus["evaluation"]]
        return [f"{folder}/{split}{suffix}" for split in splits]

    def weights(self, run: str) -> str:
        """The exported model of a run, or the base model itself."""
        if self.renders[run]["run"] is None:
            return f"{self.model_folder(run)}/model.safetensors"
        return f"results/checkpoints/{run}/model.safetensors"

    def weights_digest(self, run: str) -> str:
        if self.renders[run]["run"] is None:
            return f"{self.model_folder(run)}/checksums.sha256"
        return f"results/checkpoints/{run}/export.json"

    def rendered_splits(self, run: str) -> list[str]:
        return [f"results/data/{self.corpus(run)}/splits/{role}.csv" for role in self.render["clips"]]
