"""From what a model made to a sound file: its level, its warnings, and its row of the table of renders."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sao.base.command import InputError, log

import numpy as np

from sao.base.files import read_json, whole
from sao.config.settings import RenderSettings
from sao.rendering.clips import OF_SOURCE, Clip
from sao.sound.read import SILENT_DBFS, decibels
from sao.sound.write import write_sound

if TYPE_CHECKING:
    from sao.rendering.watermark import Marker

LOUDNESS_BLOCK = 0.4  # s, as in ITU-R BS.1770-4
CLOSE = 0.01  # LU
TRIALS = 10  # most need one
FORMATS = {"wav16": ("wav", "PCM_16"), "wav24": ("wav", "PCM_24"), "flac": ("flac", "PCM_16")}
COLUMNS = (
    "clip_id", "split", "prompt", "negative_prompt", "cfg_scale", "seed", "seconds", "run", "checkpoint", "model_sha256",
    "peak_dbfs", "gain_db", "overs", "warning", "reference", "source", "source_sha256", *OF_SOURCE, "file",
)  # fmt: skip


@dataclass
class Finished:
    """The samples to write, and their measurements."""

    audio: np.ndarray  # [samples, channels]
    peak_dbfs: float  # of the model's output
    gain_db: float
    overs: int  # samples beyond full scale, which the format clips
    warning: str


def finish(audio: np.ndarray, rate: int, loudness: float | None, clip: str, precision: str) -> Finished:
    """Bring `audio [samples, channels]` to a loudness in LUFS, if one is given, and count the samples over full scale.

    Silence stays as it is. Raises InputError on NaN or infinite samples.
    """
    if not np.isfinite(audio).all():
        cure = (
            ""
            if precision == "fp32"
            else f", or its numbers are too large for {precision}: set render.precision to fp32"
        )
        raise InputError(
            f"clip {clip}: rendered NaN or infinite samples: the model is broken (did the training diverge?){cure}"
        )
    peak = decibels(float(np.abs(audio).max()))
    if peak < SILENT_DBFS:
        return Finished(audio, peak, 0.0, 0, "silent")
    gain = 0.0
    if loudness is not None:
        import pyloudnorm

        # A clip that is shorter than a block is measured as one block.
        meter = pyloudnorm.Meter(rate, block_size=min(LOUDNESS_BLOCK, len(audio) / rate))
        # Parts below -70 LUFS do not count (ITU-R BS.1770-4), and with more gain more of a quiet sound counts.
        for _ in range(TRIALS):
            measured = meter.integrated_loudness(audio * 10 ** (gain / 20))
            if not np.isfinite(measured) or abs(loudness - measured) < CLOSE:
                break
            gain += loudness - measured
        audio = audio * 10 ** (gain / 20)
    overs = int((np.abs(audio) > 1).sum())
    return Finished(audio, peak, gain, overs, f"{overs} samples over full scale, clipped" if overs else "")


def write_render(
    folder: Path,
    clip: Clip,
    audio: np.ndarray,
    rate: int,
    settings: RenderSettings,
    precision: str,
    about: Mapping[str, Any],
    marker: Marker | None = None,
) -> dict[str, Any]:
    """Write what a model made of a clip, `audio [samples, channels]`, into `folder`; returns its row of the table (COLUMNS).

    The file's comment tells all that its bytes follow from. `about` has `run`, `checkpoint` and `model_sha256`, and what else is
    to be told there. A `marker` marks the sound. Raises InputError on NaN or infinite samples.
    """
    # Silence stays silence.
    if marker and decibels(float(np.abs(audio).max())) >= SILENT_DBFS:
        audio = marker.marked(audio, rate)
    # What lies outside of a mask keeps its level.
    loudness = settings["loudness"] if clip.mask_start is None else None
    finished = finish(audio, rate, loudness, clip.clip_id, precision)
    if finished.warning:
        log.warning("warning: clip %s: %s (peak %.1f dBFS)", clip.clip_id, finished.warning, finished.peak_dbfs)
    row = {
        "clip_id": clip.clip_id,
        "split": clip.split,
        "prompt": clip.prompt,
        "negative_prompt": clip.negative_prompt,
        "cfg_scale": clip.cfg_scale,
        "seed": clip.seed,
        "seconds": round(len(audio) / rate, 6),
        **about,
    }
    sampling = {k: v for k, v in settings["sampling"].items() if k not in ("cfg_scale", "negative_prompt")}
    made_from = {name: getattr(clip, name) for name in ("source_sha256", *OF_SOURCE)}
    comment = {key: value for key, value in row.items() if key != "prompt"} | sampling | {"precision": precision}
    comment |= made_from if clip.source else {}
    comment |= {"watermark": settings["watermark"]} if marker else {}
    suffix, subtype = FORMATS[settings["format"]]
    file = f"{clip.clip_id}.{suffix}"
    write_sound(folder / file, finished.audio, rate, subtype, clip.prompt, comment)
    return row | {
        "peak_dbfs": round(finished.peak_dbfs, 2),
        "gain_db": round(finished.gain_db, 2),
        "overs": finished.overs,
        "warning": finished.warning,
        "reference": clip.reference,
        "source": clip.source,
        **made_from,
        "file": file,
    }


def keep_row(folder: Path, clip: Clip, row: dict[str, Any]) -> None:
    """Note that a clip is finished: its row of the table, and what it was rendered from."""
    with whole(folder / f"{clip.clip_id}.json") as temporary:
        temporary.write_text(json.dumps({"clip": asdict(clip), "row": row}), encoding="utf-8")


def kept_row(folder: Path, clip: Clip) -> dict[str, Any] | None:
    """The row of a clip that was finished before, from the same prompt, seed, length and guidance; None if there is none."""
    path = folder / f"{clip.clip_id}.json"
    if not path.is_file():
        return None
    kept = read_json(path)
    return kept["row"] if kept["clip"] == asdict(clip) and (folder / kept["row"]["file"]).is_file() else None
