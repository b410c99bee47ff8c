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
    listing,
    noise,
    publish,
    run_manifest,
    write_csv,
    write_wav,
)
from sao.base.names import clip_id
from sao.base.tables import write_table
from sao.data.origin import METADATA, origin
from sao.sound.read import Measuring


@pytest.fixture
def split(tmp_path: Path) -> PublishedSplit:
    return publish(tmp_path / "published", "development", ["one.wav", "two, too.wav"])


def manifest(folder: Path, split: PublishedSplit, *more: object) -> subprocess.CompletedProcess[str]:
    """Make `folder/manifest.csv` from the WAVs that are in `split.wavs` now."""
    measuring = Measuring(1)
    for name in listing(split.wavs):
        measuring.add(name, split.wavs / name)
    write_table(folder / "audio.csv", measuring.finish("measuring"))
    return run_manifest(folder / "manifest.csv", split, split.wavs, folder / "audio.csv", *more)


def read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, keep_default_na=False)


def edit(path: Path, old: str, new: str, encoding: str = "utf-8") -> None:
    text = path.read_text(encoding=encoding)
    assert old in text
    path.write_bytes(text.replace(old, new).encode(encoding))


def test_one_row_per_clip_with_everything_known(
    published: dict[str, PublishedSplit], manifests: dict[str, Path]
) -> None:
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
    assert table.manufacturer["naïve café – Größe.wav"] == ""  # Latin-1 has no such dash, so Clotho writes `?`
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
        ("captions", "caption_1,caption_2", "caption_1,caption_3", ["'caption_2' is missing", "without a gap"]),
        ("captions", "caption_1,caption_2", "caption_1,caption_\u00b2", ["'caption_\u00b2'", "rename"]),
        ("captions", "caption_1,caption_2", "caption_1,Caption 2", ["'Caption 2'", "rename"]),
        ("captions", "caption_1,caption_2", "caption_1,caption", ["'caption'", "rename"]),
        ("captions", "caption_1,caption_2", "caption_1,Caption_1", ["'caption_1' and 'Caption_1'", "keep one"]),
        ("captions", "caption_1,", "license,License,caption_1,", ["'license' and 'License'", "keep one"]),
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


@pytest.mark.parametrize("count", ["0", "-1", "abc", "", "1", "9", "2.0", "\u0662"])
def test_column_that_is_called_like_ours_is_not_believed(tmp_path: Path, split: PublishedSplit, count: str) -> None:
    rows = [
        {"file_name": n, "caption_1": "A.", "caption_2": "B.", "caption_count": count, "clip_id": "x", "path": "/y"}
        for n in ("one.wav", "two, too.wav")
    ]
    write_csv(split.captions, rows)
    assert_succeeds(manifest(tmp_path, split))
    table = read(tmp_path / "manifest.csv")
    assert table[["caption_count", "caption_1", "caption_2"]].to_numpy().tolist() == [[2, "A.", "B."]] * 2
    assert "x" not in set(table.clip_id) and "/y" not in set(table.path)


def test_list_in_a_cell_is_several_captions(tmp_path: Path, split: PublishedSplit) -> None:
    cells = {"one.wav": "['rain', 'heavy rain']", "two, too.wav": "Plain [text]"}
    write_csv(split.captions, [{"file_name": n, "caption_1": text, "caption_2": "B."} for n, text in cells.items()])
    assert_succeeds(manifest(tmp_path, split))
    table = pd.read_csv(tmp_path / "manifest.csv", dtype=str, keep_default_na=False)
    assert table[["caption_count", "caption_1", "caption_2", "caption_3"]].to_numpy().tolist() == [
        ["3", "rain", "heavy rain", "B."],
        ["2", "Plain [text]", "B.", ""],
    ]
    write_csv(split.captions, [{"file_name": n, "caption_1": "[1, 2]"} for n in cells])
    assert_fails(manifest(tmp_path, split), split.captions, "row 2 (caption_1)", "no list of texts")


