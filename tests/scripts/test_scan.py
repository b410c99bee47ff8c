"""A folder of captioned sounds is read in place, by Hugging Face's audiofolder convention."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import soundfile
from conftest import (
    ODD_NAMES,
    assert_fails,
    assert_succeeds,
    checksum,
    listing,
    noise,
    run_manifest,
    run_script,
    write_csv,
    write_wav,
)
from hypothesis import given
from hypothesis import strategies as st
from media import write_media
from sao.base.command import InputError
from sao.base.names import clip_id, read_digests
from sao.base.tables import read_table
from sao.data.captions import listed
from sao.data.formats.audiofolder import as_text, files_below, guess_caption_columns, read_folder
from sao.data.formats.tables import READERS
from sao.sound.read import measure
from sao.sound.tags import TAGS

NAMES = (*ODD_NAMES, "LOUD.WAV", "`whoami` $(id).Wav", "50%.wav", "#1 & <b>.wav", "sub dir/-x.wav", "sub dir/{a}.wav")

KEY = "0" * 64


def scan(folder: Path, out: Path, *more: object) -> subprocess.CompletedProcess[str]:
    outputs = ["--captions", out / "captions.csv", "--facts", out / "facts.csv", "--digests", out / "digests.sha256"]
    outputs += ["--listing", out / "listing.txt", "--key", KEY]
    return run_script("scan", "--folder", folder, *outputs, *more)


def sounds(folder: Path, *names: str) -> Path:
    for name in names:
        write_wav(folder / name, noise(name, 0.02))
    return folder


def jsonl(path: Path, rows: Sequence[Any]) -> Path:
    text = "".join(f"{row if isinstance(row, str) else json.dumps(row, ensure_ascii=False)}\n" for row in rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def captions(folder: Path, columns: list[str] | None = None) -> dict[str, list[str]]:
    return {name: entry.captions for name, entry in read_folder(folder, columns).items()}


def complaint(folder: Path, columns: list[str] | None = None) -> str:
    """The one line of the error about a folder."""
    with pytest.raises(InputError) as error:
        read_folder(folder, columns)
    assert len(str(error.value).splitlines()) == 1
    return str(error.value)


def state(folder: Path) -> dict[str, tuple[str, int, int, int]]:
    """The content, time of change, inode and mode of all files and folders in a folder."""
    return {
        str(path.relative_to(folder)): (
            checksum(path) if path.is_file() else "",
            path.stat().st_mtime_ns,
            path.stat().st_ino,
            path.stat().st_mode,
        )
        for path in [folder, *folder.rglob("*")]
    }


def test_odd_names_from_folder_to_manifest_and_nothing_is_written_or_copied(tmp_path: Path) -> None:
    folder = sounds(tmp_path / "my sounds", *NAMES)
    at_root = [name for name in NAMES if "/" not in name]
    write_csv(
        folder / "metadata.csv", [{"file_name": n, "caption": f"Sound of {n}.", "license": "CC0"} for n in at_root]
    )
    jsonl(folder / "sub dir/metadata.jsonl", [{"file_name": "-x.wav", "text": "A dash."}])
    (folder / "sub dir/{a}.txt").write_text("Braces.\n  Two ways to say it. \n", encoding="utf-8")
    for path in [*folder.rglob("*"), folder]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = state(folder)
    try:
        for threads in (1, 4):
            assert_succeeds(scan(folder, tmp_path / str(threads), "--threads", threads))
    finally:
        after = state(folder)
        for path in [folder, *folder.rglob("*")]:
            path.chmod(0o755)
    assert after == before
    assert listing(tmp_path / "1") == {"captions.csv", "facts.csv", "digests.sha256", "listing.txt"}
    digests = read_digests(tmp_path / "1/digests.sha256")
    assert digests.keys() == {*NAMES, "metadata.csv", "sub dir/metadata.jsonl", "sub dir/{a}.txt"}
    assert all(checksum(folder / name, "sha256") == digest for name, digest in digests.items())
    for name in ("captions.csv", "facts.csv"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "4" / name).read_bytes()

    facts, told = (read_table(tmp_path / "1" / name) for name in ("facts.csv", "captions.csv"))
    assert facts.file_name.tolist() == told.file_name.tolist() == sorted(NAMES)
    for row in facts.to_dict("records"):
        assert vars(measure(folder / row.pop("file_name"))) == row
    split = Split("all", tmp_path / "1/captions.csv")
    assert_succeeds(run_manifest(tmp_path / "manifest.csv", split, folder, tmp_path / "1/facts.csv", "--metadata"))
    table = read_table(tmp_path / "manifest.csv").set_index("file_name")
    for name in NAMES:
        row = table.loc[name]
        assert row.clip_id == clip_id("all", name) and row.path == f"{folder}/{name}"
        assert row.sha256 == checksum(Path(row.path), "sha256")
    assert all(table.caption_1[n] == f"Sound of {n}." and table.license[n] == "CC0" for n in at_root)
    assert table.loc["sub dir/-x.wav", ["caption_1", "caption_2", "license"]].tolist() == ["A dash.", "", ""]
    both = ["Braces.", "Two ways to say it."]
    assert table.loc["sub dir/{a}.wav", ["caption_1", "caption_2"]].tolist() == both
    assert table.caption_count.to_dict() == dict.fromkeys(NAMES, 1) | {"sub dir/{a}.wav": 2}


class Split:
    """A published split without metadata, in the form that `run_manifest` takes."""

    metadata = ""

    def __init__(self, name: str, captions: Path) -> None:
        self.name, self.captions = name, captions


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "aiff", "mp3", "FLAC", "Mp3"])
def test_any_container_is_a_sound(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"in/a.{suffix}"
    path.parent.mkdir()
    soundfile.write(path, noise("x", 0.5, 44100, 2), 44100, format=suffix.upper())
    (tmp_path / "in/a.txt").write_text("A hiss.")
    assert captions(tmp_path / "in") == {f"a.{suffix}": ["A hiss."]}


ALIASES = {
    "IRCAM": ["ircam", "sf"],
    "MAT4": ["mat"],
    "MAT5": ["mat"],
    "MP3": ["mp1", "mp2", "mp3"],
    "MPC2K": ["mpc"],
    "NIST": ["nist", "sph"],
    "RAW": [],  # has no header
    "SVX": ["svx", "8svx", "iff"],
    "WAV": ["wav", "wave", "bwf"],
    "WAVEX": ["wav", "amb"],
}


@pytest.mark.parametrize("form", sorted(soundfile.available_formats()))
def test_every_format_of_libsndfile_is_a_sound_under_its_names(tmp_path: Path, form: str) -> None:
    for suffix in ALIASES.get(form, [form.lower()]):
        path = tmp_path / f"a.{suffix}"
        assert files_below(sounds(tmp_path, path.name)) == [path.name]
        if form not in ("SD2", "XI", "WVE", "SDS"):  # libsndfile cannot write this audio in these formats
            soundfile.write(path, noise("x", 0.5, 44100), 44100, format=form)
            assert measure(path).problem == ""
        path.unlink()


def test_broken_sound_is_recorded_for_validation(tmp_path: Path) -> None:
    folder = sounds(tmp_path / "in", "good.wav")
    (folder / "bad.mp3").write_text("<!DOCTYPE html>")
    jsonl(folder / "metadata.jsonl", [{"file_name": n, "caption": "Hm."} for n in ("good.wav", "bad.mp3")])
    assert_succeeds(scan(folder, tmp_path / "out"))
    problems = read_table(tmp_path / "out/facts.csv").set_index("file_name").problem
    assert problems["good.wav"] == "" and problems["bad.mp3"].startswith("cannot be read")


def test_tables_at_any_depth_and_texts_together(tmp_path: Path) -> None:
    folder = sounds(tmp_path, "a.wav", "x/b.wav", "x/y/c.wav", "x/y/D.WAV", "z/e.f.wav", "z/g.wav")
    write_csv(folder / "metadata.csv", [{"file_name": n, "caption": n} for n in ("a.wav", "x/b.wav", "./z/g.wav")])
    jsonl(folder / "x/y/metadata.jsonl", [{"file_name": "c.wav", "caption": "c"}, ""])
    (folder / "x/y/D.TXT").write_text("d")
    (folder / "z/e.f.txt").write_bytes("\ufeffe\r\n\r\nf\r\n".encode())
    (folder / "README.txt").write_text("Of no sound.")
    assert captions(folder) == {
        "a.wav": ["a.wav"],
        "x/b.wav": ["x/b.wav"],
        "z/g.wav": ["./z/g.wav"],
        "x/y/c.wav": ["c"],
        "x/y/D.WAV": ["d"],
        "z/e.f.wav": ["e", "f"],
    }


def test_table_above_the_top_folders_tells_of_each(tmp_path: Path) -> None:
    folder = sounds(tmp_path, "train/a.wav", "train/x/b.wav", "train/c.wav", "test/a.wav")
    rows = [{"file_name": n, "caption": n} for n in ("train/a.wav", "test/a.wav", "./train/x/b.wav")]
    table = write_csv(folder / "metadata.csv", rows)
    jsonl(folder / "train/metadata.jsonl", [{"file_name": "c.wav", "caption": "c"}])
    told = {name: entry.captions for name, entry in read_folder(folder / "train", None, folder).items()}
    assert told == {"a.wav": ["train/a.wav"], "x/b.wav": ["./train/x/b.wav"], "c.wav": ["c"]}
    assert list(read_folder(folder / "test", None, folder)) == ["a.wav"]
    options = ["--folder", folder / "train", "--top", folder, "--captions", tmp_path / "out/c.csv"]
    options += ["--listing", tmp_path / "out/f.txt", "--key", KEY]
    assert_succeeds(
        run_script("scan", *options, "--facts", tmp_path / "out/f.csv", "--digests", tmp_path / "out/f.sha256")
    )
    assert read_table(tmp_path / "out/c.csv").file_name.tolist() == ["a.wav", "c.wav", "x/b.wav"]
    write_csv(table, [*rows, {"file_name": "test/none.wav", "caption": "?"}])
    with pytest.raises(InputError, match=r"metadata\.csv, row 5: no sound 'test/none\.wav'"):
        read_folder(folder / "train", None, folder)
    write_csv(table, [*rows, {"file_name": "../none.wav", "caption": "?"}])
    with pytest.raises(InputError, match=r"metadata\.csv, row 5: '\.\./none\.wav' lies outside"):
        read_folder(folder / "train", None, folder)


def test_row_of_none_of_the_top_folders_that_are_used_is_told(tmp_path: Path) -> None:
    folder = sounds(tmp_path / "in", "train/a.wav", "test/a.wav", "top.wav", "more/a.wav")
    rows = [{"file_name": n, "caption": n} for n in ("train/a.wav", "test/a.wav", "top.wav", "more/a.wav")]
    write_csv(folder / "metadata.csv", rows)
    options = ["--top", folder, "--splits", '["train", "test"]']
    result = scan(folder / "train", tmp_path / "out", *options)
    assert_succeeds(result)
    assert f"warning: {folder}/metadata.csv, row 4: 'top.wav' is in none of the folders train, test" in result.stderr
    assert "(2 such)" in result.stderr and result.stderr.count("warning") == 1
    write_csv(folder / "metadata.csv", rows[:2])
    assert "warning" not in scan(folder / "train", tmp_path / "out", *options).stderr


def test_text_without_a_sound_is_told_and_one_of_an_unreadable_sound_stops(tmp_path: Path) -> None:
    folder = sounds(tmp_path / "in", "a.wav", "b.wav")
    for name in ("a", "b", "sub/README", "z"):
        (folder / f"{name}.txt").parent.mkdir(exist_ok=True)
        (folder / f"{name}.txt").write_text("Words.")
    for name in ("README.md", "sub/z.ape", "a.ape", "b.wav.bak", "LICENSE"):
        (folder / name).write_bytes(b"")
    result = scan(folder, tmp_path / "out")
    assert_succeeds(result)
    assert "'sub/README.txt' has no sound beside it: not used (2 such)" in result.stderr
    for name, text in (("z.ape", "z.txt"), ("y.RAW", "y.RAW.txt")):
        (folder / name).write_bytes(b"")
        (folder / text).write_text("Words.")
        assert_fails(scan(folder, tmp_path / "out"), folder / name, text, "a kind that is not read", "convert")
        (folder / name).unlink()


def test_sounds_that_ffmpeg_reads_are_scanned_like_others(tmp_path: Path) -> None:
    """A film belongs to the corpus if it has a caption of its own. `c.txt` is of the sound that was taken from the film."""
    folder = sounds(tmp_path / "in", "a.wav", "c.wav")
    audio = noise("m", 1, 44100, 2)
    for name in ("b.m4a", "c.mp4", "d.mp4", "e.mp4", "sub/f.WEBM"):
        write_media(folder / name.lower(), audio).rename(folder / name)
    rows = [{"file_name": n, "caption": f"It is {n}."} for n in ("a.wav", "b.m4a", "d.mp4")]
    write_csv(folder / "metadata.csv", rows)
    (folder / "c.txt").write_text("It is c.wav.")
    (folder / "sub/f.txt").write_text("It is sub/f.WEBM.")
    before = state(folder)
    done = scan(folder, tmp_path / "out")
    assert_succeeds(done)
    assert state(folder) == before
    assert "'c.mp4' has no caption: not used (2 such films)" in done.stderr and done.stderr.count("warning") == 1
    facts, told = (read_table(tmp_path / "out" / name) for name in ("facts.csv", "captions.csv"))
    assert facts.file_name.tolist() == ["a.wav", "b.m4a", "c.wav", "d.mp4", "sub/f.WEBM"] == told.file_name.tolist()
    assert told.caption_1.tolist() == [f"It is {name}." for name in told.file_name]
    assert (facts.problem == "").all() and facts.sample_rate.tolist() == [8000, 44100, 8000, 44100, 48000]
    digests = read_digests(tmp_path / "out/digests.sha256")
    assert digests.keys() == {*facts.file_name, "metadata.csv", "c.txt", "sub/f.txt"}
    assert all(checksum(folder / name, "sha256") == digest for name, digest in digests.items())


def test_ffmpeg_that_is_not_there_is_one_line_at_once(tmp_path: Path) -> None:
    folder = sounds(tmp_path / "in", "a.wav", "b.m4a")
    write_csv(folder / "metadata.csv", [{"file_name": n, "caption": "Hm."} for n in ("a.wav", "b.m4a")])
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden/av.py").write_text("raise ImportError('not installed')")
    outputs = ["--captions", tmp_path / "c.csv", "--facts", tmp_path / "f.csv", "--digests", tmp_path / "d.sha256"]
    outputs += ["--listing", tmp_path / "l.txt", "--key", KEY]
    env = {"PYTHONPATH": str(tmp_path / "hidden")}
    done = run_script("scan", "--folder", folder, *outputs, env=env, fresh=True)
    assert_fails(done, folder / "b.m4a", "FFmpeg is needed", "uv sync --group media", "convert")
    done = run_script("scan", "--folder", folder, *outputs, "--tags", env=env, fresh=True)
    assert_fails(done, "to read tags, FFmpeg is needed", "uv sync --group media", "remove `tags`")
    assert not (tmp_path / "f.csv").exists()


def tagged(path: Path, **tags: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with soundfile.SoundFile(path, "w", 8000, 1) as sound:
        for name, text in tags.items():
            setattr(sound, name, text)
        sound.write(noise(path.name))


def test_tags_are_columns_like_those_of_a_table(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    tagged(folder / "a.wav", title="Rain", artist="Ann", comment="On a\ntin roof.")
    tagged(folder / "sub/b.flac", title="Wind", artist="Bo", license="CC0", date="2020")
    write_media(folder / "c.m4a", noise("c", 1, 44100), tags={"title": "Sea"})
    sounds(folder, "d.wav")
    write_csv(folder / "metadata.csv", [{"file_name": n, "caption": f"It is {n}."} for n in ("a.wav", "c.m4a")])
    (folder / "sub/b.txt").write_text("It is b.")
    (folder / "d.json").write_text('{"caption": "It is d.", "artist": "Dee"}')
    before = state(folder)
    assert_succeeds(scan(folder, tmp_path / "out", "--tags"))
    assert state(folder) == before
    told = read_table(tmp_path / "out/captions.csv").set_index("file_name")
    assert set(told) == {"caption_count", "caption_1", "artist", *TAGS}
    assert told.tag_title.tolist() == ["Rain", "Sea", "", "Wind"] == told.loc[["a.wav", "c.m4a", "d.wav", "sub/b.flac"], "tag_title"].tolist()  # fmt: skip
    assert told.loc["a.wav", ["tag_artist", "tag_comment", "tag_date"]].tolist() == ["Ann", "On a tin roof.", ""]
    made = tmp_path / "manifest.csv", Split("all", tmp_path / "out/captions.csv"), folder, tmp_path / "out/facts.csv"
    assert_succeeds(run_manifest(*made, "--metadata", "--group-column", "tag_title"))
    table = read_table(tmp_path / "manifest.csv").set_index("file_name")
    assert table.manufacturer.to_dict() == {"a.wav": "Ann", "c.m4a": "", "d.wav": "Dee", "sub/b.flac": "Bo"}
    assert table.license["sub/b.flac"] == "CC0" and table.given_group["a.wav"] == "Rain"
    # Without the setting the table is as it was.
    assert_succeeds(scan(folder, tmp_path / "plain"))
    assert set(read_table(tmp_path / "plain/captions.csv")) == {"file_name", "caption_count", "caption_1", "artist"}


def test_captions_come_from_tags_where_they_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    tagged(folder / "a.wav", title="Rain", comment="Rain on tin.")
    tagged(folder / "b.wav", comment="Wind.")
    tagged(folder / "c.wav", title="Sea")
    write_media(folder / "film.mp4", noise("c", 1, 44100))
    named = ["--tags", "--caption-columns", '["tag_title", "tag_comment"]']
    done = scan(folder, tmp_path / "out", *named)
    assert_succeeds(done)
    assert "'film.mp4' has no caption: not used" in done.stderr
    told = read_table(tmp_path / "out/captions.csv").set_index("file_name")
    assert told.caption_count.tolist() == [2, 1, 1] and told.caption_1.tolist() == ["Rain", "Wind.", "Sea"]
    assert told.caption_2["a.wav"] == "Rain on tin." and "tag_title" not in told and "tag_artist" in told

    tagged(folder / "d.wav", artist="Dee")
    assert_fails(
        scan(folder, tmp_path / "no", *named), folder / "d.wav", "no text in its tags (tag_title, tag_comment)"
    )
    assert_succeeds(scan(folder, tmp_path / "out", *named, "--on-invalid", "drop"))
    assert "no text" in read_table(tmp_path / "out/facts.csv").set_index("file_name").problem["d.wav"]
    # A text beside a sound is its caption all the same.
    (folder / "d.txt").write_text("It is d.")
    assert_succeeds(scan(folder, tmp_path / "out", *named))
    assert read_table(tmp_path / "out/captions.csv").set_index("file_name").caption_1["d.wav"] == "It is d."


def test_captions_of_a_table_and_of_tags_together(tmp_path: Path) -> None:
    tagged(tmp_path / "in/a.wav", title="Rain")
    write_csv(tmp_path / "in/metadata.csv", [{"file_name": "a.wav", "caption": "It rains.", "bpm": "7"}])
    both = read_folder(tmp_path / "in", ["caption", "tag_title"], tags=True)
    assert both["a.wav"].captions == ["It rains.", "Rain"] and both["a.wav"].columns["bpm"] == "7"
    with pytest.raises(InputError, match=r"row 2: has no column 'tag_title'; .*; set `tags: true`"):
        read_folder(tmp_path / "in", ["tag_title"])
    write_csv(tmp_path / "in/metadata.csv", [{"file_name": "a.wav", "caption": "It rains.", "tag_title": "x"}])
    with pytest.raises(InputError, match=r"metadata.csv, row 2: has a column 'tag_title', which `tags`"):
        read_folder(tmp_path / "in", None, tags=True)
    assert read_folder(tmp_path / "in", None)["a.wav"].columns == {"tag_title": "x"}


def test_text_named_after_the_whole_file_name(tmp_path: Path) -> None:
    folder = sounds(tmp_path, "a.wav", "a.wav.wav")
    (folder / "a.wav.txt").write_text("one")
    (folder / "a.wav.wav.txt").write_text("two")
    assert captions(folder) == {"a.wav": ["one"], "a.wav.wav": ["two"]}


def test_hidden_files_and_other_files_are_let_be(tmp_path: Path) -> None:
    folder = sounds(tmp_path, "a.wav", ".hidden.wav", ".git/b.wav", "__MACOSX/._a.wav")
    (folder / "a.txt").write_text("a")
    (folder / "cover.png").write_bytes(b"\x89PNG")
    assert captions(folder) == {"a.wav": ["a"]}
    assert files_below(folder) == ["a.txt", "a.wav"]


def test_links_are_followed_once(tmp_path: Path) -> None:
    sounds(tmp_path / "elsewhere", "a.wav")
    (tmp_path / "elsewhere/a.txt").write_text("a")
    (tmp_path / "in").mkdir()
    (tmp_path / "in/linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/up").symlink_to(tmp_path / "in")
    assert captions(tmp_path / "in") == {"linked/a.wav": ["a"]}


@pytest.mark.parametrize(
    ("row", "columns", "expected"),
    [
        ({"caption": "a", "text": "b", "prompt": "c"}, None, ["a"]),
        ({"text": "b", "prompt": "c"}, None, ["b"]),
        ({"prompt": "c", "title": "d"}, None, ["c"]),
        ({"caption_10": "j", "caption_2": "b", "caption_1": "a"}, None, ["a", "b", "j"]),
        ({"Caption": "a", "caption_file": "x"}, None, ["a"]),
        ({"captions": ["a", " b\n c "]}, None, ["a", "b c"]),
        ({"caption": "a", "title": "d"}, ["title"], ["d"]),
        ({"caption": "a", "title": "d"}, ["title", "caption"], ["d", "a"]),
        ({"caption_1": "a", "caption_2": "b"}, ["caption_2"], ["b"]),
        ({"caption": "NA"}, None, ["NA"]),
        ({"caption": 7}, None, ["7"]),
        ({"caption": None}, None, [""]),
        ({"caption": math.nan}, None, [""]),
        ({"captions": ["a", math.nan], "text": math.nan}, None, ["a", ""]),
        ({"caption": []}, None, [""]),
    ],
)
def test_caption_columns(tmp_path: Path, row: dict, columns: list[str] | None, expected: list[str]) -> None:
    folder = sounds(tmp_path, "a.wav")
    jsonl(folder / "metadata.jsonl", [{"file_name": "a.wav"} | row])
    assert captions(folder, columns) == {"a.wav": expected}


def test_chosen_columns_and_the_others_do_not_mix(tmp_path: Path) -> None:
    """A folder's table may have columns with the names of columns in our own tables."""
    folder = sounds(tmp_path / "in", "a.wav", "b.wav")
    row = {"caption_1": "no", "caption_2": "yes", "caption_count": "9", "artist": "me, myself", "split": "train"}
    write_csv(folder / "metadata.csv", [{"file_name": n} | row for n in ("a.wav", "b.wav")])
    assert_succeeds(scan(folder, tmp_path / "out", "--caption-columns", '["caption_2"]'))
    table = pd.read_csv(tmp_path / "out/captions.csv", dtype=str, keep_default_na=False)
    assert table.columns.tolist() == ["file_name", "caption_count", "caption_1", "artist", "split"]
    assert table.loc[0].tolist() == ["a.wav", "1", "yes", "me, myself", "train"]


