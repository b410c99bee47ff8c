"""Each fact of a signal, on a sound that was made to have it, and the file of a set of signals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import assert_fails, assert_succeeds, run_script, write_wav
from sao.evaluation.measures import bandwidth_error, log_mel_distance, loudness_error
from sao.evaluation.signal_set import Signals
from sao.evaluation.signals import FACTS, bandwidth, clipped, dc_offset, loudness, seconds, signal_of, silent
from sao.sound import spectra
from sao.sound.spectra import RATE, log_mel, mel_bands

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
    fine = sine(440, 0.5)
    assert (silent(fine, HERTZ), clipped(fine, HERTZ), seconds(fine, HERTZ)) == (False, 0, 1)
    assert dc_offset(fine, HERTZ) < 1e-3
    assert silent(sine(440, 0.0005), HERTZ) and silent(np.zeros((10, 1)), HERTZ)
    assert clipped(sine(440, 2).clip(-1, 1), HERTZ) == pytest.approx(2 / 3, abs=0.01)
    assert dc_offset(sine(440, 0.1) + 0.2, HERTZ) == pytest.approx(0.2, abs=1e-3)


def test_a_clip_beside_its_reference(tmp_path: Path) -> None:
    one = signal_of(write_wav(tmp_path / "a.wav", low_passed(4000), HERTZ))
    other = signal_of(write_wav(tmp_path / "b.wav", low_passed(8000)[:HERTZ] / 2, HERTZ))
    assert bandwidth_error(one, other) == pytest.approx(1, abs=0.05)
    assert loudness_error(one, other) > 2 and log_mel_distance(one, other) > 5
    assert all(of(one, one) == 0 for of in (bandwidth_error, loudness_error, log_mel_distance))


def make_table(folder: Path) -> Path:
    """Write three renders and their table. One is silent, and the last is of a mere prompt and has no recording."""
    sounds = {"a": low_passed(4000), "b": np.zeros((HERTZ, 1)), "mine": sine(440, 0.1, 0.3)}
    for clip, audio in sounds.items():
        write_wav(folder / f"renders/{clip}.wav", audio, HERTZ)
        write_wav(folder / f"{clip}.wav", low_passed(8000), HERTZ)
    references = [str(folder / f"{clip}.wav") if clip != "mine" else "" for clip in sounds]
    table = pd.DataFrame(
        {"clip_id": list(sounds), "split": "evaluation", "prompt": "x", "reference": references, "source": ""}
    )
    table["file"] = table.clip_id + ".wav"
    table.to_csv(folder / "renders.csv", index=False)
    return folder / "renders.csv"


def test_a_set_is_kept_as_it_was_measured(tmp_path: Path) -> None:
    table = make_table(tmp_path)
    given = ["--table", table, "--renders", tmp_path / "renders", "--threads", 2]
    assert_succeeds(run_script("signals", *given, "--output", tmp_path / "a.npz"))
    assert_succeeds(run_script("signals", *given, "--output", tmp_path / "b.npz"))
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    kept = Signals(tmp_path / "a.npz")
    assert list(kept.facts) == ["a", "b", "mine"]
    for clip in kept.facts:
        signal, wanted = kept.of(clip), signal_of(tmp_path / f"renders/{clip}.wav")
        assert signal.facts == wanted.facts and set(signal.facts) == {fact.key for fact in FACTS}
        for kept_array, array in ((signal.log_mel, wanted.log_mel), (signal.thumbnail, wanted.thumbnail)):
            assert kept_array.dtype == array.dtype and np.allclose(
                kept_array, array
            )  # BLAS may round differently in another process
    assert kept.of("b").facts["silent"] is True and kept.of("mine").facts["loudness_lufs"] is None
    with np.load(tmp_path / "a.npz", allow_pickle=False) as arrays:  # the file is a real .npz
        assert json.loads(arrays["facts"].item())["a"] == kept.facts["a"] and len(arrays["thumbnail/2"])


def test_recordings_of_a_table_are_measured(tmp_path: Path) -> None:
    table = make_table(tmp_path)
    assert_succeeds(run_script("signals", "--table", table, "--output", tmp_path / "a.npz"))
    kept = Signals(tmp_path / "a.npz")
    assert list(kept.facts) == ["a", "b"]  # a prompt has no recording
    assert kept.of("b").facts == signal_of(tmp_path / "b.wav").facts


def test_sound_that_is_missing_or_broken_is_named(tmp_path: Path) -> None:
    table = make_table(tmp_path)
    given = ["--table", table, "--output", tmp_path / "a.npz"]
    (tmp_path / "renders/a.wav").unlink()
    assert_fails(run_script("signals", *given, "--renders", tmp_path / "renders"), "renders/a.wav", "missing")
    (tmp_path / "b.wav").write_bytes(b"RIFF")
    assert_fails(run_script("signals", *given), tmp_path / "b.wav", "cannot be read")
    table.write_text(table.read_text().splitlines()[0] + "\n")
    assert_fails(run_script("signals", *given, "--renders", tmp_path / "renders"), table, "lists no clip")
    assert not (tmp_path / "a.npz").exists()


def test_log_mel_distance_is_blind_to_level_and_sees_noise() -> None:
    def log_mel_distance(one: np.ndarray, other: np.ndarray) -> float:
        return spectra.log_mel_distance(log_mel(one), log_mel(other))

    signal = np.sin(np.arange(RATE) * 0.2)
    noise = np.random.default_rng(0).standard_normal(RATE)
    assert log_mel_distance(signal, 0.1 * signal) == pytest.approx(0, abs=1e-6)
    distances = [log_mel_distance(signal + level * noise, signal) for level in (0.001, 0.01, 0.1)]
    assert 0 < distances[0] < distances[1] < distances[2]


def test_mel_bands_are_means() -> None:
    bands = mel_bands(HERTZ, 2048, 96, 22050)
    assert bands.shape == (1025, 96) and np.allclose(bands.sum(axis=0), 1) and (bands >= 0).all()
