from __future__ import annotations

import csv
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import (
    ODD_NAMES,
    PublishedSplit,
    assert_fails,
    assert_succeeds,
    checksum,
    noise,
    publish,
    run_manifest,
    write_csv,
    write_wav,
)
from sao.audio import measure
from sao.clips import clip_id


@pytest.fixture
def split(tmp_path: Path) -> PublishedSplit:
    return publish(tmp_path / "published", "development", ["one.wav", "two, too.wav"])


def manifest(folder: Path, split: PublishedSplit) -> subprocess.CompletedProcess[str]:
    """Make `folder/manifest.csv` from the WAVs that lie in `split.wavs` now."""
    digest = folder / "audio.sha256"
    lines = [f"{checksum(wav, 'sha256')}  {wav.name}\n" for wav in sorted(split.wavs.iterdir())]
    digest.write_text("".join(lines), encoding="utf-8")
    return run_manifest(folder / "manifest.csv", split, audio=split.wavs, digest=digest)


def read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, keep_default_na=False)


def edit(path: Path, old: str, new: str, encoding: str = "utf-8") -> None:
    text = path.read_text(encoding=encoding)
    assert old in text
    path.write_bytes(text.replace(old, new).encode(encoding))


def test_row_a_clip_with_everything_known(published: dict[str, PublishedSplit], manifests: dict[str, Path]) -> None:
    table = read(manifests["development"]).set_index("file_name")
    assert list(table.index) == sorted(ODD_NAMES)
    assert not table.problem.any()
    assert set(table.sample_rate) == {8000} and set(table.channels) == {1} and set(table.frames) == {800}
    assert table.seconds.tolist() == pytest.approx([0.1] * len(ODD_NAMES))
    assert table.peak_dbfs.between(-14.1, -13.9).all() and table.rms_dbfs.between(-19.5, -18).all()
    for name in ODD_NAMES:
        row, wav = table.loc[name], published["development"].wavs / name
        assert row.clip_id == clip_id("development", name)
        assert row.sha256 == checksum(wav, "sha256") == checksum(Path(row.path), "sha256")
        assert row.published_split == "development"
    with published["development"].captions.open(encoding="utf-8", newline="") as handle:
        captions = {row.pop("file_name"): row for row in csv.DictReader(handle)}
    assert table[["caption_1", "caption_2"]].to_dict("index") == captions


def test_metadata_in_latin_1_survives(manifests: dict[str, Path]) -> None:
    table = read(manifests["development"]).set_index("file_name")
    assert table.manufacturer["naïve café – Größe.wav"] == ""  # the dash is in no Latin-1 name: Clotho writes `?`
    assert table.manufacturer["-dash.wav"] == "Jürgen" and table.keywords["-dash.wav"] == "noise;señal"


def test_caption_stays_text(tmp_path: Path) -> None:
    captions = ["NA", "null", "nan", "None", "", "-1", "007", "1e5", "True", "- dash", "Łódź, “q”", 'say "hi"', "=1+1"]
    split = publish(tmp_path / "published", "development", [f"{n}.wav" for n in range(len(captions))])
    write_csv(split.captions, [{"file_name": f"{n}.wav", "caption_1": text} for n, text in enumerate(captions)])
    assert_succeeds(manifest(tmp_path, split))
    table = pd.read_csv(tmp_path / "manifest.csv", dtype=str, keep_default_na=False).set_index("file_name")
    assert [table.caption_1[f"{n}.wav"] for n in range(len(captions))] == captions


def test_line_breaks_in_a_caption_become_spaces(tmp_path: Path, split: PublishedSplit) -> None:
    edit(split.captions, "number 0 of development, told", "\r\n number\r0\nof")
    assert_succeeds(manifest(tmp_path, split))
    table = read(tmp_path / "manifest.csv")
    assert len(table) == 2 and table.caption_1[0] == "Noise number 0 of in way 1."


