"""Join the splits of several corpora into those of a mixture, and check that no corpus leaks into another."""

from __future__ import annotations

import argparse
from pathlib import Path

from sao.base.command import log, parse, run

import pandas as pd
from sao.base.files import whole, write_json
from sao.base.names import member_id
from sao.base.tables import read_table, stacked, write_table
from sao.config.resolve import ROLES
from sao.config.settings import MixSettings, add_settings
from sao.data.findings import Findings
from sao.data.leaks import check_duplicates, check_leaks
from sao.data.report import summary_of
from sao.data.splits import assert_disjoint
from sao.pages.corpus import page


def joined(folders: dict[str, Path]) -> pd.DataFrame:
    """The clips of all corpora, with their side as `role`. `folders` are those of the splits, by corpus."""
    tables = []
    for corpus, folder in folders.items():
        for role in ROLES:
            table = read_table(folder / f"{role}.csv")
            table["clip_id"] = [member_id(corpus, clip) for clip in table.clip_id]
            if "given_group" in table:  # groups of two corpora that happen to have one name are none
                table["given_group"] = [f"{corpus}: {group}" if group else "" for group in table.given_group]
            tables.append(table.assign(corpus=corpus, role=role))
    return stacked(tables)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--splits", type=Path, required=True, nargs="+", help="folders of the corpora's splits")
    add_settings(parser, MixSettings)
    parser.add_argument("--report", type=Path, required=True, help="JSON")
    parser.add_argument("--page", type=Path, required=True, help="the report, HTML")
    parser.add_argument(
        "--output", type=Path, required=True, help="folder of train.csv, validation.csv, evaluation.csv"
    )
    args = parse(parser)

    table = joined(dict(zip(args.settings["corpora"], args.splits, strict=True)))
    findings = Findings()
    check_leaks(table, args.settings["on_leak"], findings)
    if findings.errors:
        names = ", ".join(args.settings["corpora"])
        raise findings.failure(f": remove one of the two, or set on_leak to drop in {names}")
    kept = table[~table.path.isin(findings.paths(findings.left_out))]
    check_duplicates(kept, findings)
    findings.log_first()
    splits = {role: kept[kept.role == role].drop(columns="role") for role in ROLES}
    assert_disjoint(splits)
    for role, clips in splits.items():
        write_table(args.output / f"{role}.csv", clips)
        counts = ", ".join(f"{corpus} {number}" for corpus, number in clips.corpus.value_counts(sort=False).items())
        log.info("%s: %d clips (%s), %.1f s", role, len(clips), counts, clips.seconds.sum())
    summary = summary_of(args.page.parent.name, kept, findings, None, args.settings["on_leak"])
    with whole(args.page) as temporary:
        temporary.write_text(page(kept, summary), encoding="utf-8")
    write_json(args.report, summary)


if __name__ == "__main__":
    run(main)
