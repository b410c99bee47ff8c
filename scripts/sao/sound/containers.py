"""Find out whether a sound file holds more than a decoder reads from it: two joined files, or a wrong header.

libsndfile reads such a file only up to the end that the first header declares, and gives no warning.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

UNKNOWN_BYTES = 0x7FFF0000  # a declared size of this or more is the placeholder of a program that wrote to a pipe
JOINED = "is two files joined into one: part them, or decode and join their sounds"
# The beginning of another file of the same kind, by a file's first bytes. Each pattern is long enough not to occur by
# chance in compressed or random bytes.
BEGINNINGS = {
    b"fLaC": re.compile(rb"fLaC[\0\x80]\0\0\x22"),
    b"caff": re.compile(rb"caff\0\x01\0\0desc"),
    b".snd": re.compile(rb"\.snd\0\0..[\0\xff]...\0\0\0[\1-\x1b]", re.DOTALL),
    b"riff": re.compile(re.escape(bytes.fromhex("726966662e91cf11a5d628db04c10000"))),  # Wave64
    b"Crea": re.compile(rb"Creative Voice File\x1a"),
    b"RF64": re.compile(rb"RF64\xff\xff\xff\xffWAVE"),
}
# Chunks that may follow the sound. The sound is complete even if one of them is cut off.
NOTES = {b"LIST", b"id3 ", b"ID3 ", b"bext", b"iXML", b"cue ", b"smpl", b"inst", b"acid", b"ANNO", b"NAME", b"AUTH"}
TAGS = (b"ID3", b"TAG", b"APETAGEX", b"LYRICSBEGIN")
SLACK = 64  # bytes after the last chunk that may be the padding of a careless program, and are ignored

# https://www.mp3-tech.org/programmer/frame_header.html: kbit/s by MPEG version (1, or 2 and 2.5) and layer.
BITRATES = {
    (1, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (2, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}  # Hz, by the two bits of version
SYNC = re.compile(rb"\xff[\xe2-\xff]")
MORE_FRAMES = 2  # frames that an MP3 may have beyond its own count, because not all encoders count the first


def left_over(path: Path) -> str:
    """A few words on the contents of a sound file that libsndfile does not read; empty if it reads all. `Mpeg` reads MP3s."""
    if path.stat().st_size < 16:
        return ""
    with path.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as data:
        head = data[:4]
        if head in (b"RIFF", b"RIFX", b"FORM"):
            return _after_chunks(data, "little" if head == b"RIFF" else "big")
        if head == b"OggS":
            return JOINED if _chained(data) else ""
        return JOINED if head in BEGINNINGS and _find(BEGINNINGS[head], data, 1) >= 0 else ""


def _find(pattern: re.Pattern[bytes], data: mmap.mmap, start: int) -> int:
    """The position of a pattern, or -1. The search is for the file's first four bytes, which is many times faster."""
    first = data[:4]
    while (start := data.find(first, start)) >= 0 and not pattern.match(data, start):
        start += 1
    return start


def _after_chunks(data: mmap.mmap, order: Literal["little", "big"]) -> str:
    """A few words on the bytes after the last chunk of a WAV or AIFF; empty if there are none that matter."""
    kind, position = data[:4], 12
    while position + 8 <= len(data):
        name, size = data[position : position + 4], int.from_bytes(data[position + 4 : position + 8], order)
        if name == kind and data[position + 8 : position + 11] == data[8:11]:
            return JOINED
        if not all(32 <= byte < 127 for byte in name):
            break
        sound = name in (b"data", b"SSND", b"BODY")
        end = position + 8 + size
        if sound and size == 0 and end < len(data) - SLACK and not _is_chunk(data, end):
            return f"declares no samples, but {len(data) - end} bytes follow: its header is wrong; mend or convert it"
        if end > len(data):
            if sound or size >= UNKNOWN_BYTES or name in NOTES:
                return ""  # the file was written to a pipe, or is cut short, which `measure` finds
            break
        # Chunks begin at even bytes, but some programs do not pad them.
        position = end + (size % 2 if not (size % 2 and _is_chunk(data, end)) else 0)
    rest = data[position:]
    if len(rest) <= SLACK or rest.startswith(TAGS) or not rest.strip(b"\0"):
        return ""
    return f"holds {len(rest)} bytes after the end that its header gives: mend or convert it"


def _is_chunk(data: mmap.mmap, position: int) -> bool:
    return re.match(rb"[A-Za-z][ -~]{3}", data[position : position + 4]) is not None


def _chained(data: mmap.mmap) -> bool:
    """Whether an Ogg file has a stream that begins after the first sound of another stream."""
    position, begun = 0, False
    while (position := data.find(b"OggS\0", position)) >= 0 and position + 27 <= len(data):
        first = bool(data[position + 5] & 2)
        if begun and first:
            return True
        begun |= not first
        segments = data[position + 26]
        position += 27 + segments + sum(data[position + 27 : position + 27 + segments])
    return False


@dataclass
class Frame:
    """The header of a frame of MPEG audio."""

    position: int  # of its first byte in the file
    size: int  # bytes
    layer: int
    samples: int  # per channel
    rate: int  # Hz
    channels: int
    tag: int  # bytes from its beginning to the place of an encoder's tag

    @property
    def kind(self) -> tuple[int, int, int]:
        """Layer, rate and channels, which are the same in all frames of a sound."""
        return self.layer, self.rate, self.channels


