"""Encode sounds into latents: one mean, one standard deviation and one JSON of facts for each clip."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sao.base.command import InputError, log, output_to_log, progress

import numpy as np
import pandas as pd

from sao.base.ahead import ahead
from sao.base.files import check_room, sha256, writing
from sao.base.names import write_digests
from sao.base.tables import read_table
from sao.base.vouched import LISTING, Checking, model_files, sound_files
from sao.models.build import build_autoencoder, enough_memory
from sao.models.config import ModelConfig, downsampling_ratio

ENDS = (".json", ".npy", ".std")  # endings of the files of a clip
COMPILED_FROM = 36_000  # s of audio; for less, compiling the encoder takes longer than it saves


@dataclass(frozen=True)
class Sounds:
    """The sounds of a published split: their folder, and the CSV of their measurements."""

    split: str
    audio: Path
    facts: Path


def usable(facts: pd.DataFrame, window: float) -> list[str]:
    """The names of the files that can be encoded. The others passed validation only because they may be left out."""
    names = []
    for row in facts.sort_values("file_name").to_dict("records"):
        long = row["seconds"] > window
        if row["problem"] or long or row["peak_dbfs"] == -math.inf:
            log.info("left out: %s %s", row["file_name"], row["problem"] or ("is too long" if long else "is silent"))
        else:
            names.append(row["file_name"])
    return names


def summarise(folder: Path, clips: int) -> dict[str, Any]:
    """Write the listing of digests. Returns its SHA-256 with count, channels, frames, mean and standard deviation."""
    means, stds, shapes = [], [], []
    for path in sorted(folder.glob("*.npy")):
        array = np.load(path)
        means.append(array.mean(dtype=np.float64))
        stds.append(array.std(dtype=np.float64))
        shapes.append(array.shape)
    if len(shapes) != clips:
        raise InputError(f"{folder}: {len(shapes)} latents for {clips} clips")
    write_digests(folder / LISTING, folder, sorted(path for end in ENDS for path in folder.glob(f"*{end}")))
    return {
        "clips": clips,
        "channels": shapes[0][0] if shapes else None,
        "frames": sum(frames for _, frames in shapes),
        "mean": round(float(np.mean(means)), 4) if means else None,
        "std": round(float(np.mean(stds)), 4) if stds else None,
        "sha256": sha256(folder / LISTING),
    }


def encode(
    clips: Mapping[str, str],
    of: Sounds,
    model: Path,
    model_digest: Path,
    config: ModelConfig,
    frames: int,
    threads: int,
    folder: Path,
    output: Path,
) -> None:
    """Write mean, standard deviation and facts of each clip, padded to at least `frames` latent frames.

    `clips` maps clip_ids to names of files. The files lie in `folder` until all clips are done; its later name is `output`. Raises
    InputError if the disk has no room, and if a sound or the model is not the one that was measured.
    """
    facts = read_table(of.facts).set_index("file_name")
    ratio, width = downsampling_ratio(config), config["model"]["io_channels"]
    todo = list(clips)
    lengths = [max(frames, math.ceil(facts.seconds[clips[clip]] * config["sample_rate"] / ratio)) for clip in todo]
    # Mean and deviation in float32, and a JSON with 3 bytes per frame.
    room = [8 * width * length + 3 * length + 1000 for length in lengths]
    check_room(folder, sum(room), f"the latents of {len(todo)} clips")
    checking = Checking(model_files(model, model_digest))
    autoencoder = build_autoencoder(config, model / "model.safetensors")
    checking.finish(f"base model {model}")
    sounds = {file.path: file for file in sound_files(of.facts, of.audio)}
    channels = config["model"]["pretransform"]["config"]["io_channels"]

    import torch

    from sao.models.autoencoder import clip_facts, compile_encoder, load_audio, moments, padded
    from sao.models.device import this_device

    torch.set_num_threads(threads)
    device = this_device()
    autoencoder = autoencoder.to(device.kind).eval()
    if sum(lengths) * ratio >= COMPILED_FROM * config["sample_rate"] and compile_encoder(autoencoder):
        log.info("the encoder is compiled")

    def read(clip: str) -> tuple[int, torch.Tensor]:
        """A clip's length in samples, and its audio, padded."""
        path = of.audio / clips[clip]
        if wrong := sounds[path].wrong():
            raise InputError(wrong)
        audio = load_audio(path, config["sample_rate"], channels)
        samples, audio = audio.shape[1], padded(audio, ratio, frames)
        return samples, audio.pin_memory() if device.pins_memory else audio

    def write(done: int, samples: int, mean: np.ndarray, std: np.ndarray) -> None:
        """Write the latents of the clip after the first `done`."""
        clip, path = todo[done], of.audio / clips[todo[done]]
        if mean.shape[0] != width or mean.shape[1] < frames or not np.isfinite([mean, std]).all():
            raise InputError(f"{path}: gave latents of shape {mean.shape}, or NaN")
        about = {"clip_id": clip, "file_name": clips[clip]} | clip_facts(samples, config, mean.shape[1])
        with writing(output, sum(room[done:])):
            np.save(folder / f"{clip}.npy", mean)
            with (folder / f"{clip}.std").open("wb") as deviation:
                np.save(deviation, std)
            # Written last, because a clip counts as done when its JSON exists.
            with (folder / f"{clip}.json.part").open("w", encoding="utf-8") as handle:
                json.dump(about, handle)
        (folder / f"{clip}.json.part").rename(folder / f"{clip}.json")

    with output_to_log(), torch.inference_mode(), contextlib.closing(ahead(read, todo)) as audio_of:
        ready: tuple[int, int, np.ndarray, np.ndarray] | None = None
        for done, clip in enumerate(progress(todo, f"encoding {of.split}", unit="clips")):
            samples, audio = next(audio_of)
            with enough_memory(of.audio / clips[clip], "encode it on a larger GPU, or set device to cpu"):
                found = moments(autoencoder, audio.to(device.kind, non_blocking=True))
            if ready:  # while a GPU computes this one
                write(*ready)
            mean, std = (each.cpu().numpy() for each in found)
            ready = done, samples, mean, std
        if ready:
            write(*ready)
