"""Cut the recordings of a published split into clips: by length, at silences, or as the metadata says."""

from __future__ import annotations

import argparse
from pathlib import Path

from sao.base.command import InputError, log, parse, run

import pandas as pd
from sao.base.files import whole_folder
from sao.base.tables import read_table, write_table
from sao.base.vouched import sound_files
from sao.config.settings import CutSettings, add_settings
from sao.data.formats import FORMATS
from sao.data.lost import facts_by_name, find_lost
from sao.data.pieces import Recording, cut_all, cut_table, leave_silent_out, left_out_table, plan, tell
from sao.sound.read import Measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_settings(parser, CutSettings)
    parser.add_argument("--facts", type=Path, required=True, help="CSV of facts of the recordings, one row per file")
    parser.add_argument("--captions", type=Path, required=True, nargs="+")
    parser.add_argument("--metadata", type=Path, nargs="*", default=[])
    parser.add_argument("--on-invalid", choices=["fail", "drop"], default="fail")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, required=True, help="folder for the clips")
    parser.add_argument("--clip-facts", type=Path, required=True, help="CSV of facts to write, one row per clip")
    parser.add_argument(
        "--table", type=Path, required=True, help="CSV to write: recording, times and captions per clip"
    )
    parser.add_argument("--left-out", type=Path, required=True, help="CSV to write: the parts that became no clip")
    args = parse(parser)
    settings: CutSettings = args.settings
    source, form = Path(settings["source"]), FORMATS[settings["format"]]

    parts, metadata = form.read_parts(args.captions), form.read_metadata(args.metadata)
    facts, tables = facts_by_name(read_table(args.facts), source), ", ".join(map(str, args.captions))
    if not parts:
        raise InputError(f"{tables}: no clip; an empty split cannot be used: add clips or remove it from the config")
    rows = {name: of_sound[0].row for name, of_sound in parts.items()}
    lost = find_lost(rows, facts, source, tables, args.on_invalid)
    recordings = [Recording(name, fact) for name, fact in facts.items() if name not in lost]
    vouched = {file.path: file for file in sound_files(args.facts, source)}
    faults = plan(recordings, parts, metadata, settings, vouched, args.threads)
    if faults and args.on_invalid == "fail":
        more = f" ({len(faults)} such)" if len(faults) > 1 else ""
        raise InputError(f"{next(iter(faults.values()))}{more}; on_invalid: drop leaves such clips out")

    with whole_folder(args.output) as folder:
        clips = cut_all(recordings, source, folder, args.threads)
        if settings["cut"]["method"] != "columns":  # a silent part that has a row of its own is left to rule validate
            leave_silent_out(recordings, clips, folder, settings["silence_dbfs"])
        left_out = left_out_table(recordings)
        if not any(recording.pieces for recording in recordings):
            reasons = [*faults.values(), *(f"all parts are {reason}" for reason in left_out.reason), *lost.values()]
            raise InputError(f"{source}: no clip is left ({reasons[0]}): correct the corpus's `cut`, or its sounds")
    table = cut_table(recordings, source)
    # What cannot be used has facts without a hash. So validation lists it.
    named = {(facts[name] if name in facts else rows[name])["file_name"]: text for name, text in lost.items()}
    bad = [{"file_name": name} | vars(Measured(problem=text)) for name, text in (named | faults).items()]
    clips = pd.concat([clips[clips.file_name.isin(table.file_name)], *([pd.DataFrame(bad)] if bad else [])])
    write_table(args.left_out, left_out)
    write_table(args.table, table)
    write_table(args.clip_facts, clips.sort_values("file_name"))
    if faults:
        log.warning("warning: %s (%d such are left out)", next(iter(faults.values())), len(faults))
    tell(recordings, left_out, args.left_out, source)


if __name__ == "__main__":
    run(main)
