from __future__ import annotations

import json
import re
import subprocess
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
from conftest import (
    DROPPED,
    RATE,
    SPLITS,
    assert_fails,
    assert_succeeds,
    edit_table,
    error_lines,
    listing,
    noise,
    official,
    run_script,
    write_wav,
)
from hypothesis import given
from hypothesis import strategies as st
from sao.base.names import clip_id
from sao.base.tables import read_table
from sao.data.splits import assign
from sao.data.validation import near_keys
from sao.pages.corpus import common_words, counts
from sao.sound.read import measure

CC0 = "http://creativecommons.org/publicdomain/zero/1.0/"
BY = "https://creativecommons.org/licenses/by/4.0/"
BY_NC = "http://creativecommons.org/licenses/by-nc/3.0"


@dataclass
class Clip:
    """A clip of a corpus to validate. By default its noise, caption and sound_id are its own."""

    split: str
    name: str
    audio: np.ndarray | bytes | None = None
    captions: list[str] | None = None
    rate: int = RATE
    subtype: str = "PCM_16"
    columns: dict[str, str] = field(default_factory=dict)


def plain(per_split: int = 3) -> list[Clip]:
    """Clips in which nothing is odd."""
    return [Clip(split, f"{split} {number}.wav") for split in SPLITS for number in range(per_split)]


def write_corpus(folder: Path, clips: Iterable[Clip]) -> dict[str, Path]:
    """Write the sounds of the clips, and manifests as manifest.py would. Returns the manifests by split."""
    rows: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    for number, clip in enumerate(clips):
        path = folder / "audio" / clip.split / clip.name
        if isinstance(clip.audio, bytes):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(clip.audio)
        else:
            audio = noise(f"{number}", 0.1, clip.rate) if clip.audio is None else clip.audio
            write_wav(path, audio, clip.rate, clip.subtype)
        captions = [f"{WORDS[number]} heard near {WORDS[-number]}."] if clip.captions is None else clip.captions
        row = {"clip_id": clip_id(clip.split, clip.name), "path": path.as_posix()} | vars(measure(path))
        row |= {"published_split": clip.split, "file_name": clip.name, "keywords": "", "sound_id": str(1000 + number)}
        row |= {"sound_link": "", "start_end_samples": "", "manufacturer": "", "license": CC0} | clip.columns
        row["caption_count"] = len(captions)
        rows[clip.split].append(row | {f"caption_{i}": text for i, text in enumerate(captions, 1)})
    manifests = {}
    for split, table in rows.items():
        manifests[split] = folder / "manifests" / f"{split}.csv"
        manifests[split].parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(table, columns=None if table else COLUMNS).fillna("").to_csv(manifests[split], index=False)
    return manifests


WORDS = [f"{a}{b}" for a in ("Rain", "Bell", "Crow", "Wind", "Horn") for b in ("ing", "s", "fall", "er", "let", "ish")]
COLUMNS = [
    *("clip_id", "path", "sha256", "audio_sha256", "seconds", "sample_rate", "channels", "frames", "peak_dbfs"),
    *("rms_dbfs", "dc_offset", "clipped_run", "problem", "published_split", "file_name", "keywords", "sound_id"),
    *("sound_link", "start_end_samples", "manufacturer", "license", "caption_count", "caption_1"),
]


def validate(
    folder: Path, manifests: dict[str, Path], *more: object, split: dict | None = None
) -> subprocess.CompletedProcess[str]:
    """Run validate.py. The reports and the list go to `folder/out`, and the log to `folder/logs/validate.log`."""
    fixed = [
        "--split",
        json.dumps(split or official()),
        "--silence-dbfs=-60",
        "--output",
        folder / "out/validation.json",
    ]
    fixed += ["--page", folder / "out/validation.html", "--dropped", folder / "out/manifests/dropped.csv"]
    log = folder / "logs/validate.log"
    return run_script("validate", "--manifest", *manifests.values(), *fixed, *more, log=log)


OUTPUTS = {"validation.json", "validation.html", "manifests/dropped.csv"}


def report_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "out/validation.json").read_text(encoding="utf-8"))


def checks(findings: list[dict[str, str]]) -> dict[str, list[str]]:
    """File names by check."""
    found: dict[str, list[str]] = {}
    for entry in findings:
        found.setdefault(entry["check"], []).append(Path(entry["path"]).name)
    return found


def page_text(path: Path, plots: int = 3) -> str:
    """All text of a page. The page has to be well-formed, self-contained and free of scripts, with this number of plots."""
    source = path.read_text(encoding="utf-8")
    assert source.startswith("<!DOCTYPE html>")
    root = ElementTree.fromstring(source)
    tags = [element.tag.removeprefix("{http://www.w3.org/2000/svg}") for element in root.iter()]
    assert tags.count("svg") == plots and not {"script", "link", "img", "iframe", "object"} & set(tags)
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    assert len(ids) == len(set(ids))
    for element in root.iter():
        for key, value in element.attrib.items():
            name = key.rsplit("}", 1)[-1]
            assert not name.startswith("on") and name != "src"
            assert name != "href" or (value.startswith("#") and value[1:] in ids)
    assert set(re.findall(r"url\(([^)]*)\)", source)) <= {f"#{one}" for one in ids}
    assert "@import" not in source
    return "\n".join(root.itertext())


