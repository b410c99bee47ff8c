"""Sounds in the containers that FFmpeg reads and libsndfile does not, written by FFmpeg itself."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

# The codec of each suffix, the rate that it is written with, and by how many frames it may become longer (padding).
CODECS: dict[str, tuple[str, int, int]] = {
    ".3gp": ("aac", 44100, 2048),
    ".aac": ("aac", 44100, 2048),
    ".ac3": ("ac3", 48000, 1536),
    ".amr": ("libopencore_amrnb", 8000, 320),
    ".eac3": ("eac3", 48000, 1536),
    ".m4a": ("aac", 44100, 2048),
    ".m4b": ("aac", 44100, 2048),
    ".m4v": ("aac", 44100, 2048),
    ".mka": ("flac", 44100, 0),
    ".mkv": ("aac", 44100, 2048),
    ".mov": ("pcm_s16le", 44100, 0),
    ".mp4": ("aac", 44100, 2048),
    ".tta": ("tta", 44100, 0),
    ".weba": ("libopus", 48000, 0),
    ".webm": ("libopus", 48000, 0),
    ".wma": ("wmav2", 44100, 4096),
    ".wv": ("wavpack", 44100, 0),
}
FORMATS = {".weba": "webm", ".m4v": "mp4"}  # of suffixes that FFmpeg does not know as an output
LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1"}


def write_media(
    path: Path,
    audio: np.ndarray,
    codec: str = "",
    streams: int = 1,
    tags: dict[str, str] | None = None,
    sample: str = "",
    film: bool = False,
    options: dict[str, str] | None = None,
) -> Path:
    """Encode `audio [frames, channels]` at the rate of the suffix. With `film` a picture of 16 by 16 goes before it."""
    name, rate, _ = CODECS[path.suffix]
    codec = codec or name
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format=FORMATS.get(path.suffix), options=options or {}) as container:
        container.metadata.update(tags or {})
        picture = container.add_stream("vp8" if path.suffix == ".webm" else "mpeg4", rate=25) if film else None
        layout = LAYOUTS[audio.shape[1]]
        sounds = [container.add_stream(codec, rate=rate, layout=layout) for _ in range(streams)]
        for sound in sounds:
            sound.bit_rate = 12200 if "amr" in codec else 128000
            known = [kind.name for kind in sound.codec_context.codec.audio_formats]
            sound.codec_context.format = sample or next(
                (kind for kind in ("fltp", "s16", "s16p") if kind in known), known[0]
            )
        if picture:
            picture.width = picture.height = 16
            for _ in range(round(2 * 25 * len(audio) / rate)):  # twice as long as the sound
                frame = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")
                container.mux(picture.encode(frame))
            container.mux(picture.encode(None))
        for sound in sounds:
            given = av.AudioFrame.from_ndarray(np.ascontiguousarray(audio.T, np.float32), format="fltp", layout=layout)
            given.sample_rate, given.pts, given.time_base = rate, 0, Fraction(1, rate)
            for frame in av.AudioResampler(format=sound.codec_context.format, layout=layout, rate=rate).resample(given):
                container.mux(sound.encode(frame))
            container.mux(sound.encode(None))
    return path


def remux(source: Path, target: Path, options: dict[str, str]) -> Path:
    """Copy the packets of a sound into another file, which is written with these options."""
    with av.open(str(source)) as old, av.open(str(target), "w", options=options) as new:
        stream = new.add_stream_from_template(old.streams.audio[0])
        for packet in old.demux(old.streams.audio[0]):
            if packet.dts is not None:
                packet.stream = stream
                new.mux(packet)
    return target
