"""Draw the losses of a run, and find its best leg by validation loss."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sao.base.command import log, parse, run

import pandas as pd
from sao.base.files import read_json, whole, write_json
from sao.base.tables import read_table


def best_leg(legs: list[dict[str, Any]]) -> dict[str, Any]:
    """The first `training.json` with the lowest validation loss."""
    return min(legs, key=lambda leg: leg["validation_loss"])


AT_TIMESTEP = re.compile(r"validation_loss_([0-9.]+)")
OF_CORPUS = re.compile(r"validation_loss_of_(.+)")


def matched(table: pd.DataFrame, pattern: re.Pattern[str]) -> Iterator[tuple[str, str]]:
    """The columns whose whole name matches, each with the pattern's group."""
    for column in map(str, table.columns):
        if match := pattern.fullmatch(column):
            yield column, match[1]


def draw(table: pd.DataFrame, best: int, title: str, path: Path) -> None:
    """Training and validation loss by step, the best leg marked. Beside it the validation loss of each timestep."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams |= {"svg.hashsalt": "loss", "font.size": 10}
    from matplotlib import pyplot

    figure, (axes, beside) = pyplot.subplots(1, 2, figsize=(10, 3.5), width_ratios=(3, 2), layout="constrained")
    axes.plot(table.step, table.train_loss, label="training")
    validated = table.dropna(subset="validation_loss")
    axes.plot(validated.step, validated.validation_loss, marker="o", label="validation")
    for column, found in matched(table, OF_CORPUS):
        axes.plot(validated.step, validated[column].astype(float), marker=".", label=f"validation, {found}")
    axes.axvline(best, color="0.6", linestyle=":", label=f"best leg, step {best}")
    axes.set(xlabel="step", ylabel="loss", title=title)
    for column, found in matched(table, AT_TIMESTEP):
        beside.plot(validated.step, validated[column].astype(float), marker=".", label=found)
    beside.set(xlabel="step", title="validation by timestep (1: noise)")
    for panel in (axes, beside):
        panel.grid(alpha=0.3)
        panel.legend()
    with whole(path) as temporary:
        figure.savefig(temporary, format="svg", metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", required=True)
    parser.add_argument("--metrics", type=Path, required=True, help="metrics.csv of the last leg, which has all rows")
    parser.add_argument("--leg", type=Path, required=True, nargs="+", help="training.json of each leg")
    parser.add_argument("--output", type=Path, required=True, help="metrics.csv of the run")
    parser.add_argument("--picture", type=Path, required=True, help="SVG")
    parser.add_argument("--summary", type=Path, required=True, help="training.json of the run")
    args = parse(parser)

    legs = [read_json(path) for path in args.leg]
    best = best_leg(legs)
    draw(read_table(args.metrics), best["steps"], args.run, args.picture)
    with whole(args.output) as temporary:
        temporary.write_bytes(args.metrics.read_bytes())
    losses = {leg["leg"]: leg["validation_loss"] for leg in legs}
    write_json(args.summary, legs[-1] | {"best_leg": best["leg"], "validation_losses": losses})
    log.info("%s: best leg %s, validation loss %.4f", args.run, best["leg"], best["validation_loss"])


if __name__ == "__main__":
    run(main)