def test_sound_corpus_gives_two_reports_and_an_empty_list(tmp_path: Path, manifests: dict[str, Path]) -> None:
    made = set()
    for threads in (1, 4):
        assert_succeeds(validate(tmp_path, manifests, "--train-seconds", 0.1, "--threads", threads))
        assert listing(tmp_path / "out") == OUTPUTS and listing(tmp_path / "logs") == {
            "validate.log",
            "validate.settings.json",
        }
        made.add(tuple((tmp_path / "out" / name).read_bytes() for name in sorted(OUTPUTS)))
    assert len(made) == 1
    report = report_of(tmp_path)
    assert report == {
        "corpus": "out",
        "on_invalid": "fail",
        "on_leak": "fail",
        "clips": {"train": 10, "validation": 2, "evaluation": 2},
        "seconds": 1.4,
        "captions": 28,
        "sample_rates": {"8000": 14},
        "licenses": {"CC0-1.0": 12, "missing": 2},
        "errors": [],
        "warnings": report["warnings"],
        "left_out": [],
    }
    assert (tmp_path / "out/manifests/dropped.csv").read_text() == ",".join(DROPPED) + "\n"
    text = page_text(tmp_path / "out/validation.html")
    assert "14 clips" in text and "No error" in text and "CC0-1.0" in text and "8000" in text
    for title in ("Durations", "Levels", "Sample rates", "Caption lengths", "Most common words"):
        assert title in text


def test_manifests_that_are_made_here_are_as_the_real_ones(tmp_path: Path, manifests: dict[str, Path]) -> None:
    real = pd.read_csv(manifests["validation"], dtype=str)
    made = pd.read_csv(write_corpus(tmp_path, plain())["validation"], dtype=str)
    assert [*made.columns, "caption_2"] == real.columns.tolist() == [*COLUMNS, "caption_2"]


FULL_SCALE = np.sign(noise("loud", 0.1))
CUT = b"RIFF\x64\x06\x00\x00WAVEfmt \x10\x00\x00\x00\x01\x00\x01\x00\x40\x1f\x00\x00\x80\x3e\x00\x00\x02\x00\x10\x00"
CUT += b"data\x40\x06\x00\x00" + bytes(range(256)) * 2
SPOILT: list[tuple[Clip, str, str]] = [
    (Clip("validation", "silent.wav", np.zeros(800)), "silent", "is silent"),
    (Clip("validation", "near silent.wav", noise("x") * 0.004, subtype="PCM_24"), "silent", "below -60 dBFS"),
    (Clip("validation", "nan.wav", np.array([0.1, np.nan, 0.2]), subtype="FLOAT"), "audio", "NaN"),
    (Clip("development", "inf.wav", np.array([0.1, np.inf, 0.2]), subtype="FLOAT"), "audio", "infinite"),
    (Clip("evaluation", "page.wav", b"<!DOCTYPE html>"), "audio", "cannot be read"),
    (Clip("evaluation", "cut.wav", CUT), "audio", "cut short"),
    (Clip("development", "three.wav", noise("three", channels=3)), "audio", "has 3 channels"),
    (Clip("development", "nothing.wav", np.zeros((0, 1))), "audio", "has no samples"),
    (Clip("development", "no caption.wav", captions=[""]), "caption", "caption_1 is empty"),
    (Clip("development", "half captioned.wav", captions=["A sound.", " \t"]), "caption", "caption_2 is empty"),
    (Clip("evaluation", "too long.wav", noise("long", 0.5)), "duration", "train_seconds = 0.4"),
    (Clip("development", "twin.wav", columns={"clip_id": "twin"}), "clip_id", "shares its clip_id twin"),
    (Clip("validation", "twin too.wav", columns={"clip_id": "twin"}), "clip_id", "shares its clip_id twin"),
    (Clip("development", "leak of audio.wav", noise("leak")), "leak", "same audio"),
    (Clip("development", "leak of recording.wav", columns={"sound_id": "77"}), "leak", "same sound_id 77"),
    (Clip("validation", "validation leak.wav", noise("leak 2")), "leak", "(validation) has the same audio"),
    *(
        (Clip("development", f"blank {n}.wav", captions=["A sound.", text]), "caption", "caption_2 is empty")
        for n, text in enumerate(("\u200b\u200d\ufeff", "...", "?!", "=", "\u3164", "\u0301", "\ufffd"))
    ),
    *(
        (Clip("development", f"none {n}.wav", captions=[text]), "caption", f"caption_1 is {text!r}, a word for nothing")
        for n, text in enumerate(("nan", "None", "NULL", "N/A", "<NA>"))
    ),
]
KEPT = [
    Clip("evaluation", "original.wav", noise("leak")),
    Clip("validation", "same recording.wav", columns={"sound_id": "77"}),
    Clip("evaluation", "original 2.wav", noise("leak 2")),
]


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Path]]:
    """A corpus with one clip for each error that would corrupt a training. Tests must not change it."""
    folder = tmp_path_factory.mktemp("spoilt")
    return folder, write_corpus(folder, [*plain(), *KEPT, *(clip for clip, _, _ in SPOILT)])


