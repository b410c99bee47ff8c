"""Join what was measured of a published split with its captions and metadata, a row a clip."""

from __future__ import annotations

import argparse
import functools
import re
from pathlib import Path
from urllib.parse import urlsplit

import pandas as pd
from sao.clips import clip_id
from sao.command import InputError, log, parse, run
from sao.placeholders import is_placeholder
from sao.tables import caption_columns, read_rows, read_table, write_table

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


def unique_rows(paths: list[Path], required: list[str], encoding: str) -> dict[str, Row]:
    """Rows of all files by `file_name`; raises InputError naming both rows of a duplicate."""
    seen: dict[str, str] = {}
    table: dict[str, Row] = {}
    for path in paths:
        for number, row in read_rows(path, ["file_name", *required], encoding):
            name, here = row["file_name"], f"{path}, row {number}"
            if name in seen:
                raise InputError(f"{here}: file_name {name!r} is already in {seen[name]}: keep one")
            seen[name], table[name] = here, row
    return table


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


@functools.cache  # each row has the same
def plain(column: str) -> str:
    """A column's name in lower case with underscores."""
    return re.sub(r"[\s-]+", "_", column.strip().lower())


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
    if not {"sound_id", *METADATA["sound_id"]} & set(cells) and (page := FREESOUND.match(found["sound_link"])):
        found["sound_id"] = page[1]
    return found


def lost_links(row: Row) -> list[str]:
    """What the columns for links hold that is neither an address nor a word for nothing."""
    texts = [one_line(value) for column, value in row.items() if plain(column) in LINKS]
    return [text for text in texts if not is_placeholder(text) and not web_address(text)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--split", required=True)
    parser.add_argument("--audio", type=Path, required=True, help="folder that the facts' file names are relative to")
    parser.add_argument("--facts", type=Path, required=True, help="CSV of what was measured, a row a file")
    parser.add_argument("--captions", type=Path, required=True, nargs="+")
    parser.add_argument("--metadata", type=Path, nargs="*", default=[])
    parser.add_argument("--split-column", help="column of captions or metadata that says the side of a clip")
    parser.add_argument("--group-column", help="column of what must not straddle two sides")
    parser.add_argument("--output", type=Path, required=True)
    args = parse(parser)

    captions = unique_rows(args.captions, ["caption_1"], "utf-8")
    metadata = unique_rows(args.metadata, list(METADATA), "iso-8859-1")
    facts = read_table(args.facts)
    names, tables = set(facts.file_name), ", ".join(map(str, args.captions))
    if lonely := sorted(set(captions) - names):
        raise InputError(f"{tables}: {lonely[0]!r} has a row but no audio in {args.audio} ({len(lonely)} such)")
    if lonely := sorted(names - set(captions)):
        raise InputError(f"{args.audio}: {lonely[0]!r} has audio but no row in {tables} ({len(lonely)} such)")
    if args.metadata and (lonely := sorted(names - set(metadata))):
        # Captions and audio are whole without it; validation warns of every clip whose origin is unknown.
        log.warning("warning: %s: %d clips have no row, %r the first", args.metadata[0], len(lonely), lonely[0])
    if not captions:
        raise InputError(f"{tables}: no clip; an empty split cannot be used")

    counts = {name: int(row.get("caption_count") or len(caption_columns(row))) for name, row in captions.items()}
    columns = [f"caption_{i}" for i in range(1, max(counts.values()) + 1)]
    further = {"given_split": args.split_column, "given_group": args.group_column}
    rows, odd = [], []
    for fact in facts.to_dict("records"):
        name = fact.pop("file_name")
        told = captions[name] | metadata.get(name, {})
        odd += lost_links(told)
        row = {"clip_id": clip_id(args.split, name), "path": (args.audio / name).as_posix()} | fact
        row |= {"published_split": args.split, "file_name": name} | origin(told)
        for column, given in further.items():
            if given is None:
                continue
            if given not in told:
                raise InputError(
                    f"{tables}: column {given!r}, which the split goes by, is missing for {name!r}; found {', '.join(told)}"
                )
            row[column] = one_line(told[given])
        row["caption_count"] = counts[name]
        row |= {column: one_line(captions[name].get(column, "")) for column in columns}
        rows.append(row)
    if odd:
        where = ", ".join(map(str, [*args.captions, *args.metadata]))
        log.warning("warning: %s: %r is no http(s) address, and is left out (%d such)", where, odd[0], len(odd))
    write_table(args.output, pd.DataFrame(rows))
    log.info("%s: %d clips, %.1f s", args.output, len(rows), facts.seconds.sum())


if __name__ == "__main__":
    run(main)
