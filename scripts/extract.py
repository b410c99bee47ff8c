"""Unpack the archives of one published split, refusing entries that would leave their folder."""

from __future__ import annotations

import argparse
import lzma
import shutil
from pathlib import Path, PurePosixPath, PureWindowsPath

import py7zr
from sao.clips import write_digests
from sao.command import InputError, log, parse, progress, run


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


def unpack(archive: Path, split: str, folder: Path) -> None:
    """Unpack `archive`, whose top folder is `split`, so that its files lie in `folder`."""
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
            if twice := [n for n in names if (folder / n).exists()]:
                raise InputError(f"{archive}: {twice[0]!r} is already in another archive of this split: keep one")
            size = sum(entry.uncompressed for entry in packed.list() if not entry.is_directory)
            free = shutil.disk_usage(folder).free
            if size > free:
                raise InputError(
                    f"{folder}: needs {size / 1e9:.2f} GB, {free / 1e9:.2f} GB are free: make room, then run again"
                )
            log.info("%s: %d files, %.1f MB", archive.name, len(names), size / 1e6)
            packed.extractall(folder)
    except py7zr.exceptions.PasswordRequired:
        raise InputError(f"{archive}: is encrypted; an archive without a password is needed") from None
    except (py7zr.exceptions.ArchiveError, lzma.LZMAError, EOFError) as error:
        with archive.open("rb") as handle:
            head = handle.read(16)
        what = (
            "truncated or damaged"
            if head.startswith(b"7z\xbc\xaf\x27\x1c")
            else f"not a 7z archive (it begins {head!r})"
        )
        raise InputError(f"{archive}: {what} ({type(error).__name__}): delete it and download it again") from None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--archive", type=Path, required=True, nargs="+")
    parser.add_argument("--split", required=True, help="name of the archives' top folder")
    parser.add_argument("--output", type=Path, required=True, help="folder for the audio files")
    parser.add_argument("--digest", type=Path, required=True, help="sha256sum listing of the folder")
    args = parse(parser)

    # Unpacked beside the output and renamed whole: an interrupted job leaves nothing that looks like an output.
    temporary = args.output.with_name(f".{args.output.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        for archive in args.archive:
            unpack(archive, args.split, temporary)
        shutil.rmtree(args.output, ignore_errors=True)
        (temporary / args.split).rename(args.output)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)

    files = sorted(path for path in args.output.rglob("*") if path.is_file())
    write_digests(args.digest, args.output, progress(files, "checksums", unit="files"))
    log.info("%s: %d files", args.output, len(files))


if __name__ == "__main__":
    run(main)
