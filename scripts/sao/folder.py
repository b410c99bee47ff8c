"""The audiofolder convention of Hugging Face's `datasets`: sounds in a tree, their captions in tables or beside them.

https://huggingface.co/docs/datasets/audio_dataset
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .command import InputError
from .tables import read_rows

TABLES = ("metadata.csv", "metadata.jsonl")
# What libsndfile opens by its header; `raw` has none.
SUFFIXES = frozenset(
    """.aif .aifc .aiff .au .avr .caf .flac .htk .ircam .mp3 .mpc .nist .oga .ogg .opus .paf .pvf .rf64 .sd2 .sds .snd
    .svx .voc .w64 .wav .wave .wve .xi""".split()
)


@dataclass
class Captioned:
    """What is told of a sound, and where."""

    captions: list[str]
    where: str
    columns: dict[str, str] = field(default_factory=dict)


def files_below(root: Path) -> list[str]:
    """Paths in `root`, sorted, of all files that matter: sounds, tables and texts. Hidden ones do not."""
    found, seen = [], set()
    for folder, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link that leads back up
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            suffix = Path(name).suffix.lower()
            if not name.startswith(".") and (suffix in SUFFIXES or suffix == ".txt" or name in TABLES):
                found.append(Path(folder, name).relative_to(root).as_posix())
    return sorted(found)


def is_sound(name: str) -> bool:
    return Path(name).suffix.lower() in SUFFIXES


def own_tables(top: Path) -> list[Path]:
    """The metadata tables that lie in a folder itself."""
    return [top / name for name in TABLES if (top / name).is_file()]


def read_folder(root: Path, caption_columns: list[str] | None, top: Path | None = None) -> dict[str, Captioned]:
    """Every sound's captions and further columns, by its path in `root`.

    Where `root` is one of the folders in `top`, a table in `top` may tell of its sounds, and of others. Raises InputError on a row without a sound, a sound without a caption, or one with two sources of captions.
    """
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; correct the corpus's `path` in the config")
    names = files_below(root)
    sounds = {name for name in names if is_sound(name)}
    if not sounds:
        raise InputError(f"{root}: holds no sound that can be read ({', '.join(sorted(SUFFIXES))})")
    if odd := next((name for name in sorted(sounds) if len(name.splitlines()) != 1), None):
        raise InputError(f"{root}: {odd!r} has a line break in its name: rename it")
    if odd := next((name for name in sorted(sounds) if not is_utf8(name)), None):
        raise InputError(f"{root}: {odd!r} has a name that is not UTF-8: rename it")
    beside: dict[str, list[str]] = {}  # sounds by the names of their texts, less the suffix
    for name in sorted(sounds):
        beside.setdefault(name.removesuffix(Path(name).suffix), []).append(name)
    told: dict[str, Captioned] = {}

    def tell(name: str, entry: Captioned) -> None:
        if name in told:
            raise InputError(f"{entry.where}: {name!r} has captions already, from {told[name].where}: keep one")
        told[name] = entry

    above = own_tables(top) if top else []
    for path in [*above, *(root / name for name in names if Path(name).name in TABLES)]:
        for where, row in read_csv_rows(path) if path.suffix == ".csv" else read_jsonl_rows(path):
            sound = os.path.relpath(path.parent / row["file_name"], root)
            if sound not in sounds:
                if path in above and sound.startswith("..") and (path.parent / row["file_name"]).is_file():
                    continue
                raise InputError(f"{where}: no sound {row['file_name']!r} in {path.parent}")
            captions, columns = split_row(row, caption_columns, where)
            tell(sound, Captioned(captions, where, columns))
    for name in names:
        if Path(name).suffix.lower() == ".txt":
            stem = name[: -len(".txt")]
            for sound in [stem] if stem in sounds else beside.get(stem, []):
                tell(sound, Captioned(read_lines(root / name), f"{root / name}"))
    if lonely := sorted(sounds - set(told)):
        raise InputError(
            f"{root}: {lonely[0]!r} has no caption, neither a row in metadata.csv or metadata.jsonl nor a .txt beside it "
            f"({len(lonely)} such)"
        )
    return told


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
        except ValueError as error:
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
        cell = row[column]
        captions += [as_text(value) for value in cell] if isinstance(cell, list) else [as_text(cell)]
    others = {key: as_text(value) for key, value in row.items() if key not in chosen and key != "file_name"}
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
    """A JSON value as one line of text; nothing for null."""
    text = value if isinstance(value, str) else "" if value is None else json.dumps(value, ensure_ascii=False)
    return " ".join(text.split())
