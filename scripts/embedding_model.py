"""Fetch a CLAP model of transformers from the Hugging Face Hub, checked, into a Hub cache of its own."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from sao.base.command import InputError, log, parse, run

from sao.base.files import read_json
from sao.base.names import write_digests
from sao.hub.fetch import HubFile, NoSuchFile, describe, fetch
from sao.hub.place import fetch_all, is_safe, refuse_pickles, snapshot

WEIGHTS = "model.safetensors"
PICKLED = "pytorch_model.bin"  # what LAION's own are published as
FILES = ("config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json")


def check_config(path: Path, source: str) -> None:
    """Raise InputError unless transformers would load it as a ClapModel."""
    try:
        kind = read_json(path).get("model_type")
    except (ValueError, AttributeError):
        kind = None
    if kind != "clap":
        raise InputError(f"{source}: its config.json is of model_type {kind!r}, not 'clap': choose another embedding")


def describe_files(repo: str, revision: str, partial: Path) -> dict[str, HubFile]:
    """`{name below the output: file}`; the config is fetched first, so that nothing large is for nothing."""
    config = describe(repo, revision, FILES[0])
    fetch([config], partial)
    check_config(config.path(partial), repo)
    files = [config, *(describe(repo, revision, name) for name in FILES[1:])]
    try:
        files.append(describe(repo, revision, WEIGHTS))
    except NoSuchFile:
        files.append(describe(repo, revision, PICKLED))
    return {snapshot(repo, revision, file.name): file for file in files}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repo", required=True, help="owner/name on the Hub")
    parser.add_argument("--revision", required=True, help="commit")
    parser.add_argument("--output", type=Path, required=True, help="folder for hub/")
    parser.add_argument("--digest", type=Path, required=True, help="sha256sum listing of the folder")
    args = parse(parser)

    # Undeclared to Snakemake, so that an interrupted transfer goes on from here.
    partial = args.output / ".partial"
    args.output.mkdir(parents=True, exist_ok=True)
    files = fetch_all(describe_files(args.repo, args.revision, partial), args.output, partial)
    refuse_pickles(files)
    args.digest.unlink(missing_ok=True)
    shutil.rmtree(args.output / "hub", ignore_errors=True)
    placed = []
    # Pickles first: they may turn out to be unusable.
    for name, source in sorted(files.items(), key=lambda item: is_safe(item[1].name)):
        target = args.output / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if is_safe(source.name):
            source.replace(target)
        else:
            from sao.models.build import convert_weights

            target = target.with_name(WEIGHTS)
            convert_weights(source, target)
        placed.append(target)
    shutil.rmtree(partial, ignore_errors=True)
    write_digests(args.digest, args.output, sorted(placed))
    log.info("%s: %d files", args.output, len(placed))


if __name__ == "__main__":
    run(main)
