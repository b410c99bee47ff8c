"""Join what was measured of a published split with its captions and metadata, a row a clip."""

from __future__ import annotations

import argparse
import functools
import itertools
import re
from pathlib import Path
from urllib.parse import urlsplit

from sao.base.command import InputError, log, parse, run

import pandas as pd
from sao.base.names import clip_id, plain_id, same_name
from sao.base.placeholders import is_placeholder
from sao.base.tables import plain, read_rows, read_table, write_table
from sao.config.settings import ManifestSettings, add_settings
from sao.data.captions import published_captions, published_columns
from sao.sound.read import Measured

# Clotho's columns, and what else they are called: in tables of people's own, in Freesound's API (`username`, `url`).
# Its `id` is no `sound_id`, since other tables number their rows under that name.
METADATA = {
    "keywords": ("tags",),
    "sound_id": ("freesound_id",),
    "sound_link": ("link", "url", "source"),
    "start_end_samples": (),
    "manufacturer": ("author", "artist", "creator", "username", "user", "uploader"),
    "license": ("licence", "license_url", "licence_url", "license_name", "licence_name"),
}
# The page of a sound on Freesound, which names its `sound_id`.
FREESOUND = re.compile(r"https?://(?:www\.)?freesound\.org/(?:people/[^/]+/sounds|s)/(\d+)", re.IGNORECASE)
LINKS = ("sound_link", "link", "url")  # a `source` may be a microphone
Row = dict[str, str]


def unique_rows(paths: list[Path], required: list[str], encoding: str) -> dict[str, tuple[str, Row]]:
    """`(file and row, row)` of all files by `file_name`; raises InputError naming both rows of a duplicate.

    Names are compared as `same_name` has them.
    """
    table: dict[str, tuple[str, Row]] = {}
    for path in paths:
        for number, row in read_rows(path, ["file_name", *required], encoding):
            name, here = same_name(row["file_name"]), f"{path}, row {number}"
            if name in table:
                raise InputError(f"{here}: file_name {row['file_name']!r} is already in {table[name][0]}: keep one")
            table[name] = here, row
    return table


def read_captions(paths: list[Path]) -> tuple[dict[str, Row], dict[str, list[str]]]:
    """`(rows, captions)` by `file_name` as `same_name` has it. Raises InputError on anything odd."""
    told = unique_rows(paths, ["caption_1"], "utf-8")
    columns = functools.cache(published_columns)  # each row of a table has the same
    captions = {}
    for name, (where, row) in told.items():
        names = columns(tuple(row), where.rpartition(", row ")[0])
        captions[name] = published_captions(row, names, where)
    return {name: row for name, (_, row) in told.items()}, captions


def facts_by_name(facts: pd.DataFrame, audio: Path) -> dict[str, Row]:
    """What was measured, by file name as `same_name` has it; raises InputError on two that are one name."""
    found: dict[str, Row] = {}
    for fact in facts.to_dict("records"):
        other = found.setdefault(same_name(fact["file_name"]), fact)
        if other is not fact:
            names = f"{other['file_name']!a} and {fact['file_name']!a}"
            raise InputError(f"{audio}: {names} are one name in two Unicode forms: keep one, or rename one")
    return found


def one_line(text: str) -> str:
    """Text with every run of white space, line breaks included, made one space."""
    return " ".join(text.split())


def web_address(text: str) -> str:
    """An http(s) address; `www.…` is taken for https. Nothing for any other text."""
    address = f"https://{text}" if text.lower().startswith("www.") else text
    try:
        parts = urlsplit(address)
        host = parts.hostname
    except ValueError:  # no valid host
        return ""
    return address if parts.scheme in ("http", "https") and host and not re.search(r"[\s<>\"]", address) else ""


def origin(row: Row) -> Row:
    """Clotho's metadata columns of a row, whatever they are called there.

    Words for nothing (`NA`) are no link, author or licence, and a link is an http(s) address. A `sound_id` stays as it
    is, for validation to name; where there is no such column, it follows from a link to Freesound.
    """
    cells, found = {plain(column): value for column, value in row.items()}, {}
    for column, others in METADATA.items():
        texts = [one_line(cells[name]) for name in (column, *others) if cells.get(name)]
        if column == "sound_link":
            texts = [web_address(text) for text in texts]
        if column in ("sound_link", "manufacturer", "license"):
            texts = ["" if is_placeholder(text) else text for text in texts]
        found[column] = next(filter(None, texts), "")
    found["sound_id"] = plain_id(found["sound_id"])
    if not {"sound_id", *METADATA["sound_id"]} & set(cells) and (page := FREESOUND.match(found["sound_link"])):
        found["sound_id"] = page[1]
    return found


