"""Fill the template of the page to listen on. pandas and Jinja2 only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

import pandas as pd

from sao.base.names import seed_for
from sao.base.tables import each
from sao.base.takes import clip_and_take
from sao.config.resolve import ROLES
from sao.data.findings import Findings
from sao.evaluation.measure import OfSound
from sao.evaluation.measures import MEASURES
from sao.evaluation.printed import corrected, difference, interval, notes, with_unit
from sao.evaluation.verdict import COMPARED_BY, clearly
from sao.evaluation.votes import Tally, sentence
from sao.pages.templates import template
from sao.pages.words import leg_count, leg_text
from sao.rendering.prompts import SPLIT as PROMPTS
from sao.sound.suffixes import page_suffix

DIGITS = 3
NAMED = 20  # clips that are named per reason for leaving out; the corpus's own page has more
SHOWN = {measure.key: measure.shown for measure in MEASURES if measure.shown}  # figures beside a sound
NEARNESS = "log_mel_distance"  # which says how hard a clip is
LOUDNESS = "loudness_lufs"  # which says how much a player lowers a sound
RECORDING = "recording"
NAMED_RUNS = 5  # runs that the first sentence names
SPLITS = (PROMPTS, *reversed(ROLES))  # in the order of the page
TECHNICAL = frozenset(measure.key for measure in MEASURES if isinstance(measure, OfSound))


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


def sound_of(row: Any, told: dict[str, Any]) -> dict[str, Any]:
    """One sound of a model on the page. `row` is of samples.csv, and `told` is the model's part of the summary."""
    figures = told["clips"][row.clip_id]
    return {
        "sound": f"{row.run}/{row.file}",
        "picture": f"spectrograms/{row.run}/{row.clip_id}.webp",
        "seconds": row.seconds,
        "take": row.take,
        "leg": leg_text(told["leg"]) if told["leg"] else "",
        "sha256": row.sha256,
        "loudness": figures.get(LOUDNESS),
        "figures": [("Duration", f"{row.seconds:.2f} s"), *((name, text) for _, name, _, text in figures_of(figures))],
        "warnings": [*([row.warning] if row.warning else []), *copy_warnings(figures)],
    }


def model_cell(name: str, rows: list[Any], summary: dict[str, Any]) -> dict[str, Any]:
    """The cell of a model: its takes, and those of its legs. It opens with the first take of the model itself.

    A leg that is the model itself (`checkpoint: best`) is there once.
    """
    own = summary["runs"][name]["leg"]
    told = [(row, summary["runs"][row.run]) for row in rows]
    kept = [(row, of) for row, of in told if row.run == name or of["leg"] != own]
    kept.sort(key=lambda pair: (pair[1]["step"], pair[0].take))
    sounds = [sound_of(*pair) for pair in kept]
    opens = next(at for at, (row, _) in enumerate(kept) if row.run == name and row.take == 1)
    return {"name": name, "is_model": True, "opens": opens, "sounds": sounds}


def beside_cell(name: str, kind: str, clip: str, path: str, seconds: float, figures: dict[str, Any]) -> dict[str, Any]:
    """The cell of a sound that no model made. `kind` is its folder, `path` its file before it came to the page.

    `figures` are those of a clip, which may have some of its recording.
    """
    sound = {
        "sound": f"{kind}/{clip}{page_suffix(path)}",
        "picture": f"spectrograms/{kind}/{clip}.webp",
        "seconds": seconds,
        "take": 1,
        "leg": "",
        "sha256": "",
        "loudness": figures.get(f"reference_{LOUDNESS}"),
        "figures": [("Duration", f"{seconds:.2f} s"), *((name, text) for _, name, _, text in figures_of(figures, "reference_"))],
        "warnings": [],
    }  # fmt: skip
    return {"name": name, "is_model": False, "opens": 0, "sounds": [sound]}


