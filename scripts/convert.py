"""Write an exported model, or its adapter, in a form that another program loads, and measure how exact that is."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from sao.base.command import InputError, log, parse, run

from sao.base.files import read_json, size_text, whole_folder, write_json
from sao.base.names import read_digests
from sao.base.tables import read_table
from sao.base.vouched import Checking, Vouched, leg_files, model_files
from sao.config.settings import ConvertSettings, add_settings
from sao.exports.converting import adapter_of, clip_of, exact_weights, listed, rendered_difference, said
from sao.exports.form import EXACT, Source
from sao.exports.forms import FORMS, model_refusal
from sao.models.build import load_model, read_safetensors
from sao.models.config import downsampling_ratio, read_model_config, window_frames


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", required=True, help="name of the run")
    parser.add_argument("--weights", type=Path, required=True, help="model.safetensors of the export")
    parser.add_argument("--weights-digest", type=Path, required=True, help="its export.json")
    parser.add_argument("--trained", type=Path, nargs="*", default=[], help="weights folders of legs with an adapter")
    parser.add_argument("--checksums", type=Path, nargs="*", default=[], help="listings that vouch for these legs")
    parser.add_argument("--start", type=Path, nargs="?", help="folder of the weights that the run started from")
    parser.add_argument("--start-digest", type=Path, nargs="?", help="listing that vouches for them")
    parser.add_argument("--model", type=Path, required=True, help="folder of the base model")
    parser.add_argument("--model-digest", type=Path, required=True, help="its checksum listing")
    parser.add_argument("--kept", type=Path, required=True, help="table of the clips that the model can take")
    add_settings(parser, ConvertSettings)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--code", required=True, help="hash of the code that converts")
    parser.add_argument("--output", type=Path, required=True, help="folder of the export")
    parser.add_argument("--digest", type=Path, required=True, help="JSON: its files, sizes, SHA-256 and differences")
    args = parse(parser)

    settings, export = args.settings, read_json(args.weights_digest)
    form, precision = settings["form"], settings["precision"]
    config = read_model_config(args.model / "model_config.json")
    if reason := model_refusal(form, config):
        raise InputError(f"{args.model / 'model_config.json'}: {reason}")
    cure = f"delete {args.weights} and run again"
    checked = [Vouched(args.weights, export["sha256"], args.weights_digest, cure)]
    checked += model_files(args.model, args.model_digest, weights=False)
    adapter = None
    if FORMS[form].of_adapter:
        if not (args.trained and args.checksums and args.start and args.start_digest):
            parser.error(f"{form} needs --trained, --checksums, --start and --start-digest")
        adapter = adapter_of(args.trained, export["leg"])
        listing = next(path for path in args.checksums if path.parent.name == export["leg"])
        checked += leg_files(listing, "weights") + model_files(args.start, args.start_digest, text_encoder=False)
        if args.start != args.model:
            log.warning(
                "warning: run %s started from other weights than the base model's (init_from): load the adapter on top of those, %s",
                args.run,
                args.start / "model.safetensors",
            )
    checking = Checking(checked)
    window = window_frames(config, settings["train_seconds"])
    source = Source(
        name=args.run,
        config=config,
        config_file=args.model / "model_config.json",
        model=read_safetensors(args.weights),
        hub=args.model / "hub",
        window=window,
        sampling=dict(settings["sampling"]),
        base={key: value.float() for key, value in read_safetensors(args.start / "model.safetensors").items()}
        if adapter
        else {},
        adapter=adapter,
    )
    checking.finish(f"{args.weights} and base model {args.model}")
    # Before diffusers is imported: huggingface_hub reads its settings once, and building a model sets them.
    model = load_model(config, source.hub, args.weights) if precision != EXACT else None
    with whole_folder(args.output) as folder:
        exported = FORMS[form].write(source, precision, folder)
        files = listed(folder)
    from sao.exports.precision import differences

    exact = exact_weights(source, exported)
    record: dict[str, Any] = {
        "form": form,
        "precision": precision,
        "leg": export["leg"],
        "model_sha256": export["sha256"],
        # Of the weights that an adapter is loaded on top of.
        "base_sha256": read_digests(args.start_digest)["model.safetensors"] if adapter else None,
        "bytes": sum(file["bytes"] for file in files.values()),
        "weights": differences(exported, exact),
        "render": None,
        "files": files,
    }
    if model is not None:
        seconds = window * downsampling_ratio(config) / config["sample_rate"]
        clip = clip_of(read_table(args.kept), config, settings, seconds)
        record["render"] = rendered_difference(model, source, exact, exported, clip, args.threads)
    write_json(args.digest, record)
    log.info("%s: %s in %d files; %s", args.output, size_text(record["bytes"]), len(files), said(record))


if __name__ == "__main__":
    run(main)