@pytest.mark.parametrize(
    ("file", "old", "new", "words"),
    [
        ("captions", "file_name,caption_1", "file,caption_1", ["'file_name'", "file, caption_1"]),
        ("captions", "caption_1", "caption", ["'caption_1'"]),
        ("metadata", "sound_id", "soundid", ["'sound_id'", "soundid"]),
        ("captions", '"two, too.wav"', "one.wav", ["row 3", "'one.wav'", "row 2"]),
        ("captions", '"two, too.wav"', "three.wav", ["'three.wav'", "no audio", "(1 such)"]),
    ],
)  # fmt: skip
def test_odd_table_is_named_with_its_row(
    tmp_path: Path, split: PublishedSplit, file: str, old: str, new: str, words: list[str]
) -> None:
    path: Path = getattr(split, file)
    edit(path, old, new, "iso-8859-1" if file == "metadata" else "utf-8")
    assert_fails(manifest(tmp_path, split), path, *words)
    assert not (tmp_path / "manifest.csv").exists()


def test_undecodable_byte_is_named_with_its_row(tmp_path: Path, split: PublishedSplit) -> None:
    split.captions.write_bytes(split.captions.read_bytes().replace(b"Noise number 1", b"No\xefse number 1"))
    assert_fails(manifest(tmp_path, split), split.captions, "row 3", "0xef", "UTF-8")
    assert not (tmp_path / "manifest.csv").exists()


def test_audio_without_a_row_is_named(tmp_path: Path, split: PublishedSplit) -> None:
    write_wav(split.wavs / "lonely one.wav", noise("lonely"))
    assert_fails(manifest(tmp_path, split), "'lonely one.wav'", split.captions, "(1 such)")
    assert not (tmp_path / "manifest.csv").exists()


def test_clip_without_metadata_is_warned_of(tmp_path: Path, split: PublishedSplit) -> None:
    edit(split.metadata, "one.wav", "another.wav", "iso-8859-1")
    result = manifest(tmp_path, split)
    assert_succeeds(result)
    assert "warning" in result.stderr and "'one.wav'" in result.stderr
    assert read(tmp_path / "manifest.csv").set_index("file_name").sound_id["one.wav"] == ""


def cut_in_half(path: Path) -> None:
    data = write_wav(path, noise("cut")).read_bytes()
    path.write_bytes(data[: len(data) // 2])


BAD_AUDIO: list[tuple[Callable[[Path], object], str]] = [
    (lambda path: write_wav(path, np.zeros((0, 1))), "no samples"),
    (lambda path: write_wav(path, np.array([0.1, np.nan, 0.2]), subtype="FLOAT"), "NaN"),
    (lambda path: write_wav(path, np.array([0.1, np.inf, 0.2]), subtype="FLOAT"), "infinite"),
    (lambda path: path.write_bytes(b"RIFF\x24\x00\x00\x00WAVEjunk" + bytes(40)), "cannot be read"),
    (lambda path: path.write_text("<!DOCTYPE html>"), "cannot be read"),
    (lambda path: path.write_bytes(b""), "cannot be read"),
    (lambda path: write_wav(path, noise("three", channels=3)), "3 channels"),
    (cut_in_half, "cut short"),
]


def test_bad_audio_is_recorded(tmp_path: Path) -> None:
    """Every kind at once, beside a good clip: the manifest is made, and `problem` says what is wrong."""
    names = ["good.wav", *(f"bad {n}.wav" for n in range(len(BAD_AUDIO)))]
    split = publish(tmp_path / "published", "development", names)
    for number, (spoil, _) in enumerate(BAD_AUDIO):
        spoil(split.wavs / f"bad {number}.wav")
    assert_succeeds(manifest(tmp_path, split))
    table = read(tmp_path / "manifest.csv").set_index("file_name")
    assert table.problem["good.wav"] == ""
    for number, (_, problem) in enumerate(BAD_AUDIO):
        assert problem in table.problem[f"bad {number}.wav"]


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


def test_placeholder_size_of_a_pipe_is_no_loss(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "piped.wav", noise("piped"))
    data = bytearray(path.read_bytes())
    data[4:8] = data[40:44] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    assert measure(path).problem == ""
