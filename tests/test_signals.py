"""Facts of a signal: each on a sound that was made to have it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import write_wav
from sao.evaluation.signals import bandwidth, compare, facts, loudness
from sao.sound.spectra import RATE, log_mel_distance, mel_bands

HERTZ = 44100


def sine(frequency: float, amplitude: float, seconds: float = 1.0) -> np.ndarray:
    return amplitude * np.sin(2 * np.pi * frequency * np.arange(round(seconds * HERTZ)) / HERTZ)[:, None]


def low_passed(edge: float) -> np.ndarray:
    spectrum = np.fft.rfft(np.random.default_rng(0).standard_normal(2 * HERTZ))
    spectrum[np.fft.rfftfreq(2 * HERTZ, 1 / HERTZ) > edge] = 0
    return 0.1 * np.fft.irfft(spectrum)[:, None]


@pytest.mark.parametrize("edge", [1000, 5000, 12000])
def test_bandwidth_of_low_passed_noise(edge: float) -> None:
    assert bandwidth(low_passed(edge), HERTZ) == pytest.approx(edge, abs=150)


def test_loudness_is_that_of_the_standard() -> None:
    """A 997 Hz sine at full scale in one channel has -3.01 LUFS (ITU-R BS.1770-4)."""
    assert loudness(sine(997, 1.0, 3), HERTZ) == pytest.approx(-3.01, abs=0.05)
    assert loudness(sine(997, 0.1, 3), HERTZ) == pytest.approx(-23.01, abs=0.05)


def test_what_has_no_loudness() -> None:
    assert loudness(sine(997, 1.0, 0.3), HERTZ) is None
    assert loudness(np.zeros((HERTZ, 2)), HERTZ) is None


def test_facts_tell_what_is_wrong() -> None:
    fine = facts(sine(440, 0.5), HERTZ)
    assert (fine["silent"], fine["clipped"], fine["seconds"]) == (False, 0, 1) and fine["dc_offset"] < 1e-3
    assert facts(sine(440, 0.0005), HERTZ)["silent"] and facts(np.zeros((10, 1)), HERTZ)["silent"]
    assert facts(sine(440, 2).clip(-1, 1), HERTZ)["clipped"] == pytest.approx(2 / 3, abs=0.01)
    assert facts(sine(440, 0.1) + 0.2, HERTZ)["dc_offset"] == pytest.approx(0.2, abs=1e-3)


def test_a_clip_beside_its_reference(tmp_path: Path) -> None:
    one = write_wav(tmp_path / "a.wav", low_passed(4000), HERTZ)
    other = write_wav(tmp_path / "b.wav", low_passed(8000)[:HERTZ] / 2, HERTZ)
    found = compare(one, other)
    assert found["duration_error"] == 1 and found["bandwidth_error"] == pytest.approx(1, abs=0.05)
    assert found["loudness_error"] > 2 and found["log_mel_distance"] > 5
    same = compare(one, one)
    errors = ("duration_error", "bandwidth_error", "loudness_error", "log_mel_distance")
    assert all(same[key] == 0 for key in errors)
    assert set(errors).isdisjoint(compare(one, None))


def test_log_mel_distance_is_blind_to_level_and_sees_noise() -> None:
    signal = np.sin(np.arange(RATE) * 0.2)
    noise = np.random.default_rng(0).standard_normal(RATE)
    assert log_mel_distance(signal, 0.1 * signal) == pytest.approx(0, abs=1e-6)
    distances = [log_mel_distance(signal + level * noise, signal) for level in (0.001, 0.01, 0.1)]
    assert 0 < distances[0] < distances[1] < distances[2]


def test_mel_bands_are_means() -> None:
    bands = mel_bands(HERTZ, 2048, 96, 22050)
    assert bands.shape == (1025, 96) and np.allclose(bands.sum(axis=0), 1) and (bands >= 0).all()