KINDS: dict[str, Callable[[Path, list[dict[str, str]]], object]] = {
    "metadata.csv": write_csv,
    "metadata.tsv": lambda path, rows: pd.DataFrame(rows).to_csv(path, sep="\t", index=False),
    "metadata.jsonl": jsonl,
    "metadata.parquet": lambda path, rows: pd.DataFrame(rows).to_parquet(path),
    "prompts.json": lambda path, rows: path.write_text(json.dumps({row.pop("file_name"): row for row in rows})),
}


@pytest.mark.parametrize("kind", READERS)
def test_tables_of_every_kind_say_the_same(tmp_path: Path, kind: str) -> None:
    folder = sounds(tmp_path / "in", "a.wav", "b.wav")
    rows = [{"file_name": f"{n}.wav", "caption": f'A "{n}", loud', "artist": "me"} for n in "ab"]
    KINDS[kind](folder / kind, rows)
    assert_succeeds(scan(folder, tmp_path / "out"))
    table = read_table(tmp_path / "out/captions.csv")
    assert table.file_name.tolist() == ["a.wav", "b.wav"] and table.artist.tolist() == ["me", "me"]
    assert table.caption_1.tolist() == ['A "a", loud', 'A "b", loud']


@pytest.mark.parametrize("column", ["file", "filename", "File Name", "path", "audio", "fname"])
def test_other_names_of_the_column_of_files(tmp_path: Path, column: str) -> None:
    folder = sounds(tmp_path, "a.wav")
    write_csv(folder / "metadata.csv", [{"caption": "A.", column: "a.wav"}])
    assert captions(folder, None) == {"a.wav": ["A."]}
    # Beside a file_name it is a column like any other.
    write_csv(folder / "metadata.csv", [{"file_name": "a.wav", "caption": "A.", "path": "elsewhere"}])
    assert captions(folder, None) == {"a.wav": ["A."]}


