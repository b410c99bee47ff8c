"""Collect the renders of all runs in one folder, with recordings, figures, pictures, a table and a page to listen on."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from sao.base.command import log, parse

import pandas as pd
from sao.base import command
from sao.base.files import link_or_copy, read_json, sha256, whole_folder
from sao.base.names import corpus_of
from sao.base.tables import read_table, write_table
from sao.base.takes import clip_and_take, is_first_take
from sao.config.settings import add_settings
from sao.evaluation.signals import loudness
from sao.pages.samples import Trained, corpus_entry, render_page
from sao.pages.sounds import bring
from sao.rendering.prompts import SPLIT as PROMPTS
from sao.rendering.table import BESIDE, read_renders
from sao.sound.spectra import read_sound


def collect(args: argparse.Namespace, output: Path) -> pd.DataFrame:
    """Fill the folder `output`, and return the table of the sounds."""
    summary, tables = read_json(args.evaluation), []
    sources: dict[str, float | None] = {}  # loudness of the sounds that prompts start from, by clip
    for run, path, folder, drawn in zip(args.run, args.table, args.render, args.spectrograms, strict=True):
        table = read_renders(path, folder)
        table["run"] = run  # `base` if there is only one base model
        table["take"] = [clip_and_take(sound)[1] for sound in table.clip_id]
        table["corpus"] = [
            "" if split == PROMPTS else corpus_of(clip) or summary["runs"][run]["corpus"]
            for clip, split in zip(table.clip_id, table.split, strict=True)
        ]
        table["sha256"] = [sha256(Path(sound)) for sound in table.sound]
        for row in table.itertuples():
            link_or_copy(Path(str(row.sound)), output / run / str(row.file))
            link_or_copy(drawn / f"{row.clip_id}.webp", output / "spectrograms" / run / f"{row.clip_id}.webp")
            for kind in BESIDE if is_first_take(str(row.clip_id)) else ():
                if path := getattr(row, kind):
                    sound = Path(str(path))
                    bring(sound, output / kind / f"{row.clip_id}{sound.suffix}", output.parent / "data")
        for row in table[(table.source != "") & (table["take"] == 1)].itertuples():
            if row.clip_id not in sources:
                sources[str(row.clip_id)] = loudness(*read_sound(Path(str(row.source))))
        for kind in BESIDE:
            for picture in (drawn / kind).glob("*"):
                link_or_copy(picture, output / "spectrograms" / kind / picture.name)
        tables.append(table.drop(columns="sound"))
    samples = pd.concat(tables, ignore_index=True)
    write_table(output / "samples.csv", samples)

    steps = {path.stem: path for path in args.steps}
    runs = {}
    for path, curve in zip(args.training, args.curve, strict=True):
        training = read_json(path)
        run = training["run"]
        best = f"{training['best_leg']}, validation loss {training['validation_losses'][training['best_leg']]:.4g}"
        pictures = {"loss": (curve, f"Training and validation loss of {run} by step", f"{run}: best leg {best}")}
        if run in steps:
            pictures["measures"] = (steps[run], f"Measures of {run} by step", f"{run}: measures by step")
        for name, (source, _, _) in pictures.items():
            link_or_copy(source, output / "curves" / f"{run}-{name}.svg")
        runs[run] = Trained(
            training,
            [
                {"file": f"curves/{run}-{name}.svg", "alt": alt, "caption": caption}
                for name, (_, alt, caption) in pictures.items()
            ],
        )
    corpora = []
    for path in args.report:
        report = read_json(path)
        page = f"corpora/{report['corpus']}.html"
        link_or_copy(path.with_suffix(".html"), output / page)
        paths = zip(args.corpus, args.dropped, strict=True)
        dropped = [read_table(table) for corpus, table in paths if corpus == report["corpus"]]
        corpora.append(corpus_entry(report, dropped, page))

    version = sha256(output / "samples.csv")[:16]
    votes = read_json(args.votes) if args.votes else None
    page = render_page(samples, summary, runs, args.settings, corpora, version, votes, sources)
    (output / "index.html").write_text(page, encoding="utf-8")
    return samples


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", required=True, nargs="+", help="names of the base models, runs and legs")
    parser.add_argument("--table", type=Path, required=True, nargs="+", help="tables of the renders, in that order")
    parser.add_argument("--render", type=Path, required=True, nargs="+", help="folders of the renders, in that order")
    parser.add_argument("--spectrograms", type=Path, required=True, nargs="+", help="their spectrograms, in that order")
    parser.add_argument("--evaluation", type=Path, required=True, help="summary.json")
    parser.add_argument("--votes", type=Path, nargs="?", help="votes.json, the count of the votes of blind tests")
    parser.add_argument("--steps", type=Path, nargs="*", default=[], help="<run>.svg of the measures by step")
    parser.add_argument("--training", type=Path, required=True, nargs="+", help="training.json of the runs")
    parser.add_argument("--curve", type=Path, required=True, nargs="+", help="SVG of their losses, in that order")
    add_settings(parser, dict[str, Any], help="rendering settings by run")
    parser.add_argument("--report", type=Path, required=True, nargs="+", help="validation.json of the corpora")
    parser.add_argument(
        "--dropped", type=Path, required=True, nargs="+", help="dropped.csv beside the dataset configs of the runs"
    )
    parser.add_argument("--corpus", required=True, nargs="+", help="the corpora of these, in that order")
    parser.add_argument("--output", type=Path, required=True)
    args = parse(parser)

    with whole_folder(args.output) as folder:
        samples = collect(args, folder)
    odd = int((samples.warning != "").sum())
    log.info("%d samples of %d runs, %d with a warning", len(samples), samples.run.nunique(), odd)
    log.info("listen: %s", (args.output / "index.html").as_posix())


if __name__ == "__main__":
    command.run(main)
