"""Make the page about a corpus: counts, plots and findings."""

from __future__ import annotations

import io
import re
from collections import Counter
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from sao.base.tables import caption_columns
from sao.pages.document import document, escape

# SVGs with text as text, and with the same bytes for the same data.
matplotlib.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "sao", "font.size": 9}
SIZE = (4.6, 2.6)  # inches
# In parts of the size, with room for counts of six digits. matplotlib's own layouts take as long as the drawing.
MARGINS = {"left": 0.17, "right": 0.97, "bottom": 0.19, "top": 0.89}
ROWS = 500  # findings, and recordings, that are shown; the JSON report has all findings
TIMES = 20  # clips of a recording whose times are shown
STOPWORDS = frozenset(
    """a an and are as at be being by down for from has in into is it its of off on or out over some someone something
    that the then there they this through to up while with""".split()
)


def page(table: pd.DataFrame, summary: dict[str, Any]) -> str:
    """The report on the clips in `table`, which are kept, as HTML that needs no other file."""
    clips, errors = sum(summary["clips"].values()), summary["errors"]
    head = f"{clips} clips, {summary['seconds'] / 3600:.2f} h, {summary['captions']} captions"
    empty = [side for side, number in summary["clips"].items() if not number]
    if errors:
        verdict = f'<p class="bad">{len(errors)} errors: nothing is trained on this corpus until they are mended.</p>'
    elif empty:
        verdict = f'<p class="bad">No clip is left for {", ".join(empty)}: nothing is trained on this corpus.</p>'
    else:
        verdict = "<p>No error: the corpus can be trained on.</p>"
    counted = [
        ("Clips", summary["clips"]),
        ("Sample rates in Hz", summary["sample_rates"]),
        ("Licences", summary["licenses"]),
    ]
    parts = [f"<h1>Corpus {escape(summary['corpus'])}</h1><p>{head}</p>{verdict}"]
    parts += [f"<h2>{title}</h2>{counts(values)}" for title, values in counted]
    if len(table):
        parts.append(f"<h2>Plots</h2><div class='plots'>{''.join(plots(table))}</div>")
        parts.append(f"<h2>Most common words of captions</h2>{counts(common_words(table))}")
    if "source_file" in table and len(table):
        parts.append(f"<h2>Recordings: {table.source_sha256.nunique()}</h2>{recordings(table)}")
    for title, key in (("Errors", "errors"), ("Left out", "left_out"), ("Warnings", "warnings")):
        parts.append(f"<h2>{title}: {len(summary[key])}</h2>{findings(summary[key])}")
    return document("Corpus report", "".join(parts))


def counts(values: dict[str, int]) -> str:
    """A table of numbers, each with a bar. The longest bar is that of the largest number."""
    most = max(values.values(), default=0) or 1
    rows = (
        f'<tr><td>{escape(str(key))}</td><td class="n">{value}</td>'
        f'<td><span class="bar" style="width:{10 * value / most:.2f}em"></span></td></tr>'
        for key, value in values.items()
    )
    return f"<table>{''.join(rows)}</table>"


def recordings(table: pd.DataFrame) -> str:
    """What was cut from each recording, in a fold: the number of its clips, their length together, and their times."""
    rows = []
    for (split, file), clips in table.groupby(["published_split", "source_file"], sort=True):
        spans = sorted(zip(clips.source_start.astype(float), clips.source_end.astype(float), strict=True))
        times = [f"{start:g}–{end:g}" for start, end in spans]
        more = f" and {len(times) - TIMES} more" if len(times) > TIMES else ""
        numbers = "".join(f'<td class="n">{value}</td>' for value in (len(clips), f"{clips.seconds.sum():.1f}"))
        name = escape(f"{split}/{file}")
        rows.append(f'<tr><td class="path">{name}</td>{numbers}<td>{", ".join(times[:TIMES])}{more}</td></tr>')
    more = f"<p>{len(rows) - ROWS} more in the manifests.</p>" if len(rows) > ROWS else ""
    head = "<tr><th>Recording</th><th>Clips</th><th>Seconds</th><th>Cut at (s)</th></tr>"
    cut = f"<table>{head}{''.join(rows[:ROWS])}</table>{more}"
    return f"<details><summary>Clips and their times</summary>{cut}</details>"


def findings(entries: list[dict[str, str]]) -> str:
    """One fold per check, the first one open."""
    kinds: dict[str, list[dict[str, str]]] = {}
    for entry in entries:
        kinds.setdefault(entry["check"], []).append(entry)
    parts: list[str] = []
    for check, group in kinds.items():
        rows = (
            f'<tr><td class="path">{escape(e["path"])}</td><td>{escape(e["message"])}</td></tr>' for e in group[:ROWS]
        )
        more = f"<p>{len(group) - ROWS} more in the JSON report.</p>" if len(group) > ROWS else ""
        state = "" if parts else ' open="open"'
        parts.append(f"<details{state}><summary>{escape(check)}: {len(group)}</summary>")
        parts.append(f"<table>{''.join(rows)}</table>{more}</details>")
    return "".join(parts) or "<p>None.</p>"


def plots(table: pd.DataFrame) -> list[str]:
    """SVG plots of the durations and levels of the kept clips, and of the lengths of their captions."""
    sound = table[table.problem == ""] if "problem" in table else table
    levels = sound[["peak_dbfs", "rms_dbfs"]].replace(float("-inf"), -120)
    return [
        histogram("Durations", "seconds", {"": sound.seconds}),
        histogram("Levels", "dBFS", {"peak": levels.peak_dbfs, "RMS": levels.rms_dbfs}),
        histogram("Caption lengths", "words", {"": pd.Series([len(text.split()) for text in captions(table)])}),
    ]


def captions(table: pd.DataFrame) -> list[str]:
    return [text for texts in table[caption_columns(table)].itertuples(index=False) for text in texts if text]


def common_words(table: pd.DataFrame) -> dict[str, int]:
    """The twenty words that the captions have most often, and how often."""
    words = (word for text in captions(table) for word in re.findall(r"[^\W\d_]+", text.lower()))
    return dict(Counter(word for word in words if word not in STOPWORDS).most_common(20))


def histogram(title: str, unit: str, series: dict[str, pd.Series]) -> str:
    figure = Figure(SIZE)
    figure.subplots_adjust(**MARGINS)
    axes = figure.subplots()
    for label, values in series.items():
        whole = values.dtype == int and len(values)
        bins = [n - 0.5 for n in range(values.min(), values.max() + 2)] if whole else 30
        axes.hist(values.astype(float), bins=bins, histtype="stepfilled", alpha=0.7, label=label or None)
    axes.set(title=title, xlabel=unit, ylabel="count")
    if len(series) > 1:
        axes.legend()
    return svg(figure, title)


def svg(figure: Figure, title: str) -> str:
    """The figure as an element of a page. Its ids get a prefix, because no other figure may have the same."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text[text.index("<svg") :], flags=re.DOTALL)
    return re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{title.split()[0].lower()}-", text)