def test_a_sound_may_have_several_rows(tmp_path: Path) -> None:
    """As in AudioCaps, whose test clips have five rows each."""
    folder = sounds(tmp_path, "a.wav", "b.wav")
    rows = [("a.wav", "One."), ("b.wav", "Two."), ("a.wav", "Three."), ("./a.wav", "Four.")]
    write_csv(folder / "metadata.csv", [{"file_name": n, "caption": c, "youtube_id": n[-5:]} for n, c in rows])
    assert captions(folder, None) == {"a.wav": ["One.", "Three.", "Four."], "b.wav": ["Two."]}


def test_captions_and_columns_beside_a_sound(tmp_path: Path) -> None:
    """JSON beside a sound, as stable-audio-tools and AudioCraft read it; other JSON is not used, which is told."""
    folder = sounds(tmp_path / "in", "a.wav", "b.wav", "c.wav")
    (folder / "a.json").write_text('{"prompt": "A bell.", "bpm": 120}')
    (folder / "b.wav.json").write_text('{"captions": ["A door.", "It shuts."]}')
    (folder / "c.txt").write_text("A dog.")
    (folder / "c.json").write_text('{"peaks": [0, 1]}')
    (folder / "settings.json").write_text("no JSON")
    done = scan(folder, tmp_path / "out")
    assert_succeeds(done)
    assert "'c.json' has no caption" in done.stderr and "not used (1 such)" in done.stderr
    table = read_table(tmp_path / "out/captions.csv").set_index("file_name")
    assert table.caption_1.tolist() == ["A bell.", "A door.", "A dog."] and table.bpm["a.wav"] == "120"
    assert table.caption_2["b.wav"] == "It shuts."


