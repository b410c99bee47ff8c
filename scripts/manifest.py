"""Join the facts of a published split with its captions and metadata: one row per clip."""

from __future__ import annotations

import argparse
import difflib
import itertools
from pathlib import Path
from typing import Any

from sao.base.command import InputError, log, parse, run

import pandas as pd
from sao.base.names import clip_id
from sao.base.tables import read_table, write_table
from sao.config.settings import ManifestSettings, add_settings
from sao.data.cuts import SOURCE
from sao.data.formats import FORMATS
from sao.data.lost import facts_by_name, find_lost
from sao.data.origin import lost_links, one_line, origin
from sao.data.templates import FIELD
from sao.sound.read import Measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--split", required=True)
    add_settings(parser, ManifestSettings)
    parser.add_argument("--facts", type=Path, required=True, help="CSV of facts, one row per file")
    parser.add_argument("--captions", type=Path, required=True, nargs="+")
    parser.add_argument("--metadata", type=Path, nargs="*", default=[])
    parser.add_argument("--on-invalid", choices=["fail", "drop"], default="fail")
    parser.add_argument("--output", type=Path, required=True)
    args = parse(parser)
    audio = Path(args.settings["audio"])

    form = FORMATS[args.settings["format"]]
    rows_of, captions = form.read_captions(args.captions)
    metadata = form.read_metadata(args.metadata)
    measured = read_table(args.facts)
    facts, tables = facts_by_name(measured, audio), ", ".join(map(str, args.captions))
    if not captions:
        raise InputError(f"{tables}: no clip; an empty split cannot be used: add clips or remove it from the config")
    lost = find_lost(rows_of, facts, audio, tables, args.on_invalid)
    for name, problem in lost.items():
        # It gets no hash, so validation leaves it out and lists it.
        file = (facts[name] if name in facts else rows_of[name])["file_name"]
        facts[name] = {"file_name": file} | vars(Measured(problem=problem))
    unknown = sorted(facts.keys() - metadata.keys() - lost.keys())
    if args.metadata and unknown:
        # Captions and audio are complete without metadata. Validation warns of every clip of unknown origin.
        first = facts[unknown[0]]["file_name"]
        log.warning("warning: %s: %d clips have no row, %r the first", args.metadata[0], len(unknown), first)

    columns = [f"caption_{i}" for i in range(1, max(map(len, captions.values())) + 1)]
    further = {f"given_{kind}": args.settings[f"{kind}_column"] for kind in ("split", "group")}
    further |= {f"value_{column}": column for column in args.settings["columns"]}
    further |= {f"{FIELD}{column}": column for column in args.settings.get("fields", [])}
    further |= {column: column for column in SOURCE if args.settings.get("cut")}
    rows: list[dict[str, Any]] = []
    odd: list[str] = []
    for name, fact in sorted(facts.items(), key=lambda item: item[1]["file_name"]):
        file, texts = fact.pop("file_name"), captions.get(name, [])
        cells = rows_of.get(name, {}) | metadata.get(name, {})
        odd += lost_links(cells)
        row = {"clip_id": clip_id(args.split, file), "path": (audio / file).as_posix()} | fact
        row |= {"published_split": args.split, "file_name": file} | origin(cells)
        for column, source in further.items():
            if source is None:
                continue
            if source not in cells and name not in lost:
                key = {"value": "columns", "field": "prompts"}.get(column.split("_")[0], "split")
                near = difflib.get_close_matches(source, cells, n=1)
                raise InputError(
                    f"{tables}: column {source!r}, which the config's `{key}` names, is missing for {file!r}; "
                    f"{f'did you mean {near[0]!r}? ' if near else ''}found {', '.join(cells)}"
                )
            row[column] = one_line(cells.get(source, ""))
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
