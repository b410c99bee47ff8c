"""What is loaded is what was made: files are compared with the digest that vouches for them."""

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

DECIDES_NO_RESULT = "what was changed is refused, never read otherwise"

THREADS = 8  # that hash at a time; Python's lock is free meanwhile
PART = 64  # files that a thread hashes in one go
LISTING = "checksums.sha256"  # of a base model, of a folder of latents, of a leg


@dataclass(frozen=True, slots=True)
class Vouched:
    """A file, the SHA-256 (or MD5) that it has to have, the file that says so, and what to do where it has another."""

    path: Path
    digest: str
    says: Path
    cure: str

    def wrong(self) -> str | None:
        """What is wrong with the file, in one line; None where nothing is."""
        algorithm = "md5" if len(self.digest) == 32 else "sha256"
        try:
            with self.path.open("rb") as handle:
                found = hashlib.file_digest(handle, algorithm).hexdigest()
        except FileNotFoundError:
            return f"{self.path}: missing, though {self.says} has its digest: {self.cure}"
        except OSError as error:
            return f"{self.path}: cannot be read ({error.strerror}): {self.cure}"
        if found != self.digest:
            kind = "MD5" if algorithm == "md5" else "SHA-256"
            return (
                f"{self.path}: has the {kind} {found}, {self.says} says {self.digest}: it changed after it was made; "
                f"{self.cure}"
            )
        return None


def all_wrong(files: Iterable[Vouched]) -> list[str]:
    """What is wrong with each file that is not what its digest says."""
    return [wrong for file in files if (wrong := file.wrong())]


class Checking:
    """Hashes files on threads, while the caller does something else, until `finish`."""

    def __init__(self, files: Iterable[Vouched]) -> None:
        self.files = list(files)
        self.pool = ThreadPoolExecutor(THREADS)
        # In parts: there may be millions of small files.
        parts = [self.files[at : at + PART] for at in range(0, len(self.files), PART)]
        self.found = [self.pool.submit(all_wrong, part) for part in parts]

    def finish(self, what: str) -> None:
        """Raise InputError on the first file that is not what its digest says; `what` is for the log."""
        try:
            for future in self.found:
                for wrong in future.result():
                    raise InputError(wrong)
        finally:
            self.pool.shutdown(cancel_futures=True)
        size = size_text(sum(file.path.stat().st_size for file in self.files))
        log.info("%s: %d files, %s, checked by their SHA-256", what, len(self.files), size)


def model_files(folder: Path, listing: Path, weights: bool = True) -> list[Vouched]:
    """The files of a base model, or all but its own weights, as its listing vouches for them.

    Of a folder that is one output of a rule, deleting a single file would not bring it back: the cure is the folder.
    """
    return [
        Vouched(folder / name, digest, listing, f"delete {folder / name.split('/')[0]} and run again")
        for name, digest in read_digests(listing).items()
        if weights or name != "model.safetensors"
    ]


def leg_files(listing: Path, part: str) -> list[Vouched]:
    """The files of a leg below `part`: its `state.ckpt`, or its folder `weights`."""
    cure = f"delete {listing.parent} and run again"
    files = read_digests(listing).items()
    return [Vouched(listing.parent / name, digest, listing, cure) for name, digest in files if name.startswith(part)]


def latent_files(summary: Path) -> list[Vouched]:
    """The files of a folder of latents; `summary` lies beside it and vouches for the listing in it.

    Raises InputError where it does not.
    """
    folder = summary.with_suffix("")
    cure = f"delete {folder} and run again"
    listing = Vouched(folder / LISTING, read_json(summary)["sha256"], summary, cure)
    if wrong := listing.wrong():
        raise InputError(wrong)
    digests = read_digests(listing.path)
    return [Vouched(folder / name, digest, listing.path, cure) for name, digest in digests.items()]


def sound_files(facts: Path, folder: Path) -> list[Vouched]:
    """The sounds of a published split in `folder`, as the table of what was measured of them vouches for them."""
    table = read_table(facts)
    if folder == facts.with_suffix(""):
        cure = f"delete {folder} and run again"
    else:  # a user's own
        cure = "put the file back that was there; if it is meant to be another, `touch` it and run again"
    return [
        Vouched(folder / name, digest, facts, cure) for name, digest in zip(table.file_name, table.sha256, strict=True)
    ]


def chosen(files: Iterable[Vouched], wanted: Iterable[Path]) -> list[Vouched]:
    """Those of `files` that `wanted` names, in whatever spelling; raises InputError on one that nothing vouches for."""
    parents: dict[Path, Path] = {}

    def place(path: Path) -> Path:
        if path.parent not in parents:
            parents[path.parent] = path.parent.resolve()
        return parents[path.parent] / path.name

    known = {place(file.path): file for file in files}
    wanted = {place(path): path for path in wanted}
    if strange := [path for where, path in wanted.items() if where not in known]:
        raise InputError(f"{strange[0]}: no digest vouches for it: delete {strange[0].parent} and run again")
    return [known[where] for where in wanted]
