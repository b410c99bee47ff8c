"""Unpack the archives of one published split, and measure each file as soon as it is unpacked."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from sao.base.command import log, parse, run

from sao.base.tables import write_table
from sao.data.archives import unpack, whole_archives
from sao.sound.read import Measuring


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--archive", type=Path, required=True, nargs="+")
    parser.add_argument("--split", required=True, help="name of the archives' top folder")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, required=True, help="folder for the audio files")
    parser.add_argument("--facts", type=Path, required=True, help="CSV of measurements to write, one row per file")
    args = parse(parser)

    # Unpacked beside the output and then renamed, so an interrupted job leaves nothing that looks like an output.
    temporary = args.output.with_name(f".{args.output.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        measuring = Measuring(args.threads)
        seen: dict[str, str] = {}
        for archive in whole_archives(args.archive):
            unpack(archive, args.split, temporary, measuring, seen)
        audio = temporary / args.split
        facts = measuring.finish(f"measuring {args.split}")
        shutil.rmtree(args.output, ignore_errors=True)
        audio.rename(args.output)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    write_table(args.facts, facts)
    log.info("%s: %d files, %.1f s", args.output, len(facts), facts.seconds.sum())


if __name__ == "__main__":
    run(main)
