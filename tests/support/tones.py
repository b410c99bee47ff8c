"""A small corpus for graphs in which it does not matter what is heard: a folder of short tones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import soundfile


def write_tones(
    folder: Path, train: int = 4, validation: int = 2, evaluation: int = 2, seconds: float = 0.6, rate: int = 16000
) -> dict[str, Any]:
    """Write stereo tones, and a `metadata.csv` with captions and sides. Returns the corpus's entry of a config."""
    folder.mkdir(parents=True)
    time = np.arange(round(seconds * rate)) / rate
    rows = []
    for side, count in (("train", train), ("validation", validation), ("evaluation", evaluation)):
        for number in range(count):
            frequency = 200 + 90 * len(rows)  # Hz
            tone = 0.3 * np.sin(2 * np.pi * frequency * time) * np.exp(-2 * time)
            soundfile.write(folder / f"{side}{number}.wav", np.stack([tone, 0.5 * tone], axis=1), rate)
            caption = f"A tone of {frequency} Hz rings out."
            rows.append({"file_name": f"{side}{number}.wav", "caption": caption, "side": side, "license": "CC0"})
    pd.DataFrame(rows).to_csv(folder / "metadata.csv", index=False)
    return {"format": "audiofolder", "path": folder.name, "split": {"method": "column", "column": "side"}}
