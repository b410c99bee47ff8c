"""Bring what all runs rendered, their references, one table and a page to listen on into one folder."""

from __future__ import annotations

import argparse
import html
import shutil
from collections import Counter
from pathlib import Path
from urllib.parse import quote

import pandas as pd
from sao import command
from sao.command import log, parse
from sao.files import link_or_copy, read_json
from sao.renders import read_renders
from sao.tables import read_table, write_table

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Rendered samples</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem; color: #222 }}
table {{ border-collapse: collapse; width: 100% }}
th, td {{ padding: .5rem; border-bottom: 1px solid #ddd; text-align: left; vertical-align: top }}
thead th {{ position: sticky; top: 0; background: #fff }}
audio {{ width: 15rem; max-width: 100% }}
small {{ color: #666; display: block }} .odd {{ color: #b00 }}
</style></head><body>
<h1>Rendered samples</h1>
<p>{count} clips; the same prompt and the same seed in every run. <a href="samples.csv">samples.csv</a></p>
{corpora}
<table><thead><tr><th>Prompt</th><th>Recording</th>{heads}</tr></thead><tbody>
{rows}
</tbody></table></body></html>
"""

NOTHING = "<td>–</td>"


def player(url: str, note: str = "") -> str:
    """An audio element, and what is odd about the sound."""
    odd = f'<small class="odd">{html.escape(note)}</small>' if note else ""
    return f'<td><audio controls preload="none" src="{quote(url)}"></audio>{odd}</td>'


def corpus_line(report: Path, dropped: list[Path]) -> str:
    """What the runs of a corpus were made from, and what was left out and why."""
    told = read_json(report)
    reasons = Counter(entry["check"] for entry in told["left_out"])
    for path in dropped:
        reasons.update(read_table(path).check)
    why = ", ".join(f"{check}: {count}" for check, count in sorted(reasons.items()))
    folder = report.parent.as_posix()
    return (
        f'<p>Corpus <a href="../../{quote(folder)}/validation.html">{html.escape(told["corpus"])}</a>: '
        f"{sum(told['clips'].values())} clips, {reasons.total()} left out{f' ({html.escape(why)})' if why else ''}, "
        f"{len(told['warnings'])} warnings.</p>"
    )


def page(samples: pd.DataFrame, corpora: str) -> str:
    """The page: a row a clip, a column a run, evaluation clips first."""
    runs = list(dict.fromkeys(samples.run))
    rows = []
    for (split, clip), group in samples.groupby(["split", "clip_id"], sort=True):
        by_run = {row.run: row for row in group.itertuples()}
        first = next(iter(by_run.values()))
        cells = [
            f"<td>{html.escape(first.prompt)}<small>{split} · {html.escape(clip)} · seed {first.seed}</small></td>"
        ]
        recording = f"reference/{clip}{Path(first.reference).suffix}"
        cells.append(player(recording) if first.reference else NOTHING)
        for name in runs:
            cells.append(player(f"{name}/{by_run[name].file}", by_run[name].warning) if name in by_run else NOTHING)
        rows.append(f"<tr>{''.join(cells)}</tr>")
    heads = "".join(f"<th>{html.escape(name)}</th>" for name in runs)
    return PAGE.format(count=samples.clip_id.nunique(), heads=heads, corpora=corpora, rows="\n".join(rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", required=True, nargs="+", help="names of the runs")
    parser.add_argument("--table", type=Path, required=True, nargs="+", help="tables of their renders, in that order")
    parser.add_argument("--render", type=Path, required=True, nargs="+", help="folders of the renders, in that order")
    parser.add_argument("--report", type=Path, required=True, nargs="+", help="validation.json of the corpora")
    parser.add_argument(
        "--dropped", type=Path, required=True, nargs="+", help="dropped.csv beside the dataset configs of the runs"
    )
    parser.add_argument("--output", type=Path, required=True)
    args = parse(parser)

    tables = []
    shutil.rmtree(args.output, ignore_errors=True)
    for run, path, folder in zip(args.run, args.table, args.render, strict=True):
        table = read_renders(path, folder)
        table["run"] = run  # `base`, where there is only one
        for row in table.itertuples():
            link_or_copy(Path(row.sound), args.output / run / row.file)
            if row.reference:
                reference = Path(row.reference)
                link_or_copy(reference, args.output / "reference" / f"{row.clip_id}{reference.suffix}")
        tables.append(table.drop(columns="sound"))
    samples = pd.concat(tables, ignore_index=True)
    write_table(args.output / "samples.csv", samples)
    # results/data/<corpus>/dataset_configs/<base model>/dropped.csv
    of_corpus = {report: [path for path in args.dropped if report.parent in path.parents] for report in args.report}
    corpora = "\n".join(corpus_line(report, dropped) for report, dropped in of_corpus.items())
    (args.output / "index.html").write_text(page(samples, corpora), encoding="utf-8")
    odd = int((samples.warning != "").sum())
    log.info("%d samples of %d runs, %d with a warning", len(samples), samples.run.nunique(), odd)
    log.info("listen: %s", (args.output / "index.html").as_posix())


if __name__ == "__main__":
    command.run(main)