def test_all_that_would_corrupt_a_training_is_named(tmp_path: Path, spoilt: tuple[Path, dict[str, Path]]) -> None:
    folder, manifests = spoilt
    result = validate(tmp_path, manifests, "--train-seconds", 0.4)
    lines = error_lines(result)
    assert len(lines) == len(SPOILT) and f"{len(SPOILT) - 1} more, listed above" in lines[-1]
    assert "on_invalid" in lines[-1] and str(tmp_path / "logs/validate.html") in lines[-1]
    for clip, _, words in SPOILT:
        path = (folder / "audio" / clip.split / clip.name).as_posix()
        (line,) = [line for line in lines if f"error: {path} " in line]
        assert words in line
    assert not (tmp_path / "out").exists()
    text = page_text(tmp_path / "logs/validate.html")
    assert f"{len(SPOILT)} errors" in text and all(clip.name in text and words in text for clip, _, words in SPOILT)


def test_what_is_dropped_is_listed_with_the_reason_and_gone_from_all_splits(
    tmp_path: Path, spoilt: tuple[Path, dict[str, Path]]
) -> None:
    folder, manifests = spoilt
    dropping = ["--on-invalid", "drop", "--on-leak", "drop"]
    assert_succeeds(validate(tmp_path, manifests, "--train-seconds", 0.4, *dropping))
    report, dropped = report_of(tmp_path), read_table(tmp_path / "out/manifests/dropped.csv")
    assert tuple(dropped.columns) == DROPPED
    assert report["errors"] == [] and report["left_out"] == dropped[list(report["left_out"][0])].to_dict("records")
    text = page_text(tmp_path / "out/validation.html")
    for clip, check, words in SPOILT:
        (row,) = dropped[dropped.path == (folder / "audio" / clip.split / clip.name).as_posix()].to_dict("records")
        assert (row["check"], row["published_split"]) == (check, clip.split) and words in row["message"]
        assert clip.name in text and words in text
    assert len(dropped) == len(SPOILT)
    assert report["clips"] == {"train": 3, "validation": 4, "evaluation": 5} and "12 clips" in text

    given = ["--manifest", *manifests.values(), "--split", json.dumps(official())]
    given += ["--validation-report", tmp_path / "out/validation.json"]
    given += ["--dropped", tmp_path / "out/manifests/dropped.csv", "--output", tmp_path / "splits"]
    assert_succeeds(run_script("split", *given))
    names = {
        role: set(read_table(tmp_path / "splits" / f"{role}.csv").file_name)
        for role in ("train", "validation", "evaluation")
    }
    assert {name for found in names.values() for name in found} == {clip.name for clip in [*plain(), *KEPT]}
    assert {"original.wav", "original 2.wav"} <= names["evaluation"]


def test_changed_and_vanished_files_are_named(tmp_path: Path) -> None:
    manifests = write_corpus(tmp_path, plain())
    changed, gone = (tmp_path / "audio/development" / f"development {n}.wav" for n in (0, 2))
    data = bytearray(changed.read_bytes())
    data[-1] ^= 1
    changed.write_bytes(data)
    assert_fails(validate(tmp_path, manifests), changed, "SHA-256 differs")
    gone.unlink()
    lines = error_lines(validate(tmp_path, manifests))
    assert [str(path) in line for path, line in zip((gone, changed), lines, strict=True)] == [True, True]
    assert "is missing" in lines[0]
    assert_succeeds(validate(tmp_path, manifests, "--on-invalid", "drop"))
    assert checks(report_of(tmp_path)["left_out"]) == {"checksum": ["development 0.wav", "development 2.wav"]}


def test_corpus_with_nothing_sound_is_told_clip_by_clip(tmp_path: Path) -> None:
    silent = [Clip(clip.split, clip.name, np.zeros(800) + n / 32768) for n, clip in enumerate(plain(1))]
    manifests = write_corpus(tmp_path, silent)
    assert len(error_lines(validate(tmp_path, manifests))) == 3
    page_text(tmp_path / "logs/validate.html")
    result = validate(tmp_path, manifests, "--on-invalid", "drop")
    assert_fails(result, "no clip is left for train", "3 of 3", tmp_path / "logs/validate.html")
    text = page_text(tmp_path / "logs/validate.html", plots=0)
    assert "silent" in text and "No clip is left for train, validation, evaluation" in text and "No error" not in text
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("side", SPLITS)
def test_side_without_a_clip_fails(tmp_path: Path, side: str) -> None:
    manifests = write_corpus(tmp_path, [clip for clip in plain() if clip.split != side])
    assert_fails(validate(tmp_path, manifests), f"no clip is left for {SPLITS[side]}", "logs/validate.html")
    assert not (tmp_path / "out").exists()


