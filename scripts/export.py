"""Write the bare model with the trained weights of a leg. If a key does not match, no file is written."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from sao.base.command import InputError, log, parse, run

from sao.base.files import read_json, sha256, whole, write_json
from sao.base.vouched import Checking, leg_files, model_files
from sao.models.build import assert_same_keys, changed_keys, read_safetensors, write_safetensors

if TYPE_CHECKING:
    import torch

FROZEN = "pretransform."  # weights that no training changes


def full_model(base: dict[str, torch.Tensor], folder: Path) -> dict[str, torch.Tensor]:
    """The weights of the base model, with those that `folder` has replaced by trained ones.

    Raises InputError unless the trained weights have every key and shape of the base's diffusion model and conditioners.
    Each weight of an adapter has to belong to a module of the base model.
    """
    if (folder / "lora.safetensors").is_file() or (folder / "adapter_config.json").is_file():
        from sao.training.adapters import merged_weights

        return merged_weights(base, folder)
    path = folder / "model.safetensors"
    trained = read_safetensors(path)
    expected = {key: value.shape for key, value in base.items() if not key.startswith(FROZEN)}
    assert_same_keys({key: value.shape for key, value in trained.items()}, expected, path)
    return {key: trained[key].float() if key in trained else value for key, value in base.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trained", type=Path, required=True, nargs="+", help="weights folders of legs")
    parser.add_argument("--training", type=Path, required=True, nargs="+", help="training.json of these legs")
    parser.add_argument("--checksums", type=Path, required=True, nargs="+", help="listings that vouch for these legs")
    parser.add_argument("--model", type=Path, required=True, help="folder of the base model")
    parser.add_argument("--model-digest", type=Path, required=True, help="listing that vouches for it")
    parser.add_argument("--output", type=Path, required=True, help="folder for the model")
    parser.add_argument("--digest", type=Path, required=True)
    args = parse(parser)

    import torch

    # Of several legs, take the first one with the lowest validation loss.
    trainings = [read_json(path) for path in args.training]
    legs = zip(trainings, args.trained, args.checksums, strict=True)
    training, folder, checksums = min(legs, key=lambda leg: leg[0]["validation_loss"])
    checking = Checking([*model_files(args.model, args.model_digest), *leg_files(checksums, folder.name)])
    # The training loaded the base model strictly, so its keys and shapes are those of the bare model.
    base = read_safetensors(args.model / "model.safetensors")
    weights = full_model(base, folder)
    checking.finish(f"{folder} and base model {args.model}")
    assert_same_keys({k: v.shape for k, v in weights.items()}, {k: v.shape for k, v in base.items()}, folder)
    changed = changed_keys(weights, base)
    if not any(key.startswith("model.") for key in changed):
        raise InputError(f"{folder}: no weight of the diffusion model differs from the base model's")
    bad = [key for key, value in weights.items() if not torch.isfinite(value).all()]
    if bad:
        raise InputError(f"{folder}: {len(bad)} weights are NaN or infinite ({bad[0]} …): the training diverged")

    size = sum(value.numel() * value.element_size() for value in weights.values())
    with whole(args.output / "model.safetensors", size) as temporary:
        write_safetensors({key: value.contiguous() for key, value in weights.items()}, temporary)
    with whole(args.output / "model_config.json") as temporary:
        temporary.write_bytes((args.model / "model_config.json").read_bytes())
    summary = {
        "leg": training["leg"],
        "keys": len(weights),
        "changed_keys": len(changed),
        "sha256": sha256(args.output / "model.safetensors"),
    }
    write_json(args.digest, summary)
    log.info("%s: %d keys, all matched; %d differ from the base model", folder, len(weights), len(changed))


if __name__ == "__main__":
    run(main)