def test_number_of_a_recording_is_the_same_with_a_decimal_point(tmp_path: Path, split: PublishedSplit) -> None:
    edit(split.metadata, ",1000,", ", 1000.0 ,", "iso-8859-1")
    assert_succeeds(manifest(tmp_path, split))
    assert read(tmp_path / "manifest.csv").sound_id.tolist() == [1000, 1001]


def test_names_of_another_unicode_form_are_the_same(tmp_path: Path) -> None:
    split = publish(tmp_path / "published", "development", ["e\u0301.wav", "b.wav"])
    rows = [{"file_name": n, "caption_1": f"Of {i}."} for i, n in enumerate(("\u00e9.wav", "./b.wav"))]
    write_csv(split.captions, rows)
    assert_succeeds(manifest(tmp_path, split))
    table = read(tmp_path / "manifest.csv").set_index("file_name")
    assert table.caption_1.to_dict() == {"e\u0301.wav": "Of 0.", "b.wav": "Of 1."}
    write_csv(split.captions, [*rows, rows[0] | {"file_name": "e\u0301.wav"}])
    assert_fails(manifest(tmp_path, split), split.captions, "row 4", "row 2", "keep one")
    write_csv(split.captions, rows)
    write_wav(split.wavs / "\u00e9.wav", noise("other"))
    assert_fails(manifest(tmp_path, split), split.wavs, r"'e\u0301.wav' and '\xe9.wav'", "Unicode forms")


def test_rows_without_sound_and_sounds_without_row_have_a_problem(tmp_path: Path, split: PublishedSplit) -> None:
    edit(split.captions, "one.wav", "gone.wav")
    edit(split.captions, "file_name,", "side,file_name,")
    edit(split.captions, "\ngone.wav", "\ntrain,gone.wav")
    edit(split.captions, '\n"two', '\ntrain,"two')
    assert_fails(manifest(tmp_path, split), split.captions, "'gone.wav' has a row but no audio", "on_invalid")
    assert_succeeds(manifest(tmp_path, split, "--on-invalid", "drop", "--split-column", "side"))
    table = read(tmp_path / "manifest.csv").set_index("file_name")
    assert table.index.tolist() == ["gone.wav", "one.wav", "two, too.wav"]
    assert "no audio" in table.problem["gone.wav"] and "no row" in table.problem["one.wav"]
    assert (table.sha256 == "").tolist() == [True, True, False] and table.caption_count.tolist() == [2, 0, 2]


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
    """With bad audio of every kind and one good clip, the manifest is made, and `problem` says what is wrong."""
    names = ["good.wav", *(f"bad {n}.wav" for n in range(len(BAD_AUDIO)))]
    split = publish(tmp_path / "published", "development", names)
    for number, (spoil, _) in enumerate(BAD_AUDIO):
        spoil(split.wavs / f"bad {number}.wav")
    assert_succeeds(manifest(tmp_path, split))
    table = read(tmp_path / "manifest.csv").set_index("file_name")
    assert table.problem["good.wav"] == ""
    for number, (_, problem) in enumerate(BAD_AUDIO):
        assert problem in table.problem[f"bad {number}.wav"]


def test_manifest_is_the_same_however_often_and_with_however_many_threads_it_is_made(tmp_path: Path) -> None:
    names = ["two words.wav", "b.wav", "a.wav", "sub/a.wav"]
    split = publish(tmp_path / "published", "development", names)
    made = set()
    for threads in (1, 3, 8):
        measuring = Measuring(threads)
        for name in names[::-1] if threads == 3 else names:
            measuring.add(name, split.wavs / name)
        write_table(tmp_path / f"{threads}.csv", measuring.finish("measuring"))
        assert_succeeds(run_manifest(tmp_path / "manifest.csv", split, split.wavs, tmp_path / f"{threads}.csv"))
        made.add((tmp_path / "manifest.csv").read_bytes())
    assert len(made) == 1
    assert set(read(tmp_path / "manifest.csv").columns) >= {
        *("clip_id", "path", "seconds", "sample_rate", "channels", "frames", "peak_dbfs", "rms_dbfs", "sha256"),
        *("caption_1", "caption_2", "keywords", "sound_id", "sound_link", "license"),
    }