def test_rows_of_unlike_length(tmp_path: Path) -> None:
    folder = sounds(tmp_path / "in", "a.wav", "b.wav", "c.wav")
    rows = [
        {"file_name": "a.wav", "captions": ["1", "2", "3"], "tags": ["x", "y"]},
        {"file_name": "b.wav", "text": "1"},
    ]
    jsonl(folder / "metadata.jsonl", rows)
    (folder / "c.txt").write_text("1\n2\n")
    assert_succeeds(scan(folder, tmp_path / "out"))
    table = read_table(tmp_path / "out/captions.csv")
    assert table.caption_count.tolist() == [3, 1, 2]
    assert table.caption_3.tolist() == ["3", "", ""] and table.tags.tolist() == ['["x", "y"]', "", ""]


ROW = {"file_name": "a.wav", "caption": "A."}
WRONG: list[tuple[str, Callable[[Path], object], list[str]]] = [
    ("no folder", shutil.rmtree, ["no such folder", "`path`"]),
    ("a file", lambda f: (shutil.rmtree(f), f.write_text("")), ["no such folder"]),
    ("no sound", lambda f: (f / "a.wav").unlink(), ["holds no sound", ".wav"]),
    ("row without sound", lambda f: jsonl(f / "metadata.jsonl", [ROW, ROW | {"file_name": "b.wav"}]), ["metadata.jsonl, row 2", "no sound 'b.wav'", "correct", "remove the row"]),
    ("row without a name", lambda f: write_csv(f / "metadata.csv", [ROW | {"file_name": ""}]), ["metadata.csv, row 2", "''"]),
    ("row out of the folder", lambda f: jsonl(sounds(f, "../out/b.wav") / "metadata.jsonl", [{"file_name": "../out/b.wav", "caption": "B."}]), ["row 1", "'../out/b.wav' lies outside", "move it in"]),
    ("absolute row", lambda f: jsonl(f / "metadata.jsonl", [ROW | {"file_name": "/b.wav"}]), ["row 1", "'/b.wav' lies outside", "move it in"]),
    ("row in another case", lambda f: jsonl(sounds(f, "Sub/b.wav") / "metadata.jsonl", [ROW, ROW | {"file_name": "sub/B.wav"}]), ["row 2", "no sound 'sub/B.wav'", "but 'Sub/b.wav'", "correct"]),
    ("two forms of a name", lambda f: sounds(f, "é.wav", "e\u0301.wav"), [r"'e\u0301.wav' and '\xe9.wav'", "Unicode forms", "rename"]),
    ("films without captions", lambda f: (f / "a.wav").rename(f / "a.mp4"), ["none of its films has a caption", ".txt"]),
    ("sound of FFmpeg without caption", lambda f: (sounds(f, "b.m4a").joinpath("a.txt").write_text("A.")), ["'b.m4a' has no caption"]),
    ("two columns alike", lambda f: write_csv(f / "metadata.csv", [ROW | {"license": "CC0", "License": "?"}]), ["metadata.csv", "'license' and 'License'", "keep one"]),
    ("two keys alike", lambda f: jsonl(f / "metadata.jsonl", [ROW | {"license": "CC0", "License": "?"}]), ["metadata.jsonl, row 1", "'license' and 'License'"]),
    ("key twice", lambda f: jsonl(f / "metadata.jsonl", ['{"file_name": "a.wav", "caption": "A.", "caption": "B."}']), ["metadata.jsonl, row 1", "'caption' is there twice"]),
    ("column like a caption", lambda f: write_csv(f / "metadata.csv", [{"file_name": "a.wav", "caption_1": "A.", "caption_\u00b2": "B."}]), ["metadata.csv, row 2", "'caption_\u00b2'", "'caption_1'", "`caption_columns`"]),
    ("list of no texts", lambda f: write_csv(f / "metadata.csv", [ROW | {"caption": "[1, 2]"}]), ["metadata.csv, row 2 (caption)", "no list of texts"]),
    ("list cut short", lambda f: write_csv(f / "metadata.csv", [ROW | {"caption": "['a' 'b' ... 'z']"}]), ["metadata.csv, row 2 (caption)", "no list of texts"]),
    ("row of an unread kind", lambda f: ((f / "b.ape").write_bytes(b""), jsonl(f / "metadata.jsonl", [ROW, ROW | {"file_name": "b.ape"}])), ["row 2", "'b.ape'", "a kind that is not read", "convert"]),
    ("row of a long name", lambda f: jsonl(f / "metadata.jsonl", [ROW | {"file_name": "b" * 999}]), ["row 1", "remove the row"]),
    ("link to nowhere", lambda f: ((f / "b.wav").symlink_to("c.wav"), jsonl(f / "metadata.jsonl", [ROW, ROW | {"file_name": "b.wav"}])), ["'b.wav' is a link that leads nowhere", "remove"]),
    ("pipe", lambda f: os.mkfifo(f / "b.wav"), ["'b.wav'", "no file", "remove"]),
    ("sound without caption", lambda f: sounds(f, "b.wav", "c.wav").joinpath("a.txt").write_text("A."), ["'b.wav' has no caption", "(2 such)"]),
    ("duplicate rows", lambda f: write_csv(f / "metadata.csv", [ROW, ROW]), ["metadata.csv, row 3", "'a.wav'", "metadata.csv, row 2", "keep one"]),
    ("one sound by two names", lambda f: jsonl(f / "metadata.jsonl", [ROW, ROW | {"file_name": "./a.wav"}]), ["row 2", "row 1", "keep one"]),
    ("row and text", lambda f: (write_csv(f / "metadata.csv", [ROW]), (f / "a.txt").write_text("A.")), ["a.txt", "metadata.csv, row 2", "keep one"]),
    ("two tables", lambda f: (write_csv(f / "metadata.csv", [ROW]), jsonl(f / "metadata.jsonl", [ROW])), ["metadata.jsonl, row 1", "metadata.csv, row 2"]),
    ("two texts", lambda f: ((f / "a.txt").write_text("A."), (f / "a.wav.txt").write_text("A.")), ["a.wav.txt", "keep one"]),
    ("csv not UTF-8", lambda f: (f / "metadata.csv").write_bytes(b"file_name,caption\na.wav,caf\xe9\n"), ["metadata.csv, row 2", "0xe9", "UTF-8"]),
    ("jsonl not UTF-8", lambda f: (f / "metadata.jsonl").write_bytes(b'\n\n{"file_name": "a.wav", "caption": "caf\xe9"}'), ["metadata.jsonl, row 3", "0xe9", "UTF-8"]),
    ("text not UTF-8", lambda f: (f / "a.txt").write_bytes(b"A.\n" + "é".encode("latin-1")), ["a.txt, row 2", "0xe9", "UTF-8"]),
    ("text with NUL", lambda f: (f / "a.txt").write_bytes("A.\n".encode("utf-16-le")), ["a.txt, row 1", "NUL"]),
    ("broken JSON", lambda f: jsonl(f / "metadata.jsonl", [ROW, '{"file_name": "a.wav",']), ["metadata.jsonl, row 2", "not valid JSON"]),
    ("JSON no object", lambda f: jsonl(f / "metadata.jsonl", ['["a.wav"]']), ["metadata.jsonl, row 1", "not a JSON object"]),
    ("JSON no file_name", lambda f: jsonl(f / "metadata.jsonl", [{"caption": "A."}]), ["metadata.jsonl, row 1", "'file_name' is missing"]),
    ("JSON name no text", lambda f: jsonl(f / "metadata.jsonl", [{"file_name": 3, "caption": "A."}]), ["metadata.jsonl, row 1", "'file_name' is no text"]),
    ("two names", lambda f: write_csv(f / "metadata.csv", [{"file": "a.wav", "path": "a.wav", "caption": "A."}]), ["metadata.csv", "'file' and 'path' may all name the sound", "call one of them"]),
    ("rows that differ", lambda f: write_csv(f / "metadata.csv", [ROW | {"tag": "x"}, ROW | {"caption": "B.", "tag": "y"}]), ["row 3", "another 'tag' than in", "row 2"]),
    ("tsv of commas", lambda f: (f / "metadata.tsv").write_text("file_name,caption\na.wav,A.\n"), ["metadata.tsv", "'file_name' is missing"]),
    ("prompts of numbers", lambda f: (f / "prompts.json").write_text('{"a.wav": 3}'), ["prompts.json, 'a.wav'", "found 3"]),
    ("prompts without sound", lambda f: (f / "prompts.json").write_text('{"a.wav": "A.", "b.wav": "B."}'), ["prompts.json, 'b.wav'", "no sound 'b.wav'"]),
    ("parquet that is none", lambda f: (f / "metadata.parquet").write_text("PAR1"), ["metadata.parquet: not a parquet file"]),
    ("parquet with sounds", lambda f: pd.DataFrame([{"audio": {"bytes": b"RIFF", "path": "a.wav"}, "caption": "A."}]).to_parquet(f / "metadata.parquet"), ["metadata.parquet, row 1", "'audio' holds a sound instead of its name"]),
    ("JSON beside is none", lambda f: (f / "a.json").write_text("{"), ["a.json", "not valid JSON"]),
    ("text and JSON beside", lambda f: ((f / "a.json").write_text('{"caption": "A."}'), (f / "a.txt").write_text("A.")), ["a.txt", "has captions already, from", "a.json"]),
    ("JSON half a pair", lambda f: jsonl(f / "metadata.jsonl", ['{"file_name": "a.wav", "caption": "\\ud83d"}']), ["metadata.jsonl, row 1", "surrogate"]),
    ("JSON with NUL", lambda f: jsonl(f / "metadata.jsonl", ['{"file_name": "a.wav", "caption": "\\u0000"}']), ["metadata.jsonl, row 1", "NUL"]),
    ("JSON too deep", lambda f: jsonl(f / "metadata.jsonl", [ROW, '{"file_name": "a.wav", "caption": "A.", "x": ' + "[" * 20000 + "]" * 20000 + "}"]), ["metadata.jsonl, row 2", "not valid JSON"]),
    *((f"caption {v!r}", lambda f, v=v: jsonl(f / "metadata.jsonl", [ROW | {"caption": v}]), ["metadata.jsonl, row 1: caption is not text", "'caption'"]) for v in (True, {"en": "A."}, [["A."]], ["A.", False])),
    ("csv no file_name", lambda f: write_csv(f / "metadata.csv", [{"sound_id": "a.wav", "caption": "A."}]), ["metadata.csv", "'file_name' is missing", "sound_id, caption"]),
    ("csv empty", lambda f: (f / "metadata.csv").write_bytes(b""), ["metadata.csv", "an empty file"]),
    ("csv ragged", lambda f: (f / "metadata.csv").write_text("file_name,caption\na.wav,one, two\n"), ["metadata.csv, row 2", "3 fields", "quote"]),
    ("no caption column", lambda f: write_csv(f / "metadata.csv", [{"file_name": "a.wav", "title": "A.", "bpm": "7"}]), ["metadata.csv, row 2", "no caption column", "`caption_columns`", "file_name, title, bpm"]),
    ("line break in a name", lambda f: sounds(f, "a\nb.wav"), [r"'a\nb.wav'", "rename"]),
    ("table in a folder not UTF-8", lambda f: write_csv(Path(os.fsdecode(os.fsencode(f) + b"/caf\xe9/metadata.csv")), [ROW]), [r"'caf\udce9/metadata.csv'", "UTF-8", "rename"]),
    ("name not UTF-8", lambda f: shutil.copy(f / "a.wav", os.fsdecode(os.fsencode(f) + b"/caf\xe9.wav")), [r"'caf\udce9.wav'", "UTF-8", "rename"]),
]  # fmt: skip


