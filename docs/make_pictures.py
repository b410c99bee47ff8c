"""Draw docs/samples.png and docs/page.png from results/samples, after the main job has run on the default config.

uv run python docs/make_pictures.py
"""

from __future__ import annotations

import random
import textwrap
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import soundfile
import torch
import torchaudio
from playwright.sync_api import sync_playwright

matplotlib.use("Agg")
import matplotlib.pyplot as plt

SAMPLES = Path("results/samples")
RATE = 16000  # Hz
DRAWN = {"train": 2, "evaluation": 3}  # clips of each split, by lot


def log_mel(path: Path) -> np.ndarray:
    """Mel spectrogram `[mels, frames]` in dB, 0 dB at its loudest cell."""
    audio, rate = soundfile.read(path, dtype="float32", always_2d=True)
    mono = torchaudio.functional.resample(torch.from_numpy(audio.mean(1)), rate, RATE)
    mel = torchaudio.transforms.MelSpectrogram(RATE, 1024, hop_length=128, n_mels=80)(mono).clamp_min(1e-10)
    decibels = 10 * mel.log10()
    return (decibels - decibels.max()).numpy()


def main() -> None:
    samples = pd.read_csv(SAMPLES / "samples.csv")
    columns, lot = ["recording", *samples.run.unique()], random.Random(0)
    drawn = [
        clip
        for split, count in DRAWN.items()
        for clip in lot.sample(sorted(samples[samples.split == split].clip_id.unique()), count)
    ]
    figure, axes = plt.subplots(
        len(drawn), len(columns), figsize=(10, 1.7 * len(drawn)), squeeze=False, layout="constrained"
    )
    for row, name in zip(axes, drawn, strict=True):
        clip = samples[samples.clip_id == name].iloc[0]
        paths = [Path(clip.reference), *(SAMPLES / run / f"{clip.clip_id}.wav" for run in columns[1:])]
        for axis, path, title in zip(row, paths, columns, strict=True):
            extent = (0, clip.seconds, 0, 80)
            axis.imshow(log_mel(path), origin="lower", aspect="auto", vmin=-70, vmax=0, cmap="magma", extent=extent)
            axis.set_yticks([])
            axis.set_title({"base": "base model", "demo": "fine-tuned"}.get(title, title) if axis in axes[0] else "")
            axis.tick_params(labelsize=7)
        row[0].set_ylabel(textwrap.fill(clip.prompt, 24), rotation=0, ha="right", va="center", fontsize=8)
    axes[-1][0].set_xlabel("seconds", fontsize=8)
    figure.savefig("docs/samples.png", dpi=110)
    photograph()


def photograph() -> None:
    """The page as Chromium shows it when it is opened, while a render of the fine-tuned model is heard."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 820, "height": 900}, color_scheme="light")
        page.goto((SAMPLES / "index.html").resolve().as_uri())
        page.wait_for_timeout(1000)  # until the pictures are there
        page.keyboard.press("3")
        page.wait_for_function("player.audio?.currentTime > 0.5")
        page.screenshot(path="docs/page.png")
        browser.close()


if __name__ == "__main__":
    main()
