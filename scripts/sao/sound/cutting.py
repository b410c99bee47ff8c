"""Cut a recording into sound files, exactly at samples, and find its silences. A recording may be longer than the memory."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sao.base.command import InputError

import numpy as np
import soundfile

from sao.sound.read import Sound

BLOCK = 1 << 18  # samples read at a time
MOST_OPEN = 128  # clips of a recording that may overlap at one point: each is an open file
WAV_BYTES = (1 << 32) - (1 << 16)  # a WAV counts its bytes with 32 bits, RF64 with 64
# By the subtype of a recording: that of its clips, and the type of numbers that holds all of its samples exactly. The samples
# of other subtypes, such as those of MP3 and Vorbis, are decoded to float32.
SUBTYPES = {
    "PCM_S8": ("PCM_U8", "int16"),
    "PCM_U8": ("PCM_U8", "int16"),
    "PCM_16": ("PCM_16", "int16"),
    "PCM_24": ("PCM_24", "int32"),
    "PCM_32": ("PCM_32", "int32"),
    "ALAC_16": ("PCM_16", "int16"),
    "ALAC_20": ("PCM_24", "int32"),
    "ALAC_24": ("PCM_24", "int32"),
    "ALAC_32": ("PCM_32", "int32"),
    "DOUBLE": ("DOUBLE", "float64"),
}
DECODED = ("FLOAT", "float32")
WIDTHS = {"PCM_U8": 1, "PCM_16": 2, "PCM_24": 3, "PCM_32": 4, "FLOAT": 4, "DOUBLE": 8}  # bytes of a sample


@dataclass(frozen=True)
class Form:
    """How the clips of a recording are stored: WAV, with the recording's own precision. Nothing is resampled or clipped."""

    subtype: str
    numbers: str  # numpy's type of the samples between reading and writing

    @classmethod
    def of(cls, recording: Path) -> Form:
        return cls(*SUBTYPES.get(soundfile.info(recording).subtype, DECODED))

    def size(self, frames: int, channels: int) -> int:
        """Bytes of a clip's samples."""
        return frames * channels * WIDTHS[self.subtype]


def blocks(recording: Path, numbers: str) -> Iterator[np.ndarray]:
    """The samples of a recording in blocks `[frames, channels]`, from the beginning to the end."""
    with Sound(recording) as sound:
        size = max(BLOCK // sound.channels, 1)
        while len(block := sound.read(size, dtype=numbers, always_2d=True)):
            yield block


def cut(recording: Path, pieces: Sequence[tuple[int, int, Path]], largest: int = WAV_BYTES) -> None:
    """Write pieces `(first frame, frame after the last, file)` of a recording in one pass, in memory of a fixed size.

    Pieces may overlap. Those of more than `largest` bytes are RF64, which is a WAV of any size. Raises InputError if too many
    overlap, or if the recording ends before a piece does.
    """
    info, form = soundfile.info(recording), Form.of(recording)
    waiting = sorted(pieces, key=lambda piece: piece[:2], reverse=True)
    writing: list[tuple[int, soundfile.SoundFile]] = []  # the end of each piece that goes on, and its file
    at = 0  # the first frame of the block
    with contextlib.ExitStack() as stack:
        for block in blocks(recording, form.numbers):
            after = at + len(block)
            for end, file in writing:
                file.write(block[: end - at])
                if end <= after:
                    file.close()
            writing = [(end, file) for end, file in writing if end > after]
            while waiting and waiting[-1][0] < after:
                first, end, path = waiting.pop()
                if len(writing) == MOST_OPEN:
                    raise InputError(
                        f"{recording}: more than {MOST_OPEN} clips overlap at {first / info.samplerate:g} s: let fewer overlap"
                    )
                kind = "RF64" if form.size(end - first, info.channels) > largest else "WAV"
                path.parent.mkdir(parents=True, exist_ok=True)
                file = soundfile.SoundFile(path, "w", info.samplerate, info.channels, form.subtype, format=kind)
                stack.enter_context(file)
                file.write(block[first - at : end - at])
                if end <= after:
                    file.close()
                else:
                    writing.append((end, file))
            at = after
            if not (waiting or writing):
                return
    raise InputError(f"{recording}: ends after {at} frames, before a clip that is cut from it")


def sounding(recording: Path, level_dbfs: float, shortest: float) -> list[tuple[int, int]]:
    """The parts `[first frame, frame after the last)` of a recording between its silences.

    A silence is at least `shortest` seconds in which every sample of every channel lies below `level_dbfs`. So does FFmpeg's
    filter silencedetect define it.
    """
    level, rate = 10 ** (level_dbfs / 20), soundfile.info(recording).samplerate
    gap = max(math.ceil(shortest * rate), 1)
    parts: list[list[int]] = []
    at = 0
    for block in blocks(recording, "float32"):
        loud = at + np.flatnonzero(np.abs(block).max(axis=1) >= level)
        if len(loud):
            # Two loud frames belong together if fewer than `gap` quiet ones lie between them.
            breaks = np.flatnonzero(np.diff(loud) > gap)
            firsts, lasts = loud[[0, *(breaks + 1)]].tolist(), loud[[*breaks, -1]].tolist()
            for first, last in zip(firsts, lasts, strict=True):
                if parts and first - parts[-1][1] < gap:
                    parts[-1][1] = last + 1
                else:
                    parts.append([first, last + 1])
        at += len(block)
    return [(first, end) for first, end in parts]
