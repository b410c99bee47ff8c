"""What a format of corpora answers: which splits it has, where its files lie, how they are read, what a config may say.

There are two kinds. An `Archived` corpus is published: rules `download` and `extract` bring its sounds here. One that is
`InPlace` is a user's own: rule `scan` reads it where it lies. A new format is a class of one kind, and a line in `FORMATS`.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from sao.config.resolve import ROLES, Config
from sao.data.captions import Captions, read_captions, unique_rows
from sao.data.origin import Row

WHOLE = "all"  # the name of the one published split of a corpus that has none
Sides = dict[str, list[str]]  # what makes up train, validation and evaluation
Problem = tuple[list[Any], str]  # a key of the corpus's entry in the config, and what is wrong with its value


@dataclass
class Captioned:
    """The captions of a sound, the further columns of its row, and where they were read."""

    captions: list[str]
    where: str
    columns: dict[str, str] = field(default_factory=dict)


class Format(ABC):
    """`corpus` is the entry of a corpus in the config, with its defaults."""

    key: ClassVar[str]  # the key of the entry that says where the corpus is
    in_place: ClassVar[bool]  # whether it is read where it lies

    # What the config says.

    @abstractmethod
    def sides(self, corpus: Config) -> Sides:
        """The published splits of each side that the config does not name."""

    @abstractmethod
    def splits(self, corpus: Config) -> list[str]:
        """The published splits that are used, each with a manifest of its own."""

    @abstractmethod
    def problems(self, corpus: Config) -> Iterator[Problem]:
        """What is wrong with an entry whose three sides are filled in."""

    def missing(self, corpus: Config) -> Iterator[Problem]:
        """What an entry names that is not on the disk. Asked only of a corpus that a run trains on."""
        yield from ()

    # Where the sounds are.

    @abstractmethod
    def folder(self, corpus: Config, split: str) -> str | None:
        """The user's own folder that the names of a split's sounds are relative to; None where they are unpacked here."""

    # What rule `manifest` reads.

    def read_captions(self, paths: list[Path]) -> tuple[dict[str, Row], dict[str, Captions]]:
        """`(rows, captions)` of tables by `file_name`, as `same_name` has it. Tables that rule `scan` wrote are in this form."""
        return read_captions(paths)

    def read_metadata(self, paths: list[Path]) -> dict[str, Row]:
        """Rows of further published tables by `file_name`, as `same_name` has it."""
        return {name: row for name, (_, row) in unique_rows(paths, [], "utf-8").items()}


class Archived(Format):
    """Published archives, which rule `extract` unpacks, with tables of captions, by published split."""

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
    """A corpus of a user's own, at the config's `path`. Without splits of its own it is one published split, `all`."""

    key = "path"
    in_place = True

    def sides(self, corpus: Config) -> Sides:
        drawn = corpus["split"]["method"] == "fraction"
        return {"train": [WHOLE] if drawn else [], "validation": [], "evaluation": []}

    def splits(self, corpus: Config) -> list[str]:
        return [WHOLE]

    def problems(self, corpus: Config) -> Iterator[Problem]:
        if corpus["split"]["method"] == "official":
            yield ["split", "method"], f"format {corpus['format']} has no published splits; use fraction or column"

    def missing(self, corpus: Config) -> Iterator[Problem]:
        if not Path(corpus["path"]).exists():
            yield ["path"], f"found {corpus['path']!r}, which is not there"

    @abstractmethod
    def folder(self, corpus: Config, split: str) -> str: ...

    # What rule `scan` reads.

    @abstractmethod
    def options(self, corpus: Config, split: str) -> dict[str, Any]:
        """What `names` and `read` go by, as JSON can hold it."""

    @abstractmethod
    def names(self, folder: Path, options: dict[str, Any]) -> list[str]:
        """All files that decide what is read, sounds and tables, by their paths in `folder`.

        They are looked at in every start of Snakemake: a change reruns rule `scan`.
        """

    @abstractmethod
    def read(self, folder: Path, options: dict[str, Any], lost: dict[str, str] | None) -> dict[str, Captioned]:
        """The captions of every sound, by its path in `folder`.

        Raises InputError on a row without a sound or a sound without a caption, unless there is `lost`, which then gets
        what is wrong by path in `folder`.
        """


def is_file(path: Path) -> bool:
    """Whether there is such a file; not so for a name that is longer than any, at which Path's own raises."""
    return os.path.isfile(path)  # noqa: PTH113


def is_utf8(text: str) -> bool:
    """False of text with lone surrogates, which stand for bytes of a file name that are not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def first(problems: Iterable[Problem]) -> Problem | None:
    return next(iter(problems), None)
