"""The audiofolder convention of Hugging Face's `datasets`: sounds in a tree, their captions in tables or beside them.

https://huggingface.co/docs/datasets/audio_dataset
"""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sao.base.command import InputError, log

from sao.base.files import bad_byte
from sao.base.names import same_name
from sao.base.tables import check_columns, read_rows
from sao.config.resolve import alike
from sao.data.captions import like_caption, listed

TABLES = ("metadata.csv", "metadata.jsonl")
# What libsndfile opens by its header; `raw` has none. Listed: the plan is made without soundfile, and libsndfile knows
# its formats but not what their files are called.
SUFFIXES = frozenset(
    """.8svx .aif .aifc .aiff .amb .au .avr .bwf .caf .flac .htk .iff .ircam .mat .mp1 .mp2 .mp3 .mpc .nist .oga .ogg
    .opus .paf .pvf .rf64 .sd2 .sds .sf .snd .sph .svx .voc .w64 .wav .wave .wve .xi""".split()
)
# What may be called like a text and yet be no sound; beside anything else a text is taken for its caption.
NO_SOUNDS = frozenset(
    """.csv .doc .docx .gif .htm .html .jpeg .jpg .json .jsonl .lab .log .md .mid .midi .npy .npz .odt .pdf .png .py
    .rst .rtf .srt .svg .textgrid .toml .tsv .txt .vtt .webp .xml .yaml .yml .zip""".split()
)


@dataclass
class Captioned:
    """What is told of a sound, and where."""

    captions: list[str]
    where: str
    columns: dict[str, str] = field(default_factory=dict)


def walk(root: Path) -> Iterator[str]:
    """Paths in `root` of all files, at any depth. Hidden ones do not count."""
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


# Folders are listed at every start of Snakemake, with a million names maybe: these take none of Path's time.


def suffix(name: str) -> str:
    """As Path has it, in lower case."""
    last = name.rpartition("/")[2]
    at = last.rfind(".")
    return last[at:].lower() if 0 < at < len(last) - 1 else ""


def matters(name: str) -> bool:
    """Whether a file is a sound, a table or a text."""
    return is_sound(name) or is_text(name) or name.rpartition("/")[2] in TABLES


def files_below(root: Path) -> list[str]:
    """Paths in `root`, sorted, of all files that matter."""
    return sorted(filter(matters, walk(root)))


def is_sound(name: str) -> bool:
    return suffix(name) in SUFFIXES


def is_text(name: str) -> bool:
    return suffix(name) == ".txt"


def may_be_sound(name: str) -> bool:
    """Whether a file may be a sound in a format that libsndfile lacks."""
    found = suffix(name)
    return found != "" and found not in SUFFIXES and found not in NO_SOUNDS


def own_tables(top: Path) -> list[Path]:
    """The metadata tables that lie in a folder itself."""
    return [top / name for name in TABLES if (top / name).is_file()]


def texts_below(root: Path, top: Path | None) -> list[str]:
    """Paths in `root` of all tables and texts, and of the tables in `top`."""
    names = [name for name in files_below(root) if not is_sound(name) and is_file(root / name)]
    return [*names, *(os.path.relpath(path, root) for path in (own_tables(top) if top else []))]


