"""Fill the template of the page to listen on. pandas and Jinja2 only."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import pandas as pd

from sao.data.findings import Findings
from sao.evaluation.measures import MEASURES
from sao.evaluation.printed import corrected, difference, interval, notes, with_unit
from sao.evaluation.verdict import COMPARED_BY, clearly
from sao.pages.templates import template
from sao.sound.suffixes import page_suffix

DIGITS = 3
NAMED = 20  # clips that are named per reason for leaving out; the corpus's own page has more
SHOWN = {measure.key: measure.shown for measure in MEASURES if measure.shown}  # figures beside a sound
NEARNESS = "log_mel_distance"  # which says what is heard first
RECORDING = "recording"


@dataclass(frozen=True)
class Trained:
    """A run on the page: its training.json, and its pictures in the folder of the page."""

    training: dict[str, Any]
    pictures: list[dict[str, str]]


def figures_of(clip: dict[str, Any], prefix: str = "") -> list[tuple[str, str, float, str]]:
    """`(key, name, value, text)` of a clip's figures. Keys in `clip` may end in an embedding: `clap_score/…`."""
    figures = []
    for key, shown in SHOWN.items():
        for full in sorted(full for full in clip if full.split("/")[0] == prefix + key):
            label = f"{shown.name} ({full.split('/', 1)[1]})" if "/" in full else shown.name
            figures.append((key, label, clip[full], shown.form.format(clip[full])))
    return figures


def copy_warnings(clip: dict[str, Any]) -> list[str]:
    """Warnings about training clips that are nearer to a sound than to any recording that was held out."""
    spaces: dict[str, list[str]] = {}
    for key, value in clip.items():
        if key.startswith("memorised/") and value:
            space = key.split("/", 1)[1]
            spaces.setdefault(clip[f"nearest_train/{space}"], []).append(space)
    return [f"near copy of training clip {near} ({', '.join(names)})" for near, names in spaces.items()]


def made_from(row: Any) -> str:
    """How a sound was made from its source, in a few words; empty if it has none. `row` is of samples.csv."""
    if not row.source:
        return ""
    mask = f"{float(row.mask_start):g} to {float(row.mask_end):g} s made anew" if row.mask_start else ""
    noise = f"source noised to {float(row.init_noise_level):g}" if row.init_noise_level else ""
    return ", ".join(filter(None, (mask, noise)))


def beside_cell(name: str, kind: str, clip: str, path: str, figures: list[tuple[str, str]]) -> dict[str, Any]:
    """The cell of a sound that no model made. `kind` is its folder, `path` its file before it came to the page."""
    return {
        "name": name,
        "is_model": False,
        "sound": f"{kind}/{clip}{page_suffix(path)}",
        "picture": f"spectrograms/{kind}/{clip}.webp",
        "figures": figures,
        "warnings": [],
    }


def clip_entries(samples: pd.DataFrame, summary: dict[str, Any]) -> list[dict[str, Any]]:
    """One entry per clip, evaluation first: the recording or the source, then every model. Paths are relative to the page.

    A split opens with its best and its worst clip.
    """
    entries = []
    for (split, clip), group in samples.groupby(["split", "clip_id"], sort=True):
        first = next(group.itertuples())
        models: list[dict[str, Any]] = []
        sortable: dict[str, float] = {}
        for row in group.itertuples():
            figures = summary["runs"][row.run]["clips"][clip]
            shown = figures_of(figures)
            sortable |= {f"{name}, {row.run}": value for key, name, value, _ in shown if SHOWN[key].sortable}
            models.append(
                {
                    "name": row.run,
                    "is_model": True,
                    "sound": f"{row.run}/{row.file}",
                    "picture": f"spectrograms/{row.run}/{clip}.webp",
                    "figures": [("Duration", f"{row.seconds:.2f} s"), *((name, text) for _, name, _, text in shown)],
                    "warnings": [*([row.warning] if row.warning else []), *copy_warnings(figures)],
                }
            )
        beside = []
        if first.reference:  # every model's figures have the same facts of the recording
            figures = summary["runs"][first.run]["clips"][clip]
            recorded = [("Duration", f"{figures['reference_seconds']:.2f} s")]
            recorded += [(name, text) for _, name, _, text in figures_of(figures, "reference_")]
            beside.append(beside_cell(RECORDING, "reference", str(clip), str(first.reference), recorded))
        if first.source:
            beside.append(beside_cell("source", "source", str(clip), str(first.source), []))
        entries.append(
            {
                "id": clip,
                "split": split,
                "prompt": first.prompt,
                "negative_prompt": first.negative_prompt,
                "seconds": first.seconds,
                "seed": first.seed,
                "made_from": made_from(first),
                "place": "",
                "figures": sortable,
                "odd": any(model["warnings"] for model in models),
                "cells": beside + models,
            }
        )
    return with_extremes_first(entries, str(samples.run.iloc[-1]))


