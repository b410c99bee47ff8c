"""What one rendered clip is like as a signal, and beside its recording. numpy, scipy and pyloudnorm only."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import numpy as np
import pyloudnorm
from sao.sound.read import decibels
from sao.sound.spectra import RATE, log_mel_distance, read_sound, to_mono
from scipy.signal import welch

SILENT_DBFS = -60.0  # peak below which a clip is called silent, as in rule `render`
FULL_SCALE = 1 - 2**-15  # the highest sample of 16 bits: what a signal that is clipped stays at
EDGE_DB = -70.0  # below the loudest part of the spectrum: where a bandwidth ends
BLOCK_S = 0.4  # s; BS.1770 measures blocks of this length, so a shorter clip has no loudness
Facts = dict[str, float | bool | None]


def loudness(audio: np.ndarray, rate: int) -> float | None:
    """Integrated loudness in LUFS (ITU-R BS.1770-4) of `[frames, channels]`; None of a clip too short or silent."""
    if len(audio) < BLOCK_S * rate:
        return None
    with warnings.catch_warnings(), np.errstate(divide="ignore", invalid="ignore"):
        warnings.simplefilter("ignore")  # of blocks that are all below the gate
        value = float(pyloudnorm.Meter(rate).integrated_loudness(audio.astype(np.float64)))
    return value if math.isfinite(value) else None


def bandwidth(audio: np.ndarray, rate: int) -> float | None:
    """The highest frequency in Hz whose mean power is within EDGE_DB of the loudest; None of silence."""
    signal = audio.mean(axis=1)
    if not signal.any():
        return None
    # A window whose side lobes lie below EDGE_DB: Hann's reach over the edge.
    frequency, power = welch(signal, rate, "blackmanharris", nperseg=min(2048, len(signal)))
    return float(frequency[power >= power.max() * 10 ** (EDGE_DB / 10)].max())


def facts(audio: np.ndarray, rate: int) -> Facts:
    """`audio` `[frames, channels]`, full scale = 1. `clipped` is the share of samples at or over full scale."""
    level = np.abs(audio)
    return {
        "seconds": round(len(audio) / rate, 6),
        "silent": decibels(float(level.max(initial=0))) < SILENT_DBFS,
        "clipped": float((level >= FULL_SCALE).mean()) if audio.size else 0.0,
        "dc_offset": float(np.abs(audio.mean(axis=0, dtype=np.float64)).max()) if audio.size else 0.0,
        "loudness_lufs": loudness(audio, rate),
        "bandwidth_hz": bandwidth(audio, rate),
    }


def compare(path: Path, reference: Path | None) -> Facts:
    """The facts of a clip and, where it has a reference, those of that and how far they are apart.

    `loudness_error` in LU, `bandwidth_error` in octaves, `duration_error` in s, `log_mel_distance` in dB; none has a
    sign. None where a value cannot be had.
    """
    audio, rate = read_sound(path)
    found = facts(audio, rate)
    if reference is None:
        return found
    other, other_rate = read_sound(reference)
    theirs = {f"reference_{key}": value for key, value in facts(other, other_rate).items()}
    errors = {
        "duration_error": round(abs(found["seconds"] - theirs["reference_seconds"]), 6),
        "loudness_error": _apart(found["loudness_lufs"], theirs["reference_loudness_lufs"]),
        "bandwidth_error": _apart(_octaves(found["bandwidth_hz"]), _octaves(theirs["reference_bandwidth_hz"])),
        "log_mel_distance": log_mel_distance(to_mono(audio, rate, RATE), to_mono(other, other_rate, RATE)),
    }
    kept = ("reference_seconds", "reference_loudness_lufs", "reference_bandwidth_hz")
    return found | {key: theirs[key] for key in kept} | errors


def _octaves(hertz: float | None) -> float | None:
    return math.log2(hertz) if hertz else None


def _apart(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else abs(one - other)