@pytest.mark.parametrize(("make", "words"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG])
def test_what_is_wrong_is_named(tmp_path: Path, make: Callable[[Path], object], words: list[str]) -> None:
    folder = sounds(tmp_path / "in", "a.wav")
    make(folder)
    message = complaint(folder)
    assert all(word in message for word in [str(folder), *words]), message


@pytest.mark.parametrize("table", ["metadata.csv", "metadata.jsonl"])
@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("['rain', 'heavy rain']", ["rain", "heavy rain"]),
        ('["it\'s rain", "a \\"b\\""]', ["it's rain", 'a "b"']),
        ("['rain' \"it's heavy\"\n 'more']", ["rain", "it's heavy", "more"]),
        ("('rain', 'wind')", ["rain", "wind"]),
        ("['rain', nan]", ["rain", ""]),
        ("['rain']", ["rain"]),
        ("[]", [""]),
        ("[music]", ["[music]"]),
        ("(a dog) barks (twice)", ["(a dog) barks (twice)"]),
        ("{x}", ["{x}"]),
        ("[a, b]", ["[a, b]"]),
    ],
)
def test_list_in_a_cell_is_several_captions(tmp_path: Path, table: str, cell: str, expected: list[str]) -> None:
    folder = sounds(tmp_path, "a.wav")
    (write_csv if table.endswith("csv") else jsonl)(folder / table, [{"file_name": "a.wav", "caption": cell}])
    assert captions(folder) == {"a.wav": expected}


