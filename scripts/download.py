"""Fetch one file of a corpus and check its checksum while it streams. An interrupted download resumes."""

from __future__ import annotations

import argparse
from pathlib import Path

from sao.base.command import log, parse, run

from sao.base.files import whole
from sao.data.transfer import Partial, Wanted, hash_file, obtain


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True, help="http(s)://, file:// or a path")
    parser.add_argument("--mirror", nargs="?", help="look for an http(s) URL here: a base URL or a folder")
    parser.add_argument("--algorithm", required=True, choices=["md5", "sha256"])
    parser.add_argument("--checksum", required=True, help="hex digits")
    parser.add_argument("--size", type=int, nargs="?", help="size in bytes, if it should be checked")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--digest", type=Path, required=True, help="checksum file written beside the output")
    parser.add_argument("--timeout", type=float, default=120, help="seconds without a byte (default: %(default)s)")
    parser.add_argument("--attempts", type=int, default=8, help="without progress, before giving up (%(default)s)")
    parser.add_argument("--wait", type=float, default=1, help="seconds before the second attempt, doubled from there")
    args = parse(parser)
    names = ("url", "mirror", "algorithm", "checksum", "size", "timeout", "attempts", "wait")
    wanted = Wanted(**{name: getattr(args, name) for name in names})
    wanted.check_places()

    part = Partial(args.output, args.algorithm)
    try:
        if args.output.is_file() and hash_file(args.output, args.algorithm) == args.checksum:
            log.info("%s: exists already", args.output)
            part.start({})
        else:
            obtain(wanted, part)
            part.finish()
    finally:
        part.close()
    with whole(args.digest) as temporary:
        temporary.write_text(f"{args.checksum}  {args.output.name}\n", encoding="utf-8")
    log.info("%s: %d bytes, %s %s", args.output, args.output.stat().st_size, args.algorithm, args.checksum)


if __name__ == "__main__":
    run(main)