def test_oddities_are_warned_of_and_allowed(tmp_path: Path) -> None:
    odd = [
        Clip("development", "clipped.wav", FULL_SCALE),
        Clip("development", "offset.wav", noise("offset") + 0.3),
        Clip("development", "other rate.wav", rate=44100),
        Clip("development", "long.wav", noise("long", 3)),
        Clip("development", "nameless.wav", columns={"sound_id": "Not found"}),
        Clip("evaluation", "once.wav", noise("twice")),
        Clip("evaluation", "twice.wav", noise("twice")),
        Clip("development", "told.wav", captions=["A dog barks loudly at the red gate", "Nothing else."]),
        Clip("development", "retold.wav", captions=["Something.", "a DOG barks loudly at the gate!"]),
    ]
    result = validate(tmp_path, write_corpus(tmp_path, [*plain(), *odd]))
    assert_succeeds(result)
    report = report_of(tmp_path)
    assert checks(report["warnings"]) == {
        "clipping": ["clipped.wav"],
        "dc_offset": ["offset.wav"],
        "sample_rate": ["other rate.wav"],
        "duration": ["long.wav"],
        "sound_id": ["nameless.wav"],
        "duplicate": ["twice.wav"],
        "caption": ["retold.wav"],
    }
    (caption,) = (w["message"] for w in report["warnings"] if w["check"] == "caption")
    assert "caption_2" in caption and "told.wav" in caption and "'a DOG barks loudly at the gate!'" in caption
    assert report["errors"] == report["left_out"] == []
    text = page_text(tmp_path / "out/validation.html")
    for warning in report["warnings"]:
        assert f"warning: {warning['path']} {warning['message']}" in result.stderr
        assert warning["path"] in text and warning["message"] in text


def cut_from(recording: str, start: float, end: float) -> dict[str, str]:
    """The columns of a clip that rule cut made."""
    times = {"source_start": str(start), "source_end": str(end)}
    return {"source_file": f"{recording}.wav", "source_sha256": recording} | times


def test_clips_that_were_cut_share_captions_and_the_last_is_short(tmp_path: Path) -> None:
    """No warning of either. The page tells where each recording was cut."""
    text = ["A dog barks loudly at the red gate."]
    clips = [
        Clip(split, f"{split} {n}.wav", noise(f"{split} {n}", 0.5 if n < 3 else 0.1), text if split == "development" else None,
             columns=cut_from(split, n / 2, n / 2 + 0.5))
        for split in SPLITS for n in range(4)
    ]  # fmt: skip
    assert_succeeds(validate(tmp_path, write_corpus(tmp_path, clips)))
    assert not {"caption", "duration"} & set(checks(report_of(tmp_path)["warnings"]))
    page = page_text(tmp_path / "out/validation.html")
    assert "Recordings: 3" in page and "development/development.wav" in page and "0–0.5, 0.5–1, 1–1.5, 1.5–2" in page
    # The same caption in two recordings is told once.
    clips[-1].captions = text
    assert_succeeds(validate(tmp_path, write_corpus(tmp_path, clips)))
    assert checks(report_of(tmp_path)["warnings"])["caption"] == [clips[-1].name]


def test_one_recording_in_two_splits_leaks(tmp_path: Path) -> None:
    clips = [Clip(split, f"{n}.wav", columns=cut_from(f"{split} {n}", 0, 1)) for split in SPLITS for n in range(3)]
    clips += [Clip(split, "x.wav", columns=cut_from("both", 0, 1)) for split in ("development", "evaluation")]
    manifests = write_corpus(tmp_path, clips)
    assert_fails(validate(tmp_path, manifests), "development/x.wav (train) has the same source as", "evaluation/x.wav")
    assert_succeeds(validate(tmp_path, manifests, "--on-leak", "drop"))
    (left,) = report_of(tmp_path)["left_out"]
    assert left["path"].endswith("development/x.wav") and left["check"] == "leak"


def test_sound_that_touches_full_scale_is_not_called_clipped(tmp_path: Path) -> None:
    """All of Clotho's clips touch it. The warning about a longer run of samples has its length."""
    peaks = np.tile([0.1, -0.1, 0.2, -0.2], 200)
    clips = []
    for run in (1, 2, 3, 40):
        audio = peaks.copy()
        audio[100 : 100 + run] = 1
        clips.append(Clip("development", f"{run}.wav", audio))
    assert_succeeds(validate(tmp_path, write_corpus(tmp_path, [*plain(), *clips])))
    warnings = [entry for entry in report_of(tmp_path)["warnings"] if entry["check"] == "clipping"]
    assert [Path(entry["path"]).name for entry in warnings] == ["3.wav", "40.wav"]
    assert "has 40 samples in a row at full scale" in warnings[1]["message"]


def test_many_warnings_of_a_kind_are_cut_in_the_log_and_whole_in_the_report(tmp_path: Path) -> None:
    clips = [*plain(), *(Clip("development", f"clipped {n}.wav", np.sign(noise(f"loud {n}"))) for n in range(8))]
    result = validate(tmp_path, write_corpus(tmp_path, clips))
    assert_succeeds(result)
    assert sum("probably clipped" in line for line in result.stderr.splitlines()) == 5
    assert "clipping: 3 more, in the report" in result.stderr
    assert len(checks(report_of(tmp_path)["warnings"])["clipping"]) == 8


