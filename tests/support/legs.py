"""A leg of a training, for tests of the checks that run before torch is loaded."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from sao.training.leg import Leg

SETTINGS = {
    "base_model": "demo", "corpus": "demo", "method": "full", "adapter": None, "batch_size": 4, "accumulate": 3,
    "devices": 2, "num_nodes": 5, "strategy": "auto", "threads": 1, "learning_rate": 1e-3, "optimizer": None,
    "scheduler": None, "training": {}, "gradient_clip": 0, "ema": None, "precision": "32-true", "recompute_activations": False,
    "compile": False, "captions": "random", "phase_flip": False, "seed": 3,
}  # fmt: skip
RUNNING = {"wandb": None, "tensorboard": False, "workers": 0, "validate_every": 4, "scratch": False}


def make_leg(folder: Path, **changes: Any) -> Leg:
    """A leg with the paths of its files in `folder`. None of the files exists."""
    options = {
        "run": "demo",
        "leg": "step-00000008",
        "last": None,
        "resume": None,
        "settings": dict(SETTINGS),
        "running": dict(RUNNING),
        "dataset_configs": folder / "configs",
        "datasets_digest": folder / "configs.sha256",
        "sound_digest": [folder / "latents.json"],
        "captions": folder / "captions.safetensors",
        "captions_digest": folder / "captions.json",
        "model": folder / "model",
        "model_digest": folder / "checksums.sha256",
        "base_digest": None,
        "code": "x",
        "output": folder / "run/step-00000008",
    }
    return Leg.of(argparse.Namespace(**options | changes, log=None))
