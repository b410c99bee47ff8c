"""Turn a wrapped training checkpoint into the bare model: every key matched, or no file; and say what it is made of."""

from __future__ import annotations

import argparse
import json
import pickle
from pathlib import Path
from typing import TYPE_CHECKING

from sao.card import attribution, model_card
from sao.command import InputError, log, parse, run
from sao.files import read_json, sha256, whole, write_json
from sao.model import assert_same_keys, first_line, read_safetensors
from sao.tables import read_table, write_table

if TYPE_CHECKING:
    import torch

ONLINE = "diffusion."  # the trained model in stable-audio-tools' wrapper
EMA = "diffusion_ema.ema_model."  # its moving average, which covers `model.model` (the DiT) alone


def unwrap(state: dict[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], int]:
    """`(weights under the bare model's keys, how many of them are EMA weights)`.

    EMA weights where there are any, as upstream's unwrap_model.py does; the rest from the online model.
    """
    bare = {key.removeprefix(ONLINE): value for key, value in state.items() if key.startswith(ONLINE)}
    ema = {f"model.{key.removeprefix(EMA)}": value for key, value in state.items() if key.startswith(EMA)}
    if stray := sorted(set(ema) - set(bare)):
        raise InputError(
            f"EMA weight {stray[0]} belongs to no weight of the model: made by another stable-audio-tools?"
        )
    return {**bare, **ema}, len(ema)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, required=True, help="Lightning checkpoint of the training wrapper")
    parser.add_argument("--model", type=Path, required=True, help="folder of the base model")
    parser.add_argument("--source", type=json.loads, required=True, help="JSON: where the base model is from")
    parser.add_argument("--training", type=Path, required=True, help="training.json of the run")
    parser.add_argument("--clips", type=Path, required=True, help="train.csv of the corpus")
    parser.add_argument("--dropped", type=Path, required=True, help="CSV of clips that this model cannot take")
    parser.add_argument(
        "--output", type=Path, required=True, help="folder for the model, its README.md and ATTRIBUTION.csv"
    )
    parser.add_argument("--digest", type=Path, required=True)
    args = parse(parser)

    import torch
    from safetensors.torch import save_file

    try:
        state = torch.load(args.checkpoint, map_location="cpu", weights_only=True, mmap=True)["state_dict"]
    except (pickle.UnpicklingError, RuntimeError, KeyError, EOFError, TypeError, ValueError) as error:
        reason = first_line(error)
        raise InputError(f"{args.checkpoint}: not a training state that can be loaded safely ({reason})") from None
    weights, averaged = unwrap(state)
    # The base model was loaded strictly before training: its keys and shapes are the bare model's.
    base = read_safetensors(args.model / "model.safetensors")
    assert_same_keys({k: v.shape for k, v in weights.items()}, {k: v.shape for k, v in base.items()}, args.checkpoint)
    changed = [k for k, v in weights.items() if not torch.equal(v.float(), base[k].float())]
    if not any(key.startswith("model.") for key in changed):
        raise InputError(f"{args.checkpoint}: no weight of the diffusion model differs from the base model's")
    bad = [key for key, value in weights.items() if not torch.isfinite(value).all()]
    if bad:
        raise InputError(
            f"{args.checkpoint}: {len(bad)} weights are NaN or infinite ({bad[0]} …): the training diverged"
        )

    with whole(args.output / "model.safetensors") as temporary:
        save_file({key: value.contiguous() for key, value in weights.items()}, temporary)
    with whole(args.output / "model_config.json") as temporary:
        temporary.write_bytes((args.model / "model_config.json").read_bytes())
    clips = read_table(args.clips)
    clips = clips[~clips.clip_id.isin(read_table(args.dropped).clip_id)]
    write_table(args.output / "ATTRIBUTION.csv", attribution(clips))
    summary = {
        "keys": len(weights),
        "ema_keys": averaged,
        "changed_keys": len(changed),
        "sha256": sha256(args.output / "model.safetensors"),
    }
    with whole(args.output / "README.md") as temporary:
        temporary.write_text(model_card(read_json(args.training), args.source, clips, summary), encoding="utf-8")
    write_json(args.digest, summary)
    log.info(
        "%d keys, all matched; %d from the EMA; %d differ from the base model", len(weights), averaged, len(changed)
    )


if __name__ == "__main__":
    run(main)
