"""The files that scripts/try.py writes: their format and their names, and that nothing of the user's is lost."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sao.base.command import InputError, log

import soundfile

from sao.base.files import check_room, whole
from sao.rendering.finish import FORMATS
from sao.rendering.trying import Job, Model, suffix_of

OURS = ("clip_id", "seed", "model_sha256")  # keys that the comment of each render has


def with_format(model: Model, output: Path | None) -> Model:
    """The model, rendering in the format that the suffix of the output names."""
    if output is None or output.suffix == suffix_of(model):
        return model
    formats = {f".{suffix}": name for name, (suffix, _) in reversed(FORMATS.items())}
    if output.suffix not in formats:
        raise InputError(
            f"{output}: sounds are written as {' or '.join(sorted(formats))}: choose one of these suffixes"
        )
    return dataclasses.replace(model, rendering={**model.rendering, "format": formats[output.suffix]})


def check_output(path: Path) -> None:
    """Raise InputError if a file would be lost that is no render."""
    if path.is_dir():
        raise InputError(f"{path}: is a folder: name a file with --output")
    if not path.exists():
        return
    try:
        with soundfile.SoundFile(path) as sound:
            told = json.loads(sound.comment)
    except (soundfile.SoundFileError, ValueError):
        told = None
    if not isinstance(told, dict) or not set(OURS) <= set(told):
        raise InputError(f"{path}: is there already, and is no render: name another file with --output")


def compared(output: Path, name: str) -> Path:
    """The file of the sound of the model that is compared: `out.base.wav`."""
    return output.with_name(f"{output.stem}.{re.sub('[^A-Za-z0-9@._-]+', '-', name).strip('-')}{output.suffix}")


def write(row: Mapping[str, Any], model: Model, job: Job, output: Path, scratch: Path) -> None:
    """Bring a sound to its place, and tell what it is."""
    made = scratch / row["file"]
    check_room(output, made.stat().st_size, "the sound")
    with whole(output) as temporary:
        shutil.copyfile(made, temporary)
    log.info(
        "%s: %s, %.2f s, seed %d, cfg %g, %d steps of %s%s",
        output,
        model.name,
        row["seconds"],
        job.clip.seed,
        job.clip.cfg_scale,
        job.sampling["steps"],
        job.sampling["sampler"],
        f", as the graph renders {job.clip.clip_id}" if job.among else "",
    )
