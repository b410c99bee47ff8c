"""Names, seeds and shards of clips. Each depends only on the clip itself, so other clips can come and go."""

from __future__ import annotations

import hashlib
import posixpath
import re
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path

from sao.base.files import sha256, whole


def clip_id(split: str, file_name: str) -> str:
    """A file-name-safe id that depends only on the clip's split and name.

    Two names may become equal when they are made safe, and two splits may contain the same name. Six hex digits of a
    SHA-256 keep them apart.
    """
    stem = unicodedata.normalize("NFKD", Path(file_name).stem).encode("ascii", "ignore").decode()
    slug = re.sub(r"[^A-Za-z0-9.]+", "_", stem).strip("._")[:60].rstrip("._") or "clip"
    return f"{slug}-{hashlib.sha256(f'{split}/{file_name}'.encode()).hexdigest()[:6]}"


def same_name(path: str) -> str:
    """One spelling for all paths that name the same file: accents as one character or two, `./a` or `a`."""
    return unicodedata.normalize("NFC", posixpath.normpath(path))


def plain_id(text: str) -> str:
    """One spelling of the id of a recording or group: pandas writes 1 as 1.0 if another row has no id."""
    text = unicodedata.normalize("NFC", " ".join(text.split()))
    return re.sub(r"^([0-9]+)\.0*$", r"\1", text)


def seed_for(*parts: object) -> int:
    """A seed in [0, 2**32) that depends only on `parts`."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:4], "big")


def shard_of(clip: str, shards: int) -> int:
    """The shard of a clip, counted from 0. New clips do not move it."""
    return seed_for("shard", clip) % shards


def shard_name(shard: int, shards: int) -> str:
    """`0001-of-0004`, counted from 1."""
    return f"{shard + 1:04d}-of-{shards:04d}"


def read_digests(path: Path) -> dict[str, str]:
    """The digests in a sha256sum listing, by file name."""
    pairs = (line.split("  ", 1) for line in path.read_text(encoding="utf-8").splitlines())
    return {name: digest for digest, name in pairs}


def write_digests(listing: Path, root: Path, files: Iterable[Path], first: str = "") -> None:
    """Write the sha256sum listing of `files`, by their paths in `root`. `first` holds finished lines to begin with."""
    write_known_digests(listing, {path.relative_to(root).as_posix(): sha256(path) for path in files}, first)


def write_known_digests(listing: Path, digests: Mapping[str, str], first: str = "") -> None:
    """Write a sha256sum listing of digests by file name. `first` holds finished lines to begin with."""
    lines = [first, *(f"{digest}  {name}\n" for name, digest in digests.items())]
    with whole(listing) as temporary:
        temporary.write_text("".join(lines), encoding="utf-8")


MEMBER = "--"  # between the corpus and the clip_id of a clip in a mixture; no clip_id of a corpus has it


def member_id(corpus: str, clip_id: str) -> str:
    """The clip_id of a corpus's clip in a mixture."""
    return f"{corpus}{MEMBER}{clip_id}"


def own_id(corpus: str, clip_id: str) -> str:
    """The clip_id of a mixture's clip in its corpus."""
    return clip_id.removeprefix(f"{corpus}{MEMBER}")


def corpus_of(clip_id: str) -> str:
    """The corpus of a clip in a mixture; empty for a clip that is in none."""
    corpus, joined, _ = clip_id.partition(MEMBER)
    return corpus if joined else ""
