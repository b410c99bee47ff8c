"""Put the measures of all runs into one table, name the best run by each measure, and draw curves over training steps."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from sao.base.command import log, parse, run

from sao.base.files import read_json, write_json
from sao.base.tables import write_table
from sao.evaluation.comparison import DRAWN, best, draw, legs_of, spreads, table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--evaluation", type=Path, required=True, nargs="+", help="JSON of each run and leg")
    parser.add_argument("--table", type=Path, required=True, help="CSV, one row for each run and measure")
    parser.add_argument("--summary", type=Path, required=True, help="JSON")
    parser.add_argument(
        "--families", type=json.loads, default={}, help="JSON: runs that differ only in their seed, by name"
    )
    parser.add_argument("--picture", type=Path, nargs="*", default=[], help="<run>.svg of runs with several legs")
    args = parse(parser)

    evaluations = [read_json(path) for path in args.evaluation]
    write_table(args.table, table(evaluations))
    winners = best(evaluations)
    write_json(
        args.summary,
        {
            "verdicts": {e["name"]: e["verdict"] for e in evaluations if e["verdict"]},
            "settings": evaluations[0]["settings"],
            "best": winners,
            "spreads": spreads(args.families, evaluations),
            "runs": {
                evaluation["name"]: {k: v for k, v in evaluation.items() if k not in ("name", "settings")}
                for evaluation in evaluations
            },
        },
    )
    for path in args.picture:
        draw(legs_of(path.stem, evaluations), path.stem, path)
    for key, winner in winners.items():
        if key.split("/")[1] in DRAWN:
            told = winner["among"], key, winner["run"], winner["value"]
            log.info("best of %d by %s, chosen by these very clips: %s (%.4g)", *told)
    for evaluation in evaluations:
        if evaluation["verdict"]:
            log.info("%s: %s", evaluation["name"], evaluation["verdict"])
    log.info("%d runs and legs: %s", len(evaluations), args.table)


if __name__ == "__main__":
    run(main)
