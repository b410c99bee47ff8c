"""Measure the renders of one model against the recordings and the training clips, and as signals. Reads no sound."""

from __future__ import annotations

import argparse
from pathlib import Path

from sao.base.command import InputError, log, parse, run

import numpy as np
from sao.base.files import read_json, write_json
from sao.base.tables import read_table, write_table
from sao.config.settings import EvaluateSettings, add_settings
from sao.evaluation.embedded import Embedded, stack
from sao.evaluation.embeddings import THUMBNAIL, find
from sao.evaluation.evaluate import Evaluation, clip_figures, clip_table
from sao.evaluation.measures import MEASURES
from sao.evaluation.signal_set import Signals
from sao.sound.spectra import FLOOR_DB


def thumbnails(clips: list[str], splits: list[str], signals: Signals) -> Embedded:
    """The thumbnails of renders, in full precision, because there are fewer of them than of recordings."""
    vectors = stack([signals.thumbnail(clip) for clip in clips], FLOOR_DB)
    return Embedded(clips, splits, vectors, None, THUMBNAIL.provenance)


def read_embedded(path: Path, clips: list[str]) -> Embedded:
    """The vectors of these clips, in this order. Raises InputError if a clip is missing."""
    embedded = Embedded.read(path)
    missing = sorted(set(clips) - set(embedded.ids))
    if missing:
        raise InputError(f"{path}: has no embedding of clip {missing[0]}: delete it and run again")
    return embedded.of(clips)


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
    parser.add_argument("--output", type=Path, required=True, help="JSON")
    parser.add_argument("--clips", type=Path, required=True, help="CSV, one row per clip")
    args = parse(parser)
    settings = {key: args.settings[key] for key in ("bootstrap", "level", "seed")}

    rows = read_table(args.table)
    if rows.empty:
        raise InputError(f"{args.table}: lists no clip: nothing to measure")
    clips, signals = rows.clip_id.tolist(), Signals(args.signals)
    table = clip_table(rows, signals, Signals(args.recorded_signals))
    result = Evaluation(table, settings["bootstrap"], settings["seed"], settings["level"])
    provenance = []
    for entry, path, reference in zip(args.settings["embeddings"], args.embedded, args.recordings, strict=True):
        recordings = Embedded.read(reference)
        result.measure_in(find(entry), read_embedded(path, clips), recordings)
        provenance.append(recordings.provenance | {"dim": int(recordings.vectors.shape[1])})
    result.measure_in(THUMBNAIL, thumbnails(clips, rows.split.tolist(), signals), Embedded.read(args.thumbnails))
    result.measure_clips()

    write_table(args.clips, result.clips)
    leg = read_json(args.weights_digest)["leg"] if args.weights_digest else None
    write_json(
        args.output,
        {"name": args.run}
        | args.settings["source"]
        | {
            "leg": leg,
            "step": int(leg.split("-")[1]) if leg else 0,
            "settings": settings,
            "embeddings": provenance,
            "measures": result.measures,
            "memorisation": result.memorisation,
            "clips": clip_figures(result.clips),
        },
    )
    drawn = {measure.key for measure in MEASURES if measure.drawn}
    for figure in result.measures:
        if figure["measure"] in drawn and figure["value"] is not None:
            log.info(
                "%s, %s: %s %.4g [%.4g, %.4g], n = %d",
                *(args.run, figure["split"], figure["name"]),
                *(np.nan if figure[key] is None else figure[key] for key in ("value", "low", "high")),
                figure["n"],
            )


if __name__ == "__main__":
    run(main)
