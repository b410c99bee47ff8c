"""The estimate of the memory that a training of Stable Audio Open 1.0 needs, by method and precision.

    uv run python benchmarks/memory.py --seconds 30 --batch 1

Estimates, as scripts/train.py makes them before it loads anything; tests/unit/training/test_memory.py holds them against the measured
peaks of a small model. On a GPU, benchmarks/gpu.py prints what was really allocated.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from made import full_config
from stable_audio_tools.models.conditioners import NumberConditioner
from stable_audio_tools.models.diffusion import DiTWrapper

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
from sao.models.config import window_frames
from sao.training.memory import ADAPTER, estimate, total

RUNS = {
    "full, 16-mixed or bf16-mixed, with moving average": {"precision": "bf16-mixed", "ema": True},
    "full, 16-mixed or bf16-mixed": {"precision": "bf16-mixed"},
    "full, bf16-true": {"precision": "bf16-true"},
    "lora, rank 16": {"precision": "bf16-mixed", "method": "lora"},
    "lora, rank 16, base_precision bf16": {
        "precision": "bf16-mixed",
        "method": "lora",
        "adapter": ADAPTER | {"base_precision": "bf16"},
    },
}


def counted(config: dict) -> dict:
    """Parameters and shapes of the model of a config, as they would stand in its weights file."""
    model = config["model"]
    with torch.device("meta"):
        dit = DiTWrapper(diffusion_objective="v", **model["diffusion"]["config"])
        numbers = [
            NumberConditioner(model["conditioning"]["cond_dim"], **entry["config"])
            for entry in model["conditioning"]["configs"]
            if entry["type"] == "number"
        ]
    shapes = {f"model.{key}": tuple(value.shape) for key, value in dit.state_dict().items()}
    return {
        "model": sum(value.numel() for value in dit.state_dict().values()),
        "conditioner": sum(value.numel() for module in numbers for value in module.state_dict().values()),
        "pretransform": 0,  # not on the device where there are latents
        "shapes": shapes,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--batch", type=int, default=1)
    args = parser.parse_args()

    config = full_config()
    counts, frames = counted(config), window_frames(config, args.seconds)
    print(f"{counts['model'] / 1e6:.0f} M parameters, {frames} frames, batch {args.batch}, activations recomputed")
    base = {"method": "full", "adapter": ADAPTER, "batch_size": args.batch, "accumulate": 1, "ema": False}
    base |= {"recompute_activations": True, "compile": False}
    for name, changes in RUNS.items():
        print(f"{total(estimate(config, counts, base | changes, frames, True)) / 1e9:6.1f} GB  {name}")


if __name__ == "__main__":
    main()
