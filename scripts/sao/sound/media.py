"""Sounds that libsndfile cannot read, decoded by FFmpeg: m4a, aac, webm, the sound of a film, and others.

FFmpeg comes with PyAV, the dependency group `media`, and is imported only for such a file. It decides what is sound and what
is an encoder's padding (edit lists, Opus' pre-skip and discard padding). So the samples are those that ffmpeg itself writes.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import soundfile

from sao.sound.ffmpeg import DEMUXERS, import_av, place_of, restricted_to
from sao.sound.suffixes import is_media

STEP = 2**-15  # the step between two values of 16 bits, full scale = 1
# Those of files that declare their length. That of the others is an estimate by FFmpeg.
DECLARING = {"asf", "matroska", "mov", "tta", "wv"}
TOLERANCE = 0.2  # s by which a sound may be shorter than declared: padding, and lengths in whole frames or milliseconds
# CENC of MPEG-4 marks packets, FairPlay (iTunes) has a tag of its own, and Matroska names the key.
FAIRPLAY, KEY = "drms", "enc_key_id"


def av_for(path: Path) -> ModuleType:
    """PyAV, to read a sound."""
    return import_av(f"{path}: to read {path.suffix}", "convert the file, to FLAC say")


def check_readable(paths: Iterable[Path]) -> None:
    """Raise InputError if one of these sounds needs FFmpeg and it is not installed."""
    if (first := next((path for path in paths if is_media(path.name)), None)) is not None:
        av_for(first)


class Media:
    """A sound that FFmpeg decodes from its beginning to its end, with the same interface as `read.Sound`.

    Raises soundfile.SoundFileRuntimeError on a file that cannot be read, here or while it is read: not one audio stream, an
    encrypted one, damaged packets, another rate or other channels within the sound. Raises InputError without PyAV.
    """

    problem = ""
    step = STEP

    def __init__(self, path: Path) -> None:
        av = av_for(path)
        self.errors: type[Exception] = av.FFmpegError
        with contextlib.ExitStack() as opened, self._one_error():
            # Tags may be in any encoding, and must not stand in the way of the sound.
            options, errors = restricted_to(DEMUXERS), "surrogateescape"
            self.container = opened.enter_context(av.open(place_of(path), options=options, metadata_errors=errors))
            self.stream = self._only_stream()
            # Checksums of WavPack, FLAC, AC-3 and others are compared.
            self.stream.codec_context.options = {"err_detect": "crccheck+explode"}
            self.decoded = self._decoded()
            self.ahead = next(self.decoded, None)
            self.opened = opened.pop_all()
        if self.ahead is None:
            self.samplerate, self.channels = int(self.stream.rate), int(self.stream.channels)

    def __enter__(self) -> Media:
        return self

    def __exit__(self, *_: object) -> None:
        self.opened.close()

    @property
    def in_float(self) -> bool:
        """Whether the file holds samples in float, unencoded."""
        return str(self.stream.codec_context.name).startswith("pcm_f")

    def _only_stream(self) -> Any:
        streams = self.container.streams.audio
        if len(streams) != 1:
            found = f"{len(streams)} audio streams: keep one" if streams else "no audio stream"
            raise soundfile.SoundFileRuntimeError(f"it has {found}")
        stream = streams[0]
        if stream.codec_context is None:
            raise soundfile.SoundFileRuntimeError("FFmpeg has no decoder for it")
        if stream.codec_context.codec_tag == FAIRPLAY or KEY in stream.metadata:
            raise soundfile.SoundFileRuntimeError("it is encrypted (DRM)")
        return stream

    @contextlib.contextmanager
    def _one_error(self) -> Iterator[None]:
        """Raise FFmpeg's errors as those of libsndfile."""
        try:
            yield
        except self.errors as error:
            raise soundfile.SoundFileRuntimeError(f"FFmpeg: {getattr(error, 'strerror', error)}") from None

    def _decoded(self) -> Iterator[np.ndarray]:
        """The sound in pieces `[frames, channels]`, float32, full scale = 1."""
        first = True
        with self._one_error():
            for packet in self.container.demux(self.stream):
                if packet.has_sidedata("encryption_info"):
                    raise soundfile.SoundFileRuntimeError("it is encrypted (DRM)")
                for frame in packet.decode():
                    kind = int(frame.sample_rate), int(frame.layout.nb_channels)
                    if first:
                        (self.samplerate, self.channels), first = kind, False
                    if kind != (self.samplerate, self.channels):
                        raise soundfile.SoundFileRuntimeError(
                            f"it changes from {self.samplerate} Hz, {self.channels} channel(s), to {kind[0]} Hz, {kind[1]}"
                        )
                    array = frame.to_ndarray()
                    yield to_float(array.T if frame.format.is_planar else array.reshape(-1, self.channels))

    def blocks_of(self, samples: int) -> Iterator[np.ndarray]:
        """The sound in blocks `[frames, channels]` of about `samples` samples, float32, full scale = 1."""
        held: list[np.ndarray] = [] if self.ahead is None else [self.ahead]
        for piece in self.decoded:
            held.append(piece)
            if sum(map(np.size, held)) >= samples:
                yield np.concatenate(held)
                held = []
        if held:
            yield np.concatenate(held)

    def shortfall(self, count: int) -> str:
        """A few words if the `count` frames that were read are fewer than the file declares; else empty."""
        declared = self._declared()
        if declared is None or count / self.samplerate >= declared - TOLERANCE:
            return ""
        return f"is cut short, or its length is wrong: {count / self.samplerate:.2f} of {declared:.2f} s"

    def _declared(self) -> float | None:
        """The length in s that the file declares; None if it declares none."""
        if not DECLARING & set(self.container.format.name.split(",")):
            return None
        if self.stream.duration:
            return float(self.stream.duration * self.stream.time_base)
        # Matroska declares the end of each stream in a tag that not all programs write, and that of the longest.
        begin = float((self.stream.start_time or 0) * self.stream.time_base)
        if tag := re.fullmatch(r"(\d+):(\d\d):(\d\d\.\d+)", self.stream.metadata.get("DURATION", "")):
            return 3600 * int(tag[1]) + 60 * int(tag[2]) + float(tag[3]) - begin
        if self.container.duration and len(self.container.streams) == 1:
            return float(self.container.duration) / 1e6 - begin
        return None


def to_float(samples: np.ndarray) -> np.ndarray:
    """Samples of any of FFmpeg's types as float32, full scale = 1. Bytes are unsigned, with 128 for zero."""
    if samples.dtype == np.uint8:
        samples = (samples.astype(np.float32) - 128) / 128
    elif samples.dtype.kind == "i":
        samples = samples / float(-np.iinfo(samples.dtype).min)
    return np.ascontiguousarray(samples, dtype=np.float32)
