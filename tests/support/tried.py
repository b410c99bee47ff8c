"""Results to try prompts with, without a training: a run, a leg, a base model, and a run with an adapter."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from conftest import checksum, link_checkout, write_wav
from sao.base.files import read_json, write_json
from sao.base.names import write_digests

LEG = "step-00000004"
ADAPTED = "light"  # the run with an adapter
ADAPTER = {"rank": 2, "alpha": 4, "rslora": False, "dropout": 0.0, "target_modules": ["to_qkv", "ff.2"]}
CONFIG: dict[str, Any] = {
    "base_models": {"demo": {"sampling": {"steps": 2}}},
    "runs": {
        "demo": {"steps": 8, "checkpoint_every": 4},
        ADAPTED: {"base_model": "demo", "corpus": "demo", "steps": 8, "method": "lora"},
    },
    "render": {"clips": {"evaluation": "all", "train": "all"}, "prompts": "mine.csv"},
}
PROMPTS = """id,prompt,seconds,seed,cfg_scale,negative_prompt,init_audio,init_noise_level
gull,A gull over water.,0.5,7,,,,
gull-2,A gull over water.,0.5,8,,,,
wind,Wind.,0.7,,4,A loud engine.,,
odd,Rain.,,,,,notes.wav,5
"""


def export(folder: Path, base: Path, weights: dict[str, Any], leg: str) -> None:
    """Write a model as rule export does."""
    from sao.models.build import write_safetensors

    folder.mkdir(parents=True, exist_ok=True)
    write_safetensors(weights, folder / "model.safetensors")
    shutil.copy(base / "model_config.json", folder)
    sha256 = checksum(folder / "model.safetensors", "sha256")
    write_json(folder / "export.json", {"sha256": sha256, "leg": leg})


def scaled(weights: dict[str, Any], factor: float) -> dict[str, Any]:
    """Weights of which those of the diffusion model are multiplied."""
    return {key: value * factor if key.startswith("model.") else value for key, value in weights.items()}


def adapter(base: Path, folder: Path) -> dict[str, Any]:
    """Write an adapter with drawn numbers as a leg of a training does; returns the base model's weights with it merged."""
    import torch
    from sao.models.build import load_trainable, read_safetensors
    from sao.training.adapters import adapter_state, add_adapters, merged_weights, write_adapter

    settings = ADAPTER | {"include": None, "exclude": None, "base_precision": "fp32"}
    model = load_trainable(read_json(base / "model_config.json"), base / "model.safetensors")
    add_adapters(model, "lora", settings, 0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in (weight for weight in model.parameters() if weight.requires_grad):
            weight += 0.05 * torch.randn(weight.shape, generator=generator)
    (folder / "weights").mkdir(parents=True)
    write_adapter(folder / "weights", adapter_state(model, "lora"), "lora", settings)
    write_digests(folder / "checksums.sha256", folder, sorted((folder / "weights").iterdir()))
    return merged_weights(read_safetensors(base / "model.safetensors"), folder / "weights")


def make_results(folder: Path, base: Path) -> Path:
    """A folder to try prompts in, with `small.yaml` and what it would have trained. `base` is the base model in place."""
    from sao.models.build import read_safetensors

    link_checkout(folder)
    (folder / "small.yaml").write_text(json.dumps(CONFIG))
    (folder / "mine.csv").write_text(PROMPTS)
    write_wav(folder / "notes.wav", 0.2 * np.sin(np.arange(16000) / 9)[:, None], 16000, "PCM_24")
    (folder / "results/models").mkdir(parents=True)
    (folder / "results/models/demo").symlink_to(base)
    weights, runs = read_safetensors(base / "model.safetensors"), folder / "results/checkpoints"
    export(runs / "demo", base, scaled(weights, 1.01), "step-00000008")
    export(runs / "demo" / LEG, base, scaled(weights, 1.02), LEG)
    leg = "step-00000008"
    export(runs / ADAPTED, base, adapter(base, runs / ADAPTED / leg), leg)
    return folder
