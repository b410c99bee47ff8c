"""Measure audio files, each in one pass, and make a table of the facts.

libsndfile reads what it can; `sao.sound.media` reads the rest with FFmpeg. `open_sound` chooses. Beside these numpy and pandas.
"""

from __future__ import annotations

import hashlib
import io
import math
import mmap
import re
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from sao.base.command import progress

import numpy as np
import pandas as pd
import soundfile

from sao.base.files import sha256
from sao.sound.containers import UNKNOWN_BYTES, Mpeg, left_over
from sao.sound.media import STEP, Media
from sao.sound.suffixes import is_media

BLOCK = 1 << 18  # samples read at a time, so that a long file needs no more memory
OGG_PAGE = 65307  # bytes of the longest possible page
# The steps of coarser formats, at the top of their range.
STEPS = {"PCM_U8": 2**-7, "PCM_S8": 2**-7, "DPCM_8": 2**-7, "DWVW_12": 2**-11, "ULAW": 2**-5, "ALAW": 2**-5}
CLIPPED = 3  # a sound is clipped if so many consecutive samples are at full scale
REACH = 64  # at most so many samples beside such a run are examined
SILENT_DBFS = -60.0  # a render, a recording beside it or a source with a lower peak counts as silent
LOWEST, HIGHEST = 100, 1_000_000  # Hz; a sound has no rate beyond these, and resampling from it would fill the memory
UNKNOWN_FRAMES = 1 << 62  # libsndfile returns this or more if the length is unknown: for a FLAC written to a pipe
# A float file may go beyond full scale, and is then clipped. If its peak is higher than this (+6 dBFS), full scale is not 1.
FLOAT_PEAK = 2.0
# Bits by the largest number of an integer type. Some programs, such as SciPy, write integers undivided into a float file.
INTEGERS = {128: 8, 32768: 16, 8388608: 24, 2147483648: 32}


@dataclass
class Measured:
    """The facts about a file. `problem` says in a few words why it cannot be used; it is empty if it can."""

    sha256: str = ""  # of the file
    audio_sha256: str = ""  # of rate, channels and samples, so it is the same in another container or with other tags
    seconds: float = 0.0
    sample_rate: int = 0  # Hz
    channels: int = 0
    frames: int = 0
    peak_dbfs: float = -math.inf  # dB relative to full scale
    rms_dbfs: float = -math.inf
    dc_offset: float = 0.0  # the largest of all channels, full scale = 1
    clipped_run: int = 0  # samples of the longest run at full scale in a channel; 0 if nothing is clipped
    problem: str = ""


def decibels(amplitude: float) -> float:
    """An amplitude in dB: 20 log10, and -inf for zero."""
    return 20 * math.log10(amplitude) if amplitude > 0 else -math.inf


