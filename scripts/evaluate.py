"""Measure the renders of one model against the recordings and the training clips, and as signals. Reads no sound."""

from __future__ import annotations

import argparse
from pathlib import Path

from sao.base.command import InputError, log, parse, run

import pandas as pd
from sao.base.files import read_json, write_json
from sao.base.tables import read_table, write_table
from sao.config.settings import EvaluateSettings, add_settings
from sao.evaluation.embedded import Embedded, stack
from sao.evaluation.embeddings import THUMBNAIL, find
from sao.evaluation.evaluate import Evaluation, clip_figures, clip_table
from sao.evaluation.measures import MEASURES
from sao.evaluation.printed import difference, interval
from sao.evaluation.signal_set import Signals
from sao.evaluation.verdict import verdict


def thumbnails(clips: list[str], splits: list[str], signals: Signals) -> Embedded:
    """The thumbnails of renders."""
    vectors = stack([signals.thumbnail(clip) for clip in clips])
    return Embedded(clips, splits, vectors, None, THUMBNAIL.provenance)


def read_embedded(path: Path, clips: list[str]) -> Embedded:
    """The vectors of these clips, in this order. Raises InputError if a clip is missing."""
    embedded = Embedded.read(path)
    missing = sorted(set(clips) - set(embedded.ids))
    if missing:
        raise InputError(f"{path}: has no embedding of clip {missing[0]}: delete it and run again")
    return embedded.of(clips)


def read_base(path: Path, clips: list[str]) -> pd.DataFrame:
    """The base model's figures of each clip. Raises InputError if a clip is missing."""
    table = pd.read_csv(
        path, dtype={"clip_id": str}, keep_default_na=False, na_values=[""], float_precision="round_trip"
    )
    missing = sorted(set(clips) - set(table.clip_id))
    if missing:
        raise InputError(f"{path}: has no clip {missing[0]}: delete it and run again")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", required=True, help="name of the base model, run or leg that is measured")
    add_settings(parser, EvaluateSettings)
    parser.add_argument("--table", type=Path, required=True, help="table of its renders")
    parser.add_argument(
        "--weights-digest", type=Path, nargs="?", help="export.json of a fine-tuned model, which names its leg"
    )
    parser.add_argument("--embedded", type=Path, required=True, nargs="+", help="its renders' .npz by embedding")
    parser.add_argument("--recordings", type=Path, required=True, nargs="+", help="the corpus's .npz by embedding")
    parser.add_argument("--thumbnails", type=Path, required=True, help="the corpus's .npz of log-mel thumbnails")
    parser.add_argument("--signals", type=Path, required=True, help="its renders as signals")
    parser.add_argument(
        "--recorded-signals", type=Path, required=True, help="the recordings of the same clips as signals"
    )
    parser.add_argument("--base-clips", type=Path, nargs="?", help="the base model's CSV, of a fine-tuned model")
    parser.add_argument("--base-embedded", type=Path, nargs="*", default=[], help="its renders' .npz by embedding")
    parser.add_argument("--output", type=Path, required=True, help="JSON")
    parser.add_argument("--clips", type=Path, required=True, help="CSV, one row per clip")
    args = parse(parser)
    settings = {key: args.settings[key] for key in ("bootstrap", "level", "seed")}

    rows = read_table(args.table)
    if rows.empty:
        raise InputError(f"{args.table}: lists no clip: nothing to measure")
    clips, signals = rows.clip_id.tolist(), Signals(args.signals)
    table = clip_table(rows, signals, Signals(args.recorded_signals))
    base = read_base(args.base_clips, clips) if args.base_clips else None
    result = Evaluation(
        table, settings["bootstrap"], settings["seed"], settings["level"], base, args.settings["comparisons"]
    )
    provenance = []
    embeddings = args.settings["embeddings"]
    base_paths = args.base_embedded or [None] * len(embeddings)
    for entry, path, reference, base_path in zip(embeddings, args.embedded, args.recordings, base_paths, strict=True):
        recordings, base_renders = Embedded.read(reference), base_path and read_embedded(base_path, clips)
        result.measure_in(find(entry), read_embedded(path, clips), recordings, base_renders)
        provenance.append(recordings.provenance | {"dim": int(recordings.vectors.shape[1])})
    result.measure_in(THUMBNAIL, thumbnails(clips, rows.split.tolist(), signals), Embedded.read(args.thumbnails))
    result.measure_clips()

    write_table(args.clips, result.clips)
    leg = read_json(args.weights_digest)["leg"] if args.weights_digest else None
    found = (
        {"name": args.run}
        | args.settings["source"]
        | {
            "leg": leg,
            "step": int(leg.split("-")[1]) if leg else 0,
            "settings": settings,
            "comparisons": args.settings["comparisons"],
            "verdict": verdict(result.measures) if base is not None else None,
            "embeddings": provenance,
            "measures": result.measures,
            "memorisation": result.memorisation,
            "clips": clip_figures(result.clips),
        }
    )
    write_json(args.output, found)
    drawn = {measure.key for measure in MEASURES if measure.drawn}
    for figure in result.measures:
        if figure["measure"] in drawn and figure["value"] is not None:
            told = figure["name"], interval(figure, 4), difference(figure), figure["n"]
            log.info("%s, %s: %s %s, to the base %s, n = %d", args.run, figure["split"], *told)
    if found["verdict"]:
        log.info("%s: %s", args.run, found["verdict"])


if __name__ == "__main__":
    run(main)
