"""Tables of the sounds to render, made by rule prompts' script."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from conftest import kept_table, run_script

RENDER = {
    "clips": {"evaluation": 2},
    "caption": 1,
    "seed": 0,
    "seconds": None,
    "loudness": None,
    "format": "wav16",
    "precision": "auto",
}
SAMPLING = {
    "sampler": "dpmpp-3m-sde",
    "steps": 2,
    "cfg_scale": 1,
    "apg_scale": 0,
    "sigma_min": 0.3,
    "sigma_max": 50,
    "negative_prompt": None,
}


def run_prompts(
    model: Path,
    splits: Path,
    output: Path,
    *more: object,
    dropped: Sequence[str] = (),
    sampling: dict[str, Any] = SAMPLING,
    **settings: object,
) -> subprocess.CompletedProcess[str]:
    """Write the table of sounds to render to `output`."""
    return run_script(
        "prompts", "--kept", kept_table(splits, output.with_suffix(".kept.csv"), dropped),
        "--model-config", model / "model_config.json", "--hub", model / "hub",
        "--render", json.dumps(RENDER | settings), "--sampling", json.dumps(sampling), "--output", output,
        "--sources", output.with_suffix(""), *more,
    )  # fmt: skip
