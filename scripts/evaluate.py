"""Measure the renders of one model: against the recordings, against the training clips, and as signals."""

from __future__ import annotations

import argparse
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sao.base.command import InputError, log, parse, progress, run

import numpy as np
import pandas as pd
from sao.base.files import read_json, write_json
from sao.base.tables import write_table
from sao.config.embeddings import THUMBNAIL, Choice, choice
from sao.config.settings import EvaluateSettings, add_settings
from sao.evaluation.embeddings import Embedded, load, stack
from sao.evaluation.evaluate import CLIP_MEASURES, Evaluation, clip_figures
from sao.evaluation.signals import compare
from sao.rendering.table import read_renders
from sao.sound.spectra import FLOOR_DB, read_sound, to_mono


def thumbnails(rows: pd.DataFrame) -> Embedded:
    """Log-mel thumbnails of renders, which are cheaper made than kept."""
    embedding = load(Choice(THUMBNAIL))
    vectors = [embedding.sound(to_mono(*read_sound(Path(path)), embedding.rate)) for path in rows.sound]
    return Embedded(rows.clip_id.tolist(), rows.split.tolist(), stack(vectors, FLOOR_DB), None, embedding.provenance)


def signal_facts(rows: pd.DataFrame, threads: int) -> pd.DataFrame:
    """A row a clip, see `sao.evaluation.signals.compare`."""
    pairs = [
        (Path(sound), Path(path) if path else None) for sound, path in zip(rows.sound, rows.reference, strict=True)
    ]
    with ThreadPoolExecutor(threads) as pool:
        found = list(progress(pool.map(lambda pair: compare(*pair), pairs), "measuring", len(pairs), unit="clips"))
    told = [{"clip_id": clip, "split": split} for clip, split in zip(rows.clip_id, rows.split, strict=True)]
    return pd.DataFrame([row | facts for row, facts in zip(told, found, strict=True)])


def read_embedded(path: Path, clips: list[str]) -> Embedded:
    """Raises InputError where a clip is missing."""
    embedded = Embedded.read(path)
    missing = sorted(set(clips) - set(embedded.ids))
    if missing:
        raise InputError(f"{path}: has no embedding of clip {missing[0]}: delete it and run again")
    return embedded


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", required=True, help="name of what is measured")
    add_settings(parser, EvaluateSettings)
    parser.add_argument("--table", type=Path, required=True, help="table of its renders")
    parser.add_argument("--renders", type=Path, required=True, help="folder of its renders")
    parser.add_argument(
        "--weights-digest", type=Path, nargs="?", help="export.json of a fine-tuned model, which names its leg"
    )
    parser.add_argument("--embedded", type=Path, required=True, nargs="+", help="its renders' .npz by embedding")
    parser.add_argument("--recordings", type=Path, required=True, nargs="+", help="the corpus's .npz by embedding")
    parser.add_argument("--thumbnails", type=Path, required=True, help="the corpus's .npz of log-mel thumbnails")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, required=True, help="JSON")
    parser.add_argument("--clips", type=Path, required=True, help="CSV, a row a clip")
    args = parse(parser)
    settings = {key: args.settings[key] for key in ("bootstrap", "level", "seed")}

    rows = read_renders(args.table, args.renders)
    if rows.empty:
        raise InputError(f"{args.table}: lists no clip: nothing to measure")
    ids = rows.clip_id.tolist()
    result = Evaluation(signal_facts(rows, args.threads), settings["bootstrap"], settings["seed"], settings["level"])
    provenance = []
    for entry, path, reference in zip(args.settings["embeddings"], args.embedded, args.recordings, strict=True):
        chosen, renders, recordings = choice(entry), read_embedded(path, ids), Embedded.read(reference)
        result.compare_sets(chosen, renders, recordings)
        result.score_captions(chosen, renders)
        result.find_copies(chosen, renders, recordings)
        provenance.append(recordings.provenance | {"dim": int(recordings.vectors.shape[1])})
    result.find_copies(Choice(THUMBNAIL), thumbnails(rows), Embedded.read(args.thumbnails))
    for measure in CLIP_MEASURES:
        result.average(measure)

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
    for measure in result.measures:
        if measure["measure"] in ("kad", "clap_score", "memorised") and measure["value"] is not None:
            log.info(
                "%s, %s: %s %.4g [%.4g, %.4g], n = %d",
                *(args.run, measure["split"], measure["name"]),
                *(np.nan if measure[key] is None else measure[key] for key in ("value", "low", "high")),
                measure["n"],
            )


if __name__ == "__main__":
    run(main)