def clip_entries(
    samples: pd.DataFrame, summary: dict[str, Any], sources: Mapping[str, float | None]
) -> list[dict[str, Any]]:
    """One entry per prompt: the recording or the source, then every model. Paths are relative to the page.

    A user's own prompts come first, in the order of their ids, then the clips of each split in an order drawn by lot.
    """
    entries = []
    clips = samples.clip_id.map(lambda sound: clip_and_take(sound)[0])
    for (split, clip), group in samples.groupby([samples.split, clips], sort=True):
        first, by_model = next(each(group)), dict[str, list[Any]]()
        for row in each(group):
            by_model.setdefault(model_of(str(row.run)), []).append(row)
        models = [model_cell(name, rows, summary) for name, rows in by_model.items()]
        figures = summary["runs"][first.run]["clips"][clip]  # all models' have the same facts of the recording
        beside = []
        if first.reference:
            seconds = figures["reference_seconds"]
            beside.append(beside_cell(RECORDING, "reference", str(clip), str(first.reference), seconds, figures))
        if first.source:
            measured = sources.get(str(clip))
            facts = {} if measured is None else {f"reference_{LOUDNESS}": measured}
            beside.append(beside_cell("source", "source", str(clip), str(first.source), first.seconds, facts))
        entries.append(
            {
                "id": clip,
                "split": split,
                "corpus": first.corpus,
                "prompt": first.prompt,
                "negative_prompt": first.negative_prompt,
                "seconds": first.seconds,
                "seed": first.seed,
                "made_from": made_from(first),
                "figures": sortable(str(clip), list(by_model), summary),
                "odd": any(sound["warnings"] for model in models for sound in model["sounds"]),
                "cells": beside + models,
            }
        )
    return sorted(entries, key=lambda entry: place_of(entry["split"], entry["id"]))


def model_of(run: str) -> str:
    """The model that a name in the column `run` belongs to: a leg belongs to its run."""
    return run.partition("@")[0]


def sortable(clip: str, models: list[str], summary: dict[str, Any]) -> dict[str, float]:
    """The figures of a clip that prompts can be sorted by: those of each model's first take."""
    return {
        f"{name}, {model}": value
        for model in models
        for key, name, value, _ in figures_of(summary["runs"][model]["clips"][clip])
        if SHOWN[key].sortable
    }


def place_of(split: str, clip: str) -> tuple[int, int, str]:
    """The place of a prompt on the page: a user's own first, then held-out clips, drawn by lot.

    Nobody chooses what a listener hears first. Other clips can come and go without changing the order of these.
    """
    return SPLITS.index(split), 0 if split == PROMPTS else seed_for("page", clip), clip


def vote_rows(votes: Tally, models: list[str]) -> dict[str, list[dict[str, Any]]]:
    """By split: one row per model that others were compared with in blind tests, in the form of `measure_rows`.

    A share is bold if its whole interval is above a half.
    """
    by_pair = {(pair["split"], pair["first"], pair["second"]): pair for pair in votes["pairs"]}
    splits: dict[str, list[dict[str, Any]]] = {}
    for split, first in dict.fromkeys((split, first) for split, first, _ in by_pair):
        pairs = [by_pair.get((split, first, model)) for model in models]
        cells = [
            {
                "difference": interval({"value": pair["share"], "low": pair["low"], "high": pair["high"]}, DIGITS),
                "text": "",
                "n": pair["first_better"] + pair["second_better"],
                "better": pair["low"] is not None and pair["low"] > 0.5,
            }
            if pair
            else {"difference": "", "text": "", "n": None, "better": False}
            for pair in pairs
        ]
        row = {"name": f"Better than {first} in blind tests (share of prompts)", "better": "higher", "elsewhere": ""}
        splits.setdefault(split, []).append(row | {"among": 0, "technical": False, "cells": cells})
    return splits


def measure_rows(
    summary: dict[str, Any], models: list[str], votes: Tally | None = None
) -> dict[str, list[dict[str, Any]]]:
    """By split, evaluation first: one row per measure, with one cell per model.

    A cell begins with the difference to the base model. It is bold if the whole interval of the difference is better than zero.
    """
    by_model = {name: {m["key"]: m for m in summary["runs"][name]["measures"]} for name in models}
    splits = vote_rows(votes, models) if votes else {}
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
        row["technical"] = first["measure"] in TECHNICAL
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


