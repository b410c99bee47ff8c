"""Read a folder of captioned sounds where it lies: measure every sound, collect its captions."""

from __future__ import annotations

import argparse
from pathlib import Path

from sao.base.command import InputError, log, parse, run

import pandas as pd
from sao.base.files import sha256, whole
from sao.base.tables import check_columns, plain, write_table
from sao.config.settings import ScanSettings, add_settings
from sao.data.captions import like_caption
from sao.data.folder import read_folder, texts_below
from sao.sound.read import Measured, Measuring

OURS = ("file_name", "caption_count")  # our own columns in the table of captions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_settings(parser, ScanSettings)
    parser.add_argument("--on-invalid", choices=["fail", "drop"], default="fail")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--captions", type=Path, required=True, help="CSV of captions and further columns to write")
    parser.add_argument("--facts", type=Path, required=True, help="CSV of what was measured, a row a sound")
    parser.add_argument("--digests", type=Path, required=True, help="sha256sum listing of sounds, tables and texts")
    args = parse(parser)
    folder, top = Path(args.settings["folder"]), args.settings["top"] and Path(args.settings["top"])

    # Before they are read: what changes meanwhile is seen at the next start.
    texts = {name: sha256(folder / name) for name in texts_below(folder, top)}
    lost: dict[str, str] | None = {} if args.on_invalid == "drop" else None
    told = read_folder(folder, args.settings["caption_columns"], top, args.settings["splits"] or [], lost)
    if lost and not told:
        raise InputError(next(iter(lost.values())))
    measuring = Measuring(args.threads)
    for name in told:
        measuring.add(name, folder / name)
    most = max((len(entry.captions) for entry in told.values()), default=1)
    rows = []
    for name, entry in sorted(told.items()):
        captions = {f"caption_{i + 1}": text for i, text in enumerate(entry.captions)}
        blank = {f"caption_{i + 1}": "" for i in range(most)}
        rows.append({"file_name": name, "caption_count": len(entry.captions)} | blank | captions)
    table = pd.DataFrame(rows)
    others = pd.DataFrame([told[row["file_name"]].columns for row in rows], index=table.index).fillna("")
    check_columns(list(others), f"{folder}, all tables together")
    # A column that is called like one of ours, but was not chosen for captions, is none.
    table = table.join(others[[c for c in others if plain(c) not in OURS and not like_caption(c)]])
    facts = measuring.finish(f"measuring {folder}")
    if lost:
        left_out = [{"file_name": name} | vars(Measured(problem=problem)) for name, problem in lost.items()]
        facts = pd.concat([facts, pd.DataFrame(left_out)]).sort_values("file_name")
        log.warning("warning: %s (%d such are left out)", next(iter(lost.values())), len(lost))
    write_table(args.captions, table)
    write_table(args.facts, facts)
    digests = texts | {name: digest for name, digest in zip(facts.file_name, facts.sha256, strict=True) if digest}
    with whole(args.digests) as temporary:
        temporary.write_text("".join(f"{digests[name]}  {name}\n" for name in sorted(digests)), encoding="utf-8")
    log.info("%s: %d sounds, %.1f s", folder, len(facts), facts.seconds.sum())


if __name__ == "__main__":
    run(main)
