"""Write the page to listen on, with all legs that have landed."""

from __future__ import annotations

import argparse
from pathlib import Path

from sao.base.command import log, parse, run

from sao.pages.listening import write_page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shown", required=True, nargs="+", help="names of all base models and legs, in order")
    parser.add_argument("--output", type=Path, required=True, help="index.html in the folder of the page")
    args = parse(parser)

    legs = write_page(args.output.parent, args.shown)
    log.info("listen: %s, %d legs", args.output.as_posix(), legs)


if __name__ == "__main__":
    run(main)
