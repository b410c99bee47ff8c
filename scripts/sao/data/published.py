"""Which files of a data set on the Hub make up a split: by its card, or else by their names.

https://huggingface.co/docs/hub/datasets-manual-configuration
https://huggingface.co/docs/hub/datasets-file-names-and-splits
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

from sao.base.command import InputError

import yaml

from sao.data.formats.base import WHOLE
from sao.data.formats.tables import READERS
from sao.sound.suffixes import is_sound, suffix

CARD = "README.md"
# The words by which `datasets` recognises a split in the names of files and folders.
WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "dev", "val"),
    "test": ("test", "testing", "eval", "evaluation"),
}
SHOWN = 5  # names in a message


def is_parquet(name: str) -> bool:
    return suffix(name) == ".parquet" and PurePosixPath(name).name not in READERS


def is_data(name: str) -> bool:
    """Whether a file holds sounds."""
    return is_parquet(name) or is_sound(name)


def configs_of(card: str, where: str) -> list[dict[str, Any]]:
    """The configs (subsets) that a card declares in its front matter; an empty list if there are none."""
    match = re.match(r"\ufeff?---\s*\n(.*?)\n---\s*(?:\n|$)", card.replace("\r\n", "\n"), re.DOTALL)
    try:
        front = yaml.safe_load(match[1]) if match else None
    except yaml.YAMLError as error:
        raise InputError(f"{where}: its front matter is not valid YAML ({str(error).splitlines()[0]})") from None
    configs = front.get("configs") if isinstance(front, dict) else None
    return [config for config in configs if isinstance(config, dict)] if isinstance(configs, list) else []


def files_of_split(names: Sequence[str], card: str, config: str | None, split: str, where: str) -> list[str]:
    """The files with the sounds of a split, sorted. `all` takes those of all splits.

    `card` is the text of the README.md, and `config` the name of a config (subset) if the data set has several. `where`
    begins messages. Raises InputError if there are no such files.
    """
    names = [name for name in names if is_data(name) and not any(p.startswith(".") for p in name.split("/"))]
    if not names:
        raise InputError(
            f"{where}: holds neither parquet files nor sounds: the Hub converts many data sets; if there is a branch "
            "refs/convert/parquet, set `revision` to a commit of it"
        )
    declared = configs_of(card, f"{where}: {CARD}")
    if any("data_files" in one or "data_dir" in one for one in declared):
        return _declared(names, _chosen(declared, config, where), split, where)
    if config is not None:
        inside = [name for name in names if name.startswith(f"{config}/")]
        if not inside:
            raise InputError(f"{where}: has no config {config!r}, neither in its card nor as a folder: {_some(names)}")
        names = inside
    if split == WHOLE:
        return sorted(names)
    found = [name for name in names if _is_of(name, split)]
    # `datasets` takes files that no name calls otherwise for a split `train`.
    if not found and split == "train" and not any(_is_of(name, other) for name in names for other in WORDS):
        found = names
    if not found:
        raise InputError(
            f"{where}: no file's name holds the word {split!r}: correct the split in the config; {_some(names)}"
        )
    return sorted(found)


def _is_of(name: str, split: str) -> bool:
    words = "|".join(map(re.escape, WORDS.get(split, (split,))))
    return re.search(rf"(?<![a-z0-9])(?:{words})(?![a-z])", name.lower() if split in WORDS else name) is not None


def _chosen(configs: list[dict[str, Any]], name: str | None, where: str) -> dict[str, Any]:
    """The config of this name; without a name the only one, or the one that is the default."""
    by_name = {str(config.get("config_name", "default")): config for config in configs}
    if name is not None:
        if name not in by_name:
            raise InputError(f"{where}: has no config {name!r}; found {', '.join(by_name)}")
        return by_name[name]
    default = [config for config in configs if config.get("default") is True]
    if len(configs) > 1 and not default and "default" not in by_name:
        raise InputError(f"{where}: has several configs: set `config` to one of {', '.join(by_name)}")
    return (default or [by_name.get("default", configs[0])])[0]


def _declared(names: list[str], config: dict[str, Any], split: str, where: str) -> list[str]:
    """The files that a config of the card gives to a split."""
    folder = str(config.get("data_dir") or "").strip("/")
    patterns: dict[str, list[str]] = {}
    given = config.get("data_files")
    given = given if isinstance(given, list) else [given] if given else ["**"]
    for entry in given:
        of = str(entry.get("split", "train")) if isinstance(entry, dict) else "train"
        paths = entry.get("path") if isinstance(entry, dict) else entry
        patterns.setdefault(of, []).extend(map(str, paths if isinstance(paths, list) else [paths]))
    if not config.get("data_files"):  # a folder alone, whose splits the names tell
        inside = [name for name in names if name.startswith(f"{folder}/")]
        return files_of_split(inside, "", None, split, f"{where}: {folder}")
    if split != WHOLE and split not in patterns:
        raise InputError(f"{where}: has no split {split!r}; found {', '.join(patterns)}: correct it in the config")
    chosen = [p for of, some in patterns.items() if split in (WHOLE, of) for p in some]
    found = [name for name in names if any(_matches(name, folder, pattern, where) for pattern in chosen)]
    if not found:
        raise InputError(
            f"{where}: its card gives {', '.join(chosen)} to the split {split!r}, and no parquet file and no sound is "
            f"called so; {_some(names)}"
        )
    return sorted(found)


def _matches(name: str, folder: str, pattern: str, where: str) -> bool:
    """Whether a file is one of a pattern of the card. A pattern may name a folder."""
    from fsspec.utils import glob_translate  # what `datasets` matches with

    full = f"{folder}/{pattern}" if folder else pattern
    full = full.removeprefix("./").rstrip("/")
    try:
        return re.fullmatch(glob_translate(full), name) is not None or name.startswith(f"{full}/")
    except (ValueError, re.error) as error:
        raise InputError(f"{where}: {CARD}: the pattern {pattern!r} cannot be used ({error})") from None


def _some(names: Sequence[str]) -> str:
    more = f" … ({len(names)} files)" if len(names) > SHOWN else ""
    return f"found {', '.join(sorted(names)[:SHOWN])}{more}"
