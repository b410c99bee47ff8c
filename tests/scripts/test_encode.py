"""Encoding is right, reproducible and resumable, and refuses a silent file."""

from __future__ import annotations

import json
import resource
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import torchaudio
from conftest import assert_fails, change, checksum, listing, noise, run_script, write_wav
from hypothesis import given
from hypothesis import strategies as st
from sao.base.names import read_digests
from sao.base.tables import write_table
from sao.models.autoencoder import clip_facts, load_audio, padded, resampled
from sao.models.encoding import usable
from sao.sound.read import Measuring


def encode(finished: Path, audio: Path, output: Path, *more: object, code: str = "x"):
    return run_script(
        "encode",
        "--audio", audio / "validation", "--facts", audio / "validation.csv", "--split", "validation",
        "--model", finished / "results/models/demo",
        "--model-digest", finished / "results/models/demo/checksums.sha256",
        "--code", code, "--output", output, "--digest", output.with_suffix(".json"), *more,
    )  # fmt: skip


def test_mean_and_spread_of_every_clip_with_its_mask(finished: Path) -> None:
    folder = finished / "results/latents/demo/demo/development/0001-of-0001"
    summary = json.loads(folder.with_suffix(".json").read_text())
    files = sorted(folder.glob("*.npy"))
    assert summary["clips"] == len(files) == 16
    for path in files:
        mean, std = np.load(path), np.load(path.with_suffix(".std"))
        info = json.loads(path.with_suffix(".json").read_text())
        assert mean.shape == std.shape == (summary["channels"], 48)
        assert np.isfinite(mean).all() and mean.std() > 0 and (std > 0).all()
        assert info["clip_id"] == path.stem
        audio = soundfile.info(finished / "results/data/demo/audio/development" / info["file_name"])
        valid = sum(info["padding_mask"])
        assert valid == min(len(info["padding_mask"]), -(-round(audio.duration * 16000) // 1024))
        assert info["seconds_total"] == int(np.ceil(audio.duration)) and info["seconds_start"] == 0


def test_shards_hold_every_clip_once_and_the_same_latents(finished: Path, tmp_path: Path) -> None:
    audio = finished / "results/data/demo/audio"
    whole = finished / "results/latents/demo/demo/validation/0001-of-0001"
    seen = []
    for shard in ("0001-of-0002", "0002-of-0002"):
        assert encode(finished, audio, tmp_path / shard, "--shard", shard).returncode == 0
        assert json.loads((tmp_path / f"{shard}.json").read_text())["clips"] == len(
            list((tmp_path / shard).glob("*.npy"))
        )
        for path in (tmp_path / shard).glob("*.npy"):
            seen.append(path.name)
            for end in (".npy", ".std", ".json"):
                there = whole / path.with_suffix(end).name
                assert end == ".json" or path.with_suffix(end).read_bytes() == there.read_bytes()
    assert sorted(seen) == sorted(path.name for path in whole.glob("*.npy"))


def test_clips_longer_than_the_window_are_stored_whole(finished: Path, tmp_path: Path) -> None:
    audio = finished / "results/data/demo/audio"
    done = encode(finished, audio, tmp_path / "cropped", "--train-seconds", 0.5, "--random-crop")
    assert done.returncode == 0, done.stderr
    whole = finished / "results/latents/demo/demo/validation/0001-of-0001"
    compared = 0
    for path in (tmp_path / "cropped").glob("*.npy"):
        info = json.loads(path.with_suffix(".json").read_text())
        frames = -(-info["seconds_total"] * 16000 // 1024)
        mean = np.load(path)
        assert 8 <= mean.shape[1] <= frames and len(info["padding_mask"]) == mean.shape[1]
        # Both are the same away from the end, where the other one is padded.
        inner = slice(0, max(sum(info["padding_mask"]) - 20, 0))
        compared += inner.stop
        assert np.allclose(mean[:, inner], np.load(whole / path.name)[:, inner], atol=1e-5)
    assert compared > 0


def test_encoding_again_gives_the_same_and_resumes(finished: Path, tmp_path: Path) -> None:
    audio = finished / "results/data/demo/audio"
    first = tmp_path / "first/validation"
    assert encode(finished, audio, first).returncode == 0
    again = tmp_path / "again/validation"
    assert encode(finished, audio, again).returncode == 0
    assert first.with_suffix(".json").read_text() == again.with_suffix(".json").read_text()
    # An interrupted job leaves some clips under the fingerprinted name.
    log = (tmp_path / "log").absolute()
    kept = sorted(again.glob("*.json"))[0]
    partial = tmp_path / "resumed" / f".validation.{fingerprint(finished, audio)}"
    partial.mkdir(parents=True)
    for path in (kept, kept.with_suffix(".npy"), kept.with_suffix(".std")):
        shutil.copy(path, partial)
    done = encode(finished, audio, tmp_path / "resumed/validation")
    assert done.returncode == 0 and "1 of 8 clips are encoded already" in done.stderr, (done.stderr, log)
    assert (tmp_path / "resumed/validation.json").read_text() == first.with_suffix(".json").read_text()
    assert not partial.exists()


@pytest.mark.parametrize("what", ["sound", "weights"])
def test_what_changed_after_it_was_measured_is_not_encoded(finished: Path, tmp_path: Path, what: str) -> None:
    audio = shutil.copytree(finished / "results/data/demo/audio", tmp_path / "audio")
    model = shutil.copytree(finished / "results/models/demo", tmp_path / "results/models/demo")
    if what == "sound":
        victim, says = change(sorted((audio / "validation").iterdir())[1]), audio / "validation.csv"
    else:
        victim, says = change(model / "model.safetensors"), model / "checksums.sha256"
    done = encode(tmp_path, audio, tmp_path / "out/validation")
    assert_fails(done, f"{victim}: has the SHA-256", f"{says} says", "run again")
    assert not (tmp_path / "out/validation.json").exists()


def test_listing_vouches_for_every_file(finished: Path) -> None:
    folder = finished / "results/latents/demo/demo/development/0001-of-0001"
    summary = json.loads(folder.with_suffix(".json").read_text())
    assert summary["sha256"] == checksum(folder / "checksums.sha256", "sha256")
    told = read_digests(folder / "checksums.sha256")
    assert told == {
        name: checksum(folder / name, "sha256")
        for name in listing(folder) - {"checksums.sha256", ".snakemake_timestamp"}
    }
    assert len(told) == 3 * summary["clips"]


def fingerprint(finished: Path, audio: Path) -> str:
    from sao.base.files import digest

    model = (finished / "results/models/demo/checksums.sha256").read_text()
    return digest((audio / "validation.csv").read_text(), model, 48, False, "0001-of-0001", "x")[:16]


def test_silent_file_stops_the_encoding(finished: Path, tmp_path: Path) -> None:
    audio = tmp_path / "audio"
    shutil.copytree(finished / "results/data/demo/audio/validation", audio / "validation")
    shutil.copy(finished / "results/data/demo/audio/validation.csv", audio)
    victim = sorted((audio / "validation").glob("*.wav"))[0]
    before = checksum(victim, "sha256")
    soundfile.write(victim, np.zeros(44100), 44100)
    facts = audio / "validation.csv"
    facts.write_text(facts.read_text().replace(before, checksum(victim, "sha256")))
    done = encode(finished, audio, tmp_path / "latents/validation")
    assert done.returncode == 1
    assert f"error: {victim}: is silent" in done.stderr
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
    audio = load_audio(path, 16000, 2)
    assert audio.shape == (2, 16000) and (audio[0] == audio[1]).all()
    spectrum = np.abs(np.fft.rfft(audio[0].numpy()))
    assert spectrum.argmax() == 440 and 0.45 < float(audio.abs().max()) < 0.55


@pytest.mark.parametrize("rate", [15999, 16001, 44101, 48001, 191999, pytest.param(999_983, marks=pytest.mark.slow)])
def test_any_rate_is_resampled_in_bounded_memory(tmp_path: Path, rate: int) -> None:
    """Resampling from 44,101 to 44,100 Hz once took 15 GB. All of these rates took at least 2 GB."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    path = write_wav(tmp_path / "a.wav", 0.5 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate), rate, "FLOAT")
    audio = load_audio(path, 16000, 1)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1_200_000  # kB
    expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
    assert audio.shape == (1, 16000) and audio.dtype == torch.float32
    np.testing.assert_allclose(audio[0, 500:-500], expected[500:-500], atol=2e-3)


@pytest.mark.parametrize("wanted", [16000, 44100, 48000])
@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 32000, 44100, 47952, 48000, 88200, 96000, 192000])
def test_common_rates_are_resampled_as_ever(rate: int, wanted: int) -> None:
    audio = torch.from_numpy(noise("a", 0.3, rate, 2).T.astype("float32"))
    assert torch.equal(resampled(audio, rate, wanted), torchaudio.functional.resample(audio, rate, wanted))


def test_flac_of_a_pipe_is_loaded_whole(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.flac", noise("a", 20, 16000), 16000)
    whole = load_audio(tmp_path / "a.flac", 16000, 2)
    data = bytearray((tmp_path / "a.flac").read_bytes())
    data[21] &= 0xF0  # the number of samples
    data[22:26] = bytes(4)
    (tmp_path / "a.flac").write_bytes(data)
    assert torch.equal(load_audio(tmp_path / "a.flac", 16000, 2), whole) and whole.shape == (2, 320000)


@given(st.integers(1, 5000), st.integers(1, 6), st.sampled_from([1, 64, 1000]))
def test_padding_fills_whole_frames_and_the_window(samples: int, frames: int, ratio: int) -> None:
    audio = torch.ones(2, samples)
    whole = padded(audio, ratio, frames)
    stored = whole.shape[1] / ratio
    assert stored == int(stored) and stored >= frames
    # Resampling rounds up, and only one sample beyond a frame is dropped.
    kept = int(whole[0].sum())
    assert samples - 1 <= kept <= samples and (kept == samples or samples % ratio == 1 or ratio == 1)
    assert stored == frames or stored - 1 < samples / ratio


def test_facts_of_a_clip_are_those_of_stable_audio_tools() -> None:
    config = {"sample_rate": 100, "model": {"pretransform": {"config": {"downsampling_ratio": 10}}}}
    facts = clip_facts(125, config, 20)
    assert facts["seconds_total"] == 2 and facts["padding_mask"] == [1] * 13 + [0] * 7