def test_several_tables_and_clips_with_fewer_captions(tmp_path: Path) -> None:
    split = publish(tmp_path / "published", "development", ["a.wav", "b.wav", "c.wav"])
    more = write_csv(tmp_path / "more.csv", [{"file_name": "c.wav", "caption_1": "Only one."}])
    write_csv(split.captions, [{"file_name": n, "caption_1": "One.", "caption_2": "Two."} for n in ("a.wav", "b.wav")])
    other = tmp_path / "other_metadata.csv"
    text = split.metadata.read_text(encoding="iso-8859-1").splitlines(keepends=True)
    split.metadata.write_text("".join(text[:2]), encoding="iso-8859-1")
    other.write_text("".join([text[0], *text[2:]]), encoding="iso-8859-1")
    both = [["--captions", split.captions, more], ["--metadata", split.metadata, other]]
    assert_succeeds(manifest(tmp_path, split, *both[0], *both[1]))
    table = read(tmp_path / "manifest.csv").set_index("file_name")
    assert table.caption_count.to_dict() == {"a.wav": 2, "b.wav": 2, "c.wav": 1}
    assert table.loc["c.wav", ["caption_1", "caption_2"]].tolist() == ["Only one.", ""]
    assert table.sound_id.tolist() == [1000, 1001, 1002]
    write_csv(more, [{"file_name": "b.wav", "caption_1": "Again."}, {"file_name": "c.wav", "caption_1": "Only one."}])
    line = assert_fails(manifest(tmp_path, split, *both[0], *both[1]), more, "row 2", "'b.wav'", "row 3")
    assert str(split.captions) in line


def test_columns_that_the_split_goes_by(tmp_path: Path, split: PublishedSplit) -> None:
    edit(split.captions, "file_name,", "my split,file_name,")
    edit(split.captions, "\none.wav", "\ntrain ,one.wav")
    edit(split.captions, '\n"two', '\n,"two')
    assert_succeeds(manifest(tmp_path, split, "--split-column", "my split", "--group-column", "manufacturer"))
    table = read(tmp_path / "manifest.csv").set_index("file_name")
    assert table.given_split.to_dict() == {"one.wav": "train", "two, too.wav": ""}
    assert set(table.given_group) == {"Jürgen"}
    line = assert_fails(manifest(tmp_path, split, "--split-column", "fold"), split.captions, "'fold'", "my split")
    assert "caption_1" in line and "sound_id" in line
    assert_fails(manifest(tmp_path, split, "--group-column", "band"), split.captions, "'band'")


def test_metadata_is_found_under_other_names(tmp_path: Path, split: PublishedSplit) -> None:
    """A table in a user's folder may have other names for Clotho's columns."""
    rows = [
        {
            "file_name": n,
            "caption_1": "A.",
            "Tags": "t",
            "URL": "https://u.org",
            "Licence": "CC0",
            "artist": "me",
            "sound_id": "7",
        }
        for n in ("one.wav", "two, too.wav")
    ]
    write_csv(split.captions, rows)
    assert_succeeds(manifest(tmp_path, split, "--metadata"))
    row = read(tmp_path / "manifest.csv").loc[0]
    assert (row.keywords, row.sound_link, row.license, row.manufacturer, row.sound_id) == (
        "t",
        "https://u.org",
        "CC0",
        "me",
        7,
    )


def test_freesounds_names_are_known(tmp_path: Path, split: PublishedSplit) -> None:
    """The names are those of Freesound's API. A bare `id` may be anything, so the recording follows from the page."""
    page = "https://freesound.org/people/{}/sounds/{}/"
    rows = [
        {"file_name": n, "caption_1": "A.", "id": str(i), "url": page.format("Ann B", 77 + i).replace(" ", "%20"),
         "username": "Ann B", "license": "Attribution NonCommercial", "tags": "t"}
        for i, n in enumerate(("one.wav", "two, too.wav"))
    ]  # fmt: skip
    write_csv(split.captions, rows)
    result = manifest(tmp_path, split, "--metadata")
    assert_succeeds(result)
    assert "warning" not in result.stderr
    table = read(tmp_path / "manifest.csv")
    assert list(table.sound_id) == [77, 78] and set(table.manufacturer) == {"Ann B"}
    assert list(table.sound_link) == [row["url"] for row in rows]
    assert set(table.license) == {"Attribution NonCommercial"}


