"""What rule `convert` does around the forms themselves: which weights to take, and how the result is listened to."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sao.base.command import InputError, progress

from sao.base.files import sha256
from sao.base.tables import caption_columns, captions_of
from sao.config.settings import ConvertSettings
from sao.exports.form import Source, Weights
from sao.models.build import enough_memory
from sao.models.config import ModelConfig, chunk_frames
from sao.models.numbers import column_of, numbers_of

if TYPE_CHECKING:
    import pandas as pd

    from sao.rendering.clips import Clip


def adapter_of(trained: list[Path], leg: str) -> Path:
    """The `lora.safetensors` of the leg that was exported. Raises InputError if it is not there."""
    folder = next((folder for folder in trained if folder.parent.name == leg), None)
    if folder is None:
        raise InputError(f"{trained[-1]}: is of another leg than the export, {leg}: delete the export and run again")
    path = folder / "lora.safetensors"
    if not path.is_file():
        raise InputError(f"{path}: missing: the leg has no adapter in this form; delete {folder.parent} and run again")
    return path


def clip_of(table: pd.DataFrame, config: ModelConfig, settings: ConvertSettings, window: float) -> Clip:
    """The first training clip, whose caption the code on a model card renders too. `window` is in s."""
    from sao.rendering.clips import Clip

    row: dict[str, Any] = {str(key): cell for key, cell in table[table.role == "train"].iloc[0].to_dict().items()}
    sampling = settings["sampling"]
    return Clip(
        clip_id=row["clip_id"],
        split="train",
        prompt=captions_of(row, caption_columns(row))[0],
        seconds=min(row["seconds"], window),
        seed=0,
        cfg_scale=sampling["cfg_scale"],
        negative_prompt=sampling["negative_prompt"],
        numbers={number.name: number.read(row[column_of(number)]) for number in numbers_of(config)},
    )


def listed(folder: Path) -> dict[str, dict[str, Any]]:
    """Sizes and SHA-256 of the files in a folder, by their paths in it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": sha256(path)}
        for path in progress(files, "checksums")
    }


def exact_weights(source: Source, exported: Weights) -> Weights:
    """The weights that an export would have without any rounding: the merged model's, in float32.

    Those of an adapter are merged anew, because the merged model has the precision of the base model's file.
    """
    merged = source.model
    if source.adapter is not None:
        from sao.training.forms import merged_form

        merged = merged_form(source.base, source.adapter)
    return {key: merged[key].float() for key in exported}


def rendered_difference(
    model: Any, source: Source, exact: Weights, exported: Weights, clip: Clip, threads: int
) -> dict[str, Any]:
    """How far a sound of the export lies from that of the exact model, for the record."""
    import torch

    from sao.exports.compared import difference_db
    from sao.models.device import this_device

    torch.set_num_threads(threads)
    with enough_memory(f"clip {clip.clip_id}", "it cannot be rendered here: take a larger GPU, or set device to cpu"):
        model = model.to(this_device().kind).eval().requires_grad_(False)
        chunk = chunk_frames(source.config)
        decibels = difference_db(model, exact, exported, clip, source.sampling, source.window, chunk)
    return {"clip_id": clip.clip_id, "prompt": clip.prompt, "seconds": clip.seconds, "decibels": decibels}


def said(record: dict[str, Any]) -> str:
    """The differences of a record, in words."""
    weights, render = record["weights"], record["render"]
    text = f"weights differ from the merged model's by {weights['mean_error']:.1e} on average, {weights['largest_error']:.1e} at most"
    if render and render["decibels"] is not None and math.isfinite(render["decibels"]):
        text += f"; a sound by {render['decibels']:.1f} dB"
    return text
