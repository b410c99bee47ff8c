"""Recordings become clips: by length, at silences, or as their metadata says."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import py7zr
import pytest
import soundfile
from conftest import (
    ROOT,
    SPLITS,
    PublishedSplit,
    assert_fails,
    assert_succeeds,
    change,
    listing,
    noise,
    run_script,
    write_csv,
    write_wav,
)
from sao.base.tables import read_table
from sao.sound.read import measure

RATE = 16000  # of the demo's sounds
GAP = 1.0  # s of silence after each sound
LENGTH = {"method": "length", "seconds": 2, "hop": None, "min_seconds": 0.5}
SILENCES = {
    "method": "silences", "seconds": None, "min_seconds": 0.5, "silence_dbfs": -50, "silence_seconds": 0.5, "margin_seconds": 0.1,
}  # fmt: skip
COLUMNS = {"method": "columns", "seconds": None, "min_seconds": 0.5, "start": "start", "end": "end"}
KEY = "0" * 64


@pytest.fixture(scope="module")
def instruments(tmp_path_factory: pytest.TempPathFactory) -> list[np.ndarray]:
    """The demo's first six recordings of instruments, as 16 bits `[frames, channels]`."""
    folder = tmp_path_factory.mktemp("instruments")
    with py7zr.SevenZipFile(ROOT / "resources/demo/corpus/clotho_audio_development.7z") as archive:
        archive.extractall(folder)
    return [soundfile.read(path, dtype="int16", always_2d=True)[0] for path in sorted(folder.rglob("*.wav"))[:6]]


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory, instruments: list[np.ndarray]) -> Path:
    """A folder of two long recordings: three instruments each, with silence after each of them. Not to be changed."""
    folder = tmp_path_factory.mktemp("recordings")
    pause = np.zeros((round(GAP * RATE), instruments[0].shape[1]), np.int16)
    for name, sounds in (("first.wav", instruments[:3]), ("sub/second.flac", instruments[3:])):
        (folder / name).parent.mkdir(exist_ok=True)
        soundfile.write(folder / name, np.concatenate([part for sound in sounds for part in (sound, pause)]), RATE)
    rows = [
        {
            "file_name": "first.wav",
            "caption_1": "Three instruments.",
            "caption_2": "Played backwards.",
            "artist": "Ann",
        },
        {"file_name": "sub/second.flac", "caption_1": "Three others.", "caption_2": "Backwards too.", "artist": "Bob"},
    ]
    write_csv(folder / "metadata.csv", [row | {"license": "CC0", "source": "https://example.org/1"} for row in rows])
    return folder


def scan(
    folder: Path, out: Path, *more: object, columns: dict[str, Any] | None = None
) -> subprocess.CompletedProcess[str]:
    """Rule scan for a corpus that is cut."""
    options = {"caption_columns": None, "top": None, "splits": None, "segments": columns}
    settings = json.dumps({"format": "audiofolder", "folder": str(folder), "options": options})
    outputs = ["--captions", out / "captions.csv", "--facts", out / "facts.csv", "--digests", out / "digests.sha256"]
    outputs += ["--listing", out / "listing.txt", "--key", KEY, "--settings", settings]
    return run_script("scan", *outputs, *more)


def cut(
    source: Path, out: Path, cut: dict[str, Any], *more: object, form: str = "audiofolder"
) -> subprocess.CompletedProcess[str]:
    settings = {"format": form, "source": str(source), "silence_dbfs": -60, "cut": cut}
    given = [] if "--captions" in more else ["--facts", out / "facts.csv", "--captions", out / "captions.csv"]
    outputs = ["--output", out / "clips", "--clip-facts", out / "clips.csv", "--table", out / "cuts.csv"]
    return run_script(
        "cut", "--settings", json.dumps(settings), *given, *outputs, "--left-out", out / "left_out.csv", *more
    )


