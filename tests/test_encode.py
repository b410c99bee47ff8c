"""Latents: right, reproducible, resumable; and never of a silent file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import run_script
from encode import load_audio, usable
from sao.audio import Measuring
from sao.command import InputError
from sao.tables import write_table


def encode(finished: Path, audio: Path, output: Path, *, code: str = "x"):
    return run_script(
        "encode",
        "--audio", audio / "validation", "--facts", audio / "validation.csv", "--split", "validation",
        "--model", finished / "results/models/demo",
        "--model-digest", finished / "results/models/demo/checksums.sha256",
        "--code", code, "--output", output, "--digest", output.with_suffix(".json"),
    )  # fmt: skip


def test_one_latent_a_clip_with_its_mask(finished: Path) -> None:
    folder = finished / "results/latents/demo/demo/development"
    summary = json.loads(folder.with_suffix(".json").read_text())
    files = sorted(folder.glob("*.npy"))
    assert summary["clips"] == len(files) == 16
    for path in files:
        latents, info = np.load(path), json.loads(path.with_suffix(".json").read_text())
        assert list(latents.shape) == summary["shape"]
        assert np.isfinite(latents).all() and latents.std() > 0
        assert info["clip_id"] == path.stem
        audio = soundfile.info(finished / info["path"])
        valid = sum(info["padding_mask"])
        assert valid == min(len(info["padding_mask"]), -(-round(audio.duration * 16000) // 1024))
        assert info["seconds_total"] == int(np.ceil(audio.duration))


def test_encoding_again_gives_the_same_and_resumes(finished: Path, tmp_path: Path) -> None:
    audio = finished / "results/data/demo/audio"
    first = tmp_path / "first/validation"
    assert encode(finished, audio, first).returncode == 0
    again = tmp_path / "again/validation"
    assert encode(finished, audio, again).returncode == 0
    assert first.with_suffix(".json").read_text() == again.with_suffix(".json").read_text()
    # What an interrupted job leaves: some clips under the fingerprinted name.
    log = (tmp_path / "log").absolute()
    kept = sorted(again.glob("*.json"))[0]
    partial = tmp_path / "resumed" / f".validation.{fingerprint(finished, audio)}"
    partial.mkdir(parents=True)
    for path in (kept, kept.with_suffix(".npy")):
        shutil.copy(path, partial)
    done = encode(finished, audio, tmp_path / "resumed/validation")
    assert done.returncode == 0 and "1 of 4 clips are encoded already" in done.stderr, (done.stderr, log)
    assert (tmp_path / "resumed/validation.json").read_text() == first.with_suffix(".json").read_text()
    assert not partial.exists()


def fingerprint(finished: Path, audio: Path) -> str:
    from sao.files import digest

    model = (finished / "results/models/demo/checksums.sha256").read_text()
    return digest((audio / "validation.csv").read_text(), model, 48, "x")[:16]


def test_silent_file_stops_the_encoding(finished: Path, tmp_path: Path) -> None:
    audio = tmp_path / "audio"
    shutil.copytree(finished / "results/data/demo/audio/validation", audio / "validation")
    shutil.copy(finished / "results/data/demo/audio/validation.csv", audio)
    victim = sorted((audio / "validation").glob("*.wav"))[0]
    soundfile.write(victim, np.zeros(44100), 44100)
    done = encode(finished, audio, tmp_path / "latents/validation")
    assert done.returncode == 1
    assert f"error: {victim}: silent" in done.stderr
    assert not (tmp_path / "latents/validation").exists()


def test_what_cannot_be_encoded_is_skipped(tmp_path: Path) -> None:
    def write(name: str, audio: np.ndarray, rate: int = 8000) -> None:
        soundfile.write(tmp_path / name, audio, rate)
        measuring.add(name, tmp_path / name)

    measuring = Measuring(1)
    write("good.wav", np.full(800, 0.1))
    write("silent.wav", np.zeros(800))
    write("empty.wav", np.zeros(0))
    write("three.wav", np.full((800, 3), 0.1))
    write("whole window.wav", np.full(8000, 0.1))
    write("longer.wav", np.full(8001, 0.1))
    (tmp_path / "page.wav").write_text("<!DOCTYPE html>")
    measuring.add("page.wav", tmp_path / "page.wav")
    assert usable(measuring.finish("measuring"), 1.0) == ["good.wav", "whole window.wav"]


def test_folder_of_which_nothing_can_be_encoded_is_named(finished: Path, tmp_path: Path) -> None:
    measuring = Measuring(1)
    (tmp_path / "validation").mkdir()
    soundfile.write(tmp_path / "validation/silent.wav", np.zeros(800), 8000)
    measuring.add("silent.wav", tmp_path / "validation/silent.wav")
    write_table(tmp_path / "validation.csv", measuring.finish("measuring"))
    done = encode(finished, tmp_path, tmp_path / "latents/validation")
    assert done.returncode == 1 and f"error: {tmp_path / 'validation.csv'}: no file can be encoded" in done.stderr
    assert not (tmp_path / "latents/validation").exists()


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", [8000, 16000, 96000])
def test_audio_is_brought_to_the_models_rate_and_channels(tmp_path: Path, channels: int, rate: int) -> None:
    path = tmp_path / "a.wav"
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate)
    soundfile.write(path, np.stack([tone] * channels, axis=1), rate, subtype="FLOAT")
    audio, length = load_audio(path, 16000, 2, 20480)
    assert audio.shape == (2, 20480) and length == 16000
    assert (audio[:, length:] == 0).all() and (audio[0] == audio[1]).all()
    spectrum = np.abs(np.fft.rfft(audio[0, :16000].numpy()))
    assert spectrum.argmax() == 440 and 0.45 < float(audio.abs().max()) < 0.55


def test_audio_longer_than_the_window_is_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.ones(20000) * 0.1, 16000)
    with pytest.raises(InputError, match=r"a\.wav: lasts 1\.25 s, the window 1\.00 s"):
        load_audio(tmp_path / "a.wav", 16000, 2, 16000)
