"""Choose the few prompts that each leg of a training renders, to listen to while the training goes on."""

from __future__ import annotations

import argparse
from pathlib import Path

from sao.base.command import log, parse, run

from sao.config.settings import ListenSettings, add_settings
from sao.rendering.clips import read_clips, write_clips
from sao.rendering.listening import listened


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=Path, required=True, help="CSV of all sounds to render, checked by prompts.py")
    add_settings(parser, ListenSettings)
    parser.add_argument("--output", type=Path, required=True, help="CSV of the sounds to listen to")
    args = parse(parser)

    sounds = listened(read_clips(args.clips), args.settings)
    write_clips(args.output, sounds)
    log.info("%s: %d sounds to listen to", args.output, len(sounds))


if __name__ == "__main__":
    run(main)
