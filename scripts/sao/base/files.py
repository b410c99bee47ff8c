"""Files that are whole or absent, and what is in them."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from sao.base.command import InputError

CHUNK = 1 << 20  # bytes
FICLONE = 0x40049409  # <linux/fs.h>: share a file's blocks with another until one of them is changed
UMASK = os.umask(0o077)  # what new files are not for; to ask is to set it
os.umask(UMASK)


FULL = (errno.ENOSPC, errno.EDQUOT)
LEFT = 1 << 16  # bytes: with less a disk is full, whatever a library says went wrong


@contextlib.contextmanager
def whole(path: Path, needed: int | None = None) -> Iterator[Path]:
    """A temporary sibling to write to; it takes `path`'s name only when the block ends without an error.

    Raises InputError where the disk is full; `needed` are the bytes to be written, where that is known.
    """
    temporary = _temporary(path)
    try:
        with writing(path, needed):
            yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _temporary(path: Path) -> Path:
    """A sibling to write to; what processes that were killed left there is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in _left_over(path.parent).get(path.name, ()):
        shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)
    return path.with_name(f".{path.name}.part{os.getpid()}")


@functools.cache  # a folder may hold a million files, and be written to as often
def _left_over(folder: Path) -> dict[str, list[Path]]:
    """By name, what processes that were killed left of a file or folder in `folder`."""
    found: dict[str, list[Path]] = {}
    for path in folder.glob(".*.part*"):
        name, _, process = path.name[1:].rpartition(".part")
        # In a container, this process may have the number of one that was killed in another.
        if process.isdigit() and (int(process) == os.getpid() or not Path("/proc", process).exists()):
            found.setdefault(name, []).append(path)
    return found


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """The same for a folder, which is empty at first and takes the place of one that was there before."""
    temporary = _temporary(path)
    temporary.mkdir()
    try:
        yield temporary
        shutil.rmtree(path, ignore_errors=True)
        temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def writing(path: Path, needed: int | None = None) -> Iterator[None]:
    """Turn whatever a library raises because the disk of `path` is full into an InputError, while files are still there.

    `needed` are the bytes to be written, where that is known.
    """
    try:
        yield
    except Exception as error:
        if message := full_disk(error, path, needed):
            raise InputError(message) from None
        raise


def full_disk(error: BaseException, path: Path, needed: int | None = None) -> str | None:
    """What to tell where `error` came from a full disk while `path` was written; None where it did not.

    np.save, torch.save, soundfile and safetensors each hide it: "65536 requested and 60384 written", "unexpected pos",
    "System error.", a text with the number. So besides the number it counts that there is nothing left.
    """
    folder = existing(path)
    free = shutil.disk_usage(folder).free
    chain = [error, error.__cause__, error.__context__]
    told = any(isinstance(e, OSError) and e.errno in FULL for e in chain)
    told |= any(f"(os error {number})" in str(error) or os.strerror(number) in str(error) for number in FULL)
    # Errors of these kinds without a number are what a write that fell short gives.
    hidden = isinstance(error, OSError | RuntimeError) and getattr(error, "errno", None) is None and free < LEFT
    if isinstance(error, InputError) or not (told or hidden):
        return None
    wanted = f", {size_text(needed)} are needed" if needed else ""
    files = os.statvfs(folder)
    of_files = files.f_files and not files.f_favail
    of_bytes = (needed and free >= needed) or any(getattr(e, "errno", None) == errno.EDQUOT for e in chain)
    full = "a quota, or the number of files on the disk, is used up" if of_files or of_bytes else "the disk is full"
    return (
        f"{path}: {full} ({mount_point(folder)}: {size_text(free)} are free{wanted}): make room, then run again; "
        "what was finished stays"
    )


def check_room(path: Path, needed: float, what: str) -> None:
    """Raise InputError unless the disk of `path` has `needed` bytes left; `what` they are for."""
    folder = existing(path)
    disk = shutil.disk_usage(folder)
    if needed > disk.free and disk.total:  # of 0 bytes are file systems that cannot say
        raise InputError(
            f"{path}: {what} need {size_text(needed)}, {size_text(disk.free)} are free on {mount_point(folder)}: make room, then "
            "run again"
        )


def existing(path: Path) -> Path:
    """The path itself, or the nearest folder above it that is there."""
    return next(folder for folder in (path, *path.absolute().parents) if folder.exists())


def mount_point(folder: Path) -> Path:
    """Where the disk of an existing folder begins."""
    folder = folder.resolve()
    return next(above for above in (folder, *folder.parents) if above.is_mount() or above == above.parent)


def local_path(url: str) -> Path | None:
    """The path behind a `file://` URL or a plain path; None for a remote one."""
    parts = urlsplit(url)
    if parts.scheme in ("http", "https"):
        return None
    return Path(unquote(parts.path)) if parts.scheme == "file" else Path(url)


def size_text(size: float) -> str:
    """A number of bytes for a person to read: `4.95 GB`, `0.8 MB`."""
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def bad_byte(error: UnicodeDecodeError) -> tuple[int, str]:
    """The row, from 1, in which a text cannot be decoded, and the byte: `byte 0xff`."""
    return error.object.count(b"\n", 0, error.start) + 1, f"byte 0x{error.object[error.start]:02x}"


def write_json(path: Path, value: Any) -> None:
    with whole(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def content_key(path: Path, blocks: int = 64) -> str:
    """A quick key of a file's content: all of a small file, the size and evenly spaced blocks of a large one.

    For rerun triggers, where a time stamp says too much and hashing gigabytes at every start is too slow. Says
    `missing` of a file that is not there.
    """
    if not path.is_file():
        return "missing"
    size = path.stat().st_size
    hasher = hashlib.sha256(str(size).encode())
    with path.open("rb") as handle:
        if size <= blocks * CHUNK:
            hasher.update(handle.read())
        for block in range(blocks if size > blocks * CHUNK else 0):
            handle.seek(block * (size - CHUNK) // (blocks - 1))
            hasher.update(handle.read(CHUNK))
    return hasher.hexdigest()[:16]


def link_folder(link: Path, folder: Path) -> None:
    """Make `link` a symbolic link to a folder, which is made if it is not there; raises InputError on anything else there."""
    folder.mkdir(parents=True, exist_ok=True)
    if link.is_dir() and link.samefile(folder):
        return
    if link.exists() and not link.is_symlink():
        raise InputError(f"{link}: is in the way of a link to {folder}: move it aside, or start in another folder")
    temporary = link.with_name(f".{link.name}.part{os.getpid()}")
    temporary.symlink_to(folder)
    temporary.replace(link)  # other jobs may be about to do the same


def digest(*parts: Any) -> str:
    """SHA-256 of JSON-able values: the identity of what an artefact was made from."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def link_or_copy(source: Path, target: Path) -> None:
    """A hard link of a file that the graph made, where the file system allows one (same bytes, no space); else a copy.

    Of the file that a symbolic link leads to: elsewhere the link itself would lead nowhere.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:
        copy_file(source, target)


def copy_file(source: Path, target: Path) -> None:
    """A file of its own with the same bytes, of what is a user's: a program may write into it where it lies.

    Where the file system can (Btrfs, XFS), both share the space until one of them is changed. Symbolic links are
    followed. Raises InputError where there is no room.
    """
    size = source.stat().st_size
    with whole(target) as temporary, source.open("rb") as old, temporary.open("wb") as new:
        try:
            fcntl.ioctl(new, FICLONE, old.fileno())
        except OSError:
            check_room(target, size, "copied files")
            shutil.copyfileobj(old, new, CHUNK)
