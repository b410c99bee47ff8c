"""The facts about a sound file are the same in any container, and broken files are recognised."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import checksum, noise, write_wav
from hypothesis import given
from hypothesis import strategies as st
from sao.sound.containers import Mpeg, left_over
from sao.sound.read import BLOCK, REACH, STEP, Clipping, measure, read_sound

FORMATS = [("wav", "PCM_U8"), ("wav", "PCM_16"), ("wav", "PCM_24"), ("wav", "FLOAT"), ("flac", "PCM_16")]
# Formats by suffix: those that users may have, and one that libsndfile reads but cannot seek in.
CONTAINERS = {
    "wav": ["PCM_16", "PCM_24", "FLOAT", "DOUBLE", "PCM_U8", "ULAW", "GSM610"],
    "flac": ["PCM_16", "PCM_24"],
    "ogg": ["VORBIS", "OPUS"],
    "aiff": ["PCM_16", "FLOAT"],
    "mp3": ["MPEG_LAYER_III"],
    "au": ["PCM_16"],
    "caf": ["PCM_16", "ALAC_16"],
    "w64": ["PCM_16"],
    "rf64": ["PCM_16"],
    "voc": ["PCM_16"],
}
PAIRS = [(suffix, subtype) for suffix, subtypes in CONTAINERS.items() for subtype in subtypes]


def write(path: Path, rate: int = 44100, channels: int = 1, seconds: float = 1.2, subtype: str = "PCM_16") -> Path:
    audio = noise("measured", seconds, rate, channels)
    soundfile.write(path, audio, rate, subtype=subtype, format=path.suffix[1:].upper())
    return path


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT", "DOUBLE", "PCM_U8"])
@pytest.mark.parametrize("channels", [1, 2])
def test_measured_facts_are_right(tmp_path: Path, subtype: str, channels: int) -> None:
    time = np.arange(8000) / 8000
    audio = np.repeat(0.25 + 0.5 * np.sin(2 * np.pi * 100 * time)[:, None], channels, axis=1)
    facts = measure(write_wav(tmp_path / "tone.wav", audio, subtype=subtype))
    assert (facts.seconds, facts.frames, facts.channels, facts.problem) == (1.0, 8000, channels, "")
    assert facts.peak_dbfs == pytest.approx(20 * np.log10(0.75), abs=0.1)
    assert facts.rms_dbfs == pytest.approx(10 * np.log10(0.25**2 + 0.5**2 / 2), abs=0.1)
    assert facts.dc_offset == pytest.approx(0.25, abs=0.01)
    assert facts.sha256 == checksum(tmp_path / "tone.wav", "sha256")


def test_offset_of_one_channel_is_not_lost_in_the_other(tmp_path: Path) -> None:
    audio = np.stack([np.full(800, 0.5), np.full(800, -0.5)], axis=1)
    assert measure(write_wav(tmp_path / "two.wav", audio)).dc_offset == pytest.approx(0.5, abs=0.001)


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24"])
@pytest.mark.parametrize("channels", [1, 2])
def test_the_same_samples_in_another_file_are_known(tmp_path: Path, subtype: str, channels: int) -> None:
    audio, _ = soundfile.read(write_wav(tmp_path / "a.wav", noise("a", 8, 44100, channels), 44100, subtype))
    one = measure(tmp_path / "a.wav")
    for name in ("a.flac", "a.aiff", "a.caf", "a.w64", "tagged.wav", "float.wav"):
        here = "FLOAT" if name == "float.wav" else subtype
        with soundfile.SoundFile(tmp_path / name, "w", 44100, channels, here) as sound:
            if name == "tagged.wav":
                sound.title = "Another header"
            sound.write(audio)
        other = measure(tmp_path / name)
        assert other.audio_sha256 == one.audio_sha256 and other.sha256 != one.sha256, name
    wide = np.repeat(audio.reshape(-1, channels), 2, axis=1)
    changed = audio.copy()
    changed[-1] += 1e-3
    for different, rate in [(audio, 48000), (audio[:-1], 44100), (audio[::-1], 44100), (wide, 44100), (changed, 44100)]:
        assert measure(write_wav(tmp_path / "b.wav", different, rate, subtype)).audio_sha256 != one.audio_sha256


def test_what_cannot_be_read_is_the_same_as_nothing(tmp_path: Path) -> None:
    (tmp_path / "page.wav").write_text("<!DOCTYPE html>")
    write_wav(tmp_path / "none.wav", np.zeros((0, 1)))
    write_wav(tmp_path / "nan.wav", np.array([0.1, np.nan]), subtype="FLOAT")
    assert [measure(tmp_path / f"{name}.wav").audio_sha256 for name in ("page", "none", "nan")] == ["", "", ""]


@pytest.mark.parametrize(("suffix", "subtype"), PAIRS)
def test_every_container_is_read_and_a_cut_one_found(tmp_path: Path, suffix: str, subtype: str) -> None:
    rate = 8000 if subtype == "GSM610" else 48000
    channels = 1 if subtype == "GSM610" else 2
    path = write(tmp_path / f"a.{suffix}", rate, channels, subtype=subtype)
    facts = measure(path)
    assert (facts.sample_rate, facts.channels, facts.problem) == (rate, channels, "")
    assert facts.seconds == pytest.approx(1.2, abs=0.03)
    assert -22 < facts.rms_dbfs < facts.peak_dbfs < -6
    if suffix != "voc":  # its header has no length
        data = path.read_bytes()
        for keep in (0.5, 0.97):
            path.write_bytes(data[: int(keep * len(data))])
            assert measure(path).problem.split(" (")[0].split(":")[0] in (
                "is cut short",
                "cannot be read",
                "has no samples",
            )


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 96000])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("suffix", ["wav", "flac", "aiff"])
def test_rates_and_channels(tmp_path: Path, rate: int, channels: int, suffix: str) -> None:
    facts = measure(write(tmp_path / f"a.{suffix}", rate, channels, seconds=0.2))
    assert (facts.sample_rate, facts.channels, facts.frames) == (rate, channels, round(0.2 * rate))
    assert facts.problem == ""


@pytest.mark.parametrize(("rate", "allowed"), [(1, False), (100, True), (1_000_000, True), (2**31 - 1, False)])
def test_rate_that_is_no_sounds_is_an_error(tmp_path: Path, rate: int, allowed: bool) -> None:
    facts = measure(write_wav(tmp_path / "a.wav", noise("a", 1), rate))
    assert (facts.problem == "") == allowed and (allowed or f"rate of {rate} Hz" in facts.problem)


@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
@pytest.mark.parametrize("tag", [b"", b"ID3\x04\0\0\0\0\x10\0" + bytes(2048)], ids=["bare", "id3"])
def test_mp3_that_does_not_tell_its_length_is_whole(tmp_path: Path, mode: str, tag: bytes) -> None:
    """Many encoders write no Xing or Info frame. Then the length that libsndfile guesses is up to twice the true one."""
    path, audio = tmp_path / "a.mp3", noise("mp3", 3, 44100) * np.linspace(0, 1, 3 * 44100)[:, None] ** 4
    soundfile.write(path, audio, 44100, format="MP3", subtype="MPEG_LAYER_III", bitrate_mode=mode)
    data = path.read_bytes()
    start = max(data.find(b"Info"), data.find(b"Xing"))
    second = data.index(data[:2], start)
    path.write_bytes(tag + data[second:])
    facts = measure(path)
    with soundfile.SoundFile(path) as sound:
        assert sound.frames != facts.frames  # else this file would test nothing
    assert facts.problem == "" and facts.seconds == pytest.approx(3, abs=0.1)


def mp3(seed: str, seconds: float, rate: int = 44100, channels: int = 1) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, noise(seed, seconds, rate, channels), rate, format="MP3", bitrate_mode="VARIABLE")
    return buffer.getvalue()


def untagged(data: bytes) -> bytes:
    """Make an MP3 without the frame that counts the others."""
    return data[data.index(data[:2], max(data.find(b"Info"), data.find(b"Xing"))) :]


ID3 = b"ID3\x04\0\0\0\0\x10\0" + np.random.default_rng(0).bytes(2048)


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
@pytest.mark.parametrize("join", [b"", ID3, b"TAG" + bytes(125) + ID3], ids=["joined", "tag", "tags"])
@pytest.mark.parametrize("tagged", [(True, True), (True, False), (False, True), (False, False)])
def test_joined_mp3s_are_read_whole(tmp_path: Path, rate: int, join: bytes, tagged: tuple[bool, bool]) -> None:
    parts = [mp3(seed, 2, rate) for seed in "ab"]
    parts = [part if keep else untagged(part) for part, keep in zip(parts, tagged, strict=True)]
    path = tmp_path / "a.mp3"
    path.write_bytes(join.join(parts))
    with soundfile.SoundFile(path) as sound:
        assert sound.frames < 3.5 * rate  # libsndfile alone would read no more
    facts = measure(path)
    assert facts.problem == "" and facts.seconds == pytest.approx(4, abs=0.3)
    read, hertz = read_sound(path)
    assert (len(read), hertz) == (facts.frames, rate)
    # The sound of each part is in its place.
    for seed, begin in (("a", 0), ("b", 2 * rate)):
        original = noise(seed, 2, rate)[rate // 2 : rate * 5 // 8, 0]
        near = read[begin + rate // 2 - rate // 10 : begin + rate, 0]
        assert np.abs(np.correlate(near, original)).max() > 0.5 * np.square(original).sum()


def test_mp3_without_a_count_and_with_a_long_first_frame_is_read_whole(tmp_path: Path) -> None:
    """libsndfile guesses the number of frames from the length of the first, and skips all beyond it."""
    path = tmp_path / "a.mp3"
    path.write_bytes(untagged(mp3("long", 3)))
    with soundfile.SoundFile(path) as sound:
        assert sound.frames < 2 * 44100
    assert measure(path).problem == "" and measure(path).seconds == pytest.approx(3, abs=0.1)


@pytest.mark.parametrize(("rate", "channels"), [(48000, 1), (44100, 2)])
def test_joined_mp3s_of_different_kinds_are_an_error(tmp_path: Path, rate: int, channels: int) -> None:
    path = tmp_path / "a.mp3"
    path.write_bytes(mp3("a", 1) + mp3("b", 1, rate, channels))
    assert "two files joined" in measure(path).problem and str(rate) in measure(path).problem


@pytest.mark.parametrize("extra", [np.random.default_rng(1).bytes(100_000), ID3, b"TAG" + bytes(125)])
def test_what_is_no_sound_in_an_mp3_changes_nothing(tmp_path: Path, extra: bytes) -> None:
    path, data = tmp_path / "a.mp3", mp3("a", 1)
    path.write_bytes(data)
    samples = measure(path).audio_sha256
    for odd in (data + extra, ID3 + data + extra):
        path.write_bytes(odd)
        assert (measure(path).problem, measure(path).audio_sha256) == ("", samples)


@pytest.mark.parametrize(("suffix", "subtype"), [pair for pair in PAIRS if pair[0] != "mp3"])
def test_joined_files_are_an_error(tmp_path: Path, suffix: str, subtype: str) -> None:
    path = write(tmp_path / f"a.{suffix}", 8000 if subtype == "GSM610" else 48000, subtype=subtype)
    assert measure(path).problem == ""
    path.write_bytes(2 * path.read_bytes())
    assert "two files joined" in measure(path).problem


@pytest.mark.parametrize("size", [0, 1000])
@pytest.mark.parametrize("outer", [False, True])
def test_sound_that_the_header_does_not_tell_of_is_an_error(tmp_path: Path, size: int, outer: bool) -> None:
    path = write_wav(tmp_path / "a.wav", noise("a", 1))
    data = bytearray(path.read_bytes())
    at = data.index(b"data") + 4
    data[at : at + 4] = size.to_bytes(4, "little")
    if outer:
        data[4:8] = (36 + size).to_bytes(4, "little")
    path.write_bytes(data)
    assert "header" in measure(path).problem and f"{len(data) - at - 4 - size} bytes" in measure(path).problem


@pytest.mark.parametrize("after", [bytes(5000), ID3, b"TAG" + bytes(125), b"LIST\x40\0\0\0" + b"INFO", b"ab\n"])
def test_what_is_no_sound_after_a_wav_is_no_error(tmp_path: Path, after: bytes) -> None:
    path = write_wav(tmp_path / "a.wav", noise("a", 1))
    path.write_bytes(path.read_bytes() + after)
    assert measure(path).problem == ""


@pytest.mark.parametrize("digest", [True, False])
@pytest.mark.parametrize("channels", [1, 2])
def test_flac_of_a_pipe_is_read_to_its_end(tmp_path: Path, digest: bool, channels: int) -> None:
    path = write(tmp_path / "a.flac", channels=channels, seconds=8)
    whole, rate = soundfile.read(path, dtype="float32", always_2d=True)
    samples = measure(path).audio_sha256
    data = bytearray(path.read_bytes())
    data[21] &= 0xF0  # the number of samples has 36 bits
    data[22:26] = bytes(4)
    data[26:42] = data[26:42] if digest else bytes(16)
    path.write_bytes(data)
    facts = measure(path)
    assert (facts.problem, facts.frames, facts.audio_sha256) == ("", len(whole), samples)
    read, hertz = read_sound(path)
    assert hertz == rate and np.array_equal(read, whole)


@pytest.mark.parametrize(("bits", "scale"), [(16, 32768), (24, 8388608), (32, 2147483648)])
@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
def test_float_file_of_integers_is_an_error_with_the_scale(tmp_path: Path, bits: int, scale: int, subtype: str) -> None:
    for quiet in (1, 40):
        facts = measure(write_wav(tmp_path / "a.wav", 0.99 * scale / quiet * np.sin(np.arange(8000)), subtype=subtype))
        assert f"divide by {scale} " in facts.problem and f"{bits} bits" in facts.problem


def test_float_file_somewhat_beyond_full_scale_is_none(tmp_path: Path) -> None:
    assert measure(write_wav(tmp_path / "a.wav", np.array([1.9, -1.9, 0.1]), subtype="FLOAT")).problem == ""
    assert "scale it" in measure(write_wav(tmp_path / "a.wav", np.array([1e30, -1.9]), subtype="DOUBLE")).problem
    assert "divide by 128" in measure(write_wav(tmp_path / "a.wav", np.array([-127.0, 2]), subtype="FLOAT")).problem


@given(st.binary(max_size=400), st.sampled_from([b"", b"RIFF\x10\0\0\0WAVEdata", b"OggS\0", b"FORM", b"fLaC", b".snd"]))
def test_any_bytes_are_a_problem_at_most(tmp_path_factory: pytest.TempPathFactory, data: bytes, head: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes(head + data)
    assert isinstance(left_over(path), str)
    assert measure(path).problem != ""


@given(
    st.lists(st.one_of(st.binary(max_size=50), st.just(b"\xff\xfb\x90\xc4" + bytes(413)), st.just(b"ID3")), max_size=30)
)
def test_any_bytes_are_frames_at_most(parts: list[bytes]) -> None:
    data = b"".join(parts)
    assert isinstance(Mpeg(data).problem, str)


def test_ogg_with_something_after_its_end_is_whole(tmp_path: Path) -> None:
    path = write(tmp_path / "a.ogg", subtype="VORBIS")
    path.write_bytes(path.read_bytes() + b"TAG" + bytes(125))
    assert measure(path).problem == ""


def test_placeholder_size_of_a_pipe_is_no_loss(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "piped.wav", noise("piped"))
    data = bytearray(path.read_bytes())
    data[4:8] = data[40:44] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    assert measure(path).problem == ""


# ------------------------------------------------------------------------------------------------------------ clipping


def clipped_run(path: Path, audio: np.ndarray, subtype: str = "PCM_16", rate: int = 44100) -> int:
    soundfile.write(path, audio, rate, subtype=subtype)
    return measure(path).clipped_run


def tone(hertz: float, phase: float = 0.0, rate: int = 44100) -> np.ndarray:
    """Two seconds of a tone that reaches full scale exactly."""
    wave = np.sin(2 * np.pi * hertz * np.arange(2 * rate) / rate + phase)
    return wave / np.abs(wave).max()


@pytest.mark.parametrize(("suffix", "subtype"), FORMATS)
@pytest.mark.parametrize("rate", [8000, 44100])
def test_smooth_peak_is_not_clipped_and_one_that_is_cut_off_is(
    tmp_path: Path, suffix: str, subtype: str, rate: int
) -> None:
    path = tmp_path / f"a.{suffix}"
    for hertz in (20, 50, 110, 440):
        for phase in (0, 0.3, 1.1):
            whole = tone(hertz, phase, rate)
            assert [clipped_run(path, sign * whole, subtype, rate) for sign in (1, -1)] == [0, 0], (hertz, phase)
            # At 1 dB over full scale, 0.94 radians of each half period are cut off.
            cut = 0.943 / (2 * np.pi * hertz / rate)
            if cut > 4:
                found = clipped_run(path, np.clip(whole * 10 ** (1 / 20), -1, 1), subtype, rate)
                assert found == pytest.approx(cut, abs=1 + 0.12 * cut), (hertz, phase)  # 8 bits round up to full scale


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "FLOAT"])
def test_two_samples_at_full_scale_are_no_clipping(tmp_path: Path, subtype: str) -> None:
    found = []
    for run in (0, 1, 2, 3, 7):
        audio = noise("quiet", 1, 44100)[:, 0]
        audio[1000 : 1000 + run] = -1
        audio[3000 : 3000 + run : 2] = 1  # not consecutive
        found.append(clipped_run(tmp_path / "a.wav", audio, subtype))
    assert found == [0, 0, 0, 3, 7]


def test_run_of_one_channel_is_not_that_of_two(tmp_path: Path) -> None:
    audio = noise("stereo", 1, 44100, 2)
    audio[100:102, 0] = audio[102:104, 1] = audio[500:505, 1] = 1
    assert clipped_run(tmp_path / "a.wav", audio) == 5
    audio[500:505, 1] = 0
    assert clipped_run(tmp_path / "a.wav", audio) == 0


@pytest.mark.parametrize("channels", [1, 2])
def test_run_across_blocks_is_one(tmp_path: Path, channels: int) -> None:
    frames = BLOCK // channels
    audio = noise("long", (2.5 * frames) / 44100, 44100, channels)
    audio[frames - 2 : frames + 2, -1] = 1
    assert clipped_run(tmp_path / "a.wav", audio) == 4
    audio[frames - 50 : 2 * frames + 50, 0] = -1
    assert clipped_run(tmp_path / "a.wav", audio) == frames + 100


def test_run_at_either_end_counts(tmp_path: Path) -> None:
    quiet = noise("quiet", 0.1, 44100)[:, 0]
    assert clipped_run(tmp_path / "a.wav", np.concatenate([np.ones(9), quiet])) == 9
    assert clipped_run(tmp_path / "a.wav", np.concatenate([quiet, -np.ones(9)])) == 9
    assert clipped_run(tmp_path / "a.wav", np.ones(9)) == 9
    assert clipped_run(tmp_path / "a.wav", tone(20, np.pi / 2)) == 0  # the tone begins at its peak


LEVELS = st.sampled_from([0.0, 0.5, 0.999, 1 - 3 * STEP, 1 - STEP, 1.0, -1.0])
RUNS = st.lists(st.tuples(LEVELS, st.sampled_from([1, 2, 3, 5, 70, 400])), max_size=30)


@given(RUNS, st.lists(st.integers(1, 300), min_size=1, max_size=5))
def test_it_does_not_matter_in_what_pieces_a_sound_comes(runs: list[tuple[float, int]], sizes: list[int]) -> None:
    audio = np.concatenate([np.zeros(0), *(np.full(length, level) for level, length in runs)]).astype(np.float32)
    whole, parts = Clipping(STEP), Clipping(STEP)
    whole.add(audio, last=True)
    at = step = 0
    while at < len(audio):
        size = sizes[step % len(sizes)]
        parts.add(audio[at : at + size])
        assert len(parts.held) <= 4 * REACH + size  # however long the sound and its runs
        at, step = at + size, step + 1
    parts.add(audio[:0], last=True)
    assert parts.longest == whole.longest