def test_clips_of_one_length_are_no_outliers_of_each_other(tmp_path: Path) -> None:
    clips = [*plain(), Clip("development", "bit longer.wav", noise("bit", 0.104))]
    assert_succeeds(validate(tmp_path, write_corpus(tmp_path, clips)))
    assert "duration" not in checks(report_of(tmp_path)["warnings"])


def test_unknown_sound_ids_are_not_the_same_recording(tmp_path: Path) -> None:
    unknown = ["Not found", "", "NA"]
    manifests = write_corpus(tmp_path, plain(7))
    for path in manifests.values():

        def forget(table: pd.DataFrame) -> None:
            table.loc[:5, "sound_id"] = unknown * 2

        edit_table(path, path, forget)
    assert_succeeds(validate(tmp_path, manifests))
    messages = [w["message"] for w in report_of(tmp_path)["warnings"] if w["check"] == "sound_id"]
    assert len(messages) == 18 and all(sum(repr(word) in message for message in messages) == 6 for word in unknown)


def test_corpus_without_sound_ids_is_warned_of_once(tmp_path: Path) -> None:
    clips = [Clip(clip.split, clip.name, columns={"sound_id": ""}) for clip in plain()]
    result = validate(tmp_path, write_corpus(tmp_path, clips))
    assert_succeeds(result)
    assert [w["path"] for w in report_of(tmp_path)["warnings"] if w["check"] == "sound_id"] == [""]
    assert "no clip has a sound_id" in result.stderr


def test_clips_may_have_different_numbers_of_captions(tmp_path: Path) -> None:
    clips = [*plain(), Clip("validation", "told.wav", captions=["One thing.", "Another thing.", "A third."])]
    assert_succeeds(validate(tmp_path, write_corpus(tmp_path, clips)))
    assert report_of(tmp_path)["captions"] == 12 and report_of(tmp_path)["errors"] == []


# ------------------------------------------------------------------------------------------------------------ licences


def licensed() -> list[Clip]:
    """Three clips per side, under CC0, CC-BY-4.0 and CC-BY-NC-3.0."""
    return [
        Clip(clip.split, clip.name, columns={"license": (CC0, BY, BY_NC)[number % 3]})
        for number, clip in enumerate(plain())
    ]


def test_licences_that_are_not_allowed_are_left_out(tmp_path: Path) -> None:
    manifests = write_corpus(tmp_path, [*licensed(), Clip("development", "nobody's.wav", columns={"license": ""})])
    result = validate(tmp_path, manifests, "--licenses", '["CC0", "CC-BY-4.0", "CC-Sampling+"]')
    assert_succeeds(result)
    report = report_of(tmp_path)
    assert report["clips"] == {"train": 2, "validation": 2, "evaluation": 2}
    assert report["licenses"] == {"CC-BY-4.0": 3, "CC0-1.0": 3}
    names = ["development 2.wav", "nobody's.wav", "validation 2.wav", "evaluation 2.wav"]
    assert checks(report["left_out"]) == {"license": names}
    assert "CC-BY-NC-3.0" in report["left_out"][0]["message"] and "no licence" in report["left_out"][1]["message"]
    assert "no clip is under CC-Sampling+" in result.stderr and checks(report["warnings"])["license"] == [""]
    assert [Path(path).name for path in read_table(tmp_path / "out/manifests/dropped.csv").path] == names
    text = page_text(tmp_path / "out/validation.html")
    assert "Left out: 4" in text and "CC-BY-NC-3.0" in text


def test_unknown_licences_are_told_once_each_and_missing_ones_counted(tmp_path: Path) -> None:
    odd = ["My own", "My own", "MIT", "", "NA", "Attribution NonCommercial"]
    clips = [Clip("development", f"{n}.wav", columns={"license": text}) for n, text in enumerate(odd)]
    result = validate(tmp_path, write_corpus(tmp_path, [*plain(), *clips]))
    assert_succeeds(result)
    report = report_of(tmp_path)
    assert report["licenses"] == {
        "CC-BY-NC": 1, "CC0-1.0": 9, "missing": 2, "unknown licence: MIT": 1, "unknown licence: My own": 2
    }  # fmt: skip
    messages = [entry["message"] for entry in report["warnings"] if entry["check"] == "license"]
    assert [message.split(",")[0] for message in messages] == [
        "1 clips have an unknown licence", "2 clips have an unknown licence", "2 clips have no licence"
    ]  # fmt: skip
    assert "'MIT'" in messages[0] and "'My own'" in messages[1]
    # An unknown licence is allowed only if the config names it word for word.
    allow = json.dumps(["CC0", "my own"])
    assert_succeeds(validate(tmp_path, write_corpus(tmp_path, [*plain(), *clips]), "--licenses", allow))
    report = report_of(tmp_path)
    assert report["licenses"] == {"CC0-1.0": 9, "unknown licence: My own": 2}
    assert "license" not in checks(report["warnings"])


