"""Recordings are cut exactly at samples, in their own precision, and read in blocks."""

from __future__ import annotations

import tempfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import sao.sound.cutting
import soundfile
from conftest import noise, write_wav
from hypothesis import given
from hypothesis import strategies as st
from sao.base.command import InputError
from sao.sound.cutting import MOST_OPEN, cut, sounding
from sao.sound.read import measure, read_sound

RATE = 8000
# Form and subtype of a recording, and the subtype of its clips.
FORMS = [
    ("WAV", "PCM_U8", "PCM_U8"),
    ("WAV", "PCM_16", "PCM_16"),
    ("WAV", "PCM_24", "PCM_24"),
    ("WAV", "PCM_32", "PCM_32"),
    ("WAV", "FLOAT", "FLOAT"),
    ("WAV", "DOUBLE", "DOUBLE"),
    ("WAV", "ULAW", "FLOAT"),
    ("AIFF", "PCM_S8", "PCM_U8"),
    ("AIFF", "PCM_16", "PCM_16"),
    ("FLAC", "PCM_S8", "PCM_U8"),
    ("FLAC", "PCM_16", "PCM_16"),
    ("FLAC", "PCM_24", "PCM_24"),
    ("CAF", "ALAC_16", "PCM_16"),
    ("OGG", "VORBIS", "FLOAT"),
    ("MP3", "MPEG_LAYER_III", "FLOAT"),
]


@pytest.mark.parametrize(("form", "subtype", "expected"), FORMS, ids=lambda value: value)
def test_clips_have_the_samples_of_the_recording(tmp_path: Path, form: str, subtype: str, expected: str) -> None:
    """Over the end of a block, at the first and the last sample, overlapping, and of one sample."""
    loud = 1.5 if expected in ("FLOAT", "DOUBLE") and form == "WAV" and subtype != "ULAW" else 0.9  # nothing is clipped
    audio = loud * 5 * noise("recording", 20, RATE, 2)
    recording = tmp_path / "recording"
    soundfile.write(recording, audio, RATE, subtype, format=form)
    with soundfile.SoundFile(recording) as file:
        whole = file.read(dtype="float64", always_2d=True)
    frames = len(whole)
    block = sao.sound.cutting.BLOCK // 2
    spans = [(0, 1), (0, 3000), (block - 10, block + 10), (2000, frames), (frames - 1, frames), (block, block + 1)]
    cut(recording, [(*span, tmp_path / f"sub/{n}.wav") for n, span in enumerate(spans)])
    for n, (start, end) in enumerate(spans):
        path = tmp_path / f"sub/{n}.wav"
        info = soundfile.info(path)
        assert (info.format, info.subtype, info.samplerate, info.channels) == ("WAV", expected, RATE, 2)
        samples, _ = soundfile.read(path, dtype="float64", always_2d=True)
        np.testing.assert_array_equal(samples, whole[start:end])
        assert measure(path).problem == ""


def test_a_clip_too_large_for_a_wav_is_rf64(tmp_path: Path) -> None:
    recording = write_wav(tmp_path / "a.wav", noise("a", 1, RATE))
    cut(recording, [(0, 100, tmp_path / "small.wav"), (0, 4000, tmp_path / "large.wav")], largest=7999)
    assert [soundfile.info(tmp_path / f"{name}.wav").format for name in ("small", "large")] == ["WAV", "RF64"]
    facts = measure(tmp_path / "large.wav")
    assert (facts.problem, facts.frames) == ("", 4000)
    np.testing.assert_array_equal(read_sound(tmp_path / "large.wav")[0], read_sound(recording)[0][:4000])


def test_memory_does_not_grow_with_the_recording(tmp_path: Path) -> None:
    """Ten minutes take 38 MB as float32."""
    recording = tmp_path / "long.flac"
    with soundfile.SoundFile(recording, "w", 16000, 1, "PCM_16") as file:
        for minute in range(10):
            file.write(noise(f"minute {minute}", 60, 16000))
    tracemalloc.start()
    try:
        assert sounding(recording, -50, 1) == [(0, 600 * 16000)]
        cut(recording, [(n * 400_000, (n + 2) * 400_000, tmp_path / f"{n}.wav") for n in range(23)])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8e6
    assert sum(soundfile.info(path).frames for path in tmp_path.glob("*.wav")) == 23 * 800_000


def test_too_many_clips_at_once_and_a_recording_that_ends_early_are_refused(tmp_path: Path) -> None:
    recording = write_wav(tmp_path / "a.wav", noise("a", 40, RATE))
    many = [(0, 300_000 + n, tmp_path / f"{n}.wav") for n in range(MOST_OPEN + 1)]
    with pytest.raises(InputError, match=r"a\.wav: more than 128 clips overlap at 0 s"):
        cut(recording, many)
    cut(recording, many[:-1])
    with pytest.raises(InputError, match=r"a\.wav: ends after 320000 frames, before a clip"):
        cut(recording, [(0, 320_001, tmp_path / "x.wav")])


def naive(loud: list[bool], gap: int) -> list[tuple[int, int]]:
    """The parts between runs of at least `gap` quiet frames, frame by frame."""
    parts: list[list[int]] = []
    quiet = gap
    for at, is_loud in enumerate(loud):
        if not is_loud:
            quiet += 1
        elif quiet >= gap:
            parts.append([at, at + 1])
            quiet = 0
        else:
            parts[-1][1], quiet = at + 1, 0
    return [(first, end) for first, end in parts]


@given(
    runs=st.lists(st.tuples(st.booleans(), st.integers(1, 40)), min_size=1, max_size=20),
    gap=st.integers(1, 20),
    block=st.integers(1, 64),
)
def test_silences_are_found_whatever_the_blocks(runs: list[tuple[bool, int]], gap: int, block: int) -> None:
    loud = [is_loud for is_loud, length in runs for _ in range(length)]
    level = 10 ** (-40 / 20)
    audio = np.array([(1 if at % 2 else -1) * level * (1.01 if is_loud else 0.99) for at, is_loud in enumerate(loud)])
    stereo = np.stack([0 * audio, audio], axis=1)  # one channel is enough
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sao.sound.cutting, "BLOCK", 2 * block)
        path = write_wav(Path(folder, "a.wav"), stereo, RATE, "FLOAT")
        assert sounding(path, -40, gap / RATE) == naive(loud, gap)
