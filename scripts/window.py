"""Choose the training window of a corpus by the lengths of its clips, and tell what it costs."""

from __future__ import annotations

import argparse
from pathlib import Path

from sao.base.command import log, parse, run

import numpy as np
import pandas as pd
from sao.base.files import write_json
from sao.base.tables import read_table
from sao.config.resolve import ROLES
from sao.models.config import ModelConfig, downsampling_ratio, read_model_config, window_frames

MOST = 0.95  # of the training clips; the log says what a window for these alone would cost
SAVED = 0.1  # share of the computation from which on it does


def padding(frames: np.ndarray, window: int) -> float:
    """The share of a window that is padding, in the mean over clips of so many latent `frames [clips]`."""
    return 1 - float(np.minimum(frames, window).mean()) / window


def frames_for(seconds: float, config: ModelConfig) -> int:
    """Latent frames of the shortest window that holds a clip of `seconds`; the model's own window if none does."""
    rate, ratio = config["sample_rate"], downsampling_ratio(config)
    if seconds * rate >= config["sample_size"]:
        return window_frames(config, None)
    frames = window_frames(config, seconds)
    if seconds > frames * ratio / rate:  # by less than one sample: it was rounded down
        frames = window_frames(config, min(frames * ratio + 1, config["sample_size"]) / rate)
    return frames


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--splits", type=Path, required=True, help="folder of train.csv, validation.csv, evaluation.csv"
    )
    parser.add_argument("--model-config", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True, help="JSON with `train_seconds`; null is the model's own")
    args = parse(parser)

    config = read_model_config(args.model_config)
    rate, ratio, own = config["sample_rate"], downsampling_ratio(config), window_frames(config, None)
    clips = pd.concat([read_table(args.splits / f"{role}.csv").assign(role=role) for role in ROLES], ignore_index=True)
    longest = clips.loc[clips.seconds.idxmax()]
    frames = frames_for(float(longest.seconds), config)
    trained = np.ceil(clips.seconds[clips.role == "train"].to_numpy() * rate / ratio)
    costs = padding(trained, frames)
    write_json(
        args.output,
        {
            "train_seconds": frames * ratio / rate if frames < own else None,
            "frames": frames,
            "longest_clip": longest.clip_id,
            "longest_seconds": float(longest.seconds),
            "padding": round(costs, 4),
        },
    )

    def seconds(count: int) -> str:
        return f"{count * ratio / rate:.4g} s"

    log.info(
        "training window: %s (%d latent frames), for the longest of %d clips, %s (%.4g s)",
        seconds(frames), frames, len(clips), longest.clip_id, longest.seconds,
    )  # fmt: skip
    log.info(
        "%.0f %% of what the training computes is padding; in the model's own window of %s it would be %.0f %%",
        100 * costs, seconds(own), 100 * padding(trained, own),
    )  # fmt: skip
    usual = frames_for(float(np.quantile(clips.seconds[clips.role == "train"], MOST, method="higher")), config)
    if 1 - usual / frames > SAVED:
        log.info(
            "%.0f %% of the training clips last %s at most: without the longer ones a step would compute %.0f %% less. To get there, cut "
            "them, or set train_seconds to %.4g and random_crop to true",
            100 * MOST, seconds(usual), 100 * (1 - usual / frames), usual * ratio / rate,
        )  # fmt: skip
    if longest.seconds > own * ratio / rate:
        log.warning(
            "warning: %s lasts %.4g s, and the model's own window %s: cut the recordings, or set random_crop",
            longest.clip_id, longest.seconds, seconds(own),
        )  # fmt: skip


if __name__ == "__main__":
    run(main)
