"""Encode the captions of a corpus with a base model's text encoder, once for all steps of all runs."""

from __future__ import annotations

import argparse
from pathlib import Path

from sao.base.command import InputError, log, output_to_log, parse, progress, run

from sao.base.files import sha256, whole, write_json, writing
from sao.base.vouched import Checking, dataset_files, model_files
from sao.models.build import build_text_conditioner, write_safetensors
from sao.models.config import read_model_config
from sao.models.tokens import Reader


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset-configs", type=Path, required=True, help="folder of train.json and validation.json")
    parser.add_argument("--datasets-digest", type=Path, required=True, help="listing that vouches for them")
    parser.add_argument("--model", type=Path, required=True, help="folder of the base model")
    parser.add_argument("--model-digest", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--code", required=True, help="hash of the code that encodes")
    parser.add_argument("--output", type=Path, required=True, help="safetensors file")
    parser.add_argument("--digest", type=Path, required=True, help="summary of it")
    args = parse(parser)

    config = read_model_config(args.model / "model_config.json")
    configs = dataset_files(args.dataset_configs, args.datasets_digest)
    checking = Checking([*configs, *model_files(args.model, args.model_digest, weights=False)])
    conditioner = build_text_conditioner(config, args.model / "hub")
    checking.finish(f"dataset configs {args.dataset_configs} and base model {args.model}")

    with output_to_log():
        import torch
        from sao.models.device import this_device
        from sao.models.text import encode_caption, keeps_padding
        from sao.training.captions import captions_of, packed

    torch.set_num_threads(args.threads)
    captions, kind = captions_of(args.dataset_configs), this_device().kind
    conditioner.to(kind)
    tokenizer = getattr(conditioner, "tokenizer", None)  # CLAP's package has its own
    if tokenizer and (otherwise := Reader(config, args.model / "hub").read_otherwise(tokenizer, captions)):
        log.warning(
            "warning: %s: transformers reads %d of %d captions otherwise than tokenizer.json says, such as %r: signs may be "
            "lost: set tokenizer_class to PreTrainedTokenizerFast in the text encoder's tokenizer_config.json",
            args.model, len(otherwise), len(captions), otherwise[0],
        )  # fmt: skip
    shown = progress(captions, "encoding captions", unit="captions")
    with output_to_log():
        encoded = (encode_caption(conditioner, caption, kind) for caption in shown)
        tensors = packed(captions, encoded, keeps_padding(conditioner))
    if not torch.isfinite(tensors["states"]).all():
        raise InputError(f"{args.model}: the text encoder gave NaN or infinite numbers: is it whole?")
    with whole(args.output) as temporary, writing(args.output, sum(tensor.nbytes for tensor in tensors.values())):
        write_safetensors(tensors, temporary)
    log.info("%s: %d captions, %d tokens", args.output, len(captions), int(tensors["mask"].sum()))
    made_from = {"base_model": sha256(args.model_digest), "datasets": sha256(args.datasets_digest), "code": args.code}
    write_json(args.digest, made_from | {"captions": len(captions), "sha256": sha256(args.output)})


if __name__ == "__main__":
    run(main)
