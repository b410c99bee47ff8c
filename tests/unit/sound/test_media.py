"""Sounds that FFmpeg decodes have the samples that were encoded, and what is wrong with a file is said in a few words."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import checksum, noise
from hypothesis import given
from hypothesis import strategies as st
from media import CODECS, remux, write_media
from sao.models.autoencoder import load_audio
from sao.sound.media import to_float
from sao.sound.read import BLOCK, measure, open_sound, read_sound
from sao.sound.suffixes import FILMS, MEDIA
from scipy.signal import correlate

LOSSLESS = [(".mka", "flac"), (".wv", "wavpack"), (".tta", "tta"), (".m4a", "alac"), (".mov", "pcm_s16le")]


def tune(rate: int, seconds: float = 1.5, channels: int = 2) -> np.ndarray:
    """A tone that swells and rises, so that any shift or gap shows: `[frames, channels]`."""
    time = np.arange(round(rate * seconds)) / rate
    wave = 0.4 * np.sin(2 * np.pi * (300 + 200 * time) * time) * np.linspace(0.2, 1, len(time))
    return np.stack([wave * (1 - 0.5 * channel) for channel in range(channels)], axis=1)


def test_every_suffix_is_walked_here() -> None:
    assert set(CODECS) == MEDIA | FILMS


@pytest.mark.parametrize("suffix", CODECS)
def test_sound_comes_back_at_its_place(tmp_path: Path, suffix: str) -> None:
    _, rate, padding = CODECS[suffix]
    channels = 1 if suffix == ".amr" else 2
    audio = tune(rate, channels=channels)
    path = write_media(tmp_path / f"a{suffix}", audio)
    facts = measure(path)
    assert (facts.problem, facts.sample_rate, facts.channels) == ("", rate, channels)
    assert facts.sha256 == checksum(path, "sha256") and facts.clipped_run == 0
    # Windows Media and the bare streams give no number of the frames that an encoder puts before the sound.
    lost = 4096 if suffix == ".wma" else 0
    assert -lost <= facts.frames - len(audio) <= padding
    read, hertz = read_sound(path)
    assert (read.shape, read.dtype, hertz) == ((facts.frames, channels), np.float32, rate)
    # The middle of the sound lies where it was encoded, or, for those files, less than three encoder's frames from there.
    part = audio[rate // 2 : rate, 0]
    at = int(np.argmax(correlate(read[:, 0], part, "valid"))) - rate // 2
    assert at == 0 if suffix not in (".aac", ".ac3", ".eac3", ".amr", ".wma") else abs(at) <= 4096
    near = read[rate // 2 + at : rate + at, 0]
    assert np.corrcoef(near, part)[0, 1] > (0.95 if suffix == ".amr" else 0.999)
    assert np.abs(near).max() == pytest.approx(np.abs(part).max(), rel=0.2 if suffix == ".amr" else 0.02)
    assert measure(path) == facts


@pytest.mark.parametrize(("suffix", "codec"), LOSSLESS)
def test_lossless_sound_has_the_samples_and_the_hash_of_a_wav(tmp_path: Path, suffix: str, codec: str) -> None:
    steps = np.random.default_rng(0).integers(-9000, 9000, (BLOCK // 2 + 777, 2))
    audio = steps / 32768
    kind = {"tta": "s16", "alac": "s16p"}.get(codec, "")
    path = write_media(tmp_path / f"a{suffix}", audio, codec, sample=kind)
    soundfile.write(tmp_path / "a.wav", steps.astype(np.int16), 44100)
    one, other = measure(path), measure(tmp_path / "a.wav")
    assert one.audio_sha256 == other.audio_sha256 and one.sha256 != other.sha256
    assert vars(one) | {"sha256": ""} == vars(other) | {"sha256": ""}
    assert np.array_equal(read_sound(path)[0] * 32768, steps)
    assert len(load_audio(path, 44100, 2)[0]) == len(steps)


@pytest.mark.parametrize("suffix", [".webm", ".mp4"])
def test_film_has_the_sound_of_its_only_audio_stream(tmp_path: Path, suffix: str) -> None:
    """The picture of this film lasts twice as long as its sound."""
    rate = CODECS[suffix][1]
    audio = tune(rate)
    path = write_media(tmp_path / f"a{suffix}", audio, film=True)
    facts = measure(path)
    assert facts.problem == "" and len(audio) <= facts.frames <= len(audio) + 2048
    assert load_audio(path, 22050, 1).shape == (1, -(-facts.frames * 22050 // rate))


def test_file_in_fragments_and_one_without_a_length_are_whole(tmp_path: Path) -> None:
    audio = tune(44100, 3)
    whole = write_media(tmp_path / "a.m4a", audio)
    parts = {"movflags": "frag_keyframe+empty_moov", "frag_duration": "500000"}
    assert measure(remux(whole, tmp_path / "parts.m4a", parts)).problem == ""
    live = remux(write_media(tmp_path / "a.webm", audio), tmp_path / "live.webm", {"live": "1"})
    assert measure(live).problem == "" and measure(live).frames == len(audio)


@pytest.mark.parametrize("suffix", [".m4a", ".mp4", ".webm", ".mka", ".wv", ".tta", ".wma", ".aac", ".mov"])
@pytest.mark.parametrize("keep", [0.5, 0.8])
def test_cut_file_is_found(tmp_path: Path, suffix: str, keep: float) -> None:
    path = write_media(tmp_path / f"a{suffix}", tune(CODECS[suffix][1], 4), options={"movflags": "faststart"})
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data)) + 3])
    problem = measure(path).problem
    assert problem.startswith(("is cut short", "cannot be read")), problem


@pytest.mark.parametrize("suffix", [".m4a", ".webm", ".wv", ".tta", ".mka", ".ac3"])
def test_damaged_file_is_found(tmp_path: Path, suffix: str) -> None:
    path = write_media(tmp_path / f"a{suffix}", tune(CODECS[suffix][1], 4))
    data = bytearray(path.read_bytes())
    begin = len(data) // 2
    data[begin : begin + 1500] = np.random.default_rng(0).bytes(1500)
    path.write_bytes(data)
    assert measure(path).problem.startswith(("is cut short", "cannot be read (FFmpeg: ")), measure(path)
    assert len(measure(path).problem.splitlines()) == 1


def test_container_that_lies_about_its_length_is_found(tmp_path: Path) -> None:
    path = write_media(tmp_path / "a.wv", tune(44100, 2))
    data = bytearray(path.read_bytes())
    assert struct.unpack_from("<I", data, 12)[0] == 2 * 44100
    struct.pack_into("<I", data, 12, 9 * 44100)
    path.write_bytes(data)
    assert measure(path).problem == "is cut short, or its length is wrong: 2.00 of 9.00 s"


def encrypted(folder: Path) -> list[Path]:
    """A sound under CENC, as films are sold, and one that is marked as iTunes marks those under FairPlay."""
    plain = write_media(folder / "plain.m4a", tune(44100), options={"movflags": "faststart"})
    keys = {"encryption_key": "00" * 16, "encryption_kid": "11" * 16}
    cenc = remux(plain, folder / "cenc.mp4", {"encryption_scheme": "cenc-aes-ctr"} | keys)
    data = plain.read_bytes()
    fairplay = folder / "fairplay.m4a"
    fairplay.write_bytes(data.replace(b"mp4a" + bytes(6), b"drms" + bytes(6), 1))
    return [cenc, fairplay]


def vint(size: int) -> bytes:
    return (1 << 56 | size).to_bytes(8, "big")


def element(name: str, *parts: bytes) -> bytes:
    """An element of Matroska (RFC 9559)."""
    data = b"".join(parts)
    return bytes.fromhex(name) + vint(len(data)) + data


def test_encrypted_sound_is_called_so(tmp_path: Path) -> None:
    encryption = element("5035", element("47e1", b"\5"), element("47e2", b"key-of-a-shop"))
    encodings = element("6d80", element("6240", element("5033", b"\1"), encryption))
    sound = element("e1", element("b5", struct.pack(">f", 8000)), element("9f", b"\1"))
    track = element(
        "ae", element("d7", b"\1"), element("73c5", b"\1"), element("83", b"\2"), element("86", b"A_PCM/INT/LIT"), sound, encodings
    )  # fmt: skip
    head = element("1a45dfa3", element("4282", b"webm"))
    cluster = element("1f43b675", element("e7", b"\0"), element("a3", b"\x81\0\0\x80" + bytes(800)))
    webm = tmp_path / "shop.webm"
    webm.write_bytes(head + element("18538067", element("1654ae6b", track), cluster))
    for path in [*encrypted(tmp_path), webm]:
        assert measure(path).problem == "cannot be read (it is encrypted (DRM))", path
    plain = track.replace(encodings, b"").replace(vint(len(track) - 9), vint(len(track) - 9 - len(encodings)), 1)
    webm.write_bytes(head + element("18538067", element("1654ae6b", plain), cluster))
    assert "DRM" not in measure(webm).problem  # else the test above would show nothing


def test_file_without_sound_or_with_two_is_called_so(tmp_path: Path) -> None:
    two = write_media(tmp_path / "two.mkv", tune(44100), streams=2)
    assert measure(two).problem == "cannot be read (it has 2 audio streams: keep one)"
    none = write_media(tmp_path / "none.mp4", tune(44100), streams=0, film=True)
    assert measure(none).problem == "cannot be read (it has no audio stream)"
    six = write_media(tmp_path / "six.mka", np.repeat(tune(44100, channels=1), 6, axis=1))
    assert measure(six).problem == "has 6 channels; one or two are allowed"


def test_sound_that_changes_its_rate_is_called_so(tmp_path: Path) -> None:
    """Two streams of ADTS that were joined."""
    parts = [write_media(tmp_path / f"{n}.aac", tune(44100, channels=n)).read_bytes() for n in (1, 2)]
    path = tmp_path / "a.aac"
    path.write_bytes(parts[0] + parts[1])
    assert "it changes from 44100 Hz, 1 channel(s), to 44100 Hz, 2" in measure(path).problem


def test_what_is_no_such_file_is_called_so(tmp_path: Path) -> None:
    """A playlist would make FFmpeg open what it names."""
    soundfile.write(tmp_path / "secret.wav", noise("a", 1), 8000)
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{tmp_path}/secret.wav\n#EXT-X-ENDLIST\n"
    for name, text in (("page.m4a", "<!DOCTYPE html>"), ("none.mp4", ""), ("list.mp4", playlist)):
        (tmp_path / name).write_text(text)
        assert measure(tmp_path / name).problem.startswith("cannot be read (FFmpeg: "), name
        assert measure(tmp_path / name).frames == 0


def test_tags_in_an_odd_encoding_do_not_hide_the_sound(tmp_path: Path) -> None:
    path = write_media(tmp_path / "a.m4a", tune(44100), tags={"title": "Gebirge xx"})
    path.write_bytes(path.read_bytes().replace(b"Gebirge xx", b"Gr\xfc\xdfe \xff\xfe..", 1))
    assert measure(path).problem == ""


@pytest.mark.parametrize(("kind", "zero", "low"), [("u1", 128, 0), ("i2", 0, -(2**15)), ("i4", 0, -(2**31))])
def test_full_scale_of_every_type_is_one(kind: str, zero: int, low: int) -> None:
    assert to_float(np.array([zero, low], kind)).tolist() == [0, -1]
    assert to_float(np.array([0.25, -1.5], "f8")).dtype == np.float32


@given(st.binary(max_size=300), st.sampled_from([b"", b"\0\0\0\x18ftypM4A ", b"\x1aE\xdf\xa3", b"wvpk", b"\xff\xf1P@"]))
def test_any_bytes_are_a_problem_at_most(tmp_path_factory: pytest.TempPathFactory, data: bytes, head: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / f"{hashlib.sha256(head).hexdigest()}.m4a"
    path.write_bytes(head + data)
    facts = measure(path)
    assert facts.problem or facts.frames
    assert len(facts.problem.splitlines()) <= 1


def test_blocks_are_of_the_size_that_was_asked_for(tmp_path: Path) -> None:
    path = write_media(tmp_path / "a.m4a", tune(44100, 3))
    with open_sound(path) as sound:
        sizes = [block.size for block in sound.blocks_of(20000)]
    assert min(sizes[:-1]) >= 20000 and max(sizes) < 20000 + 2 * 1024
