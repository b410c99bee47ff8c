"""Clotho's form: for each published split archives of sounds, CSVs of captions and CSVs of metadata.

https://zenodo.org/records/4783391
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from sao.config.resolve import ROLES, Config, alike
from sao.data.captions import unique_rows
from sao.data.formats.base import Archived, Problem
from sao.data.origin import METADATA, Row

LONGEST = 200  # bytes of a downloaded file's name; with the suffixes that rules add, it stays within 255


class Clotho(Archived):
    def problems(self, corpus: Config) -> Iterator[Problem]:
        if corpus["split"]["method"] != "column":
            for role in ROLES:
                for split in corpus[role]:
                    if split not in corpus["splits"]:
                        allowed = ", ".join(sorted(corpus["splits"]))
                        yield [role], f"found {split!r}, an unknown split; allowed: {allowed}"
        yield from self._file_problems(corpus)

    def _file_problems(self, corpus: Config) -> Iterator[Problem]:
        """Problems with the names of downloads. They share a folder, so each needs its own usable name."""
        urls: dict[str, str] = {}
        for split, entry in corpus["splits"].items():
            for file in [*entry["archives"], *entry["captions"], *entry["metadata"]]:
                name, key = file_name(file["url"]), ["splits", split]
                if name in ("", ".", "..") or "/" in name or len(name.splitlines()) != 1:
                    yield key, f"the URL {file['url']!r} ends in no file name"
                elif problem := _unusable(name):
                    yield key, f"the file name {name[:60]!r} {problem}; call the file something else"
                elif (other := urls.setdefault(alike(name), file["url"])) != file["url"]:
                    yield key, f"two files are called {name!r} ({other} and {file['url']}), but for case; rename one"

    def read_metadata(self, paths: list[Path]) -> dict[str, Row]:
        return {name: row for name, (_, row) in unique_rows(paths, list(METADATA), "iso-8859-1").items()}


def file_name(url: str) -> str:
    """The name that a download is kept under: the last part of the URL's path. Empty for an invalid URL."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    return unquote(Path(parts.path if parts.scheme in ("http", "https", "file") else url).name)


def _unusable(name: str) -> str:
    """Why a file cannot be kept under its name in `archives/`; empty if it can."""
    if alike(name) == "checksums" or name.startswith("."):
        return "is taken, or hidden"
    if re.search(r"[{}\\\0-\x1f\x7f\ud800-\udfff\ufffd]", name):
        return "has a brace, a backslash, a control character or a byte that is not UTF-8"
    if len(name.encode()) > LONGEST:
        return f"is longer than {LONGEST} bytes"
    return ""
