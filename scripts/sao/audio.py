"""What one pass over an audio file tells. numpy and soundfile only."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

BLOCK = 1 << 18  # samples read at a time: bounded memory whatever the length
UNKNOWN_BYTES = 0x7FFF0000  # a declared size from here on is the placeholder of a program that wrote to a pipe


@dataclass
class Measured:
    """Facts about a file; `problem` says in a few words why it cannot be used, or is empty."""

    seconds: float = 0.0
    sample_rate: int = 0  # Hz
    channels: int = 0
    frames: int = 0
    peak_dbfs: float = -math.inf  # dB relative to full scale
    rms_dbfs: float = -math.inf
    dc_offset: float = 0.0  # largest over the channels, full scale = 1
    problem: str = ""


def decibels(amplitude: float) -> float:
    """20 log10, with -inf for nothing."""
    return 20 * math.log10(amplitude) if amplitude > 0 else -math.inf


def missing_bytes(sound: soundfile.SoundFile) -> int:
    """Bytes of audio that the header declares and the file lacks.

    libsndfile reads a WAV or AIFF that is cut short as if it were a shorter one, and only tells in its log.
    """
    found = re.search(r"^ *(?:data|SSND) : (\d+) \(should be (\d+)\)", sound.extra_info, re.MULTILINE)
    declared, there = map(int, found.groups()) if found else (0, 0)
    return max(declared - there, 0) if declared < UNKNOWN_BYTES else 0


def measure(path: Path) -> Measured:
    """Read the whole file once. Never raises on bad audio: that is what `problem` is for."""
    facts = Measured()
    peak, square, total, count = 0.0, 0.0, 0.0, 0
    try:
        with soundfile.SoundFile(path) as sound:
            facts.sample_rate, facts.channels = sound.samplerate, sound.channels
            declared, missing = sound.frames, missing_bytes(sound)
            for block in sound.blocks(BLOCK, dtype="float32", always_2d=True):
                if not np.isfinite(block).all():
                    facts.problem = "holds NaN or infinite samples"
                    return facts
                peak = max(peak, float(np.abs(block).max(initial=0.0)))
                square += float(np.square(block, dtype=np.float64).sum())
                total = total + block.sum(axis=0, dtype=np.float64)
                count += len(block)
    except (soundfile.SoundFileError, RuntimeError) as error:
        facts.problem = f"cannot be read ({str(error).rstrip('.')})"
        return facts
    facts.frames = count
    if count == 0:
        facts.problem = "has no samples"
        return facts
    if missing:
        facts.problem = f"is cut short: {missing} bytes of audio are missing"
    elif count != declared:
        facts.problem = f"is cut short: {count} of {declared} frames"
    elif facts.channels > 2:
        facts.problem = f"has {facts.channels} channels; one or two are allowed"
    facts.seconds = round(count / facts.sample_rate, 6)
    facts.peak_dbfs = round(decibels(peak), 2)
    facts.rms_dbfs = round(decibels(math.sqrt(square / (count * facts.channels))), 2)
    facts.dc_offset = round(float(np.abs(np.asarray(total) / count).max()), 5)
    return facts
