"""Names and order of clips: pure functions of what they name."""

from __future__ import annotations

import hashlib
import posixpath
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from sao.base.files import sha256, whole


def clip_id(split: str, file_name: str) -> str:
    """A file-name-safe id that depends on the clip's name alone, so that other clips coming or going never change it.

    Two names may look alike once made safe, and two splits may hold the same name: six hex digits of the name's
    SHA-256 keep them apart.
    """
    stem = unicodedata.normalize("NFKD", Path(file_name).stem).encode("ascii", "ignore").decode()
    slug = re.sub(r"[^A-Za-z0-9.]+", "_", stem).strip("._")[:60].rstrip("._") or "clip"
    return f"{slug}-{hashlib.sha256(f'{split}/{file_name}'.encode()).hexdigest()[:6]}"


def same_name(path: str) -> str:
    """The same for paths that name one file: accents in one piece or apart, `./a` or `a`."""
    return unicodedata.normalize("NFC", posixpath.normpath(path))


def plain_id(text: str) -> str:
    """A number or name of a recording or a group: pandas writes 1 as 1.0 where another row has none."""
    text = unicodedata.normalize("NFC", " ".join(text.split()))
    return re.sub(r"^([0-9]+)\.0*$", r"\1", text)


def seed_for(*parts: object) -> int:
    """A seed in [0, 2**32) that is a pure function of `parts`."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:4], "big")


def shard_of(clip: str, shards: int) -> int:
    """The shard that a clip is encoded in: more clips move no other."""
    return seed_for("shard", clip) % shards


def shard_name(shard: int, shards: int) -> str:
    """`0001-of-0004`, counted from 1."""
    return f"{shard + 1:04d}-of-{shards:04d}"


def read_digests(path: Path) -> dict[str, str]:
    """`{file name: sha256}` of a sha256sum listing."""
    pairs = (line.split("  ", 1) for line in path.read_text(encoding="utf-8").splitlines())
    return {name: digest for digest, name in pairs}


def write_digests(listing: Path, root: Path, files: Iterable[Path], first: str = "") -> None:
    """Write the sha256sum listing of `files`, by their paths in `root`; `first` are lines of it that are there already."""
    lines = [first]
    lines += [f"{sha256(path)}  {path.relative_to(root).as_posix()}\n" for path in files]
    with whole(listing) as temporary:
        temporary.write_text("".join(lines), encoding="utf-8")
