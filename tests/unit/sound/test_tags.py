"""The tags of sounds, in the forms in which programs write them, become columns of one line each."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import noise
from hypothesis import given
from hypothesis import strategies as st
from media import write_media
from sao.sound.tags import TAGS, broadcast_description, read_tags, text_of

KNOWN = {"title": "Tür é", "artist": "Ä", "comment": "a comment", "genre": "rain", "date": "2021", "album": "Alb"}
PCM = (noise("a", 0.1) * 32767).astype("<i2").tobytes()


def tags(path: Path) -> dict[str, str]:
    """The tags that a file has, without the prefix of their columns."""
    found = read_tags(path)
    assert found.keys() == TAGS.keys()
    return {column.removeprefix("tag_"): text for column, text in found.items() if text}


def chunk(name: bytes, data: bytes, order: str = "<") -> bytes:
    return name + struct.pack(f"{order}I", len(data)) + data + b"\0" * (len(data) % 2)


def wav(*before: bytes, after: bytes = b"", form: bytes = b"RIFF") -> bytes:
    pcm = chunk(b"fmt ", struct.pack("<HHIIHH", 1, 1, 8000, 16000, 2, 16)), *before, chunk(b"data", PCM), after
    body = b"WAVE" + b"".join(pcm)
    return form + struct.pack("<I", len(body)) + body


def bext(description: bytes) -> bytes:
    """The chunk of a Broadcast Wave file (EBU Tech 3285)."""
    rest = b"Recorder".ljust(32, b"\0") + b"REF".ljust(32, b"\0") + b"2021-05-0610-11-12" + struct.pack("<QH", 0, 1)
    return chunk(b"bext", description.ljust(256, b"\0") + rest + bytes(254))


def info(encoding: str, **texts: str) -> bytes:
    return chunk(b"LIST", b"INFO" + b"".join(chunk(k.encode(), v.encode(encoding) + b"\0") for k, v in texts.items()))


def id3(version: int, *frames: tuple[str, bytes]) -> bytes:
    def size(number: int) -> bytes:
        return bytes(number >> shift & 127 for shift in (21, 14, 7, 0))

    packed = b"".join(
        name.encode() + (size(len(data)) if version == 4 else struct.pack(">I", len(data))) + b"\0\0" + data
        for name, data in frames
    )
    return b"ID3" + bytes([version, 0, 0]) + size(len(packed)) + packed


def mp3() -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, noise("a", 0.5, 44100), 44100, format="MP3")
    return buffer.getvalue()


ENCODED: dict[int, Callable[[str], bytes]] = {
    0: lambda text: text.encode("latin-1"),
    1: lambda text: text.encode("utf-16"),
    3: lambda text: text.encode("utf-8"),
}


def frames(code: int) -> list[tuple[str, bytes]]:
    said, end = ENCODED[code], b"\0\0" if code == 1 else b"\0"
    one = bytes([code])
    return [
        ("TIT2", one + said("Tür é")),
        ("TPE1", one + said("Ä")),
        ("TALB", one + said("Alb")),
        ("TCON", one + said("(17)")),
        ("TYER", one + said("2021")),
        ("TBPM", one + said("120")),
        ("TKEY", one + said("Am")),
        ("COMM", one + b"eng" + said("iTunNORM") + end + said("00001")),
        ("COMM", one + b"eng" + end + said("a comment")),
        ("TXXX", one + said("MOOD") + end + said("sad")),
    ]


ROCK = KNOWN | {"genre": "Rock", "bpm": "120", "key": "Am"}


@pytest.mark.parametrize(("version", "code"), [(3, 0), (3, 1), (4, 1), (4, 3)])
@pytest.mark.parametrize("inside", ["mp3", "wav"])
def test_id3(tmp_path: Path, version: int, code: int, inside: str) -> None:
    tag = id3(version, *frames(code))
    path = tmp_path / f"a.{inside}"
    path.write_bytes(tag + mp3() if inside == "mp3" else wav(after=chunk(b"id3 ", tag)))
    assert tags(path) == ROCK


def test_id3_of_the_first_version_in_another_encoding(tmp_path: Path) -> None:
    fields = [text.encode("latin-1").ljust(30, b"\0") for text in ("Größe", "Ä", "Alb")]
    path = tmp_path / "a.mp3"
    path.write_bytes(
        mp3() + b"TAG" + b"".join(fields) + b"2021" + "a cömment".encode("cp1252").ljust(30, b"\0") + b"\x11"
    )
    assert tags(path) == KNOWN | {"title": "Größe", "comment": "a cömment", "genre": "Rock"}


@pytest.mark.parametrize("form", ["FLAC", "OGG", "OPUS", "CAF", "WAV", "RF64", "AIFF"])
def test_tags_that_libsndfile_writes(tmp_path: Path, form: str) -> None:
    path = tmp_path / f"a.{form.lower()}"
    kind = ("OGG", "OPUS") if form == "OPUS" else (form, "VORBIS" if form == "OGG" else "PCM_16")
    with soundfile.SoundFile(path, "w", 48000, 1, kind[1], format=kind[0]) as sound:
        for name, text in (KNOWN | {"license": "CC0"}).items():
            setattr(sound, name, text)
        sound.write(noise("a", 0.1, 48000))
    # AIFF has chunks for three of them, and INFO none for a licence.
    kept = ("title", "artist", "comment") if form == "AIFF" else KNOWN
    licence = {"license": "CC0"} if form not in ("AIFF", "WAV", "RF64") else {}
    assert tags(path) == {name: KNOWN[name] for name in kept} | licence


@pytest.mark.parametrize("suffix", [".m4a", ".mp4", ".mka", ".webm", ".wma", ".wv", ".tta"])
def test_tags_that_ffmpeg_writes(tmp_path: Path, suffix: str) -> None:
    """Atoms of MP4, tags of Matroska and of Windows Media, APEv2."""
    assert tags(write_media(tmp_path / f"a{suffix}", np.full((48000, 1), 0.1), tags=KNOWN)) == KNOWN


@pytest.mark.parametrize("form", [b"RIFF", b"RF64"])
@pytest.mark.parametrize("encoding", ["utf-8", "cp1252"])
def test_broadcast_wave_has_its_description_beside_a_comment(tmp_path: Path, form: bytes, encoding: str) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(wav(bext("Eine Tür fällt zu.".encode(encoding)), form=form))
    assert broadcast_description(path) == "Eine Tür fällt zu."
    path.write_bytes(wav(bext(b"A door slams."), info("utf-8", ICMT="take 2", INAM="Door", IKEY="door; slam")))
    assert tags(path) == {
        "title": "Door",
        "comment": "take 2",
        "description": "A door slams.",
        "keywords": "door; slam",
        "date": "2021-05-06",
    }
    path.write_bytes(wav(bext(b"x" * 256)))
    assert tags(path)["description"] == tags(path)["comment"] == "x" * 256


def test_info_after_the_sound_in_another_encoding(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(wav(after=info("cp1252", INAM="Tür – „é“", ICMT="two\nlines", ICOP="© me")))
    assert tags(path) == {"title": "Tür – „é“", "comment": "two lines", "copyright": "© me"}


@pytest.mark.parametrize(
    "data", [b"", b"RIFF", b"<!DOCTYPE html>", b"ID3\4\0\0\x7f\x7f\x7f\x7f", b"RIFF\0\0\0\0WAVEbext\xff"]
)
def test_what_is_no_sound_has_no_tags(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.wav").write_bytes(data)
    assert tags(tmp_path / "a.wav") == {}


@given(st.binary(max_size=40))
def test_any_bytes_are_one_line_of_text(data: bytes) -> None:
    text = text_of(data)
    assert len(text.splitlines()) <= 1 and text == text.strip() and text.isprintable()
    text.encode("utf-8")


@given(st.binary(max_size=300))
def test_any_chunk_is_one_line_of_text(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.wav"
    path.write_bytes(wav(chunk(b"bext", data), chunk(b"LIST", b"INFO" + chunk(b"INAM", data))))
    assert all(text.isprintable() for text in tags(path).values())
