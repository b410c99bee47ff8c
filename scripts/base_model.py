"""Fetch or copy a base model and its text encoder, from the Hugging Face Hub or a local folder, and check them."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from sao.base.command import log, parse, progress, run

from sao.base.files import read_json, write_json
from sao.base.names import write_digests
from sao.config.settings import ModelSource, add_settings
from sao.hub.place import fetch_all, is_safe, refuse_pickles
from sao.models.base import CLAP, check_files, check_weights, clap_on_hub, encoder_on_hub, from_folder, from_hub, place
from sao.models.config import (
    read_model_config,
    text_conditioner,
)
from sao.models.source import Source
from sao.models.weight_files import check_numbers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_settings(parser, ModelSource)
    parser.add_argument("--shapes", type=Path, required=True, help="JSON: shapes of the weights, from rehearse.py")
    parser.add_argument("--output", type=Path, required=True, help="folder of the model")
    parser.add_argument("--digest", type=Path, required=True, help="sha256sum listing of the folder")
    args = parse(parser)
    source = Source.of(args.settings).resolved()

    # Snakemake does not know this folder, so an interrupted transfer can resume.
    partial = args.output / ".partial"
    args.output.mkdir(parents=True, exist_ok=True)
    files = from_folder(source, source.path) if source.path else from_hub(source, args.output, partial)
    if source.path:
        config = read_model_config(files["model_config.json"])
        fetched = encoder_on_hub(source, config, partial) if source.text_encoder_repo else {}
        if fetched := fetched | clap_on_hub(source):
            files |= fetch_all(fetched, args.output, partial)
    if source.clap_path:
        files[CLAP] = source.clap_path
    refuse_pickles(files)
    check_files(files, source)

    args.digest.unlink(missing_ok=True)
    shutil.rmtree(args.output / "hub", ignore_errors=True)
    place(files, args.output, moved=not source.path)
    # Pickled weights from the Hub have their first check of shapes here.
    check_weights(args.output, args.shapes, source)
    if not is_safe(files["model.safetensors"].name):
        check_numbers(args.output / "model.safetensors", source.name(source.weights))
    if CLAP in files:
        config = read_json(args.output / "model_config.json")
        text_conditioner(config)["config"]["clap_ckpt_path"] = (args.output / CLAP).as_posix()
        write_json(args.output / "model_config.json", config)
    shutil.rmtree(partial, ignore_errors=True)
    names = sorted(files, key=lambda name: (name.startswith("hub/"), name))
    write_json(args.output / "source.json", source.described())
    write_digests(args.digest, args.output, progress([args.output / name for name in names], "checksums"))
    log.info("%s: %d files", args.output, len(names))


if __name__ == "__main__":
    run(main)