class Mpeg:
    """The frames of an MP3, counted one by one, whatever its header says. `data` is the whole file.

    libsndfile (mpg123) reads as many frames as the file's Xing or Info tag counts. Without a tag it guesses the number from
    the length of the first frame. It skips all frames beyond this number, and gives no warning.
    """

    def __init__(self, data: bytes | mmap.mmap) -> None:
        self.problem = ""  # a few words on why the file cannot be read whole
        self.rewritten: bytes | None = None  # the file with a tag that counts all frames; None if it has one
        frames = list(_frames(data))
        # Other layers have no tags, and their frames are of one length, so the guess is right.
        if not frames or frames[0].layer != 3:
            return
        first = frames[0]
        declared = _declared_frames(data, first)
        others = [frame for frame in frames if frame.kind != first.kind]
        if len(others) > MORE_FRAMES:
            described = " and ".join(f"{f.rate} Hz with {f.channels} channel(s)" for f in (first, others[0]))
            self.problem = f"{JOINED} ({described})"
        elif declared is None or len(frames) - 1 - declared > MORE_FRAMES:
            sounds = [frame for frame in frames if frame.kind == first.kind and not _is_tag(data, frame)]
            parts = [data[frame.position : frame.position + frame.size] for frame in sounds]
            self.rewritten = b"".join([_counting(data, first, len(sounds)), *parts])


def _frame(data: bytes | mmap.mmap, position: int) -> Frame | None:
    """The frame that begins at a position, or None."""
    if position + 4 > len(data) or data[position] != 0xFF or data[position + 1] & 0xE0 != 0xE0:
        return None
    second, third, fourth = data[position + 1], data[position + 2], data[position + 3]
    version, layer, bitrate, rate = second >> 3 & 3, 4 - (second >> 1 & 3), third >> 4, third >> 2 & 3
    if version == 1 or layer == 4 or bitrate in (0, 15) or rate == 3:
        return None
    hertz = RATES[version][rate]
    kilobits = BITRATES[1 if version == 3 else 2, layer][bitrate - 1]
    samples = 384 if layer == 1 else 576 if layer == 3 and version != 3 else 1152
    slot = 4 if layer == 1 else 1  # bytes
    size = (samples // 8 * kilobits * 1000 // hertz // slot + (third >> 1 & 1)) * slot
    mono = fourth >> 6 == 3
    side = (17 if mono else 32) if version == 3 else (9 if mono else 17)
    return Frame(position, size, layer, samples, hertz, 1 if mono else 2, 4 + side)


def _frames(data: bytes | mmap.mmap) -> Iterator[Frame]:
    """All whole frames. Tags of other programs between them are skipped."""
    position = 0
    while position < len(data):
        if frame := _frame(data, position):
            position += frame.size
            if position <= len(data):
                yield frame
        elif data[position : position + 3] == b"ID3" and position + 10 <= len(data):
            size = sum(byte << 7 * place for place, byte in enumerate(reversed(data[position + 6 : position + 10])))
            position += 10 + size
        else:
            begin = next((m.start() for m in SYNC.finditer(data, position + 1) if _follows(data, m.start())), len(data))
            tag = data.find(b"ID3", position + 1, begin)
            position = tag if tag >= 0 else begin


def _follows(data: bytes | mmap.mmap, position: int) -> bool:
    """Whether three frames of one kind begin at a position. Bytes of a picture in a tag may look like a single frame."""
    kinds = []
    for _ in range(3):
        if (frame := _frame(data, position)) is None:
            return False
        kinds.append(frame.kind)
        position += frame.size
    return len(set(kinds)) == 1


def _is_tag(data: bytes | mmap.mmap, frame: Frame) -> bool:
    """Whether a frame holds an encoder's tag and no sound. VBRI always begins at the same byte."""
    begin = frame.position + frame.tag
    return data[begin : begin + 4] in (b"Xing", b"Info") or data[frame.position + 36 : frame.position + 40] == b"VBRI"


def _declared_frames(data: bytes | mmap.mmap, frame: Frame) -> int | None:
    """The number of frames that the tag in the first frame declares. None if it has no tag, or a tag without a number."""
    begin = frame.position + frame.tag
    tag = data[begin : begin + 12]
    return int.from_bytes(tag[8:], "big") if tag[:4] in (b"Xing", b"Info") and tag[7] & 1 else None


def _counting(data: bytes | mmap.mmap, like: Frame, count: int) -> bytes:
    """A frame of the kind of `like` with a tag that declares `count` frames. It is long enough, and has no checksum."""
    first, second, third, fourth = data[like.position : like.position + 4]
    for bitrate in range(1, 15):
        header = bytes([first, second | 1, bitrate << 4 | third & 0x0C, fourth])
        frame = cast(Frame, _frame(header, 0))
        if frame.size >= frame.tag + 12:
            break
    body = bytes(frame.tag - 4) + b"Xing" + (1).to_bytes(4, "big") + count.to_bytes(4, "big")
    return (header + body).ljust(frame.size, b"\0")