def test_corpus_without_licences_is_not_warned_of_any(tmp_path: Path) -> None:
    clips = [Clip(clip.split, clip.name, columns={"license": ""}) for clip in plain()]
    assert_succeeds(validate(tmp_path, write_corpus(tmp_path, clips)))
    assert "license" not in checks(report_of(tmp_path)["warnings"])
    assert report_of(tmp_path)["licenses"] == {"missing": 9}


def test_licence_is_looked_at_before_the_audio(tmp_path: Path) -> None:
    """A clip that is not used cannot stop the graph."""
    broken = Clip("development", "broken.wav", b"", columns={"license": BY_NC})
    assert_succeeds(validate(tmp_path, write_corpus(tmp_path, [*plain(), broken]), "--licenses", '["CC0"]'))


def test_licences_that_leave_a_side_empty_fail(tmp_path: Path) -> None:
    clips = [c for c in licensed() if not (c.split == "evaluation" and c.columns["license"] == BY)]
    manifests = write_corpus(tmp_path, clips)
    assert_fails(validate(tmp_path, manifests, "--licenses", '["CC-BY"]'), "no clip is left for evaluation", "6 of 8")
    result = validate(tmp_path, manifests, "--licenses", '["MIT"]')
    assert_fails(result, "no clip is left for train", "8 of 8", "`licenses`")
    assert "no clip is under MIT" in result.stderr
    assert not (tmp_path / "out").exists()


# -------------------------------------------------------------------------------------------------------------- splits


def test_clips_of_no_side_are_left_out(tmp_path: Path) -> None:
    clips = [
        Clip("development", f"{n}.wav", columns={"given_split": value})
        for n, value in enumerate(["train", "train", "val", "test", "trian", ""])
    ]
    clips.append(Clip("development", "broken.wav", b"", columns={"given_split": "trian"}))
    manifests = {"development": write_corpus(tmp_path, clips)["development"]}
    split = {"method": "column", "train": ["train"], "validation": ["val", "dev"], "evaluation": ["test"]}
    assert_succeeds(validate(tmp_path, manifests, split=split))
    report = report_of(tmp_path)
    assert report["clips"] == {"train": 2, "validation": 1, "evaluation": 1}
    assert checks(report["left_out"]) == {"split": ["4.wav", "5.wav", "broken.wav"]}
    assert "'trian'" in report["left_out"][0]["message"]
    assert_fails(
        validate(tmp_path, manifests, split=split | {"evaluation": ["tset"]}), "no clip is left for evaluation"
    )


