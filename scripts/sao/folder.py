"""The audiofolder convention of Hugging Face's `datasets`: sounds in a tree, their captions in tables or beside them.

https://huggingface.co/docs/datasets/audio_dataset
"""

from __future__ import annotations

import json
import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .command import InputError, log
from .config import alike
from .tables import read_rows

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
    root: Path, caption_columns: list[str] | None, top: Path | None = None, splits: Sequence[str] = ()
) -> dict[str, Captioned]:
    """Every sound's captions and further columns, by its path in `root`.

    Where `root` is one of the folders in `top`, a table in `top` may tell of its sounds, and of those in the other
    folders, `splits`. Raises InputError on a row without a sound, a sound without a caption, or one with two sources of
    captions.
    """
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
    if odd := next((name for name in names if not is_file(root / name)), None):
        raise InputError(f"{root}: {odd!r} is a link that leads nowhere, or no file: mend or remove it")
    beside: dict[str, list[str]] = {}  # sounds by the names of their texts, less the suffix
    for name in sorted(sounds):
        beside.setdefault(name.removesuffix(Path(name).suffix), []).append(name)
    told: dict[str, Captioned] = {}

    def tell(name: str, entry: Captioned) -> None:
        if name in told:
            raise InputError(f"{entry.where}: {name!r} has captions already, from {told[name].where}: keep one")
        told[name] = entry

    above, unused = own_tables(top) if top else [], []
    for path in [*above, *(root / name for name in names if Path(name).name in TABLES)]:
        for where, row in read_csv_rows(path) if path.suffix == ".csv" else read_jsonl_rows(path):
            sound = os.path.relpath(path.parent / row["file_name"], root)
            if sound not in sounds:
                base = top if path in above else root
                inside = Path(os.path.relpath(path.parent / row["file_name"], base)).parts
                elsewhere = path in above and sound.startswith("..") and inside[:1] != ("..",)
                if not elsewhere or not is_file(path.parent / row["file_name"]):
                    raise InputError(f"{where}: {no_sound(path.parent, row['file_name'], base)}")
                if splits and inside[0] not in splits:
                    unused.append((where, row["file_name"]))
                continue
            captions, columns = split_row(row, caption_columns, where)
            tell(sound, Captioned(captions, where, columns))
    unread = {key: name for name in every if may_be_sound(name) for key in (name, name.removesuffix(Path(name).suffix))}
    texts = []
    for name in names:
        if is_text(name):
            stem = name[: -len(".txt")]
            owners = [stem] if stem in sounds else beside.get(stem, [])
            for sound in owners:
                tell(sound, Captioned(read_lines(root / name), f"{root / name}"))
            if not owners and stem in unread:
                raise InputError(
                    f"{root / unread[stem]}: has a caption, {Path(name).name}, but libsndfile cannot read it: convert it, "
                    "to FLAC say"
                )
            texts += [] if owners else [name]
    if lonely := sorted(sounds - set(told)):
        raise InputError(
            f"{root}: {lonely[0]!r} has no caption, neither a row in metadata.csv or metadata.jsonl nor a .txt beside it "
            f"({len(lonely)} such)"
        )
    if texts:
        log.warning("warning: %s: %r has no sound beside it: not used (%d such)", root, texts[0], len(texts))
    if unused:
        folders = ", ".join(splits)
        log.warning(
            "warning: %s: %r is in none of the folders %s: not used (%d such)", *unused[0], folders, len(unused)
        )
    return told


def no_sound(folder: Path, name: str, base: Path) -> str:
    """Why what a table in `folder` calls `name` is no sound in `base`, and what to do."""
    inside = os.path.relpath(folder / name, base)
    if Path(inside).parts[:1] == ("..",):
        return f"{name!r} lies outside {base}: move it in there and correct the file_name, or remove the row"
    for sound in filter(is_sound, files_below(base)):
        if sound != inside and alike(sound) == alike(inside):
            near = os.path.relpath(base / sound, folder)
            # Printed as they are, two forms of an accent cannot be told apart.
            shown = ascii if unicodedata.normalize("NFC", inside) == unicodedata.normalize("NFC", sound) else repr
            return (
                f"no sound {shown(name)} in {folder}, but {shown(near)}, which differs in case or Unicode form alone: "
                "correct the file_name"
            )
    if is_file(folder / name):
        return f"{name!r} is hidden, or of a kind that libsndfile cannot read: rename or convert it, or remove the row"
    return f"no sound {name!r} in {folder}: correct the file_name, or remove the row"


def is_file(path: Path) -> bool:
    """Whether there is such a file; not so for a name that is longer than any, at which Path's own raises."""
    return os.path.isfile(path)  # noqa: PTH113


def read_csv_rows(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """`(where, row)` of a metadata.csv."""
    return [(f"{path}, row {number}", row) for number, row in read_rows(path, ["file_name"])]


def read_jsonl_rows(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """`(where, row)` of a metadata.jsonl."""
    rows = []
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}, row {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:  # nested ever deeper
            raise InputError(f"{where}: not valid JSON ({error})") from None
        if not isinstance(row, dict) or not isinstance(row.get("file_name"), str):
            raise InputError(f"{where}: not an object with a `file_name`")
        rows.append((where, row))
    return rows


def read_lines(path: Path) -> list[str]:
    """The captions of a text file, one a line."""
    lines = [line.strip() for line in read_text(path).splitlines()]
    return [line for line in lines if line] or [""]


def read_text(path: Path) -> str:
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        row = data.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{path}, row {row}: byte 0x{data[error.start]:02x} is not UTF-8: save the file as UTF-8"
        ) from None
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
    chosen = caption_columns or guess_caption_columns(list(row))
    if missing := [column for column in chosen if column not in row]:
        raise InputError(f"{where}: has no column {missing[0]!r}; found {', '.join(row)}")
    if not chosen:
        raise InputError(f"{where}: no caption column; set the corpus's `caption_columns`; found {', '.join(row)}")
    captions: list[str] = []
    for column in chosen:
        cell = row[column] if isinstance(row[column], list) else [row[column]]
        if any(isinstance(value, bool | dict | list) for value in cell):
            raise InputError(f"{where}: caption is not text (column {column!r}): write a text, or a list of texts")
        captions += map(as_text, cell)
    try:
        others = {key: as_text(value) for key, value in row.items() if key not in chosen and key != "file_name"}
    except RecursionError:
        raise InputError(f"{where}: nested too deep: make it flat") from None
    if not is_utf8(every := "".join([*captions, *others, *others.values()])) or "\0" in every:
        raise InputError(f"{where}: holds a NUL or half a surrogate pair: remove it")
    return captions or [""], others


def guess_caption_columns(columns: list[str]) -> list[str]:
    """`caption`, `caption_1`, … in order, else `text`, …, else `prompt`, …; none where there is none."""
    for stem in ("captions?", "texts?", "prompts?"):
        found = [(c, re.fullmatch(rf"{stem}(?:_?(\d+))?", c, re.IGNORECASE)) for c in columns]
        if chosen := [(int(match[1] or 0), column) for column, match in found if match]:
            return [column for _, column in sorted(chosen)]
    return []


def as_text(value: Any) -> str:
    """A JSON value as one line of text; nothing for null and for NaN, which is what pandas calls it."""
    missing = value is None or value != value
    text = value if isinstance(value, str) else "" if missing else json.dumps(value, ensure_ascii=False)
    return " ".join(text.split())
