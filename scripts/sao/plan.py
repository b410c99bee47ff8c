"""Which files the config asks for: pure functions from a resolved config to paths and command-line options.

The rules call these and nothing else; Snakemake is not known here.
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

from .config import ROLES, Config, file_name, published_splits, renders
from .files import content_key


def options(arguments: dict[str, Any]) -> str:
    """Command-line options, quoted for the shell."""
    return " ".join(f"--{key.replace('_', '-')} {shlex.quote(str(value))}" for key, value in arguments.items())


class Plan:
    """The paths of a resolved config. `run` is the name of a folder in `renders`: a run, or a base model's render."""

    def __init__(self, config: Config) -> None:
        self.corpora, self.base_models, self.runs = config["corpora"], config["base_models"], config["runs"]
        self.render = config["render"]
        self.renders = renders(config)

    def download_options(self, corpus: str, file: str) -> str:
        """Source and checksum of the file that a corpus keeps under this name."""
        entries: list[Config] = []
        for split in self.corpora[corpus]["splits"].values():
            entries += [*split["archives"], split["captions"], split["metadata"]]
        entry = next(entry for entry in entries if file_name(entry["url"]) == file)
        algorithm = "sha256" if "sha256" in entry else "md5"
        size = {"size": entry["size"]} if "size" in entry else {}
        return options({"url": entry["url"], "algorithm": algorithm, "checksum": entry[algorithm], **size})

    def archives(self, corpus: str, split: str) -> list[str]:
        return [self._archive(corpus, entry) for entry in self.corpora[corpus]["splits"][split]["archives"]]

    def archive_digests(self, corpus: str, split: str) -> list[str]:
        folder = f"results/data/{corpus}/archives"
        return [path.replace(folder, f"{folder}/checksums") + ".txt" for path in self.archives(corpus, split)]

    def captions(self, corpus: str, split: str) -> str:
        return self._archive(corpus, self.corpora[corpus]["splits"][split]["captions"])

    def metadata(self, corpus: str, split: str) -> str:
        return self._archive(corpus, self.corpora[corpus]["splits"][split]["metadata"])

    def _archive(self, corpus: str, entry: Config) -> str:
        return f"results/data/{corpus}/archives/{file_name(entry['url'])}"

    def manifests(self, corpus: str, role: str | None = None) -> list[str]:
        """Manifests of the published splits of a role, or of all that have one."""
        splits = self.corpora[corpus][role] if role else published_splits(self.corpora[corpus])
        return [f"results/data/{corpus}/manifests/{split}.csv" for split in splits]

    def roles(self, corpus: str) -> str:
        """JSON: published split -> train, validation or evaluation."""
        return json.dumps({split: role for role in ROLES for split in self.corpora[corpus][role]})

    def window_options(self, corpus: str) -> str:
        """Nothing where the model's own window is used."""
        seconds = self.corpora[corpus]["window_seconds"]
        return "" if seconds is None else options({"window_seconds": seconds})

    def base_model_options(self, base_model: str) -> str:
        """Where a base model comes from."""
        entry = self.base_models[base_model]
        if "path" in entry:
            return options({"path": entry["path"]})
        encoder = {f"text_encoder_{key}": value for key, value in entry["text_encoder"].items()}
        return options({"repo": entry["repo"], "revision": entry["revision"], **encoder})

    def base_model_files(self, base_model: str) -> list[str]:
        """The files of a local base model: a change in them is a change of the model."""
        entry = self.base_models[base_model]
        names = ["model_config.json", "model.safetensors", "text_encoder/model.safetensors"]
        names += ["text_encoder/config.json", "text_encoder/tokenizer.json"]
        return [f"{entry['path']}/{name}" for name in names] if "path" in entry else []

    def base_model_content(self, base_model: str) -> list[str]:
        """What is in those files: their time stamps mean nothing."""
        return [content_key(Path(file)) for file in self.base_model_files(base_model)]

    def base_model(self, run: str) -> str:
        return self.renders[run]["base_model"]

    def corpus(self, run: str) -> str:
        return self.renders[run]["corpus"]

    def model_folder(self, run: str) -> str:
        return f"results/models/{self.base_model(run)}"

    def datasets(self, run: str) -> str:
        """Folder of the dataset configs; its digest lies beside it."""
        return f"results/data/{self.corpus(run)}/dataset_configs/{self.base_model(run)}"

    def latents(self, run: str, suffix: str = "") -> list[str]:
        """Latents (or, with a suffix, what lies beside them) of every split that a run trains or validates on."""
        folder = f"results/latents/{self.base_model(run)}/{self.corpus(run)}"
        corpus = self.corpora[self.corpus(run)]
        return [f"{folder}/{split}{suffix}" for role in ("train", "validation") for split in corpus[role]]

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