def cut_folder(folder: Path, out: Path, settings: dict[str, Any], *more: object) -> pd.DataFrame:
    """Scan and cut a folder. Returns the table of cuts."""
    columns = {"start": settings["start"], "end": settings["end"]} if settings["method"] == "columns" else None
    assert_succeeds(scan(folder, out, *more, columns=columns))
    assert_succeeds(cut(folder, out, settings, *more))
    return read_table(out / "cuts.csv")


def assert_exact(table: pd.DataFrame, folder: Path, clips: Path) -> None:
    """Every clip has the samples of its recording between its times, and the facts are those of the clips."""
    for row in table.itertuples():
        whole, rate = soundfile.read(folder / row.source_file, dtype="int16", always_2d=True)
        start, end = (round(float(time) * rate) for time in (row.source_start, row.source_end))
        samples, _ = soundfile.read(clips / row.file_name, dtype="int16", always_2d=True)
        np.testing.assert_array_equal(samples, whole[start:end])
        assert row.source_path == str(folder / row.source_file)
        assert row.source_sha256 == measure(folder / row.source_file).audio_sha256
    facts = read_table(clips.with_suffix(".csv"))
    assert listing(clips) == set(facts.file_name) == set(table.file_name)
    for fact in facts.to_dict("records"):
        assert vars(measure(clips / fact.pop("file_name"))) == fact


def test_by_length_with_all_that_is_inherited(tmp_path: Path, recordings: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in recordings.rglob("*")}
    table = cut_folder(recordings, tmp_path, LENGTH, "--threads", 2)
    assert {path: path.stat().st_mtime_ns for path in recordings.rglob("*")} == before
    assert_exact(table, recordings, tmp_path / "clips")
    for name, clips in table.groupby("source_file"):
        frames = soundfile.info(recordings / name).frames
        starts, ends = (clips[column].astype(float).tolist() for column in ("source_start", "source_end"))
        assert starts == [2.0 * n for n in range(len(starts))] and starts[1:] == ends[:-1]
        assert ends[-1] == pytest.approx(frames / RATE, abs=1e-6)
    assert set(table.artist) == {"Ann", "Bob"} and set(table.license) == {"CC0"}
    assert set(table.source) == {"https://example.org/1"} and "described_in" not in table
    assert (
        table.caption_1
        == table.source_file.map({"first.wav": "Three instruments.", "sub/second.flac": "Three others."})
    ).all()
    assert set(table.caption_count) == {2}
    # Any number of threads gives the same.
    assert_succeeds(cut(recordings, tmp_path, LENGTH, "--threads", 1))
    pd.testing.assert_frame_equal(read_table(tmp_path / "cuts.csv"), table)


def test_overlapping_clips_and_a_tail_that_is_too_short(tmp_path: Path, recordings: Path) -> None:
    table = cut_folder(recordings, tmp_path, LENGTH | {"seconds": 1, "hop": 0.5, "min_seconds": 1})
    assert_exact(table, recordings, tmp_path / "clips")
    seconds = table.source_end.astype(float) - table.source_start.astype(float)
    assert np.allclose(seconds, 1)
    left = read_table(tmp_path / "left_out.csv")
    short = left[left.reason.str.contains("shorter than cut.min_seconds, 1 s")]
    assert set(short.source_file) == {"first.wav", "sub/second.flac"}


def test_at_silences_each_instrument_is_a_clip(tmp_path: Path, recordings: Path, instruments: list[np.ndarray]) -> None:
    table = cut_folder(recordings, tmp_path, SILENCES | {"margin_seconds": 0})
    assert_exact(table, recordings, tmp_path / "clips")
    ordered = table.assign(start=table.source_start.astype(float)).sort_values(["source_file", "start"])
    assert len(ordered) == 6
    for row, sound in zip(ordered.itertuples(), instruments, strict=True):
        loud = np.flatnonzero(np.abs(sound / 32768).max(axis=1) >= 10 ** (-50 / 20))
        samples, _ = soundfile.read(tmp_path / "clips" / row.file_name, dtype="int16", always_2d=True)
        np.testing.assert_array_equal(samples, sound[loud[0] : loud[-1] + 1])
    # With a margin the same clips are longer; with a limit they are divided.
    wider = cut_folder(recordings, tmp_path / "wider", SILENCES)
    assert len(wider) == 6 and (wider.source_end.astype(float) > 0).all()
    shorter = cut_folder(recordings, tmp_path / "shorter", SILENCES | {"seconds": 1})
    assert len(shorter) > 6 and (shorter.source_end.astype(float) - shorter.source_start.astype(float) <= 1).all()


