"""The chapter of rules/weights.smk: the files of weights that a config declares, of embeddings and of watermarks."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from sao.base.command import InputError

from sao.base.files import content_key
from sao.config.embeddings import embedding_folder
from sao.config.resolve import Config, local_weights
from sao.config.settings import WeightsSettings, pick
from sao.plan.runs import pattern

GENERATOR, DETECTOR = "audioseal-generator", "audioseal"


class Weights:
    """The declared files, by the name of the folder that they are brought to."""

    def __init__(self, config: Config) -> None:
        watermark = config["render"]["watermark"]
        if isinstance(watermark, str):
            raise InputError(
                f"config: render.watermark: {watermark!r} needs its weights: download generator_base.pth and detector_base.pth of "
                "https://huggingface.co/facebook/audioseal, take their hashes with `sha256sum`, and write {method: audioseal, "
                "generator: {path: FILE, sha256: HASH}, detector: {path: FILE, sha256: HASH}} (docs/guides/results.md)"
            )
        self.watermark = watermark
        self.declared: dict[str, Config] = {
            embedding_folder(entry["name"]): entry["weights"]
            for entry in config["evaluation"]["embeddings"]
            if isinstance(entry, dict) and "weights" in entry
        }
        self.listed = DETECTOR in self.declared
        if watermark:
            self.declared |= {GENERATOR: watermark["generator"], DETECTOR: watermark["detector"]}

    def detectors(self) -> list[Config]:
        """The embedding that looks for the mark of renders, unless the config names it too."""
        found = self.watermark and not self.listed
        return [{"name": DETECTOR, "weights": self.watermark["detector"]}] if found else []

    def output(self, weights: str) -> str:
        return f"results/weights/{weights}/model.safetensors"

    def digest(self, weights: str) -> str:
        return f"results/weights/{weights}/checksums.sha256"

    def pattern(self) -> str:
        return pattern(list(self.declared))

    # Rules download_weights and weights.

    def _local(self, weights: str) -> str | None:
        return local_weights(self.declared[weights])

    def files(self, weights: str) -> list[str]:
        """The file itself: a user's own, or one that is downloaded; nothing if it comes from the Hub."""
        local, url = self._local(weights), self.declared[weights].get("url")
        if local is not None:
            return [local]
        return [f"results/weights/{weights}/downloaded/{_name(url)}"] if url else []

    def content(self, weights: str) -> list[str]:
        """The key of the content of a user's own file, as a rerun trigger in place of its time stamp."""
        local = self._local(weights)
        return [] if local is None else [content_key(Path(local))]

    def settings(self, weights: str) -> WeightsSettings:
        return pick(WeightsSettings, {"sha256": None} | self.declared[weights])

    def url(self, weights: str) -> str:
        return self.declared[weights]["url"]

    def sha256(self, weights: str) -> str:
        return self.declared[weights]["sha256"]

    def file_names(self) -> str:
        """A pattern of the names of downloaded files."""
        return pattern([PurePosixPath(path).name for name in self.declared for path in self.files(name)])


def _name(url: str) -> str:
    """A file's name from its URL, without letters that Snakemake or a shell might read otherwise."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", PurePosixPath(unquote(urlsplit(url).path)).name) or "file"
