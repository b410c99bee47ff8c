"""The tags in sound files, as columns. FFmpeg reads them: ID3, Vorbis comments, RIFF INFO, APEv2, MP4 atoms and others."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sao.base.command import progress

from sao.sound.ffmpeg import DEMUXERS, import_av, place_of, restricted_to

# The columns, and FFmpeg's names (in lower case) of what they take; the first that is there counts.
TAGS = {
    "tag_title": ("title",),
    "tag_artist": ("artist", "author"),
    "tag_album": ("album",),
    "tag_genre": ("genre",),
    "tag_date": ("date", "year"),
    "tag_comment": ("comment",),
    "tag_description": ("bext", "description"),
    "tag_keywords": ("keywords", "ikey"),
    "tag_copyright": ("copyright",),
    "tag_license": ("license", "licence"),
    "tag_bpm": ("bpm", "tbpm", "tmpo"),
    "tag_key": ("initialkey", "tkey"),
}
READERS = f"{DEMUXERS},aiff,caf,flac,iff,mp3,ogg,w64,wav"  # FFmpeg's demuxers
DESCRIPTION = 256  # bytes of the description in the chunk `bext` of a Broadcast Wave file
THREADS = 8


def read_tags(path: Path) -> dict[str, str]:
    """The tags of a sound by column, each on one line; empty texts for those that it does not have.

    A file that FFmpeg cannot read has none: `measure` tells what is wrong with it. Raises InputError without PyAV.
    """
    av = import_av(f"{path}: to read tags", "remove `tags` from the corpus in the config")
    found: dict[str, str] = {}
    try:
        with av.open(place_of(path), options=restricted_to(READERS), metadata_errors="surrogateescape") as container:
            for tags in (container.metadata, *(stream.metadata for stream in container.streams.audio)):
                for key, value in tags.items():
                    found.setdefault(key.lower(), text_of(value.encode(errors="surrogateescape")))
    except av.FFmpegError:
        return dict.fromkeys(TAGS, "")
    found["bext"] = broadcast_description(path)
    return {column: next((found[key] for key in keys if found.get(key)), "") for column, keys in TAGS.items()}


def read_all_tags(folder: Path, names: Iterable[str]) -> dict[str, dict[str, str]]:
    """The tags of sounds in a folder, by their paths in it."""
    names = sorted(names)
    with ThreadPoolExecutor(THREADS) as pool:
        found = pool.map(read_tags, [folder / name for name in names])
        return dict(zip(names, progress(found, "reading tags", total=len(names), unit="files"), strict=True))


def broadcast_description(path: Path) -> str:
    """The description in the chunk `bext` of a Broadcast Wave file (EBU Tech 3285); empty for any other file.

    FFmpeg gives it as a comment, but not if there is a comment in the chunk `LIST` too.
    """
    with path.open("rb") as handle:
        if (head := handle.read(12))[:4] not in (b"RIFF", b"RF64", b"BW64") or head[8:] != b"WAVE":
            return ""
        while len(chunk := handle.read(8)) == 8:
            name, size = struct.unpack("<4sI", chunk)
            if name == b"bext":
                return text_of(handle.read(min(size, DESCRIPTION)).partition(b"\0")[0])
            handle.seek(size + size % 2, 1)
    return ""


def text_of(data: bytes) -> str:
    """A tag's bytes as one line: UTF-8 if they are valid, else Windows' Latin alphabet (cp1252), which most programs wrote."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = data.decode("cp1252", errors="ignore")
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