def test_quiet_stretches_are_left_out_and_listed(tmp_path: Path, recordings: Path) -> None:
    table = cut_folder(recordings, tmp_path, LENGTH | {"seconds": 0.5})
    left = read_table(tmp_path / "left_out.csv")
    quiet = left[left.reason == "silent: its peak lies below silence_dbfs, -60 dBFS"]
    assert len(quiet) >= 6 and not set(zip(left.source_file, left.source_start, strict=True)) & set(
        zip(table.source_file, table.source_start, strict=True)
    )
    assert_exact(table, recordings, tmp_path / "clips")


def segments(folder: Path, recordings: Path, rows: list[dict[str, str]]) -> Path:
    """The recordings with a table of parts."""
    shutil.copytree(recordings, folder)
    write_csv(folder / "metadata.csv", rows)
    return folder


def row(start: object, end: object, caption: str = "A sound.", name: str = "first.wav", **more: str) -> dict[str, str]:
    return {"file_name": name, "start": str(start), "end": str(end), "caption": caption} | more


def test_parts_with_captions_of_their_own(tmp_path: Path, recordings: Path) -> None:
    """They may overlap, and the same times in two rows are one clip with two captions."""
    rows = [
        row(0, 1.5, "A harp.", tag="x"),
        row(1, 2.25, "It fades.", tag="y"),
        row(0, 1.5, "A harp, backwards.", tag="x"),
        row(0.5, 1, "A bell.", "sub/second.flac", tag="z"),
    ]
    folder = segments(tmp_path / "in", recordings, rows)
    table = cut_folder(folder, tmp_path, COLUMNS)
    assert_exact(table, folder, tmp_path / "clips")
    assert table.file_name.tolist() == [
        "first_00000-00001.5.wav",
        "first_00001-00002.25.wav",
        "sub/second_00000.5-00001.flac.wav",
    ]
    assert table.caption_1.tolist() == ["A harp.", "It fades.", "A bell."]
    assert table.caption_2.tolist() == ["A harp, backwards.", "", ""] and table.caption_count.tolist() == [2, 1, 1]
    assert table.tag.tolist() == ["x", "y", "z"] and "start" not in table and "end" not in table


def test_parts_that_have_a_start_alone(tmp_path: Path, recordings: Path) -> None:
    """As in AudioCaps, whose parts last 10 s, or less at the end of a recording."""
    seconds = soundfile.info(recordings / "first.wav").duration
    rows = [{"file_name": "first.wav", "onset": str(start), "caption": f"Sound {start}."} for start in (0, 2)]
    rows += [{"file_name": "sub/second.flac", "onset": "1", "caption": "A sound."}]
    folder = segments(tmp_path / "in", recordings, rows)
    table = cut_folder(folder, tmp_path, COLUMNS | {"start": "onset", "end": None, "seconds": 3})
    ends = table.source_end.astype(float).tolist()
    assert ends[0] == 3 and ends[1] == pytest.approx(min(5, seconds)) and ends[2] == 4


FAULTS = [
    (row("", 1), ["'start' is empty"]),
    (row("nan", 1), ["'start' is 'nan'"]),
    (row(1, 1), ["ends at 1 s, not after its start"]),
    (row(-1, 1), ["starts at -1 s, before the recording"]),
    (row(100, 101), ["starts at 100 s, but the recording ends at"]),
    (row(0, 100), ["ends at 100 s, but the recording ends at"]),
    (row(0, 0.03), ["lasts 0.03 s, less than cut.min_seconds, 0.5 s"]),
    (row(0, 1, " "), ["has no caption for 'first.wav' from 0 s: write one"]),
    (row(0, 1.25, "Other.", tag="y"), ["has another 'tag' than in", "metadata.csv, row 2"]),
]


