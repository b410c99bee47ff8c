"""What is in a folder of a user's own, in one file that Snakemake can compare instead of every sound at every start."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from sao.base.files import sha256, whole
from sao.base.names import read_digests
from sao.data.folder import files_below, is_utf8


def update_listing(listing: Path, root: Path, above: Sequence[Path], digests: Path) -> None:
    """Bring `listing` up to date, if anything changed: a line `size stamp name` for each file that matters.

    `above` are the tables outside `root`. `stamp` is the time stamp (ns) that a file had when its content was new, so
    that a touch changes no line: a file whose time stamp alone changed is compared with what `digests`, of the last scan,
    says of it. Files that scan.py stops at, since they have odd names or are no files, are left out.
    """
    found: dict[str, tuple[int, int]] = {}
    for name in [*files_below(root), *(os.path.relpath(path, root) for path in above)]:
        try:
            status = os.stat(f"{root}/{name}")  # noqa: PTH116 - a Path each would take longer than all else
        except OSError:
            continue
        if is_utf8(name) and len(name.splitlines()) == 1:
            found[name] = (status.st_size, status.st_mtime_ns)
    key = hashlib.sha256("\n".join(f"{size} {stamp} {name}" for name, (size, stamp) in found.items()).encode())
    seen = listing.with_suffix(".seen")
    if listing.is_file() and seen.is_file() and seen.read_text(encoding="utf-8") == key.hexdigest():
        return
    before = _read(listing) if listing.is_file() else {}
    scanned = read_digests(digests) if digests.is_file() else {}
    lines = []
    for name, (size, stamp) in found.items():
        old_size, old_stamp = before.get(name, (-1, stamp))
        if size == old_size and stamp != old_stamp and scanned.get(name) == sha256(root / name):
            stamp = old_stamp
        lines.append(f"{size} {stamp} {name}\n")
    text = "".join(lines)
    if not listing.is_file() or listing.read_text(encoding="utf-8") != text:
        with whole(listing) as temporary:
            temporary.write_text(text, encoding="utf-8")
    with whole(seen) as temporary:
        temporary.write_text(key.hexdigest(), encoding="utf-8")


def _read(listing: Path) -> dict[str, tuple[int, int]]:
    """`{name: (size, stamp)}`."""
    rows = (line.split(" ", 2) for line in listing.read_text(encoding="utf-8").splitlines())
    return {name: (int(size), int(stamp)) for size, stamp, name in rows}
