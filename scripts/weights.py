"""Bring declared weights of a published network into place: checked by their hash, and key by key against the network."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from sao.base.command import InputError, log, parse, run

from sao.base.files import sha256, whole
from sao.base.names import write_digests
from sao.config.settings import WeightsSettings, add_settings
from sao.hub.fetch import describe, fetch
from sao.models.build import write_safetensors
from sao.models.pretrained import read_published


def take(settings: WeightsSettings, file: Path | None, partial: Path) -> Path:
    """The declared file: the one that is there, or one from the Hub. Raises InputError if it has another SHA-256."""
    if file is None:
        described = describe(settings["repo"], settings["revision"], settings["file"])
        partial.mkdir(parents=True, exist_ok=True)
        fetch([described], partial)
        file = described.path(partial)
    wanted = settings["sha256"]
    if wanted and (found := sha256(file)) != wanted:
        raise InputError(
            f"{file}: SHA-256 is {found}, the config says {wanted}: the file is damaged or another version; correct `sha256` "
            "in the config, or take the file from the place where it was published"
        )
    return file


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", required=True, help="of an embedding, or audioseal-generator")
    add_settings(parser, WeightsSettings)
    parser.add_argument("--file", type=Path, nargs="?", help="the file; without it, it is fetched from the Hub")
    parser.add_argument("--output", type=Path, required=True, help="model.safetensors")
    parser.add_argument("--digest", type=Path, required=True, help="sha256sum listing")
    args = parse(parser)

    # Undeclared to Snakemake, so that an interrupted transfer goes on from here.
    partial = args.output.parent / ".partial"
    source = take(args.settings, args.file, partial)
    tensors = read_published(source)
    if args.name in ("audioseal", "audioseal-generator"):
        from sao.models import audioseal

        tensors = audioseal.converted("generator" if "-" in args.name else "detector", tensors, source)
    else:
        from sao.evaluation.embeddings import find
        from sao.evaluation.embeddings.pretrained import Pretrained
        from sao.evaluation.networks.network import build, own_tensors

        embedding = find(args.name)
        if not isinstance(embedding, Pretrained):
            raise InputError(f"{args.name}: its weights are not declared: correct the name")
        kind = embedding.network()
        tensors = own_tensors(kind, tensors)
        build(kind, tensors, source)
    with whole(args.output) as temporary:
        write_safetensors({key: value.clone().contiguous() for key, value in tensors.items()}, temporary)
    write_digests(args.digest, args.output.parent, [args.output])
    shutil.rmtree(partial, ignore_errors=True)
    log.info("%s: %d weights of %s", args.output, len(tensors), args.name)


if __name__ == "__main__":
    run(main)
