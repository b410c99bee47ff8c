"""Check a corpus for everything that would corrupt a training, and warn of oddities that a person should judge."""

from __future__ import annotations

import argparse
from pathlib import Path

from sao.base.command import InputError, log, parse, run

import pandas as pd
from sao.base.files import whole, write_json
from sao.base.tables import each, read_tables, write_table
from sao.config.settings import ValidateSettings, add_settings
from sao.data.findings import Findings
from sao.data.leaks import check_duplicates, check_leaks
from sao.data.report import summary_of
from sao.data.splits import assign
from sao.data.validation import (
    advice,
    check_clips,
    check_corpus,
    check_files,
    check_ids,
    check_licenses,
    warn_of_licenses,
)
from sao.pages.corpus import page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--manifest", type=Path, required=True, nargs="+")
    add_settings(parser, ValidateSettings)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, required=True, help="the report, JSON")
    parser.add_argument("--page", type=Path, required=True, help="the report, HTML")
    parser.add_argument("--dropped", type=Path, required=True, help="CSV of the clips that are left out")
    args = parse(parser)
    settings, split = args.settings, args.settings["split"]

    table = read_tables(args.manifest)
    findings, number = Findings(), len(table)
    # A row without its sound, or a sound without a row, cannot be assigned to a side.
    for row in each(table[table.sha256 == ""]):
        findings.error("lost", row, row.problem)
    table = table[table.sha256 != ""].copy()
    if not len(table):
        raise findings.failure(advice(findings))
    table["role"] = assign(table, split)
    for row in each(table[table.role == ""]):
        value = getattr(row, "given_split", row.published_split)
        findings.leave_out("split", row, f"is in {value!r}, which is none of the sides of the split")
    clips = table[table.role != ""]
    check_licenses(clips, settings["licenses"], findings)
    clips = clips[~clips.path.isin(findings.paths(findings.left_out))]
    check_clips(clips, settings["silence_dbfs"], settings["train_seconds"], findings)
    check_files(clips, args.threads, findings)
    check_ids(clips[~clips.path.isin(findings.paths(findings.errors))], findings)
    if settings["on_invalid"] == "drop":
        findings.drop_errors()
    clips = clips[~clips.path.isin(findings.paths(findings.left_out))].copy()
    clips["role"] = assign(clips, split)  # sides are drawn from the clips that are left
    check_leaks(clips[~clips.path.isin(findings.paths(findings.errors))], settings["on_leak"], findings)
    kept = clips[~clips.path.isin(findings.paths(findings.left_out))]
    good = kept[~kept.path.isin(findings.paths(findings.errors))]
    check_duplicates(good, findings)
    warn_of_licenses(kept, settings["licenses"], findings)
    if len(good):
        check_corpus(good, findings)
    summary = summary_of(args.page.parent.name, kept, findings, settings["on_invalid"], settings["on_leak"])
    empty = [role for role, clips in summary["clips"].items() if not clips]
    findings.log_first()
    if findings.errors or empty:
        # This page is not an output, because Snakemake deletes the outputs of a failed job.
        aside = args.log.with_suffix(".html") if args.log else None
        if aside:
            aside.write_text(page(kept, summary), encoding="utf-8")
        pointer = f"; {aside} shows all" if aside else ""
        if empty and not findings.errors:
            raise InputError(
                f"{', '.join(map(str, args.manifest))}: no clip is left for {empty[0]} ({len(findings.left_out)} of "
                f"{number} are left out): correct the corpus's `split`, `licenses` or data{pointer}"
            )
        raise findings.failure(advice(findings) + pointer)
    write_table(args.dropped, pd.DataFrame(findings.left_out, columns=Findings.COLUMNS))
    with whole(args.page) as temporary:
        temporary.write_text(page(kept, summary), encoding="utf-8")
    write_json(args.output, summary)
    log.info(
        "%d clips, %.1f s: %d left out, %d warnings",
        len(kept),
        kept.seconds.sum(),
        len(findings.left_out),
        len(findings.warnings),
    )


if __name__ == "__main__":
    run(main)
