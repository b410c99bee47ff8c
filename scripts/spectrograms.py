"""Draw a small spectrogram of every render of a model, of the recordings of the same clips, and of their sources."""

from __future__ import annotations

import argparse
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sao.base.command import log, parse, progress, run

from sao.base.files import whole_folder
from sao.base.takes import is_first_take
from sao.pages.spectrogram import draw
from sao.rendering.table import BESIDE, read_renders


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", type=Path, required=True, help="table of the renders")
    parser.add_argument("--renders", type=Path, required=True, help="folder of the renders")
    parser.add_argument("--beside", action="store_true", help="draw recordings and sources too, into OUTPUT/<kind>")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, required=True, help="folder for <clip_id>.webp")
    args = parse(parser)

    rows = read_renders(args.table, args.renders)
    with whole_folder(args.output) as folder:
        jobs = [(Path(str(row.sound)), folder / f"{row.clip_id}.webp") for row in rows.itertuples()]
        if args.beside:
            for kind in BESIDE:
                firsts = rows[rows.clip_id.map(is_first_take)]
                paths = zip(firsts.clip_id, firsts[kind], strict=True)
                jobs += [(Path(path), folder / kind / f"{clip}.webp") for clip, path in paths if path]
        with ThreadPoolExecutor(args.threads) as pool:
            for _ in progress(pool.map(lambda job: draw(*job), jobs), "drawing", len(jobs), unit="sounds"):
                pass
    log.info("%s: %d spectrograms", args.output, len(jobs))


if __name__ == "__main__":
    run(main)
