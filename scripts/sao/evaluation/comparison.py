"""Compare the measures of runs: one table of all, the best run by each measure, spreads over seeds, curves over steps."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sao.base.files import whole
from sao.evaluation.measures import MEASURES

COLUMNS = (
    "split",
    "measure",
    "embedding",
    "name",
    "difference",
    "difference_low",
    "difference_high",
    "difference_n",
    "value",
    "low",
    "high",
    "n",
    "n_reference",
    "unit",
    "better",
    "note",
)
DRAWN = [measure.key for measure in MEASURES if measure.drawn]


def table(evaluations: list[dict[str, Any]]) -> pd.DataFrame:
    """One row for each model and measure."""
    rows = [
        {"run": evaluation["name"], "step": evaluation["step"]} | {column: measure[column] for column in COLUMNS}
        for evaluation in evaluations
        for measure in evaluation["measures"]
    ]
    return pd.DataFrame(rows, columns=["run", "step", *COLUMNS]).astype({"n_reference": "Int64"})


def best(evaluations: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """For each measure that has a better direction, by its key, the run and step with the best value. Of equals it is the first.

    It is told with the number of models that it was chosen among, and with the split whose clips it was chosen by: on other
    clips the best of several may do worse.
    """
    values: dict[str, list[tuple[dict[str, Any], dict[str, Any]]]] = {}
    for evaluation in evaluations:
        for measure in evaluation["measures"]:
            if measure["value"] is not None and measure["better"]:
                values.setdefault(measure["key"], []).append((evaluation, measure))
    winners = {}
    for key, pairs in values.items():
        pick = min if pairs[0][1]["better"] == "lower" else max
        winner, measure = pick(pairs, key=lambda pair: pair[1]["value"])
        winners[key] = {"run": winner["name"], "leg": winner["leg"], "step": winner["step"]} | {
            "value": measure["value"],
            "chosen_on": measure["split"],
            "among": len(pairs),
        }
    return winners


def legs_of(run: str, evaluations: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The evaluations of a run and its legs, and that of its base model, which is step 0."""
    own = [evaluation for evaluation in evaluations if evaluation["run"] == run]
    same = [[evaluation[key] for key in ("base_model", "corpus")] for evaluation in own[:1]]
    bases = [e for e in evaluations if e["run"] is None and [e["base_model"], e["corpus"]] in same]
    return bases[:1] + own  # the first is in the training's window, the next one, if there is any, in its own


def spreads(families: dict[str, list[str]], evaluations: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """By family of runs that differ only in their seed: mean and standard deviation of each measure over these runs."""
    by_name = {evaluation["name"]: evaluation["measures"] for evaluation in evaluations}
    out: dict[str, list[dict[str, Any]]] = {}
    for family, members in families.items():
        values: dict[str, list[dict[str, Any]]] = {}
        for measure in (measure for name in members for measure in by_name[name] if measure["value"] is not None):
            values.setdefault(measure["key"], []).append(measure)
        out[family] = [
            {key: same[0][key] for key in ("key", "split", "name", "unit", "better")}
            | {"mean": statistics.fmean(each), "deviation": statistics.stdev(each), "runs": len(each)}
            for same in values.values()
            if len(each := [measure["value"] for measure in same]) > 1
        ]
    return out


def draw(legs: list[dict[str, Any]], title: str, path: Path) -> None:
    """The main measures by step with their intervals, one panel for each."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams |= {"svg.hashsalt": "evaluation", "font.size": 9}
    from matplotlib import pyplot

    lines: dict[tuple[str, str], dict[str, list[tuple[Any, ...]]]] = {}
    for leg in legs:
        for m in leg["measures"]:
            if m["measure"] in DRAWN and m["value"] is not None:
                panel = lines.setdefault((m["measure"], m["name"]), {})
                panel.setdefault(m["split"], []).append((leg["step"], m["value"], m["low"], m["high"], m["n"]))
    lines = dict(sorted(lines.items(), key=lambda item: DRAWN.index(item[0][0])))
    rows = -(-len(lines) // 2)
    figure, axes = pyplot.subplots(rows, 2, figsize=(9, 2.6 * rows), layout="constrained", squeeze=False)
    for (_, name), panel, splits in zip(lines, axes.flat, lines.values(), strict=False):
        for split, points in splits.items():
            step, value, low, high, n = zip(*sorted(set(points)), strict=True)
            (line,) = panel.plot(step, value, marker="o", label=f"{split}, n = {max(n)}")
            bounds = (np.array(bound, dtype=float) for bound in (low, high))  # NaN where there is no interval
            panel.fill_between(step, *bounds, alpha=0.2, color=line.get_color())
        panel.set_title(name, fontsize=9)
        panel.set_xlabel("step")
        panel.grid(alpha=0.3)
        panel.legend()
    for panel in axes.flat[len(lines) :]:
        panel.axis("off")
    figure.suptitle(title)
    with whole(path) as temporary:
        figure.savefig(temporary, format="svg", metadata={"Date": None})
    pyplot.close(figure)
