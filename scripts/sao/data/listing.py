"""Whether a folder of a user's own is still as it was when rule `scan` read it.

Rule `scan` has no input: there may be a million files. Its parameter is a key of the folder's state, which the plan finds by
the sizes and time stamps of the files alone, and writes nothing. `scan` leaves the key beside what it made, with the sizes
and time stamps that it saw. As long as the folder is in that state, or has the same contents with other time stamps, the
key is the same and nothing reruns.
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
    """The files that say how a folder was when it was read."""

    listing: Path  # of rule `scan`: its key, and what it saw
    digests: Path  # of rule `scan`: SHA-256 of the files
    touched: Path  # the key of a later state with the same contents, so that they are read once


def stamps_of(folder: Path, names: Iterable[str]) -> Stamps:
    """Names that scan.py stops at, since they are odd or no files, are left out."""
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
    """The key of a folder: that of the last scan where the contents are the same, else a new one.

    With `remember`, a state whose contents had to be read is noted in `touched`. Nothing else is written.
    """
    stamps = stamps_of(folder, names)
    state = state_of(stamps)
    key, seen = _keys(scanned.listing)
    if state == seen:
        return key
    key_then, touched = _keys(scanned.touched)
    if state == touched:
        return key_then
    if not key or not _same_contents(folder, stamps, scanned):
        return state
    if remember:
        with whole(scanned.touched) as temporary:
            temporary.write_text(f"{key} {state}\n", encoding="utf-8")
    return key


def _keys(path: Path) -> tuple[str, str]:
    """The key and the state in the first line of a file; nothing where there is none."""
    if not path.is_file():
        return "", ""
    with path.open(encoding="utf-8") as handle:
        found = KEYS.fullmatch(handle.readline())
    return (found[1], found[2]) if found else ("", "")


def _same_contents(folder: Path, stamps: Stamps, scanned: Scanned) -> bool:
    """Whether files differ from those that were read by their time stamps alone."""
    _, *lines = scanned.listing.read_text(encoding="utf-8").splitlines()
    rows = (line.split(" ", 2) for line in lines)
    before: Stamps = {name: (int(size), int(stamp)) for size, stamp, name in rows}
    sizes = [{name: size for name, (size, _) in each.items()} for each in (stamps, before)]
    if sizes[0] != sizes[1] or not scanned.digests.is_file():
        return False
    digests = read_digests(scanned.digests)
    changed = [name for name in stamps if stamps[name] != before[name]]
    return all(digests.get(name) == sha256(folder / name) for name in changed)