def read_folder(
    root: Path,
    caption_columns: list[str] | None,
    top: Path | None = None,
    splits: Sequence[str] = (),
    lost: dict[str, str] | None = None,
) -> dict[str, Captioned]:
    """Every sound's captions and further columns, by its path in `root`.

    Where `root` is one of the folders in `top`, a table in `top` may tell of its sounds, and of those in the other
    folders, `splits`. Raises InputError on a row without a sound or a sound without a caption, unless there is `lost`,
    which then gets what is wrong by path in `root`; and on a sound with two sources of captions. Names are compared as
    `same_name` has them.
    """

    def lose(name: str, problem: str) -> None:
        if lost is None:
            raise InputError(problem)
        lost.setdefault(name, problem)

    if not root.is_dir():
        raise InputError(f"{root}: no such folder; correct the corpus's `path` in the config")
    every = sorted(walk(root))
    names = list(filter(matters, every))
    sounds = {name for name in names if is_sound(name)}
    if not sounds:
        raise InputError(f"{root}: holds no sound that can be read ({', '.join(sorted(SUFFIXES))})")
    if odd := next((name for name in names if len(name.splitlines()) != 1), None):
        raise InputError(f"{root}: {odd!r} has a line break in its name: rename it")
    if odd := next((name for name in names if not is_utf8(name)), None):
        raise InputError(f"{root}: {odd!r} has a name that is not UTF-8: rename it")
    for odd in [name for name in names if not is_file(root / name)]:
        lose(odd, f"{root}: {odd!r} is a link that leads nowhere, or no file: mend or remove it")
        names.remove(odd)
        sounds.discard(odd)
    by_name: dict[str, str] = {}
    beside: dict[str, list[str]] = {}  # sounds by the names of their texts, less the suffix
    for name in sorted(sounds):
        other = by_name.setdefault(same_name(name), name)
        if other != name:
            raise InputError(
                f"{root}: {other!a} and {name!a} are one name in two Unicode forms: keep one, or rename one"
            )
        beside.setdefault(same_name(name.removesuffix(Path(name).suffix)), []).append(name)
    told: dict[str, Captioned] = {}

    def tell(name: str, entry: Captioned) -> None:
        if name in told:
            raise InputError(f"{entry.where}: {name!r} has captions already, from {told[name].where}: keep one")
        told[name] = entry

    alike_below = functools.cache(alike_sounds)
    above, unused = own_tables(top) if top else [], []
    for path in [*above, *(root / name for name in names if Path(name).name in TABLES)]:
        for where, row in read_csv_rows(path) if path.suffix == ".csv" else read_jsonl_rows(path):
            sound = os.path.relpath(path.parent / row["file_name"], root)
            sound = by_name.get(same_name(sound), sound)
            if sound not in sounds:
                base = top if path in above else root
                inside = Path(os.path.relpath(path.parent / row["file_name"], base)).parts
                elsewhere = path in above and sound.startswith("..") and inside[:1] != ("..",)
                if not elsewhere or (lost is None and not is_file(path.parent / row["file_name"])):
                    lose(sound, f"{where}: {no_sound(path.parent, row['file_name'], base, alike_below)}")
                elif splits and inside[0] not in splits:
                    unused.append((where, row["file_name"]))
                continue
            captions, columns = split_row(row, caption_columns, where)
            tell(sound, Captioned(captions, where, columns))
    unread = {key: name for name in every if may_be_sound(name) for key in (name, name.removesuffix(Path(name).suffix))}
    texts = []
    for name in names:
        if is_text(name):
            stem = name[: -len(".txt")]
            key = same_name(stem)
            owners = [by_name[key]] if key in by_name else beside.get(key, [])
            for sound in owners:
                tell(sound, Captioned(read_lines(root / name), f"{root / name}"))
            if not owners and stem in unread:
                lose(
                    unread[stem],
                    f"{root / unread[stem]}: has a caption, {Path(name).name}, but libsndfile cannot read it: convert it, "
                    "to FLAC say",
                )
            elif not owners:
                texts.append(name)
    lonely = sorted(sounds - set(told))
    for name in lonely:
        more = f" ({len(lonely)} such)" if lost is None else ""
        lose(
            name,
            f"{root}: {name!r} has no caption, neither a row in metadata.csv or metadata.jsonl nor a .txt beside it{more}",
        )
    if texts:
        log.warning("warning: %s: %r has no sound beside it: not used (%d such)", root, texts[0], len(texts))
    if unused:
        folders = ", ".join(splits)
        log.warning(
            "warning: %s: %r is in none of the folders %s: not used (%d such)", *unused[0], folders, len(unused)
        )
    return told


def no_sound(folder: Path, name: str, base: Path, alike_below: Callable[[Path], dict[str, str]]) -> str:
    """Why what a table in `folder` calls `name` is no sound in `base`, and what to do."""
    inside = os.path.relpath(folder / name, base)
    if Path(inside).parts[:1] == ("..",):
        return f"{name!r} lies outside {base}: move it in there and correct the file_name, or remove the row"
    near = alike_below(base).get(alike(inside))
    if near is not None and same_name(near) != same_name(inside):
        near = os.path.relpath(base / near, folder)
        return f"no sound {name!r} in {folder}, but {near!r}, which differs in case alone: correct the file_name"
    if is_file(folder / name):
        return f"{name!r} is hidden, or of a kind that libsndfile cannot read: rename or convert it, or remove the row"
    return f"no sound {name!r} in {folder}: correct the file_name, or remove the row"


def alike_sounds(base: Path) -> dict[str, str]:
    """The sounds in `base` by what they look like."""
    return {alike(name): name for name in filter(is_sound, walk(base))}


def is_file(path: Path) -> bool:
    """Whether there is such a file; not so for a name that is longer than any, at which Path's own raises."""
    return os.path.isfile(path)  # noqa: PTH113


