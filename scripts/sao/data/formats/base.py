"""The interface of a format of corpora: its splits, the places of its files, how to read them, and the checks of its config.

There are two kinds. An `Archived` corpus is published; rules `download` and `extract` fetch and unpack its sounds. An
`InPlace` corpus is a folder that rule `scan` reads in place: a user's own, or one that rule `fetch` made (`fetched`). A new format
is a class of one kind, and a line in `FORMATS`.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from sao.config.resolve import ROLES, Config
from sao.data.captions import Captions, Part, read_captions, read_parts, unique_rows
from sao.data.origin import Row

WHOLE = "all"  # the name of the only split of a corpus that has no published splits
Sides = dict[str, list[str]]  # the splits that make up train, validation and evaluation
Problem = tuple[list[Any], str]  # a key of the corpus's entry in the config, and the problem with its value


@dataclass
class Captioned:
    """The captions of a sound, the further columns of its row, and the file and row that they come from."""

    captions: list[str]
    where: str
    columns: dict[str, str] = field(default_factory=dict)
    parts: list[Captioned] = field(default_factory=list)  # further rows, which describe other parts of the sound


class Format(ABC):
    """`corpus` is the entry of a corpus in the config, with its defaults."""

    key: ClassVar[str]  # the key of the entry that has the corpus's place
    in_place: ClassVar[bool]  # whether the sounds are read in place
    more: ClassVar[tuple[str, ...]] = ()  # further keys of the entry that no other format uses
    fetched: ClassVar[bool] = False  # whether rule `fetch` makes the folder that is read in place

    # The corpus's entry in the config.

    @abstractmethod
    def sides(self, corpus: Config) -> Sides:
        """The published splits of each side that the config does not name."""

    @abstractmethod
    def splits(self, corpus: Config) -> list[str]:
        """The published splits that are used, each with a manifest of its own."""

    @abstractmethod
    def problems(self, corpus: Config) -> Iterator[Problem]:
        """Problems of an entry whose three sides are filled in."""

    def missing(self, corpus: Config) -> Iterator[Problem]:
        """Files and folders of the entry that are not on the disk. Only checked for a corpus that a run trains on."""
        yield from ()

    # The place of the sounds.

    @abstractmethod
    def folder(self, corpus: Config, split: str) -> str | None:
        """The user's folder that the names of a split's sounds are relative to; None for sounds that a rule fetches or unpacks."""

    # For rule `manifest`.

    def read_captions(self, paths: list[Path]) -> tuple[dict[str, Row], dict[str, Captions]]:
        """`(rows, captions)` by `file_name`, in the form of `same_name`. Rule `scan` writes tables in Clotho's form, too."""
        return read_captions(paths)

    def read_parts(self, paths: list[Path]) -> dict[str, list[Part]]:
        """The same rows for rule `cut`; a recording may have one for each of its parts."""
        return read_parts(paths)

    def read_metadata(self, paths: list[Path]) -> dict[str, Row]:
        """Rows of further published tables by `file_name`, in the form of `same_name`."""
        return {name: row for name, (_, row) in unique_rows(paths, [], "utf-8").items()}


class Archived(Format):
    """A corpus of published archives, which rule `extract` unpacks, and tables of captions, by published split."""

    key = "splits"
    in_place = False

    def sides(self, corpus: Config) -> Sides:
        return {role: [] for role in ROLES}

    def splits(self, corpus: Config) -> list[str]:
        if corpus["split"]["method"] == "column":
            return list(corpus["splits"])
        return [split for role in ROLES for split in corpus[role]]

    def folder(self, corpus: Config, split: str) -> None:
        return None


class InPlace(Format):
    """A user's own corpus, at the config's `path`. Without splits of its own it is one split, `all`."""

    key = "path"
    in_place = True

    def sides(self, corpus: Config) -> Sides:
        by_fraction = corpus["split"]["method"] == "fraction"
        return {"train": [WHOLE] if by_fraction else [], "validation": [], "evaluation": []}

    def splits(self, corpus: Config) -> list[str]:
        return [WHOLE]

    def problems(self, corpus: Config) -> Iterator[Problem]:
        if corpus["split"]["method"] == "official":
            yield ["split", "method"], f"format {corpus['format']} has no published splits; use fraction or column"

    def missing(self, corpus: Config) -> Iterator[Problem]:
        if not Path(corpus["path"]).exists():
            yield ["path"], f"found {corpus['path']!r}, which does not exist"

    # For rule `scan`.

    @abstractmethod
    def options(self, corpus: Config, split: str) -> dict[str, Any]:
        """The options for `names` and `read`, in types that JSON has."""

    @abstractmethod
    def names(self, folder: Path, options: dict[str, Any]) -> list[str]:
        """All files that the result of `read` depends on, sounds and tables, by their paths in `folder`.

        Every start of Snakemake compares their sizes and time stamps. A change reruns rule `scan`.
        """

    @abstractmethod
    def read(self, folder: Path, options: dict[str, Any], lost: dict[str, str] | None) -> dict[str, Captioned]:
        """The captions of every sound, by its path in `folder`.

        Raises InputError on a row without a sound or a sound without a caption. If there is a `lost`, it gets the problem
        instead, by the path in `folder`. For a corpus that is cut, the plan adds the option `segments`: the columns of start
        and end, or None. With columns, further rows of a sound are its `parts`.
        """


def is_file(path: Path) -> bool:
    """Whether there is such a file. False for a name that is too long, at which `Path.is_file` raises."""
    return os.path.isfile(path)  # noqa: PTH113


def is_utf8(text: str) -> bool:
    """Whether a text can be written as UTF-8. Lone surrogates, which stand for other bytes in a file name, cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def first(problems: Iterable[Problem]) -> Problem | None:
    return next(iter(problems), None)
