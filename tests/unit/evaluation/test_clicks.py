"""Planted clicks and dropouts are found in real sounds, and what is sudden by nature is not taken for one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import py7zr
import pytest
import soundfile
from conftest import ROOT
from sao.evaluation.clicks import clicks, dropouts

RATE = 44100
Sound = tuple[np.ndarray, int]


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> list[Sound]:
    """The recordings of the demo's evaluation split: instruments, some of them struck."""
    folder = tmp_path_factory.mktemp("sounds")
    with py7zr.SevenZipFile(ROOT / "resources/demo/corpus/clotho_audio_evaluation.7z") as archive:
        archive.extractall(folder)
    return [soundfile.read(path, always_2d=True) for path in sorted(folder.rglob("*.wav"))]


def places(audio: np.ndarray, rate: int) -> np.ndarray:
    return np.arange(rate // 5, len(audio) - rate // 5, rate // 10)


def impulse(audio: np.ndarray, at: int, height: float, rate: int) -> None:
    audio[at] += height


def step(audio: np.ndarray, at: int, height: float, rate: int) -> None:
    """A jump that takes 40 ms to come back."""
    size = round(0.04 * rate)
    audio[at : at + size] += height * np.linspace(1, 0, size)[:, None]


@pytest.mark.parametrize("plant", [impulse, step])
def test_planted_clicks_are_found(plant: Callable[..., None], sounds: list[Sound]) -> None:
    """Of clicks that are 12 dB higher than the mean level of the sound, at least 95 % are found."""
    planted = found = 0.0
    for audio, rate in sounds:
        spoilt, positions = audio.copy(), places(audio, rate)
        for at in positions:
            plant(spoilt, at, 4 * np.sqrt(np.square(audio).mean()), rate)
        planted += len(positions)
        found += min(clicks(spoilt, rate) * len(audio) / rate, len(positions))
    assert planted > 200 and 0.95 * planted <= found


def test_planted_dropouts_are_found(sounds: list[Sound]) -> None:
    planted = found = 0.0
    for audio, rate in sounds:
        spoilt, gap, edge = audio.copy(), round(0.01 * rate), round(0.005 * rate)
        for at in places(audio, rate):
            sides = audio[at - edge : at, 0], audio[at + gap : at + gap + edge, 0]
            if min(np.square(side).mean() for side in sides) > 1e-4:
                spoilt[at : at + gap] = 0
                planted += 1
        found += dropouts(spoilt, rate) * len(audio) / rate
    assert planted > 50 and 0.95 * planted <= found <= 1.05 * planted


def test_recordings_raise_few_alarms(sounds: list[Sound]) -> None:
    seconds = sum(len(audio) / rate for audio, rate in sounds)
    assert sum(clicks(audio, rate) * len(audio) / rate for audio, rate in sounds) / seconds < 0.1
    assert not any(dropouts(audio, rate) for audio, rate in sounds)


def claps() -> np.ndarray:
    """Bursts of noise that begin within a millisecond and fade in 4 to 30 ms, as claps and knocks do."""
    rng = np.random.default_rng(0)
    audio = 0.002 * rng.standard_normal(5 * RATE)
    for at in range(RATE // 2, 4 * RATE, RATE // 5):
        shape = np.exp(-np.arange(RATE // 5) / (rng.uniform(0.004, 0.03) * RATE))
        shape[:20] *= np.linspace(0, 1, 20)
        audio[at : at + len(shape)] += rng.uniform(0.1, 0.8) * shape * rng.standard_normal(len(shape))
    return audio[:, None]


def crackles() -> np.ndarray:
    """Sparse impulses that ring, as burning wood does."""
    rng = np.random.default_rng(0)
    audio = 0.01 * rng.standard_normal(5 * RATE)
    for at in rng.integers(RATE // 10, 4 * RATE, 60):
        audio[at : at + 400] += 0.3 * rng.standard_normal(400) * np.exp(-np.arange(400) / 80)
    return audio[:, None]


def test_sudden_sounds_are_no_clicks() -> None:
    assert clicks(claps(), RATE) == 0
    assert clicks(crackles(), RATE) < 4  # of 12 per second
    saw = (np.arange(2 * RATE) * 110 / RATE % 1 - 0.5)[:, None]
    noise = 0.1 * np.random.default_rng(0).standard_normal((2 * RATE, 2))
    tone = 0.5 * np.sin(np.arange(2 * RATE) * 0.05)[:, None]
    for audio in (saw, np.sign(saw) / 2, noise, tone):
        assert clicks(audio, RATE) == dropouts(audio, RATE) == 0


def test_worst_channel_counts() -> None:
    noise = 0.05 * np.random.default_rng(0).standard_normal((RATE, 2))
    noise[[RATE // 4, RATE // 2], 1] = 0.9
    assert clicks(noise, RATE) == 2
    noise[RATE // 4 : RATE // 4 + 500, 0] = 0
    assert dropouts(noise, RATE) == 1


def test_sounds_without_room_for_a_click() -> None:
    for audio in (np.ones((5, 1)), np.zeros((RATE, 2)), np.zeros((1, 1))):
        assert clicks(audio, RATE) == dropouts(audio, RATE) == 0
    assert clicks(np.zeros((0, 1)), RATE) is None and dropouts(np.zeros((0, 1)), RATE) is None
    # Silence at the beginning and at the end is none, and neither is a slow fade.
    fade = 0.1 * np.random.default_rng(0).standard_normal((RATE, 1)) * np.abs(np.linspace(-1, 1, RATE))[:, None] ** 8
    assert dropouts(np.pad(fade, ((RATE, RATE), (0, 0))), RATE) == 0