def test_drawn_sides_leak_nothing(tmp_path: Path) -> None:
    clips = [Clip("development", f"{n}.wav", columns={"sound_id": str(n // 4)}) for n in range(26)]
    clips += [Clip("development", f"copy of {n}.wav", noise(str(n)), columns={"sound_id": ""}) for n in range(3)]
    manifests = {"development": write_corpus(tmp_path, clips)["development"]}
    split = {"method": "fraction", "train": ["development"], "validation": [], "evaluation": [], "seed": 1}
    split["fractions"] = {"validation": 0.3, "evaluation": 0.3}
    assert_succeeds(validate(tmp_path, manifests, split=split))
    report = report_of(tmp_path)
    assert sum(report["clips"].values()) == 29 and checks(report["warnings"])["duplicate"]


def test_the_same_samples_in_another_container_are_a_leak(tmp_path: Path) -> None:
    flac, samples = BytesIO(), (noise("both") * 32767).astype(np.int16)
    soundfile.write(flac, samples, RATE, "PCM_16", format="FLAC")
    clips = [*plain(), Clip("development", "copy.flac", flac.getvalue()), Clip("evaluation", "a.wav", samples)]
    clips.append(Clip("evaluation", "b.flac", flac.getvalue()))
    manifests = write_corpus(tmp_path, clips)
    assert_fails(validate(tmp_path, manifests), "copy.flac", "(train)", "has the same audio as", "a.wav", "leak")
    assert_succeeds(validate(tmp_path, manifests, "--on-leak", "drop"))
    report = report_of(tmp_path)
    assert checks(report["left_out"]) == {"leak": ["copy.flac"]}
    assert checks(report["warnings"])["duplicate"] == ["b.flac"]


def test_given_group_on_two_sides_is_a_leak(tmp_path: Path) -> None:
    clips = [Clip(c.split, c.name, columns={"given_group": f" {c.name}"}) for c in plain()]
    clips += [Clip(s, f"{s}.wav", columns={"given_group": "Ann"}) for s in ("development", "validation")]
    clips += [Clip(s, f"{s}, ungrouped.wav", columns={"given_group": " "}) for s in SPLITS]
    manifests = write_corpus(tmp_path, clips)
    assert_fails(validate(tmp_path, manifests), "/development.wav", "(train)", "same group Ann", "leak")
    assert_succeeds(validate(tmp_path, manifests, "--on-leak", "drop"))
    assert checks(report_of(tmp_path)["left_out"]) == {"leak": ["development.wav"]}


def test_word_for_no_group_ties_nothing(tmp_path: Path) -> None:
    words = ["NA", "n/a", "<NA>", "Unknown"]
    clips = [Clip(split, f"{split}{n}.wav", columns={"given_group": words[n]}) for split in SPLITS for n in range(4)]
    assert_succeeds(validate(tmp_path, write_corpus(tmp_path, clips)))


# --------------------------------------------------------------------------------------------------------------- leaks


def leaking(pairs: int = 1) -> list[Clip]:
    """Clips without errors, and this number of recordings that are both in train and in evaluation."""
    both = [(n, split) for n in range(pairs) for split in ("development", "evaluation")]
    return [*plain(), *(Clip(s, f"{s} pair {n}.wav", columns={"sound_id": f"7{n}"}) for n, s in both)]


def test_leak_and_broken_file_have_policies_of_their_own(tmp_path: Path) -> None:
    broken = Clip("validation", "silent.wav", np.zeros(800))
    manifests = write_corpus(tmp_path, [*leaking(), broken])
    fails = {
        (): ["silent.wav", "and 1 more", "on_invalid to drop", "leak errors", "on_leak to drop"],
        ("--on-invalid", "drop"): ["development pair 0.wav", "(train) has the same sound_id 70", "on_leak to drop"],
        ("--on-leak", "drop"): ["silent.wav", "on_invalid to drop"],
    }
    for policy, words in fails.items():
        lines = error_lines(validate(tmp_path, manifests, *policy))
        assert len(lines) == (1 if policy else 2) and all(word in lines[-1] for word in words), lines
        assert ("on_invalid" in lines[-1]) == (policy != ("--on-invalid", "drop"))
        assert ("on_leak" in lines[-1]) == (policy != ("--on-leak", "drop"))
    assert_succeeds(validate(tmp_path, manifests, "--on-invalid", "drop", "--on-leak", "drop"))
    report = report_of(tmp_path)
    assert checks(report["left_out"]) == {"silent": ["silent.wav"], "leak": ["development pair 0.wav"]}
    assert (report["on_invalid"], report["on_leak"]) == ("drop", "drop")


def test_clip_that_is_left_out_for_another_reason_holds_no_other_back(tmp_path: Path) -> None:
    manifests = write_corpus(tmp_path, leaking())
    table = read_table(manifests["evaluation"])
    Path(table.path.iloc[-1]).unlink()
    assert_succeeds(validate(tmp_path, manifests, "--on-invalid", "drop"))
    assert checks(report_of(tmp_path)["left_out"]) == {"checksum": ["evaluation pair 0.wav"]}


def test_few_leaks_are_named_in_the_log_and_many_counted(tmp_path: Path) -> None:
    result = validate(tmp_path, write_corpus(tmp_path, leaking(7)), "--on-leak", "drop")
    assert_succeeds(result)
    lines = [line for line in result.stderr.splitlines() if "left out:" in line]
    assert [f"pair {n}.wav (train)" in line for n, line in enumerate(lines)] == [True] * 5 + [False]
    assert lines[-1].endswith("left out: leak: 2 more, in the report")
    assert len(read_table(tmp_path / "out/manifests/dropped.csv")) == 7
    text = page_text(tmp_path / "out/validation.html")
    assert "Left out: 7" in text and "development pair 6.wav" in text


def test_leaks_that_leave_a_side_empty_fail(tmp_path: Path) -> None:
    clips = [Clip(split, f"{split}.wav", columns={"sound_id": "7"}) for split in SPLITS]
    result = validate(tmp_path, write_corpus(tmp_path, clips), "--on-leak", "drop")
    assert_fails(result, "no clip is left for train", "2 of 3")


# ---------------------------------------------------------------------------------------------------------- the page


def test_common_words_are_counted_in_all_captions() -> None:
    table = pd.DataFrame({"caption_1": ["A bell, a bell rings", "The rain"], "caption_2": ["Bell and rain", ""]})
    assert list(common_words(table).items()) == [("bell", 3), ("rain", 2), ("rings", 1)]
    assert re.findall(r"width:([\d.]+)em", counts(common_words(table))) == ["10.00", "6.67", "3.33"]


def test_odd_names_and_captions_are_escaped(tmp_path: Path) -> None:
    name, caption = (
        "<script>alert('&')<%252Fscript> \"ü\" \x01.wav",
        "</td><script>x()</script> & 雨 が 降る $a$ \x02 🎵",
    )
    odd = [Clip("development", name, FULL_SCALE, captions=[caption], columns={"license": "<i>mine"})]
    twin = Clip("development", "twin.wav", captions=[caption])
    result = validate(tmp_path, write_corpus(tmp_path, [*plain(), *odd, twin]))
    assert_succeeds(result)
    assert all("validate: " in line for line in result.stderr.splitlines()), result.stderr
    text = page_text(tmp_path / "out/validation.html")
    assert "<script>alert('&')<%252Fscript> \"ü\" \ufffd.wav" in text and "<i>mine" in text
    assert "</td><script>x()</script> & 雨 が 降る $a$" in text
    assert any(w["path"].endswith(name) for w in report_of(tmp_path)["warnings"])
    broken = [*plain(), Clip("development", name.replace("script", "b"), b"")]
    assert_fails(validate(tmp_path / "again", write_corpus(tmp_path / "again", broken)), "cannot be read")
    assert "<b>alert" in page_text(tmp_path / "again/logs/validate.html")


def test_what_is_lost_is_an_error_or_left_out_with_the_reason(tmp_path: Path) -> None:
    """The clip is a row without a sound, or a sound without a row. manifest.py writes both without a hash."""
    manifests = write_corpus(tmp_path / "corpus", plain())
    gone = {"clip_id": "gone-1", "path": "audio/gone.wav", "problem": "has a row but no audio", "file_name": "gone.wav"}
    gone |= {"published_split": "development", "caption_count": "0", "seconds": "0", "peak_dbfs": "-inf"}
    edit_table(
        manifests["development"],
        manifests["development"],
        lambda table: pd.concat([table, pd.DataFrame([gone])]).fillna({"seconds": "0", "frames": "0"}).fillna(""),
    )
    assert_fails(validate(tmp_path, manifests), "audio/gone.wav has a row but no audio", "on_invalid")
    assert_succeeds(validate(tmp_path, manifests, "--on-invalid", "drop"))
    dropped = read_table(tmp_path / "out/manifests/dropped.csv")
    assert dropped[["path", "check"]].to_numpy().tolist() == [["audio/gone.wav", "lost"]]


def test_side_is_not_empty_because_its_only_clip_is_left_out(tmp_path: Path) -> None:
    """Both validation and splitting draw the sides from the clips that are left."""
    sides = {"method": "fraction", "train": ["development"], "validation": [], "evaluation": [], "seed": 1}
    sides |= {"fractions": {"validation": 0.1, "evaluation": 0.1}}
    manifests = {
        "development": write_corpus(tmp_path / "a", [Clip("development", f"{n}.wav") for n in range(6)])["development"]
    }
    table = read_table(manifests["development"])
    for only in table.file_name[assign(table, sides) != "train"]:
        clips = [Clip("development", f"{n}.wav", captions=[""] if f"{n}.wav" == only else None) for n in range(6)]
        folder = tmp_path / only
        manifests = {"development": write_corpus(folder, clips)["development"]}
        assert_succeeds(validate(folder, manifests, "--on-invalid", "drop", split=sides))
        given = ["--manifest", manifests["development"], "--split", json.dumps(sides), "--output", folder / "splits"]
        given += ["--validation-report", folder / "out/validation.json"]
        assert_succeeds(run_script("split", *given, "--dropped", folder / "out/manifests/dropped.csv"))
        counts = {role: len(read_table(folder / f"splits/{role}.csv")) for role in SPLITS.values()}
        assert counts == report_of(folder)["clips"] and all(counts.values()) and sum(counts.values()) == 5


def test_recording_whose_number_is_a_float_on_one_side_leaks(tmp_path: Path) -> None:
    clips = [Clip("development", "x.wav", columns={"sound_id": "77.0"})]
    clips.append(Clip("evaluation", "y.wav", columns={"sound_id": " 77"}))
    assert_fails(validate(tmp_path, write_corpus(tmp_path, [*plain(), *clips])), "x.wav", "same sound_id 77 as")


# ------------------------------------------------------------------------------------------------------------ captions


def near(one: str, other: str) -> bool:
    return bool(set(near_keys(one)) & set(near_keys(other)))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("A dog barks.", "a dog barks"),
        ("Rain falls on a tin roof", "On a tin roof, rain falls!"),
        ("Heavy rain falls on a tin roof", "Rain falls on a tin roof"),
        ("Heavy rain falls on a tin roof", "Light rain falls on a tin roof"),
        ("雨が降る。", "雨が降る"),
    ],
)
def test_captions_that_are_nearly_the_same(one: str, other: str) -> None:
    assert near(one, other) and near(other, one)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("A dog barks.", "A dog howls."),
        ("Rain falls", "Rain"),
        ("Heavy rain falls on a tin roof", "Light rain falls on a glass roof"),
        ("Heavy rain falls on a tin roof in town", "Rain falls on a tin roof"),
        ("雨が降る", "雪が降る"),
    ],
)
def test_captions_that_are_not(one: str, other: str) -> None:
    assert not near(one, other)


@given(st.lists(st.sampled_from(["rain", "wind", "on", "a", "roof", "far", "away"]), min_size=6, max_size=9), st.data())
def test_one_word_of_a_long_caption_makes_no_difference(words: list[str], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(words) - 1))
    fewer, changed = [*words[:place], *words[place + 1 :]], [*words[:place], "bell", *words[place + 1 :]]
    assert near(" ".join(words), " ".join(data.draw(st.permutations(fewer)))) and near(
        " ".join(words), " ".join(changed)
    )


@given(st.text(max_size=30))
def test_any_caption_is_near_itself(text: str) -> None:
    assert near(text, text)
