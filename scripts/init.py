"""Bring the weights into place that a run starts from: those of an earlier fine-tuning, laid over the base model's."""

from __future__ import annotations

import argparse
from pathlib import Path

from sao.base.command import InputError, log, parse, run

from sao.base.files import copy_file, read_json, sha256, whole, write_json
from sao.base.names import write_digests
from sao.base.vouched import Checking, Vouched, model_files
from sao.config.settings import InitSettings, add_settings
from sao.models.build import read_safetensors, write_safetensors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, required=True, help="file or folder of the weights to start from")
    parser.add_argument("--export", type=Path, nargs="?", help="export.json that vouches for them")
    parser.add_argument("--before", type=Path, nargs="?", help="source.json of what their own training started from")
    add_settings(parser, InitSettings)
    parser.add_argument("--model", type=Path, required=True, help="folder of the base model")
    parser.add_argument("--model-digest", type=Path, required=True, help="listing that vouches for it")
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    parser.add_argument("--digest", type=Path, required=True, help="listing of its files")
    args = parse(parser)

    from sao.training.initial import read_initial

    path, settings = args.weights, args.settings
    if not path.exists():
        raise InputError(f"{path}: no such file or folder; correct init_from in the config")
    exported = read_json(args.export) if args.export else {}
    cure = f"delete {args.export} and run again"
    given = [Vouched(path, exported["sha256"], args.export, cure)] if exported else []
    checking = Checking([*model_files(args.model, args.model_digest, text_encoder=False), *given])
    base = read_safetensors(args.model / "model.safetensors")
    weights, kind, changed = read_initial(path, base, settings["init_weights"] == "ema")
    checking.finish(f"base model {args.model}")

    args.output.mkdir(parents=True, exist_ok=True)
    size = sum(value.numel() * value.element_size() for value in weights.values())
    files = [args.output / name for name in ("model_config.json", "model.safetensors")]
    copy_file(args.model / files[0].name, files[0])
    with whole(files[1], size) as temporary:
        write_safetensors({key: value.contiguous() for key, value in weights.items()}, temporary)
    write_digests(args.digest, args.output, files)
    read = sorted(file for file in path.glob("*") if file.is_file()) if path.is_dir() else [path]
    source = {
        "init_from": settings["init_from"],
        "kind": kind,
        "leg": exported.get("leg"),
        "sha256": {file.name: sha256(file) for file in read},
        "changed_keys": changed,
        "before": read_json(args.before) if args.before else None,
    }
    write_json(args.output / "source.json", source)
    log.info("%s: %s, %d of %d keys differ from the base model", path, kind, changed, len(weights))


if __name__ == "__main__":
    run(main)
