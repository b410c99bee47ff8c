"""Fetch one split of a data set on the Hugging Face Hub, and write it as a folder of sounds with a table."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path, PurePosixPath

from sao.base.command import log, parse, progress, run

from sao.base.files import check_room, link_or_copy, whole_folder, write_json
from sao.config.settings import FetchSettings, add_settings
from sao.data.formats.tables import READERS, import_pyarrow
from sao.data.published import CARD, files_of_split, is_data, is_parquet
from sao.data.unpacked import TABLE, Parquet, tables_for, tell_left_out, write_parquets, write_tables
from sao.hub.fetch import HubFile, fetch, files_of_dataset


def from_parquets(files: list[HubFile], audio_column: str | None, partial: Path, output: Path) -> int:
    """Fetch parquet files and write what is in them. Returns the number of sounds."""
    repo = files[0].repo
    import_pyarrow(f"{repo}: {files[0].name}")
    # One file tells whether there is an audio column, before all the others are fetched.
    fetch(files[:1], partial)
    tell_left_out(Parquet(files[0].path(partial), f"{repo}: {files[0].name}", audio_column))
    fetch(files[1:], partial)
    check_room(output, sum(file.size or 0 for file in files), f"the sounds of {repo}")
    parquets = (Parquet(file.path(partial), f"{repo}: {file.name}", audio_column) for file in files)
    with whole_folder(output) as folder:
        return write_parquets(progress(parquets, "unpacking", total=len(files), unit="files"), folder)


def from_folder(files: list[HubFile], sounds: list[HubFile], partial: Path, output: Path) -> tuple[int, list[HubFile]]:
    """Fetch sounds with their tables and texts. `files` are all of the data set. Returns the number of sounds, and what was fetched."""
    names = {file.name for file in sounds}
    by_name = {file.name: file for file in files}
    about = [by_name[name] for name in tables_for(by_name, sorted(names))]
    fetch([*about, *sounds], partial)
    others = {name for name in by_name if is_data(name)} - names
    tables = {file.name: file.path(partial) for file in about if PurePosixPath(file.name).name in READERS}
    with whole_folder(output) as folder:
        for file in [*sounds, *(file for file in about if file.name not in tables)]:
            link_or_copy(file.path(partial), folder / file.name)
        if tables:
            write_tables(tables, names, others, folder)
    return len(sounds), [*about, *sounds]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_settings(parser, FetchSettings)
    parser.add_argument("--split", required=True, help="split of the data set, or `all`")
    parser.add_argument("--output", type=Path, required=True, help="folder for the sounds")
    parser.add_argument("--source", type=Path, required=True, help="JSON to write: the commit and the files")
    args = parse(parser)
    settings: FetchSettings = args.settings
    repo, revision = settings["repo"], settings["revision"]

    # Snakemake does not know this folder, so an interrupted transfer can resume.
    partial = args.source.parent / ".partial" / args.split
    files = files_of_dataset(repo, revision)
    by_name = {file.name: file for file in files}
    fetch([by_name[CARD]] if CARD in by_name else [], partial)
    card = by_name[CARD].path(partial).read_text(encoding="utf-8", errors="replace") if CARD in by_name else ""
    chosen = [by_name[name] for name in files_of_split(sorted(by_name), card, settings.get("config"), args.split, repo)]
    parquets = [file for file in chosen if is_parquet(file.name)]
    if parquets:
        count, used = from_parquets(parquets, settings.get("audio_column"), partial, args.output), parquets
    else:
        count, used = from_folder(files, chosen, partial, args.output)
    listed = [{"name": file.name, "size": file.size, "etag": file.etag} for file in used]
    write_json(args.source, {"repo": repo, "revision": revision, "split": args.split, "sounds": count, "files": listed})
    shutil.rmtree(partial, ignore_errors=True)
    log.info("%s: %d sounds from %s at %s, with %s", args.output, count, repo, revision, TABLE)


if __name__ == "__main__":
    run(main)
