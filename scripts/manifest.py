"""Join what was measured of a published split with its captions and metadata, a row a clip."""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
from sao.clips import clip_id
from sao.command import InputError, log, parse, run
from sao.tables import caption_columns, read_rows, read_table, write_table

# Clotho's columns, and what else they are called.
METADATA = {
    "keywords": ("tags",),
    "sound_id": (),
    "sound_link": ("link", "url", "source"),
    "start_end_samples": (),
    "manufacturer": ("author", "artist", "creator"),
    "license": ("licence",),
}
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


def origin(row: Row) -> Row:
    """Clotho's metadata columns of a row, whatever they are called there."""
    lower = {key.lower(): value for key, value in row.items()}
    named = {column: (column, *others) for column, others in METADATA.items()}
    return {column: one_line(next((lower[n] for n in names if lower.get(n)), "")) for column, names in named.items()}


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
    rows = []
    for fact in facts.to_dict("records"):
        name = fact.pop("file_name")
        told = captions[name] | metadata.get(name, {})
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
    write_table(args.output, pd.DataFrame(rows))
    log.info("%s: %d clips, %.1f s", args.output, len(rows), facts.seconds.sum())


if __name__ == "__main__":
    run(main)
