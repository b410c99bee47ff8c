"""Read a user's corpus in place: measure every sound and collect the captions."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from sao.base.command import InputError, log, parse, run

import pandas as pd
from sao.base.files import sha256
from sao.base.names import write_known_digests
from sao.base.tables import check_columns, plain, write_table
from sao.config.settings import ScanSettings, add_settings
from sao.data.captions import DESCRIBED, like_caption
from sao.data.cuts import times_of
from sao.data.formats import FORMATS
from sao.data.formats.base import Captioned, InPlace, is_file
from sao.data.listing import stamps_of, write_listing
from sao.sound.media import check_readable
from sao.sound.read import Measured, Measuring
from sao.sound.suffixes import is_sound

OURS = ("file_name", "caption_count", DESCRIBED)  # columns that this script writes itself


def caption_table(captioned: dict[str, Captioned], folder: Path, is_cut: bool = False) -> pd.DataFrame:
    """One row per sound: its captions in Clotho's form, and the further columns of its row.

    Where sounds are cut, parts have rows of their own, and a column says where each row comes from.
    """
    entries = [(name, part) for name, entry in sorted(captioned.items()) for part in (entry, *entry.parts)]
    most = max((len(part.captions) for _, part in entries), default=1)
    blank = {f"caption_{i + 1}": "" for i in range(most)}
    rows: list[dict[str, Any]] = []
    for name, part in entries:
        captions = {f"caption_{i + 1}": text for i, text in enumerate(part.captions)}
        described = {DESCRIBED: part.where} if is_cut else {}
        rows.append({"file_name": name, "caption_count": len(part.captions)} | described | blank | captions)
    table = pd.DataFrame(rows)
    others = pd.DataFrame([part.columns for _, part in entries], index=table.index).fillna("")
    columns = list(map(str, others))
    check_columns(columns, f"{folder}, all tables together")
    # A column with the name of one of these, or of a caption column that is not used, is left out.
    return table.join(others[[c for c in columns if plain(c) not in OURS and not like_caption(c)]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_settings(parser, ScanSettings)
    parser.add_argument("--key", required=True, help="key of the folder's state, which is written into the listing")
    parser.add_argument("--on-invalid", choices=["fail", "drop"], default="fail")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--captions", type=Path, required=True, help="CSV of captions and metadata to write")
    parser.add_argument("--facts", type=Path, required=True, help="CSV of facts to write, one row per sound")
    parser.add_argument("--digests", type=Path, required=True, help="sha256sum listing of sounds, tables and texts")
    parser.add_argument("--listing", type=Path, required=True, help="the key, and sizes and time stamps of all files")
    args = parse(parser)
    folder, options = Path(args.settings["folder"]), args.settings["options"]
    form = FORMATS[args.settings["format"]]
    if not isinstance(form, InPlace):
        raise InputError(f"format {args.settings['format']}: is not read in place: extract.py unpacks it")

    # The files are hashed before they are read. So the next start notices a change that happens meanwhile.
    names = form.names(folder, options)
    stamps = stamps_of(folder, names)
    texts = {name: sha256(folder / name) for name in names if not is_sound(name) and is_file(folder / name)}
    lost: dict[str, str] | None = {} if args.on_invalid == "drop" else None
    captioned = form.read(folder, options, lost)
    if options.get("segments") and lost is None:  # rule cut would say the same, but only after all sounds are read
        for part in (part for entry in captioned.values() for part in (entry, *entry.parts)):
            times_of(part.columns, options["segments"], part.where)
    if lost and not captioned:
        raise InputError(next(iter(lost.values())))
    check_readable(folder / name for name in captioned)
    measuring = Measuring(args.threads)
    for name in captioned:
        measuring.add(name, folder / name)
    table = caption_table(captioned, folder, is_cut="segments" in options)
    facts = measuring.finish(f"measuring {folder}")
    if lost:
        left_out = [{"file_name": name} | vars(Measured(problem=problem)) for name, problem in lost.items()]
        facts = pd.concat([facts, pd.DataFrame(left_out)]).sort_values("file_name")
        log.warning("warning: %s (%d such are left out)", next(iter(lost.values())), len(lost))
    write_table(args.captions, table)
    write_table(args.facts, facts)
    of_sounds = {name: digest for name, digest in zip(facts.file_name, facts.sha256, strict=True) if digest}
    write_known_digests(args.digests, dict(sorted((texts | of_sounds).items())))
    write_listing(args.listing, args.key, stamps)
    log.info("%s: %d sounds, %.1f s", folder, len(facts), facts.seconds.sum())


if __name__ == "__main__":
    run(main)