@pytest.mark.parametrize("column", ["user", "username", " Uploader", "creator", "Author"])
def test_author_is_found(column: str) -> None:
    assert origin({column: "Ann"})["manufacturer"] == "Ann"


@pytest.mark.parametrize("nothing", ["NA", "n/a", "None", "-", "Not found", "<NA>", " ", "unknown", "?"])
def test_word_for_nothing_is_no_link_author_or_licence(nothing: str) -> None:
    row = dict.fromkeys(["sound_link", "manufacturer", "license", "sound_id"], nothing)
    assert origin(row) == dict.fromkeys(METADATA, "") | {"sound_id": nothing.strip()}
    more = row | {"url": "https://example.org/1", "author": "Ann", "licence": "CC0"}
    found = origin(more)
    assert (found["sound_link"], found["manufacturer"], found["license"]) == ("https://example.org/1", "Ann", "CC0")


LINKS = {
    "https://freesound.org/s/5/": "https://freesound.org/s/5/",
    "HTTP://example.org/a?b=c&d#e": "HTTP://example.org/a?b=c&d#e",
    "www.example.org/x": "https://www.example.org/x",
    "https://example.org/Größe/雨": "https://example.org/Größe/雨",
    "Zoom H4n": "",
    "ftp://example.org/a": "",
    "javascript:alert(1)": "",
    "https://": "",
    "https:///path": "",
    "https://[x/": "",
    "https://example.org/a b": "",
    "example": "",
}


@pytest.mark.parametrize(("text", "link"), LINKS.items())
@pytest.mark.parametrize("column", ["sound_link", "Link", "url", "source"])
def test_link_is_a_web_address_or_nothing(column: str, text: str, link: str) -> None:
    assert origin({column: text})["sound_link"] == link


def test_known_sound_id_is_not_replaced_by_that_of_the_link() -> None:
    link = "https://freesound.org/people/x/sounds/12/"
    assert origin({"sound_id": "7", "url": link})["sound_id"] == "7"
    assert origin({"sound_id": "Not found", "url": link})["sound_id"] == "Not found"
    assert origin({"freesound_id": "8", "url": link})["sound_id"] == "8"
    assert origin({"url": link})["sound_id"] == "12" and origin({"id": "9"})["sound_id"] == ""
    assert origin({"url": "https://example.org/sounds/12/"})["sound_id"] == ""


def test_lost_link_is_told_once(tmp_path: Path, split: PublishedSplit) -> None:
    rows = [
        {"file_name": n, "caption_1": "A.", "link": link, "source": "Zoom H4n"}
        for n, link in {"one.wav": "somewhere", "two, too.wav": "NA"}.items()
    ]
    write_csv(split.captions, rows)
    result = manifest(tmp_path, split, "--metadata")
    assert_succeeds(result)
    warnings = [line for line in result.stderr.splitlines() if "warning" in line]
    assert len(warnings) == 1 and "'somewhere'" in warnings[0] and "(1 such)" in warnings[0], result.stderr
    assert set(read(tmp_path / "manifest.csv").sound_link.fillna("")) == {""}


def test_columns_for_prompts_are_kept_and_a_missing_one_is_guessed(tmp_path: Path, split: PublishedSplit) -> None:
    rows = [{"file_name": n, "caption_1": "A.", "Mood": f"{n}\n calm"} for n in ("one.wav", "two, too.wav")]
    write_csv(split.captions, rows)
    assert_succeeds(manifest(tmp_path, split, "--metadata", "--fields", '["Mood"]'))
    assert read(tmp_path / "manifest.csv").field_Mood.tolist() == ["one.wav calm", "two, too.wav calm"]
    line = assert_fails(
        manifest(tmp_path, split, "--metadata", "--fields", '["mood"]'), "column 'mood'", "`prompts` names"
    )
    assert "did you mean 'Mood'?" in line