@pytest.mark.parametrize(("bad", "words"), FAULTS, ids=lambda value: str(value)[-40:])
def test_a_bad_part_is_named_by_file_and_row(
    tmp_path: Path, recordings: Path, bad: dict[str, str], words: list[str]
) -> None:
    good = [row(0, 1.25, tag="x"), row(0, 1, name="sub/second.flac", tag="x")]
    folder = segments(tmp_path / "in", recordings, [*good, {"tag": "x"} | bad])
    columns = {"start": "start", "end": "end"}
    scanned = scan(folder, tmp_path, columns=columns)
    done = scanned if scanned.returncode else cut(folder, tmp_path, COLUMNS)
    assert_fails(done, f"{folder}/metadata.csv, row 4: ", *words)
    assert not (tmp_path / "clips").exists()


def test_bad_parts_are_left_out_and_listed(tmp_path: Path, recordings: Path) -> None:
    """With on_invalid: drop. Rule manifest hands the reasons on."""
    good = [row(0, 1.25, tag="x"), row(0, 1, name="sub/second.flac", tag="x")]
    folder = segments(tmp_path / "in", recordings, [*good, *({"tag": "x"} | bad for bad, _ in FAULTS)])
    table = cut_folder(folder, tmp_path, COLUMNS, "--on-invalid", "drop")
    assert table.source_file.tolist() == ["first.wav", "sub/second.flac"]
    given = ["--captions", tmp_path / "cuts.csv", "--facts", tmp_path / "clips.csv", "--audio", tmp_path / "clips"]
    done = run_script(
        "manifest", "--split", "all", *given, "--output", tmp_path / "manifest.csv", "--on-invalid", "drop"
    )
    assert_succeeds(done)
    for path in ("clips.csv", "manifest.csv"):
        listed = read_table(tmp_path / path).set_index("file_name")
        assert len(listed) == 2 + len(FAULTS)
        for number, (_, words) in enumerate(FAULTS, start=2):
            assert listed.sha256[f"first.wav#{number}"] == ""
            assert all(word in listed.problem[f"first.wav#{number}"] for word in words)


def broken(folder: Path) -> None:
    (folder / "first.wav").write_bytes((folder / "first.wav").read_bytes()[:40_000])


def silenced(folder: Path) -> None:
    write_wav(folder / "first.wav", np.zeros((3 * RATE, 1)), RATE)


@pytest.mark.parametrize("settings", [LENGTH, SILENCES], ids=lambda settings: settings["method"])
@pytest.mark.parametrize(
    ("spoil", "words"), [(broken, "is cut short"), (silenced, "is silent throughout: its peak is -inf dBFS")]
)
def test_a_recording_that_is_of_no_use(
    tmp_path: Path, recordings: Path, settings: dict[str, Any], spoil: Callable[[Path], None], words: str
) -> None:
    folder = shutil.copytree(recordings, tmp_path / "in")
    spoil(folder)
    assert_succeeds(scan(folder, tmp_path))
    assert_fails(cut(folder, tmp_path, settings), f"{folder}/first.wav: {words}", "on_invalid: drop")
    table = cut_folder(folder, tmp_path, settings, "--on-invalid", "drop")
    assert set(table.source_file) == {"sub/second.flac"}
    assert words in read_table(tmp_path / "clips.csv").set_index("file_name").problem["first.wav"]


def test_nothing_is_left(tmp_path: Path, recordings: Path) -> None:
    assert_succeeds(scan(recordings, tmp_path))
    done = cut(recordings, tmp_path, LENGTH | {"seconds": 90, "min_seconds": 80})
    assert_fails(done, f"{recordings}: no clip is left (all parts are shorter than cut.min_seconds, 80 s)")
    assert not (tmp_path / "clips").exists()


