"""What one pass over an audio file tells, and the table of it. numpy, pandas and soundfile only."""

from __future__ import annotations

import hashlib
import math
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile

from .command import progress
from .files import sha256

BLOCK = 1 << 18  # samples read at a time: bounded memory whatever the length
OGG_PAGE = 65307  # bytes of the longest page there can be
UNKNOWN_BYTES = 0x7FFF0000  # a declared size from here on is the placeholder of a program that wrote to a pipe


@dataclass
class Measured:
    """Facts about a file; `problem` says in a few words why it cannot be used, or is empty."""

    sha256: str = ""  # of the file
    audio_sha256: str = ""  # of rate, channels and samples: the same in another container or under other tags
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
    size = r"^ *(?:data|SSND|BODY|riff|Data Size|Riff size) *: (\d+) \(should be (\d+)\)"
    found = re.search(size, sound.extra_info, re.MULTILINE)
    declared, there = map(int, found.groups()) if found else (0, 0)
    return max(declared - there, 0) if declared < UNKNOWN_BYTES else 0


def ends_within_page(path: Path) -> bool:
    """Whether an Ogg file breaks off: libsndfile reads it up to there and says nothing."""
    with path.open("rb") as handle:
        handle.seek(max(path.stat().st_size - OGG_PAGE, 0))
        tail = handle.read()
    page = tail[max(tail.rfind(b"OggS\0"), 0) :]
    segments = page[26] if len(page) > 26 else 255
    return page.startswith(b"OggS") and len(page) < 27 + segments + sum(page[27 : 27 + segments])


def tells_length(path: Path) -> bool:
    """Whether an MP3 has the tag that counts its frames; of any other libsndfile only guesses the length."""
    with path.open("rb") as handle:
        head = handle.read(10)
        size = sum(byte << 7 * place for place, byte in enumerate(reversed(head[6:10])))
        handle.seek(10 + size if head.startswith(b"ID3") else 0)
        first = handle.read(2048)
    return b"Xing" in first or b"Info" in first


def measure(path: Path) -> Measured:
    """Hash and read the whole file, back to back so that it comes from the disk once.

    Never raises on bad audio: that is what `problem` is for.
    """
    facts = Measured(sha256=sha256(path))
    high, low, square, total, count = 0.0, 0.0, 0.0, 0.0, 0
    samples = hashlib.sha256()
    try:
        with soundfile.SoundFile(path) as sound:
            facts.sample_rate, facts.channels = sound.samplerate, sound.channels
            declared, missing = sound.frames, missing_bytes(sound)
            samples.update(f"{sound.samplerate} {sound.channels} ".encode())
            breaks_off = sound.format == "OGG" and ends_within_page(path)
            guessed = sound.format == "MP3" and not tells_length(path)
            while len(block := sound.read(BLOCK // sound.channels, dtype="float32", always_2d=True)):
                flat = block.reshape(-1)
                high, low = max(high, float(flat.max())), min(low, float(flat.min()))
                square += float(np.dot(flat, flat))
                if not math.isfinite(square):
                    facts.problem = "holds NaN or infinite samples"
                    return facts
                # Column by column: numpy's sum over the first axis of two columns takes fifteen times as long.
                total = total + np.array([column.sum(dtype=np.float64) for column in block.T])
                # float32 holds what any container has of 24 bits or less exactly, so that copies agree.
                samples.update(block)
                count += len(block)
    except (soundfile.SoundFileError, RuntimeError) as error:
        # Without the path, which is another one while an archive is unpacked.
        facts.problem = f"cannot be read ({getattr(error, 'error_string', str(error)).rstrip('.')})"
        return facts
    facts.frames = count
    if count == 0:
        facts.problem = "has no samples"
        return facts
    facts.audio_sha256 = samples.hexdigest()
    if missing:
        facts.problem = f"is cut short: {missing} bytes of audio are missing"
    elif count != declared and not guessed:
        facts.problem = f"is cut short: {count} of {declared} frames"
    elif breaks_off:
        facts.problem = "is cut short: it ends within a page"
    elif facts.channels > 2:
        facts.problem = f"has {facts.channels} channels; one or two are allowed"
    facts.seconds = round(count / facts.sample_rate, 6)
    facts.peak_dbfs = round(decibels(max(high, -low)), 2)
    facts.rms_dbfs = round(decibels(math.sqrt(square / (count * facts.channels))), 2)
    facts.dc_offset = round(float(np.abs(np.asarray(total) / count).max()), 5)
    return facts


class Measuring:
    """Measures files on threads while others come in (what takes time releases Python's lock)."""

    def __init__(self, threads: int) -> None:
        self.pool, self.running = ThreadPoolExecutor(threads), {}  # by file name

    def add(self, name: str, path: Path) -> None:
        if name not in self.running:
            self.running[name] = self.pool.submit(measure, path)

    def finish(self, label: str) -> pd.DataFrame:
        """Wait for all; the facts by `file_name`."""
        names = progress(sorted(self.running), label, unit="files")
        rows = [{"file_name": name} | vars(self.running[name].result()) for name in names]
        self.pool.shutdown()
        return pd.DataFrame(rows)
