"""Find out whether a user's folder has changed since rule `scan` read it.

Rule `scan` has no input, because there may be a million files. Its parameter is a key of the folder's state. The plan
computes the key from the sizes and time stamps of the files, and writes nothing. `scan` writes the key beside its outputs,
with these sizes and time stamps. While the folder is in that state, or has the same contents with other time stamps, the key
stays the same and nothing reruns.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sao.base.files import sha256, whole
from sao.base.names import read_digests
from sao.data.formats.base import is_utf8

Stamps = dict[str, tuple[int, int]]  # size and time stamp (ns) of each file, by its path in the folder
KEYS = re.compile("([0-9a-f]{64}) ([0-9a-f]{64})\n")


@dataclass(frozen=True)
class Scanned:
    """The files that record the state of a folder when it was read."""

    listing: Path  # written by rule `scan`: the key, and the sizes and time stamps of all files
    digests: Path  # written by rule `scan`: the SHA-256 of all files
    touched: Path  # a later state with the same contents, and its key, so that the contents are compared only once


def stamps_of(folder: Path, names: Iterable[str]) -> Stamps:
    """The stamps of these files. Names that scan.py refuses, because they are odd or no files, are left out."""
    stamps: Stamps = {}
    for name in names:
        try:
            status = os.stat(f"{folder}/{name}")  # noqa: PTH116 - a Path each would take longer than all else
        except OSError:
            continue
        if is_utf8(name) and len(name.splitlines()) == 1:
            stamps[name] = (status.st_size, status.st_mtime_ns)
    return stamps


def state_of(stamps: Stamps) -> str:
    """A hash of sizes, time stamps and names."""
    return hashlib.sha256("".join(_lines(stamps)).encode()).hexdigest()


def _lines(stamps: Stamps) -> list[str]:
    return [f"{size} {stamp} {name}\n" for name, (size, stamp) in stamps.items()]


def write_listing(path: Path, key: str, stamps: Stamps) -> None:
    with whole(path) as temporary:
        temporary.write_text("".join([f"{key} {state_of(stamps)}\n", *_lines(stamps)]), encoding="utf-8")


def folder_key(folder: Path, names: Iterable[str], scanned: Scanned, remember: bool = False) -> str:
    """The key of a folder: the key of the last scan if the contents are the same, else a new one.

    With `remember`, a state whose contents had to be compared is noted in `touched`. Nothing else is written.
    """
    stamps = stamps_of(folder, names)
    state = state_of(stamps)
    key, seen = _keys(scanned.listing)
    if state == seen:
        return key
    touched_key, touched = _keys(scanned.touched)
    if state == touched:
        return touched_key
    if not key or not _same_contents(folder, stamps, scanned):
        return state
    if remember:
        with whole(scanned.touched) as temporary:
            temporary.write_text(f"{key} {state}\n", encoding="utf-8")
    return key


def _keys(path: Path) -> tuple[str, str]:
    """The key and the state in the first line of a file; empty texts if there is none."""
    if not path.is_file():
        return "", ""
    with path.open(encoding="utf-8") as handle:
        match = KEYS.fullmatch(handle.readline())
    return (match[1], match[2]) if match else ("", "")


def _same_contents(folder: Path, stamps: Stamps, scanned: Scanned) -> bool:
    """Whether only the time stamps of the files have changed since they were read."""
    _, *lines = scanned.listing.read_text(encoding="utf-8").splitlines()
    rows = (line.split(" ", 2) for line in lines)
    before: Stamps = {name: (int(size), int(stamp)) for size, stamp, name in rows}
    sizes = [{name: size for name, (size, _) in each.items()} for each in (stamps, before)]
    if sizes[0] != sizes[1] or not scanned.digests.is_file():
        return False
    digests = read_digests(scanned.digests)
    changed = [name for name in stamps if stamps[name] != before[name]]
    return all(digests.get(name) == sha256(folder / name) for name in changed)