@given(st.lists(st.text(st.characters(exclude_characters="\0", codec="utf-8")), min_size=1, max_size=4))
def test_any_list_of_texts_comes_back(texts: list[str]) -> None:
    expected = [" ".join(text.split()) for text in texts]
    assert listed(json.dumps(texts), "here") == listed(repr(texts), "here") == expected


@given(st.text(max_size=20) | st.text("[]'\"\\,ab {}()", max_size=12))
def test_any_cell_is_captions_or_one_clear_line(text: str) -> None:
    try:
        found = listed(text, "here")
    except InputError as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert found and all(len(one.splitlines()) <= 1 for one in found)


def test_names_of_another_unicode_form_are_the_same(tmp_path: Path) -> None:
    folder = sounds(tmp_path, "sub/é.wav", "Ü.wav")
    jsonl(folder / "sub/metadata.jsonl", [ROW | {"file_name": "./e\u0301.wav"}])
    (folder / "U\u0308.txt").write_text("B.")
    assert captions(folder) == {"sub/é.wav": ["A."], "Ü.wav": ["B."]}


def test_what_is_lost_is_left_out_where_it_may_be(tmp_path: Path) -> None:
    """The cases are rows without a sound, sounds without a caption, a broken link, and a caption of an unreadable file."""
    folder = sounds(tmp_path / "in", "a.wav", "lonely.wav", "B.wav")
    rows = [ROW, *(ROW | {"file_name": name} for name in ("gone.wav", "b.wav", "../out.wav", "c.ape", "link.wav"))]
    jsonl(folder / "metadata.jsonl", rows)
    for name in ("c.ape", "d.raw"):
        (folder / name).write_bytes(b"x")
    (folder / "d.txt").write_text("D.")
    (folder / "link.wav").symlink_to("nowhere.wav")
    assert_fails(scan(folder, tmp_path / "no"), folder)
    assert_succeeds(scan(folder, tmp_path / "out", "--on-invalid", "drop"))
    facts = read_table(tmp_path / "out/facts.csv").set_index("file_name")
    lost = {"../out.wav": "outside", "B.wav": "no caption", "b.wav": "'B.wav'", "c.ape": "convert", "d.raw": "convert"}
    lost |= {"gone.wav": "no sound 'gone.wav'", "link.wav": "leads nowhere", "lonely.wav": "no caption"}
    assert set(facts.index) == {"a.wav", *lost}
    assert all(word in facts.problem[name] for name, word in lost.items()) and facts.problem["a.wav"] == ""
    assert read_table(tmp_path / "out/captions.csv").file_name.tolist() == ["a.wav"]
    assert {"a.wav", "metadata.jsonl"} <= read_digests(tmp_path / "out/digests.sha256").keys()
    split = Split("all", tmp_path / "out/captions.csv")
    made = tmp_path / "manifest.csv", split, folder, tmp_path / "out/facts.csv", "--metadata"
    assert_succeeds(run_manifest(*made, "--on-invalid", "drop"))
    table = read_table(tmp_path / "manifest.csv").set_index("file_name")
    assert set(table.index) == set(facts.index) and table.caption_count.sum() == 1
    assert not table.sha256.drop("a.wav").any() and table.problem.drop("a.wav").all()


