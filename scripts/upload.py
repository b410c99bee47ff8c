"""Upload an exported model and its card to a repository on the Hugging Face Hub."""

from __future__ import annotations

import argparse
from pathlib import Path

from sao.base.command import InputError, log, parse, run

from sao.base.files import read_json, sha256, size_text, write_json
from sao.base.vouched import Vouched, all_wrong
from sao.hub.bars import client_bars

WEIGHTS, CARD = "model.safetensors", "README.md"
ALWAYS = ("model_config.json", CARD, "ATTRIBUTION.csv")
BELOW = {"diffusers": "diffusers/"}  # forms that have a folder of their own in the repository


def check_files(folder: Path, export: dict[str, str], weights: bool) -> None:
    """Raise InputError if a file is missing, or if the weights or the card do not belong to this `export.json`."""
    for name in (WEIGHTS, *ALWAYS) if weights else ALWAYS:
        if not (folder / name).is_file():
            raise InputError(f"{folder / name}: missing: run again")
    if weights and (actual := sha256(folder / WEIGHTS)) != export["sha256"]:
        raise InputError(
            f"{folder / WEIGHTS}: has the SHA-256 {actual}, export.json says {export['sha256']}: changed since it was "
            "exported; delete it and run again"
        )
    if export["sha256"] not in (folder / CARD).read_text(encoding="utf-8"):
        raise InputError(
            f"{folder / CARD}: the card describes other weights than those of export.json: delete it and run again"
        )


def exported_files(folder: Path, path: Path, export: dict[str, str]) -> dict[str, Path]:
    """The files of an export by their names in the repository. Raises InputError unless its record `path` vouches for them."""
    record = read_json(path)
    if record["model_sha256"] != export["sha256"]:
        raise InputError(f"{path}: was made of other weights than those of export.json: delete it and run again")
    cure = f"delete {folder} and run again"
    files = {name: folder / name for name in record["files"]}
    if wrong := all_wrong(Vouched(files[name], of["sha256"], path, cure) for name, of in record["files"].items()):
        raise InputError(wrong[0])
    return {f"{BELOW.get(record['form'], '')}{name}": file for name, file in files.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", required=True, help="name of the run")
    parser.add_argument("--folder", type=Path, required=True, help="folder of the exported model")
    parser.add_argument("--digest", type=Path, required=True, help="export.json")
    parser.add_argument("--repo", required=True, help="owner/name on the Hub")
    parser.add_argument("--public", action="store_true", help="if the repository does not exist, make a public one")
    parser.add_argument("--send", nargs="+", default=["model"], help="what to upload: model, adapter, diffusers")
    parser.add_argument("--exports", type=Path, nargs="*", default=[], help="folders of exports to upload")
    parser.add_argument("--records", type=Path, nargs="*", default=[], help="their records")
    parser.add_argument("--output", type=Path, required=True, help="JSON: repository, commit, URL and SHA-256")
    args = parse(parser)

    from sao.hub.publish import address, check, commit, create

    exists = check(args.repo, not args.public)
    export = read_json(args.digest)
    files = {name: args.folder / name for name in ALWAYS}
    for folder, record in zip(args.exports, args.records, strict=True):
        files |= exported_files(folder, record, export)
    # In half precision the weights of the merged model are an export too.
    weights = "model" in args.send and WEIGHTS not in files
    check_files(args.folder, export, weights)
    if weights:
        files[WEIGHTS] = args.folder / WEIGHTS
    if not exists:
        create(args.repo, not args.public)
    log.info("%s: %s in %d files", args.repo, size_text(sum(p.stat().st_size for p in files.values())), len(files))
    with client_bars():
        commit_id = commit(args.repo, files, f"{args.run}, {export['leg']}")
    url = address(args.repo, commit_id)
    write_json(args.output, {"repo": args.repo, "commit": commit_id, "url": url, "sha256": export["sha256"]})
    log.info("published: %s", url)


if __name__ == "__main__":
    run(main)
