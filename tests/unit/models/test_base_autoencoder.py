"""The quality of the autoencoder of resources/base on recordings that it was not trained on."""

from __future__ import annotations

import csv

import numpy as np
import py7zr
import pytest
import scipy.signal
import soundfile
from conftest import FORKS, ROOT, assert_succeeds

BASE = ROOT / "resources" / "base"
RATE = 16000  # Hz


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    """The rows that judge_autoencoder.py writes for the recordings in unheard/."""
    folder = tmp_path_factory.mktemp("judge")
    for split in ("validation", "evaluation"):
        with py7zr.SevenZipFile(BASE / "unheard" / f"{split}.7z") as archive:
            archive.extractall(folder)
    (folder / "judge").mkdir()
    rows = [["file", "package", "source"]]
    for path in sorted(folder.glob("*/*.wav")):
        audio, rate = soundfile.read(path, always_2d=True)
        stereo = scipy.signal.resample_poly(audio, RATE, rate)[:, [0, -1]]
        name = f"{len(rows)}.flac"
        soundfile.write(folder / "judge" / name, stereo.clip(-1, 1), RATE)
        rows.append([name, "sonic-pi-samples", path.name])
    with (folder / "judge.csv").open("w", encoding="utf-8", newline="") as handle:
        csv.writer(handle).writerows(rows)
    given = [BASE / "autoencoder", "--corpus", folder, "--csv", folder / "out.csv"]
    assert_succeeds(FORKS[0].program(BASE / "judge_autoencoder.py", *given, cwd=folder).finish())
    with (folder / "out.csv").open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def column(judged: list[dict[str, str]], name: str) -> np.ndarray:
    return np.array([float(row[name]) for row in judged])


def test_unheard_recordings_come_back(judged: list[dict[str, str]]) -> None:
    assert len(judged) == 8
    assert np.median(column(judged, "mel_db")) < 5.5
    assert np.median(np.abs(column(judged, "level_db"))) < 3


def test_latents_are_of_one_size(judged: list[dict[str, str]]) -> None:
    assert column(judged, "latent_std").min() > 0.25
    assert column(judged, "latent_std").max() < 2


def test_silence_stays_silent(judged: list[dict[str, str]]) -> None:
    assert float(judged[0]["silence_dbfs"]) < -70


def test_weights_are_small() -> None:
    assert sum(path.stat().st_size for path in (BASE / "autoencoder").iterdir()) < 8_000_000


def test_every_source_is_free() -> None:
    with (BASE / "licences.csv").open(encoding="utf-8", newline="") as handle:
        licences = {row["licence"] for row in csv.DictReader(handle)}
    assert not [name for name in licences if "GPL" in name or "-SA" in name or "NC" in name or not name]