def lost_links(row: Row) -> list[str]:
    """What the columns for links hold that is neither an address nor a word for nothing."""
    texts = [one_line(value) for column, value in row.items() if plain(column) in LINKS]
    return [text for text in texts if not is_placeholder(text) and not web_address(text)]


def find_lost(rows: dict[str, Row], facts: dict[str, Row], audio: Path, tables: str) -> dict[str, str]:
    """What is wrong with names that are in captions or audio alone, and with what scan.py found to be lost."""
    lost = {}
    for name in sorted(rows.keys() | facts.keys(), key=lambda name: (name in facts, name)):
        if name not in facts:
            lost[name] = f"{tables}: {rows[name]['file_name']!r} has a row but no audio in {audio}"
        elif not facts[name]["sha256"]:
            lost[name] = facts[name]["problem"]
        elif name not in rows:
            lost[name] = f"{audio}: {facts[name]['file_name']!r} has audio but no row in {tables}"
    return lost


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--split", required=True)
    add_settings(parser, ManifestSettings)
    parser.add_argument("--facts", type=Path, required=True, help="CSV of what was measured, a row a file")
    parser.add_argument("--captions", type=Path, required=True, nargs="+")
    parser.add_argument("--metadata", type=Path, nargs="*", default=[])
    parser.add_argument("--on-invalid", choices=["fail", "drop"], default="fail")
    parser.add_argument("--output", type=Path, required=True)
    args = parse(parser)
    audio = Path(args.settings["audio"])

    rows_of, captions = read_captions(args.captions)
    metadata = {name: row for name, (_, row) in unique_rows(args.metadata, list(METADATA), "iso-8859-1").items()}
    measured = read_table(args.facts)
    facts, tables = facts_by_name(measured, audio), ", ".join(map(str, args.captions))
    if not captions:
        raise InputError(f"{tables}: no clip; an empty split cannot be used")
    lost = find_lost(rows_of, facts, audio, tables)
    if lost and args.on_invalid == "fail":
        first = next(iter(lost))
        such = sum((name in facts) == (first in facts) for name in lost)
        raise InputError(f"{lost[first]} ({such} such): correct it, or set the corpus's on_invalid to drop")
    for name, problem in lost.items():
        # Without a hash: validation leaves it out and lists it.
        file = (facts[name] if name in facts else rows_of[name])["file_name"]
        facts[name] = {"file_name": file} | vars(Measured(problem=problem))
    unknown = sorted(facts.keys() - metadata.keys() - lost.keys())
    if args.metadata and unknown:
        # Captions and audio are whole without it; validation warns of every clip whose origin is unknown.
        first = facts[unknown[0]]["file_name"]
        log.warning("warning: %s: %d clips have no row, %r the first", args.metadata[0], len(unknown), first)

    columns = [f"caption_{i}" for i in range(1, max(map(len, captions.values())) + 1)]
    further = {f"given_{what}": args.settings[f"{what}_column"] for what in ("split", "group")}
    rows, odd = [], []
    for name, fact in sorted(facts.items(), key=lambda item: item[1]["file_name"]):
        file, texts = fact.pop("file_name"), captions.get(name, [])
        told = rows_of.get(name, {}) | metadata.get(name, {})
        odd += lost_links(told)
        row = {"clip_id": clip_id(args.split, file), "path": (audio / file).as_posix()} | fact
        row |= {"published_split": args.split, "file_name": file} | origin(told)
        for column, given in further.items():
            if given is None:
                continue
            if given not in told and name not in lost:
                raise InputError(
                    f"{tables}: column {given!r}, which the split goes by, is missing for {file!r}; found {', '.join(told)}"
                )
            row[column] = one_line(told.get(given, ""))
        row["caption_count"] = len(texts)
        row |= dict(itertools.zip_longest(columns, texts, fillvalue=""))
        rows.append(row)
    if odd:
        where = ", ".join(map(str, [*args.captions, *args.metadata]))
        log.warning("warning: %s: %r is no http(s) address, and is left out (%d such)", where, odd[0], len(odd))
    write_table(args.output, pd.DataFrame(rows))
    log.info("%s: %d clips, %.1f s", args.output, len(rows), measured.seconds.sum())


if __name__ == "__main__":
    run(main)