def no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON; raises ValueError on a key that it has twice."""
    row = dict(pairs)
    if len(row) != len(pairs):
        twice = next(key for at, (key, _) in enumerate(pairs) if key in dict(pairs[:at]))
        raise ValueError(f"the key {twice!r} is there twice: keep one")
    return row


def read_csv_rows(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """`(where, row)` of a metadata.csv."""
    return [(f"{path}, row {number}", row) for number, row in read_rows(path, ["file_name"])]


def read_jsonl_rows(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """`(where, row)` of a metadata.jsonl."""
    rows: list[tuple[str, dict[str, Any]]] = []
    seen: set[tuple[str, ...]] = set()  # columns, which most rows have in common
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}, row {number}"
        try:
            row = json.loads(line, object_pairs_hook=no_key_twice)
        except (ValueError, RecursionError) as error:  # nested ever deeper
            raise InputError(f"{where}: not valid JSON ({error})") from None
        if not isinstance(row, dict) or not isinstance(row.get("file_name"), str):
            raise InputError(f"{where}: not an object with a `file_name`")
        if tuple(row) not in seen:
            check_columns(tuple(row), where)
            seen.add(tuple(row))
        rows.append((where, row))
    return rows


def read_lines(path: Path) -> list[str]:
    """The captions of a text file, one a line."""
    lines = read_text(path).splitlines()
    return [text for n, line in enumerate(lines, 1) if line.strip() for text in listed(line, f"{path}, row {n}")] or [
        ""
    ]


def read_text(path: Path) -> str:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        row, byte = bad_byte(error)
        raise InputError(f"{path}, row {row}: {byte} is not UTF-8: save the file as UTF-8") from None
    if "\0" in text:
        raise InputError(f"{path}, row {text.count(chr(10), 0, text.index(chr(0))) + 1}: holds a NUL byte: remove it")
    return text


def is_utf8(text: str) -> bool:
    """False of text with lone surrogates, which stand for bytes of a file name that are not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def split_row(row: dict[str, Any], caption_columns: list[str] | None, where: str) -> tuple[list[str], dict[str, str]]:
    """`(captions, other columns)` of a row; a cell of a .jsonl may hold a list of captions."""
    chosen = caption_columns or guess_caption_columns(list(row), where)
    if missing := [column for column in chosen if column not in row]:
        raise InputError(f"{where}: has no column {missing[0]!r}; found {', '.join(row)}")
    if not chosen:
        raise InputError(f"{where}: no caption column; set the corpus's `caption_columns`; found {', '.join(row)}")
    captions: list[str] = []
    for column in chosen:
        cell = row[column] if isinstance(row[column], list) else [row[column]]
        if any(isinstance(value, bool | dict | list) for value in cell):
            raise InputError(f"{where}: caption is not text (column {column!r}): write a text, or a list of texts")
        for value in cell:
            captions += listed(as_text(value), f"{where} ({column})")
    try:
        others = {key: as_text(value) for key, value in row.items() if key not in chosen and key != "file_name"}
    except RecursionError:
        raise InputError(f"{where}: nested too deep: make it flat") from None
    if not is_utf8(every := "".join([*captions, *others, *others.values()])) or "\0" in every:
        raise InputError(f"{where}: holds a NUL or half a surrogate pair: remove it")
    return captions or [""], others


def guess_caption_columns(columns: list[str], where: str = "") -> list[str]:
    """`caption`, `caption_1`, … in order, else `text`, …, else `prompt`, …; none where there is none.

    Raises InputError on a column that is called much like the chosen ones, which would go unread.
    """
    for stem in ("captions?", "texts?", "prompts?"):
        found = [(c, re.fullmatch(rf"{stem}(?:_?([0-9]+))?", c, re.IGNORECASE)) for c in columns]
        if chosen := [(int(match[1] or 0), column) for column, match in found if match]:
            names = [column for _, column in sorted(chosen)]
            if odd := next((c for c in columns if like_caption(c, stem) and c not in names), None):
                raise InputError(
                    f"{where}: column {odd!r} is called much like {names[0]!r}: rename it, or set the corpus's "
                    "`caption_columns`"
                )
            return names
    return []


def as_text(value: Any) -> str:
    """A JSON value as one line of text; nothing for null and for NaN, which is what pandas calls it."""
    missing = value is None or value != value
    text = value if isinstance(value, str) else "" if missing else json.dumps(value, ensure_ascii=False)
    return " ".join(text.split())