def with_extremes_first(entries: list[dict[str, Any]], model: str) -> list[dict[str, Any]]:
    """Entries by split, and in each split first the best and the worst clip of a model, by its distance to the recording.

    Nobody chooses what a listener hears first. The other clips stay in their order.
    """
    figure = f"{SHOWN[NEARNESS].name}, {model}"
    ordered: list[dict[str, Any]] = []
    for split in dict.fromkeys(entry["split"] for entry in entries):
        rest = [entry for entry in entries if entry["split"] == split]
        measured = sorted((e for e in rest if figure in e["figures"]), key=lambda e: e["figures"][figure])
        if len(measured) > 2:
            for place, entry in (("best", measured[0]), ("worst", measured[-1])):
                ordered.append(entry | {"place": f"{place} of {len(measured)} by {figure}"})
                rest.remove(entry)
        ordered += rest
    return ordered


def measure_rows(summary: dict[str, Any], models: list[str]) -> dict[str, list[dict[str, Any]]]:
    """By split, evaluation first: one row per measure, with one cell per model.

    A cell begins with the difference to the base model. It is bold if the whole interval of the difference is better than zero.
    """
    by_model = {name: {m["key"]: m for m in summary["runs"][name]["measures"]} for name in models}
    splits: dict[str, list[dict[str, Any]]] = {}
    for key, first in {key: m for by_key in by_model.values() for key, m in by_key.items()}.items():
        best = summary["best"].get(key)
        cells = [
            {
                "difference": difference(m, DIGITS) if m and m["difference"] is not None else "",
                "text": interval(m, DIGITS),
                "n": m["n"] if m and m["value"] is not None else None,
                "better": m is not None and clearly(m) == "better",
            }
            for m in (by_model[name].get(key) for name in models)
        ]
        elsewhere = f"{best['run']}, {best['value']:.3g}" if best and best["run"] not in models else ""
        among = best["among"] if best else 0
        row = {"name": with_unit(first), "better": first["better"], "elsewhere": elsewhere, "among": among}
        splits.setdefault(first["split"], []).append(row | {"cells": cells})
    return dict(sorted(splits.items(), key=lambda item: (item[0] != COMPARED_BY, item[0])))


def corrections(summary: dict[str, Any]) -> list[str]:
    """What the intervals of differences hold for: one sentence for each number of models that share a base."""
    numbers = sorted({summary["runs"][name]["comparisons"] for name in summary["verdicts"]})
    return [corrected(summary["settings"]["level"], number) for number in numbers]


def spread_rows(summary: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """By family of seeds: one row per measure, with mean and standard deviation over its runs."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for family, measures in summary["spreads"].items():
        for m in sorted(measures, key=lambda m: (m["split"] != "evaluation", m["split"])):
            text = f"{m['mean']:.{DIGITS}g} ± {m['deviation']:.2g}"
            rows.setdefault(family, []).append(m | {"text": text})
    return rows


def corpus_entry(report: dict[str, Any], dropped: list[pd.DataFrame], page: str) -> dict[str, Any]:
    """A corpus on the page: its clips, and those that were left out, with the reasons. `report` is its validation.json."""
    left_out = [*report["left_out"], *(row for table in dropped for row in table.to_dict("records"))]
    reasons = Counter(entry["check"] for entry in left_out)
    return {
        "name": report["corpus"],
        "page": page,
        "clips": sum(report["clips"].values()),
        "dropped": reasons.total(),
        "reasons": ", ".join(f"{check}: {count}" for check, count in sorted(reasons.items())),
        "left_out": Findings.first(left_out, NAMED),
        "warnings": len(report["warnings"]),
        "licenses": ", ".join(f"{name}: {count}" for name, count in report["licenses"].items()),
    }


def flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested settings to dotted keys."""
    out: dict[str, Any] = {}
    for key, value in settings.items():
        out |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {f"{prefix}{key}": value}
    return out


def render_page(
    samples: pd.DataFrame,
    summary: dict[str, Any],
    runs: dict[str, Trained],
    rendering: dict[str, dict[str, Any]],
    corpora: list[dict[str, Any]],
    version: str,
) -> str:
    """The page as HTML. Its paths are relative to its folder.

    `samples` is samples.csv, `summary` is evaluation/summary.json, and `rendering` has the rendering settings of each run.
    `version` names this state of the sounds; a listener's votes belong to it.
    """
    models = list(dict.fromkeys(samples.run))
    clips = clip_entries(samples, summary)
    settings = {name: flat(trained.training["settings"] | rendering[name]) for name, trained in runs.items()}
    return template("samples.html.j2").render(
        models=models,
        clips=clips,
        splits=list(dict.fromkeys(clip["split"] for clip in clips)),
        sortable=list(dict.fromkeys(key for clip in clips for key in clip["figures"])),
        measures=measure_rows(summary, models),
        notes=notes(m for name in models for m in summary["runs"][name]["measures"]),
        spreads=spread_rows(summary),
        level=summary["settings"]["level"],
        verdicts=summary["verdicts"],
        corrected=corrections(summary),
        corpora=corpora,
        runs=[
            {"name": name, "pictures": trained.pictures, "settings": settings[name]} for name, trained in runs.items()
        ],
        settings=list(dict.fromkeys(key for of_run in settings.values() for key in of_run)),
        version=version,
    )  # fmt: skip
