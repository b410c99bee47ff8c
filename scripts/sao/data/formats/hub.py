"""Data sets on the Hugging Face Hub. Rule `fetch` makes a folder of each split, which is then read like any other folder."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sao.config.resolve import Config
from sao.data.formats.audiofolder import AudioFolder
from sao.data.formats.base import WHOLE, Problem


class Hub(AudioFolder):
    key = "repo"
    more = ("revision", "config", "audio_column")
    fetched = True
    part = "split"

    def problems(self, corpus: Config) -> Iterator[Problem]:
        revision = corpus.get("revision")
        if revision is None:
            yield ["revision"], "missing; format hub needs it: a commit of the data set"
        elif not re.fullmatch("[0-9a-f]{40}", revision):
            yield (
                ["revision"],
                f"found {revision!r}, which may change: give a commit, 40 hex digits; they are listed at "
                f"https://huggingface.co/datasets/{corpus['repo']}/commits/main",
            )
        yield from super().problems(corpus)

    def missing(self, corpus: Config) -> Iterator[Problem]:
        yield from ()  # known only when it is fetched

    def folder(self, corpus: Config, split: str) -> None:
        return None

    def options(self, corpus: Config, split: str) -> dict[str, Any]:
        return super().options(corpus, WHOLE)

    def names(self, folder: Path, options: dict[str, Any]) -> list[str]:
        os.stat(str(folder))  # noqa: PTH116 - raises FileNotFoundError with a text, which Snakemake takes for `not yet fetched`
        return super().names(folder, options)
