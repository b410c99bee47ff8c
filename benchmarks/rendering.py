"""Clips a second of rule `render`, against one process a prompt, as in the scripts that people try a model with.

    uv run python benchmarks/rendering.py

Needs the default run (`results/checkpoints/demo`). Runs in turn, `--rounds` times each, on `--threads` threads:

- by hand: for each prompt a process that builds the model, loads the weights, calls stable-audio-tools'
  generate_diffusion_cond and writes a WAV.
- render: one process of scripts/render.py for all prompts.

Model, prompts, lengths, seeds and sampler settings are the same, and so is the sound.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

from sao.rendering.clips import Clip, write_clips  # noqa: E402

MODEL, TUNED = ROOT / "results/models/demo", ROOT / "results/checkpoints/demo"
SAMPLING = {"steps": 50, "cfg_scale": 4, "sigma_min": 0.3, "sigma_max": 100}
BY_HAND = """
import json, sys
import soundfile, torch
from safetensors.torch import load_file
from stable_audio_tools.inference.generation import generate_diffusion_cond
from stable_audio_tools.models.factory import create_model_from_config
folder, prompt, seconds, seed, threads, sampling, output = sys.argv[1:]
torch.set_num_threads(int(threads))
config = json.load(open(f"{folder}/model_config.json"))
model = create_model_from_config(config)
model.load_state_dict(load_file(f"{folder}/model.safetensors"))
model.eval().requires_grad_(False)
with torch.inference_mode():
    audio = generate_diffusion_cond(
        model, conditioning=[{"prompt": prompt, "seconds_start": 0, "seconds_total": int(seconds)}],
        sample_size=config["sample_size"], seed=int(seed), device="cpu", sampler_type="dpmpp-3m-sde",
        **json.loads(sampling),
    )[0]
audio = audio[:, : int(seconds) * config["sample_rate"]].clamp(-1, 1)
soundfile.write(output, audio.T.numpy(), config["sample_rate"], subtype="PCM_16")
"""


def timed(commands: list[list[str]], env: dict[str, str]) -> float:
    """Seconds that the commands take, one after the other."""
    start = time.monotonic()
    for command in commands:
        subprocess.run(command, cwd=ROOT, env=env, check=True, capture_output=True)
    return time.monotonic() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()

    captions = pd.read_csv(ROOT / "results/data/demo/splits/train.csv").caption_1[: args.prompts]
    env = os.environ | {"HF_HUB_CACHE": str(MODEL / "hub"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(args.threads)}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = [{"id": f"p{n:02d}", "prompt": text, "seconds": 3, "seed": n} for n, text in enumerate(captions)]
        scale = SAMPLING["cfg_scale"]
        clips = [Clip(row["id"], "prompts", row["prompt"], row["seconds"], row["seed"], scale, None) for row in rows]
        write_clips(folder / "clips.csv", clips)
        by_hand = [
            [sys.executable, "-c", BY_HAND, str(TUNED), row["prompt"], str(row["seconds"]), str(row["seed"]),
             str(args.threads), json.dumps(SAMPLING), str(folder / f"{row['id']}.wav")]
            for row in rows
        ]  # fmt: skip
        sampling = SAMPLING | {"sampler": "dpmpp-3m-sde", "negative_prompt": None}
        settings = {
            "loudness": None,
            "format": "wav16",
            "precision": "fp32",
            "sampling": sampling,
            "train_seconds": None,
        }
        options = {
            "run": "demo", "code": "bench", "weights": TUNED / "model.safetensors", "weights-digest": TUNED / "export.json",
            "model": MODEL, "model-digest": MODEL / "checksums.sha256", "clips": folder / "clips.csv",
            "settings": json.dumps(settings), "threads": args.threads,
            "output": folder / "out", "table": folder / "out.csv",
        }  # fmt: skip
        ours = [sys.executable, "scripts/render.py", *(str(p) for k, v in options.items() for p in (f"--{k}", v))]
        times: dict[str, list[float]] = {"by hand": [], "render": []}
        for number in range(args.rounds):
            times["by hand"].append(timed(by_hand, env))
            times["render"].append(timed([ours], env))
            print(f"round {number + 1}:", *(f"{way} {values[-1]:.1f} s" for way, values in times.items()), flush=True)
        apart = max(
            np.abs(
                soundfile.read(folder / f"{row['id']}.wav")[0] - soundfile.read(folder / f"out/{row['id']}.wav")[0]
            ).max()
            for row in rows
        )
    medians = {way: statistics.median(values) for way, values in times.items()}
    for way, seconds in medians.items():
        print(f"{way}: {seconds:.1f} s, {len(rows) / seconds:.2f} clips/s")
    print(f"ratio {medians['by hand'] / medians['render']:.1f}; largest difference {apart * 2**15:.0f} of 32768")


if __name__ == "__main__":
    main()
