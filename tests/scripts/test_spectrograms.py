"""Each sound on the page has a small spectrogram."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import assert_fails, assert_succeeds, run_script, write_wav
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sao.pages.spectrogram import HEIGHT, HIGHEST, LOWEST, RANGE_DB, WIDTH, log_spectrogram


def tone(frequency: float, seconds: float = 1.0, rate: int = 16000) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)


@pytest.mark.parametrize("rate", [16000, 44100])
@pytest.mark.parametrize("frequency", [100.0, 1000.0, 6000.0])
def test_a_tone_is_a_line_at_its_frequency_whatever_the_rate(frequency: float, rate: int) -> None:
    levels = log_spectrogram(tone(frequency, rate=rate), rate)
    assert levels.shape[0] == HEIGHT and levels.max() == 0
    row = levels.mean(axis=1).argmax()
    found = np.geomspace(LOWEST, HIGHEST, HEIGHT)[row]
    assert abs(np.log2(found / frequency)) < 0.2


def test_nothing_is_drawn_above_half_the_rate() -> None:
    levels = log_spectrogram(np.random.default_rng(0).normal(size=16000), 16000)
    above = np.geomspace(LOWEST, HIGHEST, HEIGHT) > 8000
    assert (levels[above] == -RANGE_DB).all() and (levels[~above].mean(axis=1) > -40).all()


@given(length=st.integers(1, 200_000), rate=st.sampled_from([8000, 16000, 44100, 96000]))
def test_any_length_gives_a_picture(length: int, rate: int) -> None:
    levels = log_spectrogram(np.zeros(length), rate)
    assert 1 <= levels.shape[1] <= 1.5 * WIDTH and np.isfinite(levels).all()


def make_renders(folder: Path) -> Path:
    rows = []
    for clip, kind in (("two words", "reference"), ("雨 #1", "source")):
        write_wav(folder / "renders" / f"{clip}.wav", tone(440), 16000)
        beside = folder / f"a {kind}.wav"
        write_wav(beside, tone(880, rate=44100), 44100)
        rows.append({"clip_id": clip, "file": f"{clip}.wav", "reference": "", "source": "", kind: beside.as_posix()})
    table = folder / "renders.csv"
    pd.DataFrame(rows).to_csv(table, index=False)
    return table


def run(table: Path, output: Path, *more: str):
    given = ["--table", table, "--renders", table.with_suffix(""), "--output", output]
    return run_script("spectrograms", *given, *more)


def test_renders_and_recordings_are_drawn(tmp_path: Path) -> None:
    table = make_renders(tmp_path)
    assert_succeeds(run(table, tmp_path / "out", "--beside", "--threads", "2"))
    names = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.webp")}
    assert names == {"two words.webp", "雨 #1.webp", "reference/two words.webp", "source/雨 #1.webp"}
    with Image.open(tmp_path / "out/two words.webp") as picture:
        assert picture.format == "WEBP" and picture.height == HEIGHT and len(set(picture.getdata())) > 10
    for name, frequency in (
        ("two words", 440),
        ("reference/two words", 880),
        ("source/雨 #1", 880),
    ):  # each picture shows its own sound
        with Image.open(tmp_path / f"out/{name}.webp") as picture:
            row = HEIGHT - 1 - np.asarray(picture.convert("L"), float).mean(axis=1).argmax()
        assert abs(np.log2(np.geomspace(LOWEST, HIGHEST, HEIGHT)[row] / frequency)) < 0.2
    assert_succeeds(run(table, tmp_path / "without"))
    assert not {"reference", "source"} & {path.name for path in (tmp_path / "without").iterdir()}


def test_sound_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    table = make_renders(tmp_path)
    broken = tmp_path / "renders/two words.wav"
    broken.write_bytes(b"RIFF")
    assert_fails(run(table, tmp_path / "out"), broken, "cannot be read")
    broken.unlink()
    assert_fails(run(table, tmp_path / "out"), broken, "missing")
