"""From files that the Hub describes to a Hub cache of our own, in which libraries find them by name."""

from __future__ import annotations

import shutil
from pathlib import Path

from sao.base.command import InputError

from sao.base.files import size_text


def snapshot(repo: str, revision: str, name: str) -> str:
    """Where stable-audio-tools, which loads text encoders by their name, looks in a Hub cache."""
    return f"hub/models--{repo.replace('/', '--')}/snapshots/{revision}/{name}"


def is_safe(name: str) -> bool:
    return not name.endswith((".ckpt", ".pt", ".pth", ".bin"))


def fetch_all(files: dict, output: Path, partial: Path) -> dict[str, Path]:
    """Fetch described files, `{name below the output: file}`, where there is room for them."""
    from sao.hub.fetch import fetch, missing_bytes

    wanted = list(files.values())
    # What is pickled is written a second time, converted.
    needed = missing_bytes(wanted, partial) + sum(f.size or 0 for f in wanted if not is_safe(f.name))
    free = shutil.disk_usage(output).free
    if needed > free:
        raise InputError(f"{output}: needs {size_text(needed)}, {size_text(free)} are free: make room first")
    fetch(wanted, partial)
    return {name: file.path(partial) for name, file in files.items()}


def refuse_pickles(files: dict[str, Path]) -> None:
    """Raise InputError on weights that are no safetensors file under the name of one.

    By how such a file begins: a pickle of the first protocols has no sign to know it by.
    """
    for name, path in files.items():
        if not name.endswith(".safetensors") or not is_safe(path.name):
            continue
        with path.open("rb") as handle:
            length, begin = int.from_bytes(handle.read(8), "little"), handle.read(1)
        if begin != b"{" or length > path.stat().st_size - 8:
            raise InputError(
                f"{path}: no safetensors file, maybe a pickle, which can hold code: take the file from where it was "
                "published"
            )
