"""The audiofolder convention of Hugging Face's `datasets`: sounds in a tree, with captions in tables or beside them.

https://huggingface.co/docs/datasets/audio_dataset
"""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from sao.base.command import InputError, log

from sao.base.names import same_name
from sao.base.tables import check_columns
from sao.config.resolve import ROLES, Config, alike
from sao.data.captions import like_caption, listed
from sao.data.formats.base import WHOLE, Captioned, InPlace, Problem, Sides, is_file, is_utf8
from sao.data.formats.tables import READERS, as_object, read_text
from sao.sound.suffixes import READ, is_film, is_sound, may_be_sound, suffix
from sao.sound.tags import TAGS, read_all_tags

TEXTS = (".txt", ".json")  # beside a sound: captions, one per line, or an object of columns


class AudioFolder(InPlace):
    """A folder, or one whose top folders are the published splits."""

    part = "top folder"  # what a published split is, in messages

    def sides(self, corpus: Config) -> Sides:
        method = corpus["split"]["method"]
        whole = method == "fraction" and not any(role in corpus for role in ROLES)
        sides: Sides = {"train": [WHOLE] if whole else ["train"], "validation": [], "evaluation": []}
        return sides | ({"validation": ["validation"], "evaluation": ["test"]} if method == "official" else {})

    def splits(self, corpus: Config) -> list[str]:
        if corpus["split"]["method"] == "column":
            return [WHOLE]
        return [split for role in ROLES for split in corpus[role]]

    def problems(self, corpus: Config) -> Iterator[Problem]:
        method = corpus["split"]["method"]
        for role in ROLES if method != "column" else ():
            for split in corpus[role]:
                if not re.fullmatch(r"[^/.{}][^/{}]*", split):
                    yield [role], f"{split!r} is not the name of a {self.part}"
                if split == WHOLE and method == "official":
                    yield [role], f"the name {split!r} is taken; use method fraction or column, which take all clips"

    def missing(self, corpus: Config) -> Iterator[Problem]:
        if not Path(corpus["path"]).is_dir():
            yield ["path"], f"found {corpus['path']!r}, which is no folder"
        for role in ROLES if corpus["split"]["method"] != "column" else ():
            for split in corpus[role]:
                if split != WHOLE and not Path(corpus["path"], split).is_dir():
                    yield [role], f"names {split!r}, which is no folder in {corpus['path']}"

    def folder(self, corpus: Config, split: str) -> str | None:
        return Path(corpus["path"], "" if split == WHOLE else split).as_posix()

    def options(self, corpus: Config, split: str) -> dict[str, Any]:
        top = None if split == WHOLE else Path(corpus["path"]).as_posix()
        options = {
            "caption_columns": corpus["caption_columns"] or None,
            "top": top,  # the folder above, if its folders are the splits
            "splits": self.splits(corpus) if top else None,  # all folders in `top` that are used
        }
        return options | ({"tags": True} if corpus["tags"] else {})

    def names(self, folder: Path, options: dict[str, Any]) -> list[str]:
        above = own_tables(Path(options["top"])) if options["top"] else []
        return [*files_below(folder), *(os.path.relpath(path, folder) for path in above)]

    def read(self, folder: Path, options: dict[str, Any], lost: dict[str, str] | None) -> dict[str, Captioned]:
        top = Path(options["top"]) if options["top"] else None
        apart, tags = bool(options.get("segments")), options.get("tags", False)
        return read_folder(folder, options["caption_columns"], top, options["splits"] or (), lost, apart, tags)


# Folders are listed at every start of Snakemake, and may have a million names. So these functions avoid Path, which is slow.


def walk(root: Path) -> Iterator[str]:
    """Paths in `root` of all files, at any depth, without hidden ones."""
    seen = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link that leads back up
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        inside = os.path.relpath(folder, root)
        start = "" if inside == "." else f"{inside}/"
        yield from (start + name for name in files if not name.startswith("."))


def matters(name: str) -> bool:
    """Whether a file is a sound, a table or a text."""
    return is_sound(name) or is_text(name) or name.rpartition("/")[2] in READERS


def is_text(name: str) -> bool:
    return suffix(name) in TEXTS and name.rpartition("/")[2] not in READERS


def files_below(root: Path) -> list[str]:
    """Paths in `root`, sorted, of all files that matter."""
    return sorted(filter(matters, walk(root)))


def own_tables(top: Path) -> list[Path]:
    """The metadata tables in a folder itself, not in its subfolders."""
    return [top / name for name in READERS if (top / name).is_file()]


