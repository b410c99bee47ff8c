"""Measure the audio of one published split and join it with its captions and metadata, a row a clip."""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pandas as pd
from sao.audio import Measured, measure
from sao.clips import clip_id, read_digests
from sao.command import InputError, log, parse, progress, run
from sao.tables import read_rows, write_table

METADATA = ["keywords", "sound_id", "sound_link", "start_end_samples", "manufacturer", "license"]


def unique_rows(path: Path, rows: list[dict[str, str]]) -> dict[str, dict[str, str]]:
    """Rows by `file_name`; raises InputError naming both rows of a duplicate."""
    seen: dict[str, int] = {}
    for number, row in enumerate(rows, start=2):
        first = seen.setdefault(row["file_name"], number)
        if first != number:
            raise InputError(
                f"{path}, row {number}: file_name {row['file_name']!r} is already in row {first}: keep one"
            )
    return {row["file_name"]: row for row in rows}


def one_line(text: str) -> str:
    """Text with every run of white space, line breaks included, made one space."""
    return " ".join(text.split())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--split", required=True)
    parser.add_argument("--audio", type=Path, required=True, help="folder of the split's audio files")
    parser.add_argument("--digest", type=Path, required=True, help="sha256sum listing of that folder")
    parser.add_argument("--captions", type=Path, required=True)
    parser.add_argument("--metadata", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, required=True)
    args = parse(parser)

    captions = unique_rows(args.captions, read_rows(args.captions, ["file_name", "caption_1"]))
    metadata = unique_rows(args.metadata, read_rows(args.metadata, ["file_name", *METADATA], "iso-8859-1"))
    digests = read_digests(args.digest)
    if lonely := sorted(set(captions) - set(digests)):
        raise InputError(f"{args.captions}: {lonely[0]!r} has a row but no audio in {args.audio} ({len(lonely)} such)")
    if lonely := sorted(set(digests) - set(captions)):
        raise InputError(f"{args.audio}: {lonely[0]!r} has audio but no row in {args.captions} ({len(lonely)} such)")
    if lonely := sorted(set(captions) - set(metadata)):
        # Captions and audio are whole without it; validation warns of every clip whose origin is unknown.
        log.warning("warning: %s: %d clips have no row, %r the first", args.metadata, len(lonely), lonely[0])

    names = sorted(captions)
    paths = [args.audio / name for name in names]
    with ProcessPoolExecutor(args.threads) as pool:
        measured: list[Measured] = list(
            progress(pool.map(measure, paths, chunksize=8), f"measuring {args.split}", total=len(paths), unit="clips")
        )
    columns = [c for c in next(iter(captions.values()), {}) if c.startswith("caption_")]
    rows = []
    for name, path, facts in zip(names, paths, measured, strict=True):
        row = {"clip_id": clip_id(args.split, name), "path": path.as_posix()} | vars(facts)
        row |= {"sha256": digests[name], "published_split": args.split, "file_name": name}
        row |= {key: one_line(metadata.get(name, {}).get(key, "")) for key in METADATA}
        row |= {column: one_line(captions[name][column]) for column in columns}
        rows.append(row)
    if not rows:
        raise InputError(f"{args.captions}: no clip; an empty split cannot be used")
    write_table(args.output, pd.DataFrame(rows))
    log.info("%s: %d clips, %.1f s", args.output, len(rows), sum(facts.seconds for facts in measured))


if __name__ == "__main__":
    run(main)
