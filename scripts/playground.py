"""A page in the browser to try prompts on: two models side by side on one seed, blind if you like, with a history.

It takes `uv run --group ui`. Only this machine can open it, unless --listen names another address.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from pathlib import Path

from sao.base.command import parse, run

from sao.pages.playground import Playground
from sao.pages.playground_page import LOOPBACK, PORT, Page, free_port, is_loopback, serve
from sao.plan.trying import models_of
from sao.rendering.trying import Model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--listen", default=LOOPBACK, metavar="HOST", help="address to listen on (default: this machine only)"
    )
    parser.add_argument("--port", type=int, help=f"default: the first free one from {PORT} on")
    parser.add_argument(
        "--configfile", type=Path, action="append", default=[], metavar="FILE", help="as for Snakemake; may be repeated"
    )
    parser.add_argument(
        "--config", action="append", default=[], metavar="KEY=VALUE", help="as for Snakemake; may be repeated"
    )
    args = parse(parser)
    warnings.simplefilter("ignore")  # of libraries, about their own code

    with tempfile.TemporaryDirectory(prefix="playground-") as folder:
        scratch = Path(folder)
        models = models_of(args.configfile, args.config, scratch)
        if not models.names():
            models.find(next(iter(models.plan.runs.runs)))  # tells what builds it

        def find(name: str, beside: Model | None) -> Model:
            return models.find(name, beside)

        playground = Playground(find, scratch)
        try:
            serve(
                Page(playground, models.names, is_loopback(args.listen)),
                args.listen,
                free_port(args.listen, args.port),
                scratch,
            )
        finally:
            playground.close()


if __name__ == "__main__":
    run(main)
