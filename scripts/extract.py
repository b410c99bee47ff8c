"""Unpack the archives of one published split and measure every file as it comes out."""

from __future__ import annotations

import argparse
import lzma
import shutil
from pathlib import Path, PurePosixPath, PureWindowsPath

import py7zr
from py7zr.callbacks import ExtractCallback
from sao.audio import Measuring
from sao.command import InputError, log, parse, run
from sao.tables import write_table


class MeasureWhenWritten(ExtractCallback):
    """Hands each file to `measuring` once it is on disk: decompressing takes longest, and one core."""

    def __init__(self, folder: Path, measuring: Measuring) -> None:
        self.folder, self.measuring = folder, measuring

    def report_end(self, processing_file_path: str, wrote_bytes: str) -> None:
        path = self.folder.parent / processing_file_path
        if path.is_file() and path.is_relative_to(self.folder):
            self.measuring.add(path.relative_to(self.folder).as_posix(), path)

    def report_warning(self, message: str) -> None:
        log.warning("warning: %s", message)

    def report_start_preparation(self) -> None: ...
    def report_start(self, processing_file_path: str, processing_bytes: str) -> None: ...
    def report_update(self, decompressed_bytes: str) -> None: ...
    def report_postprocess(self) -> None: ...


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


def unpack(archive: Path, split: str, folder: Path, measuring: Measuring) -> None:
    """Unpack `archive`, whose top folder is `split`, into `folder`, and measure its files."""
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
            packed.extractall(folder, callback=MeasureWhenWritten(folder / split, measuring))
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
        for archive in args.archive:
            unpack(archive, args.split, temporary, measuring)
        audio = temporary / args.split
        for path in audio.rglob("*"):
            if path.is_file():
                measuring.add(path.relative_to(audio).as_posix(), path)
        facts = measuring.finish(f"measuring {args.split}")
        shutil.rmtree(args.output, ignore_errors=True)
        audio.rename(args.output)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    write_table(args.facts, facts)
    log.info("%s: %d files, %.1f s", args.output, len(facts), facts.seconds.sum())


if __name__ == "__main__":
    run(main)
