"""The training window of a corpus follows from the lengths of its clips, and the log tells what it costs."""

from __future__ import annotations

import math
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import BASE_MODEL, assert_succeeds, run_script
from sao.base.files import read_json
from sao.config.resolve import ROLES
from sao.models.config import downsampling_ratio, read_model_config, window_frames

CONFIG = read_model_config(BASE_MODEL / "model_config.json")
RATE, RATIO = CONFIG["sample_rate"], downsampling_ratio(CONFIG)
OWN = CONFIG["sample_size"] / RATE


def window(
    folder: Path, train: list[float], validation: float = 0.1, evaluation: float = 0.1
) -> subprocess.CompletedProcess[str]:
    """Write tables of clips of these lengths (s), and choose a window."""
    for role, lengths in zip(ROLES, (train, [validation], [evaluation]), strict=True):
        rows = [{"clip_id": f"{role}-{n}", "seconds": seconds} for n, seconds in enumerate(lengths)]
        pd.DataFrame(rows).to_csv(folder / f"{role}.csv", index=False)
    given = ["--splits", folder, "--model-config", BASE_MODEL / "model_config.json"]
    return run_script("window", *given, "--output", folder / "window.json")


@pytest.mark.parametrize(
    ("lengths", "longest"),
    [
        ({"train": [0.5, 1.0]}, ("train-1", 1.0)),
        ({"train": [0.5, 0.75], "validation": 1.25}, ("validation-0", 1.25)),
        ({"train": [0.5], "evaluation": 0.640001}, ("evaluation-0", 0.640001)),
        ({"train": [RATIO / RATE]}, ("validation-0", 0.1)),
    ],
)
def test_as_long_as_the_longest_clip_of_any_side(
    tmp_path: Path, lengths: dict[str, Any], longest: tuple[str, float]
) -> None:
    done = window(tmp_path, **lengths)
    assert_succeeds(done)
    told = read_json(tmp_path / "window.json")
    assert (told["longest_clip"], told["longest_seconds"]) == longest
    assert told["frames"] == math.ceil(longest[1] * RATE / RATIO)
    # What the scripts make of it: the same frames, from the file itself.
    assert window_frames(CONFIG, str(tmp_path / "window.json")) == told["frames"]
    assert told["train_seconds"] >= longest[1] > told["train_seconds"] - RATIO / RATE
    used = np.mean([math.ceil(seconds * RATE / RATIO) for seconds in lengths["train"]])
    assert told["padding"] == pytest.approx(1 - used / told["frames"], abs=1e-4)
    own = window_frames(CONFIG, None)
    text = (
        f"{100 * (1 - used / told['frames']):.0f} % of what the training computes is padding; in the model's own window of "
        f"{own * RATIO / RATE:.4g} s it would be {100 * (1 - used / own):.0f} %"
    )
    assert text in done.stderr and longest[0] in done.stderr


@pytest.mark.parametrize("seconds", [OWN, OWN + 1, OWN - 1e-5])
def test_at_most_the_models_own(tmp_path: Path, seconds: float) -> None:
    done = window(tmp_path, [0.5, seconds])
    assert_succeeds(done)
    told = read_json(tmp_path / "window.json")
    assert told["train_seconds"] is None
    assert window_frames(CONFIG, str(tmp_path / "window.json")) == window_frames(CONFIG, None) == told["frames"]
    warned = "warning: train-1 lasts" in done.stderr
    assert warned == (seconds > OWN) and (not warned or "cut the recordings, or set random_crop" in done.stderr)


def test_few_long_clips_are_told(tmp_path: Path) -> None:
    few = window(tmp_path, [0.5] * 98 + [2.0] * 2)
    assert_succeeds(few)
    match = re.search(
        r"95 % of the training clips last (\S+) s at most: .* a step would compute (\d+) % less", few.stderr
    )
    assert match, few.stderr
    assert float(match[1]) == pytest.approx(math.ceil(0.5 * RATE / RATIO) * RATIO / RATE) and int(match[2]) > 70
    advice = re.search(r"set train_seconds to (\S+) and random_crop to true", few.stderr)
    assert advice and window_frames(CONFIG, float(advice[1])) == math.ceil(0.5 * RATE / RATIO)
    assert "of the training clips last" not in window(tmp_path, [1.9] * 98 + [2.0] * 2).stderr