def read_folder(
    root: Path,
    caption_columns: list[str] | None,
    top: Path | None = None,
    splits: Sequence[str] = (),
    lost: dict[str, str] | None = None,
    apart: bool = False,
    tags: bool = False,
) -> dict[str, Captioned]:
    """Every sound's captions and further columns, by its path in `root`.

    If `root` is one of the folders in `top`, a table in `top` may have rows for its sounds, and for those in the other
    folders, `splits`. Raises InputError on a sound with two sources of captions, and on a row without a sound or a sound
    without a caption. If there is a `lost`, it gets the last two instead, by the path in `root`. Names are compared in the
    form of `same_name`. Several rows of a sound are its captions or, if they stand `apart`, describe parts of it. With `tags`, the
    tags in the sounds are further columns, and captions if `caption_columns` names them.
    """
    reader = _Reader(root, top, splits, lost, apart)
    reader.list_sounds()
    if tags:
        reader.tags = read_all_tags(root, reader.sounds)
    reader.read_tables(caption_columns)
    reader.read_texts(caption_columns)
    reader.read_captions_of_tags(caption_columns or [])
    reader.find_uncaptioned()
    return reader.captioned


class _Reader:
    """The state of reading a folder."""

    def __init__(
        self, root: Path, top: Path | None, splits: Sequence[str], lost: dict[str, str] | None, apart: bool
    ) -> None:
        if not root.is_dir():
            raise InputError(f"{root}: no such folder; correct the corpus's `path` in the config")
        self.root, self.top, self.splits, self.lost, self.apart = root, top, splits, lost, apart
        self.every = sorted(walk(root))
        self.names = list(filter(matters, self.every))  # sounds, tables and texts
        self.sounds = {name for name in self.names if is_sound(name)}
        self.by_name: dict[str, str] = {}  # sounds by their names in the form of `same_name`
        self.beside: dict[str, list[str]] = {}  # sounds by the names of their texts, without the suffix
        self.captioned: dict[str, Captioned] = {}
        self.tags: dict[str, dict[str, str]] = {}  # by sound; empty if they are not read
        self.table_of: dict[str, Path] = {}  # the table that a sound's captions come from

    def lose(self, name: str, problem: str) -> None:
        if self.lost is None:
            raise InputError(problem)
        self.lost.setdefault(name, problem)

    def add(self, name: str, entry: Captioned) -> None:
        if name in self.captioned:
            other = self.captioned[name].where
            raise InputError(f"{entry.where}: {name!r} has captions already, from {other}: keep one")
        self.captioned[name] = entry

    def add_row(self, table: Path, name: str, entry: Captioned) -> None:
        """A sound may have several rows in one table, with a caption each. All other columns have to agree.

        Rows that stand apart describe parts of the sound.
        """
        other = self.captioned.get(name)
        if self.apart and other is not None and self.table_of.get(name) == table:
            other.parts.append(entry)
            return
        if other is None or self.table_of.get(name) != table or set(entry.captions) & set(other.captions):
            self.add(name, entry)
            self.table_of[name] = table
            return
        if odd := next((key for key, value in entry.columns.items() if other.columns.get(key) != value), None):
            raise InputError(
                f"{entry.where}: {name!r} has another {odd!r} than in {other.where}: make them equal, or remove the "
                "column: the rows of a sound may differ in their captions alone"
            )
        self.captioned[name] = Captioned([*other.captions, *entry.captions], other.where, other.columns)

    def with_tags(self, sound: str, row: dict[str, Any], where: str) -> dict[str, Any]:
        """A row with the tags of its sound. Raises InputError if it has a column of such a name itself."""
        tags = self.tags.get(sound, {})
        if both := next((column for column in row if column in tags), None):
            raise InputError(f"{where}: has a column {both!r}, which `tags` of the corpus makes too: rename it")
        return row | tags

    def list_sounds(self) -> None:
        """Find the sounds. Raises InputError on names that cannot be used."""
        root = self.root
        if not self.sounds:
            raise InputError(f"{root}: holds no sound that can be read ({', '.join(sorted(READ))})")
        if odd := next((name for name in self.names if len(name.splitlines()) != 1), None):
            raise InputError(f"{root}: {odd!r} has a line break in its name: rename it")
        if odd := next((name for name in self.names if not is_utf8(name)), None):
            raise InputError(f"{root}: {odd!r} has a name that is not UTF-8: rename it")
        for odd in [name for name in self.names if not is_file(root / name)]:
            self.lose(odd, f"{root}: {odd!r} is a link that leads nowhere, or no file: mend or remove it")
            self.names.remove(odd)
            self.sounds.discard(odd)
        for name in sorted(self.sounds):
            other = self.by_name.setdefault(same_name(name), name)
            if other != name:
                raise InputError(
                    f"{root}: {other!a} and {name!a} are one name in two Unicode forms: keep one, or rename one"
                )
        # A text with the name of a sound and of a film is that of the sound, which was taken from the film.
        for name in sorted(self.sounds, key=lambda name: (is_film(name), name)):
            owners = self.beside.setdefault(same_name(name.removesuffix(Path(name).suffix)), [])
            if not is_film(name) or all(map(is_film, owners)):
                owners.append(name)

    def read_tables(self, caption_columns: list[str] | None) -> None:
        """Read the rows of all tables. Skips rows of sounds in other folders, and warns of rows that are in none of them."""
        above = own_tables(self.top) if self.top else []
        alike_below = functools.cache(alike_sounds)
        unused = []
        for path in [*above, *(self.root / name for name in self.names if Path(name).name in READERS)]:
            base = self.top if self.top and path in above else self.root
            for where, row in READERS[path.name](path):
                sound = os.path.relpath(path.parent / row["file_name"], self.root)
                sound = self.by_name.get(same_name(sound), sound)
                if sound in self.sounds:
                    captions, columns = split_row(self.with_tags(sound, row, where), caption_columns, where)
                    self.add_row(path, sound, Captioned(captions, where, columns))
                    continue
                inside = Path(os.path.relpath(path.parent / row["file_name"], base)).parts
                elsewhere = path in above and sound.startswith("..") and inside[:1] != ("..",)
                if not elsewhere or (self.lost is None and not is_file(path.parent / row["file_name"])):
                    self.lose(sound, f"{where}: {no_sound(path.parent, row['file_name'], base, alike_below)}")
                elif self.splits and inside[0] not in self.splits:
                    unused.append((where, row["file_name"]))
        if unused:
            log.warning(
                "warning: %s: %r is in none of the folders %s: not used (%d such)",
                *unused[0],
                ", ".join(self.splits),
                len(unused),
            )

    def read_texts(self, caption_columns: list[str] | None) -> None:
        """Read the texts beside the sounds. Warns of texts without a sound beside them."""
        unread: dict[str, str] = {}  # files that may be sounds, by their names with and without the suffix
        for name in filter(may_be_sound, self.every):
            unread |= dict.fromkeys((name, name.removesuffix(Path(name).suffix)), name)
        alone, silent = [], []
        for name in filter(is_text, self.names):
            stem = name.removesuffix(Path(name).suffix)
            key = same_name(stem)
            owners = [self.by_name[key]] if key in self.by_name else self.beside.get(key, [])
            if owners and (said := read_beside(self.root / name, caption_columns)):
                for sound in owners:
                    columns = self.with_tags(sound, said.columns, said.where)
                    self.add(sound, Captioned(said.captions, said.where, columns))
            elif owners:
                silent.append(name)
            if not owners and stem in unread:
                self.lose(
                    unread[stem],
                    f"{self.root / unread[stem]}: has a caption, {Path(name).name}, but is of a kind that is not "
                    "read: convert it, to FLAC say",
                )
            elif not owners and suffix(name) == ".txt":  # a folder may have other files of JSON
                alone.append(name)
        if silent:
            log.warning(
                "warning: %s: %r has no caption (a key caption, text or prompt, or the corpus's caption_columns): not used "
                "(%d such)",
                self.root, silent[0], len(silent),
            )  # fmt: skip
        if alone:
            log.warning("warning: %s: %r has no sound beside it: not used (%d such)", self.root, alone[0], len(alone))

    def read_captions_of_tags(self, caption_columns: list[str]) -> None:
        """Caption the sounds that no table and no text tells of by their tags, if these are all that has captions."""
        if not caption_columns or not set(caption_columns) <= TAGS.keys():
            return
        for name in sorted(self.tags.keys() & self.sounds - self.captioned.keys()):
            captions, columns = split_row(dict(self.tags[name]), caption_columns, str(self.root / name))
            if said := [caption for caption in captions if caption]:
                self.captioned[name] = Captioned(said, str(self.root / name), columns)
            elif not is_film(name):
                self.lose(
                    name, f"{self.root / name}: has no caption: no text in its tags ({', '.join(caption_columns)})"
                )

    def find_uncaptioned(self) -> None:
        """Lose the sounds without captions in a table or a text. Warns of films without any, which are no part of the corpus."""
        uncaptioned = sorted(self.sounds - set(self.captioned))
        if films := list(filter(is_film, uncaptioned)):
            log.warning("warning: %s: %r has no caption: not used (%d such films)", self.root, films[0], len(films))
            uncaptioned = [name for name in uncaptioned if not is_film(name)]
            if not uncaptioned and not self.captioned and not self.lost:
                raise InputError(f"{self.root}: none of its films has a caption: write a table, or a .txt beside each")
        more = f" ({len(uncaptioned)} such)" if self.lost is None else ""
        for name in uncaptioned:
            self.lose(
                name,
                f"{self.root}: {name!r} has no caption, neither a row in {' or '.join(READERS)} nor a .txt or .json "
                f"beside it{more}",
            )