def test_folder_of_which_everything_is_lost_is_an_error(tmp_path: Path) -> None:
    folder = sounds(tmp_path / "in", "a.wav")
    assert_fails(scan(folder, tmp_path / "out", "--on-invalid", "drop"), "'a.wav' has no caption")


def test_unknown_caption_column_is_named_with_what_there_is(tmp_path: Path) -> None:
    folder = sounds(tmp_path, "a.wav")
    write_csv(folder / "metadata.csv", [ROW])
    message = complaint(folder, ["caption", "title"])
    assert "metadata.csv, row 2" in message and "'title'" in message and "found file_name, caption" in message


@pytest.mark.parametrize("case", ["no folder", "broken JSON", "name not UTF-8"])
def test_failure_is_one_line_and_leaves_nothing(tmp_path: Path, case: str) -> None:
    folder = sounds(tmp_path / "in", "a.wav")
    make, words = next(entry[1:] for entry in WRONG if entry[0] == case)
    make(folder)
    assert_fails(scan(folder, tmp_path / "out"), folder, *words)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_many_texts_are_read_in_no_time(tmp_path: Path) -> None:
    """With twenty thousand captions in texts, a search through all sounds for each would take minutes."""
    wav = write_wav(tmp_path / "a.wav", noise("a", 0.001)).read_bytes()
    names = [f"{n:05}" for n in range(20000)]
    (tmp_path / "in").mkdir()
    for name in names:
        (tmp_path / f"in/{name}.wav").write_bytes(wav)
        (tmp_path / f"in/{name}.txt").write_bytes(name.encode())
    assert captions(tmp_path / "in") == {f"{name}.wav": [name] for name in names}


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda v: st.lists(v, max_size=3),
    max_leaves=4,
)


@given(VALUES)
def test_any_value_is_one_line_of_text(value: Any) -> None:
    text = as_text(value)
    assert len(text.splitlines()) <= 1 and text == text.strip()


@given(st.lists(st.text("captionex_123", max_size=12), unique=True))
def test_guessed_columns_are_among_those_there_are_and_of_one_kind(columns: list[str]) -> None:
    chosen = guess_caption_columns(columns)
    assert set(chosen) <= set(columns) and len(set(chosen)) == len(chosen)
    assert bool(chosen) or not {"caption", "text", "captions", "caption_1"} & set(columns)