@pytest.mark.parametrize("settings", [LENGTH, SILENCES], ids=lambda settings: settings["method"])
def test_a_recording_that_changed_or_vanished_is_not_cut(
    tmp_path: Path, recordings: Path, settings: dict[str, Any]
) -> None:
    folder = shutil.copytree(recordings, tmp_path / "in")
    assert_succeeds(scan(folder, tmp_path))
    change(folder / "first.wav")
    assert_fails(
        cut(folder, tmp_path, settings), f"{folder}/first.wav: has the SHA-256", "it changed after it was made"
    )
    (folder / "first.wav").unlink()
    assert_fails(cut(folder, tmp_path, settings), f"{folder}/first.wav: missing")
    assert not (tmp_path / "clips").exists()


def test_several_rows_for_a_recording_need_times(tmp_path: Path, recordings: Path) -> None:
    folder = segments(tmp_path / "in", recordings, [row(0, 1), row(1, 2), row(0, 1, name="sub/second.flac")])
    assert_fails(scan(folder, tmp_path), "metadata.csv, row 3: 'first.wav' has", "already, from")


def test_published_archives_are_cut_too(tmp_path: Path, published: dict[str, PublishedSplit], extracted: Path) -> None:
    """Clotho's form: captions and metadata in tables of their own."""
    (split, *_) = SPLITS
    given = ["--facts", extracted / f"{split}.csv", "--captions", published[split].captions]
    given += ["--metadata", published[split].metadata]
    settings = LENGTH | {"seconds": 0.1, "hop": 0.05, "min_seconds": 0.1}
    assert_succeeds(cut(extracted / split, tmp_path, settings, *given, form="clotho"))
    table = read_table(tmp_path / "cuts.csv")
    assert set(table.source_file) == {path.name for path in published[split].wavs.iterdir()} and len(table) == len(
        set(table.source_file)
    )
    # The table of metadata is in ISO-8859-1, which cannot write all names.
    told = table[[name.encode("iso-8859-1", "replace").decode("iso-8859-1") == name for name in table.source_file]]
    assert set(told.manufacturer) == {"Jürgen"} and set(told.keywords) == {"noise;señal"}
    assert_exact(table, extracted / split, tmp_path / "clips")
    # Several captioned parts of a recording, in a table in Clotho's form.
    name = table.source_file[0]
    rows = [{"file_name": name, "caption_1": f"Part {n}.", "start": str(0.02 * n), "end": "0.1"} for n in range(4)]
    others = sorted(set(table.source_file) - {name})
    rows += [{"file_name": other, "caption_1": "All.", "start": "0", "end": "0.1"} for other in others]
    parts = write_csv(tmp_path / "parts.csv", rows)
    given[3] = parts
    settings = COLUMNS | {"min_seconds": 0.04}
    assert_succeeds(cut(extracted / split, tmp_path, settings, *given, form="clotho"))
    table = read_table(tmp_path / "cuts.csv")
    assert table[table.source_file == name].caption_1.tolist() == [f"Part {n}." for n in range(4)]
    write_csv(parts, [*rows, {"file_name": name, "caption_1": "No.", "start": "0", "end": "0.2"}])
    done = cut(extracted / split, tmp_path, settings, *given, form="clotho")
    assert_fails(done, f"{parts}, row {len(rows) + 2}: ends at 0.2 s, but the recording ends at 0.1 s")


def test_long_recordings_in_many_blocks(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    with soundfile.SoundFile(folder / "long.wav", "w", 48_000, 2, "PCM_24") as file:
        for part in range(3):
            file.write(noise(f"part {part}", 10, 48_000, 2))
    write_csv(folder / "metadata.csv", [{"file_name": "long.wav", "caption": "Noise."}])
    table = cut_folder(folder, tmp_path, LENGTH | {"seconds": 5, "hop": 3})
    assert_exact(table, folder, tmp_path / "clips")
    assert len(table) == 10 and soundfile.info(tmp_path / "clips" / table.file_name[0]).subtype == "PCM_24"
