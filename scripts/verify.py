"""Compare every file that has a digest under results/ with it: downloads, sounds, latents, models, trainings."""

from __future__ import annotations

import argparse
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sao.base.command import InputError, log, parse, progress, run

from sao.base.files import size_text
from sao.base.vouched import Vouched
from sao.exports.inventory import entries


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder to check")
    parser.add_argument("--threads", type=int, default=1)
    args = parse(parser)

    found = entries(args.results)
    files = [entry for entry in found if isinstance(entry, Vouched)]
    complaints = [entry for entry in found if isinstance(entry, str)]
    with ThreadPoolExecutor(args.threads) as pool:
        checked = progress(pool.map(Vouched.wrong, files), "checking", total=len(files), unit="files")
        complaints += [complaint for complaint in checked if complaint]
    for complaint in complaints:
        log.warning("wrong: %s", complaint)
    size = size_text(sum(file.path.stat().st_size for file in files if file.path.is_file()))
    if complaints:
        raise InputError(
            f"{args.results}: {len(complaints)} of {len(found)} checked files are wrong: see above; a file that you delete "
            "is made again when a job needs it, or at once if you give its path as the target"
        )
    log.info("%s: %d files, %s: all match their digests", args.results, len(files), size)


if __name__ == "__main__":
    run(main)
