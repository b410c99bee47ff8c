"""What base models and legs rendered to listen to, made by rule listen's script from short tones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
from conftest import assert_succeeds, run_script, write_wav

RATE = 8000
BASE = "base--demo--demo"
# clip_id, split, prompt, cfg_scale
SOUNDS = (
    ("a@cfg-10", "evaluation", "Rain & <b>wind</b>.", 10.0),
    ("a@cfg-4", "evaluation", "Rain & <b>wind</b>.", 4.0),
    ("mine@cfg-4", "prompts", "Übung: ein Horn.", 4.0),
    ("_empty-prompt@cfg-4", "evaluation", "", 4.0),
)


def tone(frequency: float, seconds: float = 0.3) -> np.ndarray:
    wave = 0.1 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * RATE)) / RATE)
    return np.stack([wave, 0.5 * wave], axis=1)


def render(root: Path, name: str, frequency: float) -> list[object]:
    """Write renders, and return the options that name them."""
    folder = root / "renders/.listen" / name
    recording, source = root / "my sounds/a.wav", root / "data/demo/prompts/demo/mine.wav"
    write_wav(recording, tone(500), RATE)
    write_wav(source, tone(600), RATE)
    rows = []
    for number, (clip, split, prompt, scale) in enumerate(SOUNDS):
        write_wav(folder / f"{clip}.wav", tone(frequency + 10 * number), RATE)
        rows.append(
            {"clip_id": clip, "split": split, "prompt": prompt, "negative_prompt": "", "cfg_scale": scale, "seed": 1,
             "seconds": 0.3, "warning": "silent" if clip == "a@cfg-10" else "",
             "reference": recording if clip.startswith("a@") else "",
             "source": source if clip.startswith("mine") else "", "file": f"{clip}.wav"}
        )  # fmt: skip
    table = folder.with_name(f"{name}.csv")
    pd.DataFrame(rows).to_csv(table, index=False)
    return ["--name", name, "--table", table, "--renders", folder]


def leg(step: int, run: str = "demo") -> str:
    return f"{run}@step-{step:08d}"


def listen(root: Path, name: str, frequency: float, shown: list[str], provenance: object = "x") -> Path:
    """Let a base model, or a leg `<run>@step-…`, land on the page below `root`; returns its summary."""
    page, more = root / "listen", []
    if "@" in name:
        run, _, of_run = name.partition("@")
        training = root / f"{name}.training.json"
        loss = {"run": run, "leg": of_run, "steps": int(of_run.split("-")[1]), "validation_loss": 0.5}
        training.write_text(json.dumps(loss | {"provenance": {"all": provenance}}))
        more = ["--training", training, "--base", page / f"{BASE}.json"]
    outputs = ["--output", page / name, "--summary", page / f"{name}.json"]
    assert_succeeds(run_script("listen", *render(root, name, frequency), *more, "--shown", *shown, *outputs))
    return page / f"{name}.json"
