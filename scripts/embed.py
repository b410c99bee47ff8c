"""Embed a set of sounds, the recordings of a corpus or the renders of a model: one vector per clip."""

from __future__ import annotations

import argparse
from pathlib import Path

from sao.base.command import InputError, log, parse, progress, run

import numpy as np
import pandas as pd
from sao.base.files import sha256, whole
from sao.base.tables import read_table
from sao.config.settings import EmbedSettings, add_settings
from sao.evaluation.embedded import Embedded
from sao.evaluation.embeddings import find
from sao.evaluation.embeddings.embedding import Analysis
from sao.rendering.table import read_renders
from sao.sound.spectra import read_sound


def read_set(tables: list[Path], folder: Path | None) -> pd.DataFrame:
    """`clip_id`, `split`, `sound` (a path) and `prompt` (may be empty) of the renders in a folder, or of recordings."""
    if folder is not None:
        return read_renders(tables[0], folder)
    splits = [read_table(path).assign(split=path.stem) for path in tables]
    rows = pd.concat(splits, ignore_index=True)
    return rows.assign(sound=rows.path, prompt="")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_settings(parser, EmbedSettings)
    parser.add_argument("--model", type=Path, nargs="?", help="its weights: a Hub cache, or a file of rule weights")
    parser.add_argument("--table", type=Path, required=True, nargs="+", help="<split>.csv of a corpus, or a render's")
    parser.add_argument("--renders", type=Path, nargs="?", help="folder of the renders in the table")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, required=True, help=".npz")
    args = parse(parser)

    rows = read_set(args.table, args.renders)
    if rows.empty:
        raise InputError(f"{args.table[0]}: lists no clip: nothing to embed")
    embedding = find(args.settings["embedding"])
    embedding.load(args.model, args.threads)
    kept = args.settings.get("windows")
    found: list[Analysis] = []
    pairs = list(zip(rows.sound, rows.split, strict=True))
    for path, split in progress(pairs, f"embedding with {embedding.name}", unit="clips"):
        found.append(embedding.analyse(*read_sound(Path(path))))
        if not np.isfinite(found[-1].vector).all():
            raise InputError(f"{path}: its embedding holds NaN or infinite numbers: check the sound")
        windows = found[-1].windows
        if windows is not None and kept is not None and split not in kept:
            found[-1] = found[-1]._replace(windows=windows[:0])
    made_from = {path.as_posix(): sha256(path) for path in args.table}
    embedded = Embedded(
        rows.clip_id.tolist(),
        rows.split.tolist(),
        embedding.stack([each.vector for each in found]),
        embedding.text(list(rows.prompt)) if args.renders is not None else None,
        embedding.provenance | {"rate": embedding.rate, "tables": made_from},
        [each.windows for each in found if each.windows is not None] or None,
        np.stack(classes) if (classes := [each.classes for each in found if each.classes is not None]) else None,
    )
    with whole(args.output) as temporary:
        embedded.write(temporary)
    log.info("%s: %d clips, %d numbers each", args.output, *embedded.vectors.shape)


if __name__ == "__main__":
    run(main)
