"""Measure the renders of one model: against the recordings, against the training clips, and as signals."""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sao.command import InputError, log, parse, progress, run

import numpy as np
import pandas as pd
from sao.embedding_names import THUMBNAIL, Choice, choice
from sao.embeddings import Embedded, load, stack
from sao.evaluation import CLIP_MEASURES, Evaluation, clip_figures
from sao.files import read_json, write_json
from sao.renders import read_renders
from sao.signals import compare
from sao.spectra import FLOOR_DB, read_sound, to_mono
from sao.tables import write_table


def thumbnails(rows: pd.DataFrame) -> Embedded:
    """Log-mel thumbnails of renders, which are cheaper made than kept."""
    embedding = load(Choice(THUMBNAIL))
    vectors = [embedding.sound(to_mono(*read_sound(Path(path)), embedding.rate)) for path in rows.sound]
    return Embedded(rows.clip_id.tolist(), rows.split.tolist(), stack(vectors, FLOOR_DB), None, embedding.provenance)


def signal_facts(rows: pd.DataFrame, threads: int) -> pd.DataFrame:
    """A row a clip, see `sao.signals.compare`."""
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
    parser.add_argument("--source", type=json.loads, required=True, help="JSON: folder, base_model, corpus and run")
    parser.add_argument("--table", type=Path, required=True, help="table of its renders")
    parser.add_argument("--renders", type=Path, required=True, help="folder of its renders")
    parser.add_argument("--weights-digest", type=Path, help="export.json of a fine-tuned model, which names its leg")
    parser.add_argument("--embeddings", type=json.loads, required=True, help="JSON: evaluation.embeddings")
    parser.add_argument("--embedded", type=Path, required=True, nargs="+", help="its renders' .npz by embedding")
    parser.add_argument("--recordings", type=Path, required=True, nargs="+", help="the corpus's .npz by embedding")
    parser.add_argument("--thumbnails", type=Path, required=True, help="the corpus's .npz of log-mel thumbnails")
    parser.add_argument("--bootstrap", type=int, required=True, help="resamples")
    parser.add_argument("--level", type=float, required=True, help="of the confidence intervals")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, required=True, help="JSON")
    parser.add_argument("--clips", type=Path, required=True, help="CSV, a row a clip")
    args = parse(parser)

    rows = read_renders(args.table, args.renders)
    if rows.empty:
        raise InputError(f"{args.table}: lists no clip: nothing to measure")
    ids = rows.clip_id.tolist()
    result = Evaluation(signal_facts(rows, args.threads), args.bootstrap, args.seed, args.level)
    provenance = []
    for entry, path, reference in zip(args.embeddings, args.embedded, args.recordings, strict=True):
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
    settings = {"bootstrap": args.bootstrap, "level": args.level, "seed": args.seed}
    write_json(
        args.output,
        {"name": args.run}
        | args.source
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
