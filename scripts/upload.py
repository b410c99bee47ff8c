"""Put an exported model and its card into a repository on the Hugging Face Hub."""

from __future__ import annotations

import argparse
from pathlib import Path

from sao.base.command import InputError, log, parse, run

from sao.base.files import read_json, sha256, size_text, write_json
from sao.hub.bars import client_bars

WEIGHTS, CARD = "model.safetensors", "README.md"
FILES = (WEIGHTS, "model_config.json", CARD, "ATTRIBUTION.csv")


def check_files(folder: Path, told: dict[str, str]) -> None:
    """Raise InputError unless all are there, and the weights, and the card, are of the export that `told` is of."""
    for name in FILES:
        if not (folder / name).is_file():
            raise InputError(f"{folder / name}: missing: run again")
    if (found := sha256(folder / WEIGHTS)) != told["sha256"]:
        raise InputError(
            f"{folder / WEIGHTS}: has the SHA-256 {found}, export.json says {told['sha256']}: changed since it was "
            "exported; delete it and run again"
        )
    if told["sha256"] not in (folder / CARD).read_text(encoding="utf-8"):
        raise InputError(f"{folder / CARD}: is the card of other weights than export.json's: delete it and run again")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", required=True, help="name of the run")
    parser.add_argument("--folder", type=Path, required=True, help="of the exported model")
    parser.add_argument("--digest", type=Path, required=True, help="export.json")
    parser.add_argument("--repo", required=True, help="owner/name on the Hub")
    parser.add_argument("--public", action="store_true", help="make a public repository, where there is none yet")
    parser.add_argument("--output", type=Path, required=True, help="JSON: what was published where")
    args = parse(parser)

    from sao.hub.publish import address, check, commit, create

    there = check(args.repo, not args.public)
    told = read_json(args.digest)
    check_files(args.folder, told)
    if not there:
        create(args.repo, not args.public)
    files = {name: args.folder / name for name in FILES}
    log.info("%s: %s in %d files", args.repo, size_text(sum(p.stat().st_size for p in files.values())), len(files))
    with client_bars():
        commit_id = commit(args.repo, files, f"{args.run}, {told['leg']}")
    url = address(args.repo, commit_id)
    write_json(args.output, {"repo": args.repo, "commit": commit_id, "url": url, "sha256": told["sha256"]})
    log.info("published: %s", url)


if __name__ == "__main__":
    run(main)