def no_sound(folder: Path, name: str, base: Path, alike_below: Callable[[Path], dict[str, str]]) -> str:
    """Why `name` in a table in `folder` is no sound in `base`, and what to do."""
    inside = os.path.relpath(folder / name, base)
    if Path(inside).parts[:1] == ("..",):
        return f"{name!r} lies outside {base}: move it in there and correct the file_name, or remove the row"
    near = alike_below(base).get(alike(inside))
    if near is not None and same_name(near) != same_name(inside):
        near = os.path.relpath(base / near, folder)
        return f"no sound {name!r} in {folder}, but {near!r}, which differs in case alone: correct the file_name"
    if is_file(folder / name):
        return f"{name!r} is hidden, or of a kind that is not read: rename or convert it, or remove the row"
    return f"no sound {name!r} in {folder}: correct the file_name, or remove the row"


def alike_sounds(base: Path) -> dict[str, str]:
    """The sounds in `base`, by their names in the form of `alike`."""
    return {alike(name): name for name in filter(is_sound, walk(base))}


def read_beside(path: Path, caption_columns: list[str] | None) -> Captioned | None:
    """What a file beside a sound says of it; None if it is JSON about something else."""
    where = str(path)
    if suffix(path.name) == ".txt":
        return Captioned(read_lines(path), where)
    row = as_object(read_text(path), where)
    check_columns(tuple(row), where)
    if not any(name in row for name in caption_columns or guess_caption_columns(list(row), where)):
        return None
    captions, columns = split_row(row, caption_columns, where)
    return Captioned(captions, where, columns)


