"""Compare files with the digests that were written when they were made, so that a changed file is refused.

The functions at the end list the files of a model, a leg, a folder of latents or a split, each with its digest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from sao.base.command import InputError, log

from sao.base.files import read_json, size_text
from sao.base.names import read_digests
from sao.base.tables import read_table

DECIDES_NO_RESULT = "a changed file is refused, and all others are read as they are"

THREADS = 8  # hashing threads; hashlib releases Python's lock
PART = 64  # files per task of a thread
LISTING = "checksums.sha256"  # name of the listing of a base model, a folder of latents or a leg


@dataclass(frozen=True, slots=True)
class Vouched:
    """A file, its expected SHA-256 (or MD5), the file that `says` so, and what to do if the file has another one."""

    path: Path
    digest: str
    says: Path
    cure: str

    def wrong(self) -> str | None:
        """One line about the fault of the file; None if it is as it should be."""
        algorithm = "md5" if len(self.digest) == 32 else "sha256"
        try:
            with self.path.open("rb") as handle:
                actual = hashlib.file_digest(handle, algorithm).hexdigest()
        except FileNotFoundError:
            return f"{self.path}: missing, though {self.says} has its digest: {self.cure}"
        except OSError as error:
            return f"{self.path}: cannot be read ({error.strerror}): {self.cure}"
        if actual != self.digest:
            kind = "MD5" if algorithm == "md5" else "SHA-256"
            return (
                f"{self.path}: has the {kind} {actual}, {self.says} says {self.digest}: it changed after it was made; "
                f"{self.cure}"
            )
        return None


def all_wrong(files: Iterable[Vouched]) -> list[str]:
    """One line about each file that does not match its digest."""
    return [wrong for file in files if (wrong := file.wrong())]


class Checking:
    """Hashes files on threads while the caller does something else. `finish` waits for the results."""

    def __init__(self, files: Iterable[Vouched]) -> None:
        self.files = list(files)
        self.pool = ThreadPoolExecutor(THREADS)
        # In parts, because there may be millions of small files.
        parts = [self.files[at : at + PART] for at in range(0, len(self.files), PART)]
        self.futures = [self.pool.submit(all_wrong, part) for part in parts]

    def finish(self, label: str) -> None:
        """Raise InputError on the first file that does not match its digest. `label` names the files in the log."""
        try:
            for future in self.futures:
                for wrong in future.result():
                    raise InputError(wrong)
        finally:
            self.pool.shutdown(cancel_futures=True)
        size = size_text(sum(file.path.stat().st_size for file in self.files))
        log.info("%s: %d files, %s, checked by their SHA-256", label, len(self.files), size)


def dataset_files(folder: Path, listing: Path) -> list[Vouched]:
    """The files of a folder of dataset configs with their digests."""
    cure = f"delete {folder} and run again"
    return [Vouched(folder / name, digest, listing, cure) for name, digest in read_digests(listing).items()]


def caption_file(summary: Path) -> Vouched:
    """The file of encoded captions beside its summary, which has its digest."""
    path = summary.with_suffix(".safetensors")
    return Vouched(path, read_json(summary)["sha256"], summary, f"delete {path} and run again")


def model_files(folder: Path, listing: Path, weights: bool = True, text_encoder: bool = True) -> list[Vouched]:
    """The files of a base model with their digests, with or without its own weights and its text encoder.

    A folder may be one output of a rule. Then deleting a single file would not make it again, so the cure names the folder.
    """
    return [
        Vouched(folder / name, digest, listing, f"delete {folder / name.split('/')[0]} and run again")
        for name, digest in read_digests(listing).items()
        if (weights or name != "model.safetensors") and (text_encoder or name.split("/")[0] != "hub")
    ]


def leg_files(listing: Path, part: str) -> list[Vouched]:
    """The files of a leg below `part` (`state.ckpt` or `weights`), with their digests."""
    cure = f"delete {listing.parent} and run again"
    files = read_digests(listing).items()
    return [Vouched(listing.parent / name, digest, listing, cure) for name, digest in files if name.startswith(part)]


def latent_files(summary: Path) -> list[Vouched]:
    """The files of a folder of latents, with their digests from the folder's listing.

    `summary` lies beside the folder and has the digest of the listing. Raises InputError if the two do not match.
    """
    folder = summary.with_suffix("")
    cure = f"delete {folder} and run again"
    listing = Vouched(folder / LISTING, read_json(summary)["sha256"], summary, cure)
    if wrong := listing.wrong():
        raise InputError(wrong)
    digests = read_digests(listing.path)
    return [Vouched(folder / name, digest, listing.path, cure) for name, digest in digests.items()]


def sound_files(facts: Path, folder: Path) -> list[Vouched]:
    """The sounds of a published split in `folder`, with their digests from the split's table of facts."""
    table = read_table(facts)
    if folder == facts.with_suffix(""):
        cure = f"delete {folder} and run again"
    else:  # a user's own
        cure = "restore the old file; if the change was intended, `touch` it and run again"
    return [
        Vouched(folder / name, digest, facts, cure) for name, digest in zip(table.file_name, table.sha256, strict=True)
    ]


def chosen(files: Iterable[Vouched], wanted: Iterable[Path]) -> list[Vouched]:
    """The entries of `files` for the `wanted` paths, in any spelling. Raises InputError on a path without a digest."""
    parents: dict[Path, Path] = {}

    def place(path: Path) -> Path:
        if path.parent not in parents:
            parents[path.parent] = path.parent.resolve()
        return parents[path.parent] / path.name

    entries = {place(file.path): file for file in files}
    paths = {place(path): path for path in wanted}
    if unknown := [path for where, path in paths.items() if where not in entries]:
        raise InputError(f"{unknown[0]}: no digest vouches for it: delete {unknown[0].parent} and run again")
    return [entries[where] for where in paths]
