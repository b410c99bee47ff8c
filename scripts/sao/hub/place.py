"""Lay files out as a Hub cache of our own, in which libraries find them by name."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from sao.base.command import InputError

from sao.base.files import size_text

if TYPE_CHECKING:
    from sao.hub.fetch import HubFile


def snapshot(repo: str, revision: str, name: str) -> str:
    """The path of a file in a Hub cache. stable-audio-tools loads a text encoder by name, and looks for it there."""
    return f"hub/models--{repo.replace('/', '--')}/snapshots/{revision}/{name}"


def is_safe(name: str) -> bool:
    return not name.endswith((".ckpt", ".pt", ".pth", ".bin"))


def fetch_all(files: dict[str, HubFile], output: Path, partial: Path) -> dict[str, Path]:
    """Fetch described files, by their names below the output. Raises InputError if there is no room for them."""
    from sao.hub.fetch import fetch, missing_bytes

    described = list(files.values())
    # Pickled files need room twice, because they are converted.
    needed = missing_bytes(described, partial) + sum(f.size or 0 for f in described if not is_safe(f.name))
    free = shutil.disk_usage(output).free
    if needed > free:
        raise InputError(f"{output}: needs {size_text(needed)}, {size_text(free)} are free: make room first")
    fetch(described, partial)
    return {name: file.path(partial) for name, file in files.items()}


def refuse_pickles(files: dict[str, Path]) -> None:
    """Raise InputError on weights that are named `.safetensors` but do not begin like a safetensors file.

    A pickle cannot be recognised directly, because the first protocols have no mark.
    """
    for name, path in files.items():
        if not name.endswith(".safetensors") or not is_safe(path.name):
            continue
        with path.open("rb") as handle:
            length, begin = int.from_bytes(handle.read(8), "little"), handle.read(1)
        if begin != b"{" or length > path.stat().st_size - 8:
            raise InputError(
                f"{path}: not a safetensors file, maybe a pickle, which can hold code: take the file from the place where "
                "it was published"
            )