def read_lines(path: Path) -> list[str]:
    """The captions of a text file, one per line."""
    lines = read_text(path).splitlines()
    return [text for n, line in enumerate(lines, 1) if line.strip() for text in listed(line, f"{path}, row {n}")] or [
        ""
    ]


def split_row(row: dict[str, Any], caption_columns: list[str] | None, where: str) -> tuple[list[str], dict[str, str]]:
    """`(captions, other columns)` of a row. A cell of a .jsonl may hold a list of captions."""
    names = caption_columns or guess_caption_columns(list(row), where)
    if missing := [column for column in names if column not in row]:
        hint = "; set `tags: true` in the corpus to have it" if missing[0] in TAGS else ""
        raise InputError(f"{where}: has no column {missing[0]!r}; found {', '.join(row)}{hint}")
    if not names:
        raise InputError(f"{where}: no caption column; set the corpus's `caption_columns`; found {', '.join(row)}")
    captions: list[str] = []
    for column in names:
        cell = row[column] if isinstance(row[column], list) else [row[column]]
        if any(isinstance(value, bool | dict | list) for value in cell):
            raise InputError(f"{where}: caption is not text (column {column!r}): write a text, or a list of texts")
        for value in cell:
            captions += listed(as_text(value), f"{where} ({column})")
    try:
        others = {key: as_text(value) for key, value in row.items() if key not in names and key != "file_name"}
    except RecursionError:
        raise InputError(f"{where}: nested too deep: make it flat") from None
    if not is_utf8(every := "".join([*captions, *others, *others.values()])) or "\0" in every:
        raise InputError(f"{where}: holds a NUL or half a surrogate pair: remove it")
    return captions or [""], others


def guess_caption_columns(columns: list[str], where: str = "") -> list[str]:
    """The columns `caption`, `caption_1`, … in order, else `text`, …, else `prompt`, …; an empty list if there are none.

    Raises InputError on a column whose name resembles these, because it would not be read.
    """
    for stem in ("captions?", "texts?", "prompts?"):
        matches = [(c, re.fullmatch(rf"{stem}(?:_?([0-9]+))?", c, re.IGNORECASE)) for c in columns]
        if numbered := [(int(match[1] or 0), column) for column, match in matches if match]:
            names = [column for _, column in sorted(numbered)]
            if odd := next((c for c in columns if like_caption(c, stem) and c not in names), None):
                raise InputError(
                    f"{where}: column {odd!r} is called much like {names[0]!r}: rename it, or set the corpus's "
                    "`caption_columns`"
                )
            return names
    return []


def as_text(value: Any) -> str:
    """A JSON value as one line of text. null, and NaN, which pandas writes for it, give an empty text."""
    missing = value is None or value != value
    text = value if isinstance(value, str) else "" if missing else json.dumps(value, ensure_ascii=False)
    return " ".join(text.split())
