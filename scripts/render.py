"""Render the captions of a corpus with one model, a WAV a clip, with a fixed seed a clip."""

from __future__ import annotations

import argparse
import json
import math
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import soundfile
from sao.audio import decibels
from sao.clips import seed_for
from sao.command import InputError, log, output_to_log, parse, progress, run
from sao.model import build, load_weights, pick_device
from sao.model_config import check_sampler, downsampling_ratio, read_model_config, window_frames
from sao.tables import read_table, write_table

if TYPE_CHECKING:
    import torch

SILENT_DBFS = -60.0  # peak below which a rendered clip is called silent


def choose(table: pd.DataFrame, count: str | int, seed: int) -> pd.DataFrame:
    """`count` clips of a split, or all: the first by a hash of (seed, clip_id), so that more clips move no other."""
    if count == "all":
        return table
    ranked = sorted(table.clip_id, key=lambda clip: seed_for(seed, "choose", clip))
    return table[table.clip_id.isin(ranked[: int(count)])]


def finish(audio: torch.Tensor, clip: str) -> tuple[torch.Tensor, float, float, str]:
    """`(audio [channels, samples] within full scale, peak in dBFS before, gain in dB applied, what is odd or "")`.

    Raises InputError on NaN or infinite samples.
    """
    if not audio.isfinite().all():
        raise InputError(
            f"clip {clip}: rendered NaN or infinite samples: the model is broken (did the training diverge?)"
        )
    peak = float(audio.abs().max())
    if decibels(peak) < SILENT_DBFS:
        return audio, decibels(peak), 0.0, "silent"
    if peak > 1:
        return audio / peak, decibels(peak), -decibels(peak), "over full scale, turned down"
    return audio, decibels(peak), 0.0, ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, required=True, help="model.safetensors")
    parser.add_argument("--model", type=Path, required=True, help="folder of the base model")
    parser.add_argument(
        "--splits", type=Path, required=True, help="folder of train.csv, validation.csv, evaluation.csv"
    )
    parser.add_argument("--dropped", type=Path, required=True, help="CSV of clips that this model cannot take")
    parser.add_argument("--render", type=json.loads, required=True, help="JSON: the config's `render`")
    parser.add_argument("--sampling", type=json.loads, required=True, help="JSON: the base model's `sampling`")
    parser.add_argument("--window-seconds", type=float)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, required=True, help="folder for <clip_id>.wav")
    parser.add_argument("--table", type=Path, required=True)
    args = parse(parser)

    tables, dropped = [], set(read_table(args.dropped).clip_id)
    for split, count in args.render["clips"].items():
        table = read_table(args.splits / f"{split}.csv")
        chosen = choose(table[~table.clip_id.isin(dropped)], count, args.render["seed"])
        few = chosen[chosen.caption_count < args.render["caption"]]
        if len(few):
            raise InputError(
                f"render.caption is {args.render['caption']}; clip {few.clip_id.iloc[0]} has {few.caption_count.iloc[0]} "
                "captions"
            )
        tables.append(chosen.assign(split=split, prompt=chosen[f"caption_{args.render['caption']}"]))
    clips = pd.concat(tables, ignore_index=True).sort_values(["split", "clip_id"])

    config = read_model_config(args.model / "model_config.json")
    check_sampler(config, args.sampling["sampler"])
    samples = window_frames(config, args.window_seconds) * downsampling_ratio(config)
    model = build(config, args.model / "hub")
    load_weights(model, args.weights)
    with output_to_log():
        import torch
        from stable_audio_tools.inference.generation import generate_diffusion_cond

    torch.set_num_threads(args.threads)
    device = pick_device()
    model = model.to(device).eval().requires_grad_(False)
    sampling = dict(args.sampling)
    sampling["sampler_type"] = sampling.pop("sampler")

    partial = args.output.with_name(f".{args.output.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    rows = []
    for clip in progress(list(clips.itertuples()), f"rendering {args.output.name}", unit="clips"):
        seed = seed_for(args.render["seed"], "render", clip.clip_id)
        # One clip a call: stable-audio-tools seeds a call, so a batch would make a clip depend on its neighbours.
        with output_to_log(), torch.inference_mode():
            audio = (
                generate_diffusion_cond(
                    model,
                    conditioning=[
                        {"prompt": clip.prompt, "seconds_start": 0, "seconds_total": math.ceil(clip.seconds)}
                    ],
                    sample_size=samples,
                    seed=seed,
                    device=device,
                    **sampling,
                )[0]
                .float()
                .cpu()
            )
        audio = audio[:, : round(clip.seconds * config["sample_rate"])]
        audio, peak, gain, odd = finish(audio, clip.clip_id)
        if odd:
            log.warning("warning: clip %s is %s (peak %.1f dBFS)", clip.clip_id, odd, peak)
        soundfile.write(partial / f"{clip.clip_id}.wav", audio.T.numpy(), config["sample_rate"], subtype="PCM_16")
        rows.append(
            {
                "clip_id": clip.clip_id,
                "split": clip.split,
                "prompt": clip.prompt,
                "seed": seed,
                "seconds": round(audio.shape[1] / config["sample_rate"], 6),
                "checkpoint": args.weights.as_posix(),
                "peak_dbfs": round(peak, 2),
                "gain_db": round(gain, 2),
                "warning": odd,
                "reference": clip.path,
            }
        )
    if all(row["warning"] == "silent" for row in rows):
        raise InputError(f"{args.weights}: every rendered clip is silent: the model is broken")
    shutil.rmtree(args.output, ignore_errors=True)
    partial.rename(args.output)
    write_table(args.table, pd.DataFrame(rows))


if __name__ == "__main__":
    run(main)