class Clipping:
    """Finds the longest run of consecutive samples at full scale in one channel, which comes in pieces of any length.

    A sample is at full scale if it lies at most one step below it, on the positive or the negative side. Normalisation to
    the peak leaves one or two such samples. A run of more is clipped, unless it is the top of a smooth peak that rounding
    flattened. The top of such a peak is a parabola. The n samples of its run are at most 2 steps deep (-127 and -128 of
    8 bits, rounded down). So k samples beside the run, the parabola has fallen by at most 2 (1 + 2k / (n - 1))^2 steps, and
    one for rounding. A clipped wave falls much more steeply. At half the length of the run away from it, the difference is
    clear even with 8 bits, where the first sample beside the run may be only two steps lower.
    """

    def __init__(self, step: float) -> None:
        self.step = step  # full scale = 1
        self.longest = 0
        self.held = np.zeros(0, np.float32)  # the latest levels, which the decision on the last run still needs
        self.decided = 0  # runs that begin before this sample of `held` are decided
        self.left_out = 0  # samples of the run beginning at `decided` that are not in `held`

    def add(self, samples: np.ndarray, last: bool = False) -> None:
        """Take the next `samples` `[frames]`, full scale = 1. After the `last` ones, `longest` is final."""
        level = np.concatenate([self.held, np.abs(samples)])
        edges = np.flatnonzero(np.diff(level >= 1 - self.step, prepend=False, append=False))
        starts, ends = edges[::2], edges[1::2]
        lengths = ends - starts + np.where(starts == self.decided, self.left_out, 0)
        waits = np.zeros(len(starts), bool) if last else ends + REACH > len(level)
        new = (starts >= self.decided) & ~waits & (lengths >= max(CLIPPED, self.longest + 1))
        flat = ~self.is_smooth(level, starts[new], ends[new], lengths[new])
        self.longest = int(lengths[new][flat].max(initial=self.longest))

        first = np.flatnonzero(waits)[:1]
        begin, end = (starts[first[0]], ends[first[0]]) if len(first) else (len(level), len(level))
        # A run may be as long as the file. Of its inside only the length is needed.
        kept = min(end - begin, 2 * REACH)
        self.left_out = int(lengths[first[0]] - kept) if len(first) else 0
        before = max(0, begin - REACH)
        self.held = np.concatenate([level[before : begin + kept], level[end:]])
        self.decided = int(begin - before)

    def is_smooth(self, level: np.ndarray, starts: np.ndarray, ends: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Whether each of the runs `[starts, ends)` of `level` is the top of a smooth peak."""
        beside = np.minimum((lengths + 1) // 2, REACH)
        allowed = self.step * (1 + 2 * (1 + 2 * beside / (lengths - 1)) ** 2)
        smooth, seen = np.ones(len(starts), bool), np.zeros(len(starts), bool)
        for at in (starts - beside, ends - 1 + beside):
            inside = (at >= 0) & (at < len(level))  # a run at the beginning or end of the sound has only one neighbour
            fall = 1 - level[np.where(inside, at, 0)]
            smooth &= ~inside | (fall <= allowed)
            seen |= inside
        return smooth & seen


class Sound(soundfile.SoundFile):  # type: ignore[misc]
    """A sound file that is read from its beginning to its end, even an MP3 whose header counts too few frames.

    `problem` says in a few words why the file cannot be read whole; it is empty if it can. `counted` is whether the header
    declares the length.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.path = path
        self.problem, self.counted = "", self.frames < UNKNOWN_FRAMES
        if self.format == "MP3":
            with path.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as data:
                mpeg = Mpeg(data)
            self.problem, self.counted = mpeg.problem, mpeg.rewritten is None
            if mpeg.rewritten is not None:
                self.close()
                super().__init__(io.BytesIO(mpeg.rewritten))

    @property
    def step(self) -> float:
        """The step between two values at the top of the range, full scale = 1."""
        return STEPS.get(self.subtype, STEP)

    @property
    def in_float(self) -> bool:
        """Whether the file holds samples in float, unencoded."""
        return self.subtype in ("FLOAT", "DOUBLE")

    # After every read of a seekable file, soundfile seeks to the present position. libsndfile cannot do this in a FLAC of
    # unknown length.
    def seekable(self) -> bool:
        return False

    def blocks_of(self, samples: int) -> Iterator[np.ndarray]:
        """The sound in blocks `[frames, channels]` of about `samples` samples, float32, full scale = 1."""
        while len(block := self.read(max(samples // self.channels, 1), dtype="float32", always_2d=True)):
            yield block

    def shortfall(self, count: int) -> str:
        """A few words if the `count` frames that were read are fewer than the file declares; else empty."""
        if missing := missing_bytes(self):
            return f"is cut short: {missing} bytes of audio are missing"
        if count != self.frames and self.counted:
            return f"is cut short: {count} of {self.frames} frames"
        return "is cut short: it ends within a page" if self.format == "OGG" and ends_within_page(self.path) else ""


def open_sound(path: Path) -> Sound | Media:
    """A sound file, opened by what reads files of its name.

    Raises soundfile.SoundFileError on a file that cannot be read, InputError if FFmpeg is needed and not installed.
    """
    return Media(path) if is_media(path.name) else Sound(path)


def read_sound(path: Path) -> tuple[np.ndarray, int]:
    """`(samples [frames, channels] float32, Hz)` of a file, the same samples as `measure` reads.

    Raises soundfile.SoundFileError on a file that cannot be read or has no samples, InputError as `open_sound` does.
    """
    with open_sound(path) as sound:
        blocks = list(sound.blocks_of(BLOCK))
        if not blocks:
            raise soundfile.SoundFileRuntimeError("no samples")
        return np.concatenate(blocks), sound.samplerate


def scale_problem(peak: float) -> str:
    """The problem of a float file whose largest sample is `peak` (full scale = 1); empty if there is none."""
    if peak <= FLOAT_PEAK:
        return ""
    bits = next((bits for most, bits in INTEGERS.items() if peak <= most), None)
    cure = f"divide by {2 ** (bits - 1)} (it was made of integers of {bits} bits, it seems)" if bits else "scale it"
    return f"reaches {peak:.6g}, {decibels(peak):+.0f} dBFS, but the full scale of a float file is 1: {cure}"


def missing_bytes(sound: soundfile.SoundFile) -> int:
    """The number of bytes of audio that the header declares and the file lacks.

    libsndfile reads a WAV or AIFF that is cut short as if it were a shorter one, and mentions it only in its log.
    """
    size = r"^ *(?:data|SSND|BODY|riff|Data Size|Riff size) *: (\d+) \(should be (\d+)\)"
    sizes = re.search(size, sound.extra_info, re.MULTILINE)
    declared, present = map(int, sizes.groups()) if sizes else (0, 0)
    return max(declared - present, 0) if declared < UNKNOWN_BYTES else 0


def ends_within_page(path: Path) -> bool:
    """Whether an Ogg file ends in the middle of a page. libsndfile reads it up to there, and gives no warning."""
    with path.open("rb") as handle:
        handle.seek(max(path.stat().st_size - OGG_PAGE, 0))
        tail = handle.read()
    page = tail[max(tail.rfind(b"OggS\0"), 0) :]
    segments = page[26] if len(page) > 26 else 255
    return page.startswith(b"OggS") and len(page) < 27 + segments + sum(page[27 : 27 + segments])


def measure(path: Path) -> Measured:
    """Hash a file and then read it, so that it comes from the disk only once.

    Bad audio raises no error: its `problem` is in the facts. Raises InputError if FFmpeg is needed and not installed.
    """
    facts = Measured(sha256=sha256(path))
    high, low, square, count = 0.0, 0.0, 0.0, 0
    total: np.ndarray | float = 0.0  # of each channel
    samples = hashlib.sha256()
    try:
        with open_sound(path) as sound:
            facts.sample_rate, facts.channels = sound.samplerate, sound.channels
            samples.update(f"{sound.samplerate} {sound.channels} ".encode())
            clipping = [Clipping(sound.step) for _ in range(sound.channels)]
            float_file, more = sound.in_float, sound.problem
            for block in sound.blocks_of(BLOCK):
                flat = block.reshape(-1)
                high, low = max(high, float(flat.max())), min(low, float(flat.min()))
                with np.errstate(over="ignore"):  # numbers too large for samples get a problem below
                    square += float(np.dot(flat, flat))
                if not math.isfinite(square) and not np.isfinite(flat).all():
                    facts.problem = "holds NaN or infinite samples"
                    return facts
                # Each column by itself: numpy's sum over the first axis of two columns takes fifteen times as long.
                total = total + np.array([column.sum(dtype=np.float64) for column in block.T])
                # float32 holds samples of up to 24 bits exactly, so the hashes of copies in other containers agree.
                samples.update(block.data)
                count += len(block)
                for channel, column in zip(clipping, block.T, strict=True):
                    channel.add(column)
            short = sound.shortfall(count)
    except (soundfile.SoundFileError, RuntimeError) as error:
        # The message must not contain the path, because the file is elsewhere while an archive is unpacked.
        facts.problem = left_over(path) or f"cannot be read ({getattr(error, 'error_string', str(error)).rstrip('.')})"
        return facts
    facts.frames = count
    if count == 0:
        facts.problem = left_over(path) or "has no samples"
        return facts
    for channel in clipping:
        channel.add(np.zeros(0, np.float32), last=True)
    facts.audio_sha256 = samples.hexdigest()
    if short:
        facts.problem = short
    elif not LOWEST <= facts.sample_rate <= HIGHEST:
        facts.problem = f"has a sample rate of {facts.sample_rate} Hz; {LOWEST} to {HIGHEST} are allowed"
    elif facts.channels > 2:
        facts.problem = f"has {facts.channels} channels; one or two are allowed"
    else:
        facts.problem = more or left_over(path)
        if float_file and not facts.problem:
            facts.problem = scale_problem(max(high, -low))
    facts.seconds = round(count / facts.sample_rate, 6)
    facts.peak_dbfs = round(decibels(max(high, -low)), 2)
    facts.rms_dbfs = round(decibels(math.sqrt(square / (count * facts.channels))), 2)
    facts.dc_offset = round(float(np.abs(np.asarray(total) / count).max()), 5)
    facts.clipped_run = max(channel.longest for channel in clipping)
    return facts


class Measuring:
    """Measures files on threads while others come in. The slow parts release Python's lock."""

    def __init__(self, threads: int) -> None:
        self.pool = ThreadPoolExecutor(threads)
        self.running: dict[str, Future[Measured]] = {}  # by file name

    def add(self, name: str, path: Path) -> None:
        if name not in self.running:
            self.running[name] = self.pool.submit(measure, path)

    def finish(self, label: str) -> pd.DataFrame:
        """Wait for all files, and return the facts by `file_name`."""
        names = progress(sorted(self.running), label, unit="files")
        rows = [{"file_name": name} | vars(self.running[name].result()) for name in names]
        self.pool.shutdown()
        return pd.DataFrame(rows)