def trained(runs: dict[str, Trained], summary: dict[str, Any]) -> str:
    """What was trained on what, in one sentence."""
    by_start: dict[tuple[str, str, int], list[tuple[str, str]]] = {}
    for name, run in runs.items():
        settings, leg = run.training["settings"], summary["runs"][name]["leg"]
        method = "all weights" if settings["method"] == "full" else f"adapter {settings['method']}"
        key = (settings["base_model"], settings["corpus"], run.training["training_clips"])
        how = f"{method}, {leg_count(leg)} of {run.training['batch']} clips"
        by_start.setdefault(key, []).append((name, how))
    parts = []
    for (base_model, corpus, clips), told in by_start.items():
        fine_tuned = f"base model {base_model}, fine-tuned on {clips:,} clips of the corpus {corpus}"
        if len(told) == 1:
            parts.append(f"{told[0][0]} is the {fine_tuned} ({told[0][1]})")
            continue
        names = ", ".join(f"{name} ({how})" for name, how in told[:NAMED_RUNS])
        more = f" and {len(told) - NAMED_RUNS} more" if len(told) > NAMED_RUNS else ""
        parts.append(f"{names}{more} are the {fine_tuned}")
    return f"{'; '.join(parts)}."


def render_page(
    samples: pd.DataFrame,
    summary: dict[str, Any],
    runs: dict[str, Trained],
    rendering: dict[str, dict[str, Any]],
    corpora: list[dict[str, Any]],
    version: str,
    votes: Tally | None = None,
    sources: Mapping[str, float | None] = MappingProxyType({}),
) -> str:
    """The page as HTML. Its paths are relative to its folder.

    `samples` is samples.csv, `summary` is evaluation/summary.json, and `rendering` has the rendering settings of each run.
    `version` names this state of the sounds; a listener's votes belong to it. `votes` are those that were counted, `sources` has the
    loudness in LUFS of the sounds that prompts start from.
    """
    models = list(dict.fromkeys(map(model_of, samples.run)))
    clips = clip_entries(samples, summary, sources)
    settings = {name: flat(trained.training["settings"] | rendering[name]) for name, trained in runs.items()}
    return template("samples.html.j2", sentence=sentence, for_player=for_player).render(
        title=", ".join(list(runs)[:NAMED_RUNS]) + (" …" if len(runs) > NAMED_RUNS else ""),
        trained=trained(runs, summary),
        models=models,
        clips=clips,
        takes=int(samples["take"].max()),
        legs=legs_of(clips),
        splits=list(dict.fromkeys(clip["split"] for clip in clips)),
        named_corpora=sorted({clip["corpus"] for clip in clips} - {""}),
        nearness=f"{SHOWN[NEARNESS].name}, {models[-1]}",
        sortable=list(dict.fromkeys(key for clip in clips for key in clip["figures"])),
        measures=measure_rows(summary, models, votes),
        notes=notes(m for name in models for m in summary["runs"][name]["measures"]),
        spreads=spread_rows(summary),
        level=summary["settings"]["level"],
        verdicts=[(name, summary["verdicts"][name]) for name in models if name in summary["verdicts"]],
        told_first=NAMED_RUNS,
        corrected=corrections(summary),
        corpora=corpora,
        runs=[
            {"name": name, "pictures": trained.pictures, "settings": settings[name]} for name, trained in runs.items()
        ],
        settings=list(dict.fromkeys(key for of_run in settings.values() for key in of_run)),
        version=version,
        votes=votes,
    )  # fmt: skip


def legs_of(clips: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """By model: all legs that can be heard, in order, and the one that the page opens with. Only models with several."""
    legs: dict[str, dict[str, Any]] = {}
    for clip in clips:
        for cell in clip["cells"]:
            found = list(dict.fromkeys(sound["leg"] for sound in cell["sounds"]))
            if len(found) > 1:
                legs.setdefault(cell["name"], {"all": found, "opens": cell["sounds"][cell["opens"]]["leg"]})
    return legs


def for_player(sounds: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The sounds of a cell, with addresses in place of paths. What is on the page already is left out of a sound without others."""
    left_out = {"figures", "warnings"} if len(sounds) == 1 else set()
    told = ({key: value for key, value in sound.items() if key not in left_out} for sound in sounds)
    return [sound | {key: quote(sound[key]) for key in ("sound", "picture")} for sound in told]
