"""Files and folders: writing them so that they are complete or absent, copying and linking, digests, free space."""

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
UMASK = os.umask(0o077)  # the user's umask; it can be read only by setting another one
os.umask(UMASK)


FULL = (errno.ENOSPC, errno.EDQUOT)
LEFT = 1 << 16  # bytes: a disk with less counts as full, whatever error a library reports


@contextlib.contextmanager
def whole(path: Path, needed: int | None = None) -> Iterator[Path]:
    """Yield a temporary sibling to write to. It gets the name `path` only if the block ends without an error.

    Raises InputError if the disk is full. `needed` is the number of bytes to write, if known.
    """
    temporary = _temporary(path)
    try:
        with writing(path, needed):
            yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _temporary(path: Path) -> Path:
    """A sibling to write to. Siblings that killed processes left behind are removed first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for stale in _left_over(path.parent).get(path.name, ()):
        shutil.rmtree(stale) if stale.is_dir() else stale.unlink(missing_ok=True)
    return path.with_name(f".{path.name}.part{os.getpid()}")


@functools.cache  # a folder may hold a million files, and be written to a million times
def _left_over(folder: Path) -> dict[str, list[Path]]:
    """The temporary siblings that killed processes left in `folder`, by the name of the file or folder they belong to."""
    stale: dict[str, list[Path]] = {}
    for path in folder.glob(".*.part*"):
        name, _, process = path.name[1:].rpartition(".part")
        # In a container, this process may have the number of a process that was killed in another container.
        if process.isdigit() and (int(process) == os.getpid() or not Path("/proc", process).exists()):
            stale.setdefault(name, []).append(path)
    return stale


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield an empty temporary folder. It replaces the folder `path` only if the block ends without an error."""
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
    """Turn any error that a library raises because the disk of `path` is full into an InputError.

    The check needs the written files, so use it inside the block that removes them. `needed` is the number of bytes to
    write, if known.
    """
    try:
        yield
    except Exception as error:
        if message := full_disk(error, path, needed):
            raise InputError(message) from None
        raise


def full_disk(error: BaseException, path: Path, needed: int | None = None) -> str | None:
    """The message for an error from a full disk while `path` was written; None for any other error.

    np.save, torch.save, soundfile and safetensors hide the cause: "65536 requested and 60384 written", "unexpected pos",
    "System error.", a text with the error number. So the free space counts as evidence, besides the error number.
    """
    folder = existing(path)
    free = shutil.disk_usage(folder).free
    chain = [error, error.__cause__, error.__context__]
    explicit = any(isinstance(e, OSError) and e.errno in FULL for e in chain)
    explicit |= any(f"(os error {number})" in str(error) or os.strerror(number) in str(error) for number in FULL)
    # An incomplete write raises errors of these kinds without a number.
    hidden = isinstance(error, OSError | RuntimeError) and getattr(error, "errno", None) is None and free < LEFT
    if isinstance(error, InputError) or not (explicit or hidden):
        return None
    need = f", {size_text(needed)} are needed" if needed else ""
    files = os.statvfs(folder)
    of_files = files.f_files and not files.f_favail
    of_bytes = (needed and free >= needed) or any(getattr(e, "errno", None) == errno.EDQUOT for e in chain)
    full = "a quota, or the number of files on the disk, is used up" if of_files or of_bytes else "the disk is full"
    return (
        f"{path}: {full} ({mount_point(folder)}: {size_text(free)} are free{need}): make room, then run again; finished "
        "work is kept"
    )


def check_room(path: Path, needed: float, content: str) -> None:
    """Raise InputError unless the disk of `path` has `needed` bytes left. `content` names what will take them."""
    folder = existing(path)
    disk = shutil.disk_usage(folder)
    if needed > disk.free and disk.total:  # some file systems cannot tell their size and report 0 bytes
        raise InputError(
            f"{path}: {content} need {size_text(needed)}, {size_text(disk.free)} are free on {mount_point(folder)}: make room, then "
            "run again"
        )


def existing(path: Path) -> Path:
    """The path itself, or the nearest folder above it that exists."""
    return next(folder for folder in (path, *path.absolute().parents) if folder.exists())


def mount_point(folder: Path) -> Path:
    """The mount point of the disk of an existing folder."""
    folder = folder.resolve()
    return next(above for above in (folder, *folder.parents) if above.is_mount() or above == above.parent)


def local_path(url: str) -> Path | None:
    """The path of a `file://` URL or of a plain path; None for a remote URL."""
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
    """A quick key of a file's content: all bytes of a small file, the size and evenly spaced blocks of a large one.

    For rerun triggers: a time stamp changes too often, and hashing gigabytes at every start is too slow. The key of a
    file that does not exist is `missing`.
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
    """Make `link` a symbolic link to `folder`, creating the folder if needed. Raises InputError if `link` is anything else."""
    folder.mkdir(parents=True, exist_ok=True)
    if link.is_dir() and link.samefile(folder):
        return
    if link.exists() and not link.is_symlink():
        raise InputError(f"{link}: is in the way of a link to {folder}: move it aside, or start in another folder")
    temporary = link.with_name(f".{link.name}.part{os.getpid()}")
    temporary.symlink_to(folder)
    temporary.replace(link)  # another job may make the same link at the same time


def digest(*parts: Any) -> str:
    """SHA-256 of JSON-able values. It identifies the inputs of an artefact."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def link_or_copy(source: Path, target: Path) -> None:
    """Make `target` a hard link to a file that the graph made, or a copy if the file system allows no hard link.

    Symbolic links are followed first, because in another folder a relative one would lead nowhere.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:
        copy_file(source, target)


def copy_file(source: Path, target: Path) -> None:
    """Copy a user's file. A hard link would not do: a program that writes into one file would change both.

    On file systems that can (Btrfs, XFS), both files share their space until one of them changes. Symbolic links are
    followed. Raises InputError if there is no room.
    """
    size = source.stat().st_size
    with whole(target) as temporary, source.open("rb") as old, temporary.open("wb") as new:
        try:
            fcntl.ioctl(new, FICLONE, old.fileno())
        except OSError:
            check_room(target, size, "copied files")
            shutil.copyfileobj(old, new, CHUNK)
