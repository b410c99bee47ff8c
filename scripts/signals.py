"""Measure the renders of a model as signals, or the recordings of the same clips. Each sound is read once."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sao.base.command import InputError, log, parse, progress, run

from sao.base.files import whole
from sao.base.tables import read_table
from sao.base.takes import is_first_take
from sao.evaluation.measure import Signal
from sao.evaluation.signal_set import write_signals
from sao.evaluation.signals import signal_of
from sao.rendering.table import read_renders


def sounds_of(tables: list[Path], renders: Path | None) -> dict[str, Path]:
    """The sounds by clip_id: the renders in a folder, or the recordings that tables of renders, or of clips to render, name."""
    if renders is not None:
        rows = read_renders(tables[0], renders)
        if rows.empty:
            raise InputError(f"{tables[0]}: lists no clip: nothing to measure")
        return dict(zip(rows.clip_id, map(Path, rows.sound), strict=True))
    sounds: dict[str, Path] = {}
    for table in tables:
        rows = read_table(table)
        rows = rows[(rows.reference != "") & rows.clip_id.map(is_first_take)]  # prompts have no recording
        sounds |= zip(rows.clip_id, map(Path, rows.reference), strict=True)
    return sounds


def measured(sounds: dict[str, Path], threads: int) -> Iterator[tuple[str, Signal]]:
    """The signal of each clip, in order."""
    with ThreadPoolExecutor(threads) as pool:
        signals = progress(pool.map(signal_of, sounds.values()), "measuring", len(sounds), unit="clips")
        yield from zip(sounds, signals, strict=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", type=Path, required=True, nargs="+", help="table of renders, or of clips to render")
    parser.add_argument("--renders", type=Path, nargs="?", help="their folder; without it, the recordings are measured")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, required=True, help=".npz")
    args = parse(parser)

    sounds = sounds_of(args.table, args.renders)
    with whole(args.output) as temporary:
        write_signals(temporary, measured(sounds, args.threads))
    log.info("%s: %d sounds", args.output, len(sounds))


if __name__ == "__main__":
    run(main)
