from __future__ import annotations

import struct
import subprocess
import zlib
from pathlib import Path

import py7zr
import pytest
from conftest import (
    ODD_NAMES,
    PublishedSplit,
    assert_fails,
    assert_succeeds,
    checksum,
    listing,
    noise,
    pack,
    run_script,
    write_wav,
)
from sao.audio import measure
from sao.tables import read_table


def extract(
    folder: Path, *archives: Path, split: str = "development", threads: int = 1
) -> subprocess.CompletedProcess[str]:
    """Unpack into `folder/audio/<split>`."""
    output = folder / "audio" / split
    fixed = ["--split", split, "--output", output, "--facts", folder / "audio" / f"{split}.csv"]
    return run_script("extract", "--archive", *archives, *fixed, "--threads", threads)


def test_every_name_survives_with_its_content(published: dict[str, PublishedSplit], extracted: Path) -> None:
    wavs, audio = published["development"].wavs, extracted / "development"
    assert listing(audio) == set(ODD_NAMES) == listing(wavs)
    assert all((audio / name).read_bytes() == (wavs / name).read_bytes() for name in ODD_NAMES)
    facts = read_table(extracted / "development.csv")
    assert facts.file_name.tolist() == sorted(ODD_NAMES)
    for row in facts.to_dict("records"):
        name = row.pop("file_name")
        assert row == vars(measure(wavs / name))
        assert row["sha256"] == checksum(wavs / name, "sha256") and row["frames"] == 800


def test_only_outputs_are_left(extracted: Path) -> None:
    splits = {"development", "validation", "evaluation"}
    assert {path.name for path in extracted.iterdir()} == splits | {f"{split}.csv" for split in splits}


def test_number_of_threads_changes_nothing(tmp_path: Path) -> None:
    """Long files among short ones and in folders, in two archives: none is measured before it is whole."""
    files = {}
    for number in range(12):
        seconds = 20 if number % 4 == 0 else 0.01
        wav = write_wav(tmp_path / "wavs" / f"{number}.wav", noise(str(number), seconds))
        files[f"development/{'sub/' * (number % 3)}{number}.wav"] = wav.read_bytes()
    names = list(files)
    archives = [pack(tmp_path / f"{n}.7z", {name: files[name] for name in names[n::2]}) for n in (0, 1)]
    for threads in (1, 4):
        assert_succeeds(extract(tmp_path / str(threads), *archives, threads=threads))
    one, four = (tmp_path / threads / "audio/development.csv" for threads in ("1", "4"))
    assert one.read_bytes() == four.read_bytes()
    facts = read_table(one).set_index("file_name")
    assert {f"development/{name}" for name in facts.index} == set(names) and not facts.problem.any()
    assert set(facts.frames) == {80, 160000}


def test_file_that_is_no_audio_is_recorded(tmp_path: Path) -> None:
    archive = pack(tmp_path / "a.7z", {"development/page.wav": b"<!DOCTYPE html>", "development/empty.wav": b""})
    assert_succeeds(extract(tmp_path, archive))
    facts = read_table(tmp_path / "audio/development.csv")
    assert facts.problem.str.startswith("cannot be read (").all() and not facts.problem.str.contains("/").any()
    assert facts.sha256.tolist() == [
        checksum(tmp_path / "audio/development" / name, "sha256") for name in ("empty.wav", "page.wav")
    ]


def test_several_archives_make_one_folder_and_replace_the_old_one(tmp_path: Path) -> None:
    archives = [pack(tmp_path / f"{n}.7z", {f"development/{n}.wav": n.encode()}) for n in "ab"]
    stale = tmp_path / "audio/development/stale.wav"
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b"")
    assert_succeeds(extract(tmp_path, *archives))
    assert listing(tmp_path / "audio") == {"development/a.wav", "development/b.wav", "development.csv"}


def rename_entry(archive: Path, old: str, new: str) -> None:
    """Rename in the archive's table of contents, since py7zr writes no odd names. `new` is as long as `old`."""
    data = bytearray(archive.read_bytes())
    offset, size = struct.unpack("<QQ", data[12:28])
    header = data[32 + offset : 32 + offset + size]
    assert len(old) == len(new) and old.encode("utf-16-le") in header
    header = header.replace(old.encode("utf-16-le"), new.encode("utf-16-le"))
    data[32 + offset : 32 + offset + size] = header
    data[28:32] = struct.pack("<I", zlib.crc32(header))
    data[8:12] = struct.pack("<I", zlib.crc32(data[12:32]))
    archive.write_bytes(data)


@pytest.mark.parametrize(
    ("other", "written"),
    [("./b.wav", "@/b.wav"), ("/b.wav", "@b.wav"), ("e\u0301.wav", "e\u0301.wav"), ("b.wav", "@.wav")],
)
@pytest.mark.parametrize("archives", [1, 2])
def test_two_entries_of_one_name_are_refused(tmp_path: Path, other: str, written: str, archives: int) -> None:
    one = "\u00e9.wav" if "e" in other else "b.wav"
    files = [{f"development/{one}": b"1"}, {f"development/{written}": b"2"}]
    paths = [tmp_path / f"{n}.7z" for n in range(archives)]
    for path, content in zip(paths, [files[0] | files[1]] if archives == 1 else files, strict=True):
        with py7zr.SevenZipFile(path, "w") as packed:
            packed.set_encoded_header_mode(False)
            for name, data in content.items():
                packed.writestr(data, name)
    rename_entry(paths[-1], f"development/{written}", f"development/{other}")
    line = assert_fails(extract(tmp_path, *paths), paths[-1], f"{'development/' + other!a} is there twice", "keep one")
    assert ascii(f"development/{one}") in line
    assert listing(tmp_path) == {path.name for path in paths}


@pytest.mark.parametrize("keep", [0, 20, 0.98], ids=["empty", "head", "tail lost"])
def test_truncated_archive_is_named(tmp_path: Path, published: dict[str, PublishedSplit], keep: float) -> None:
    data = published["development"].archive.read_bytes()
    archive = tmp_path / "cut.7z"
    archive.write_bytes(data[: int(keep * len(data)) if isinstance(keep, float) else keep])
    assert_fails(extract(tmp_path, archive), archive, "download it again")
    assert listing(tmp_path) == {"cut.7z"}


def test_damaged_archive_is_named(tmp_path: Path, published: dict[str, PublishedSplit]) -> None:
    data = bytearray(published["development"].archive.read_bytes())
    data[len(data) // 2] ^= 0xFF
    archive = tmp_path / "damaged.7z"
    archive.write_bytes(data)
    assert_fails(extract(tmp_path, archive), archive, "damaged", "download it again")
    assert listing(tmp_path) == {"damaged.7z"}


def test_page_named_7z_is_called_what_it_is(tmp_path: Path) -> None:
    archive = tmp_path / "page.7z"
    archive.write_text("<!DOCTYPE html><title>Log in</title>" + " " * 500)
    assert_fails(extract(tmp_path, archive), archive, "not a 7z archive", "<!DOCTYPE html>")
    assert listing(tmp_path) == {"page.7z"}


def test_missing_archive_is_named(tmp_path: Path) -> None:
    assert_fails(extract(tmp_path, tmp_path / "none.7z"), tmp_path / "none.7z")
    assert listing(tmp_path) == set()


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["validation/a.wav"], ["'validation/a.wav'", "top folder 'development'"]),
        (["development/a.wav", "a.wav"], ["'a.wav'", "top folder"]),
        (["development"], ["'development'", "top folder"]),
        ([], ["holds no file"]),
        (["development/a.wav", "../evil.wav"], ["'../evil.wav'", "outside its folder"]),
        (["development/../../evil.wav"], ["'development/../../evil.wav'", "outside its folder"]),
        (["development/../evil.wav"], ["'development/../evil.wav'", "outside its folder"]),
        (["C:/evil.wav"], ["'C:/evil.wav'", "outside its folder"]),
        (["development/two\nlines.wav"], [r"'development/two\nlines.wav'", "rename"]),
        (["development/two\u2028lines.wav"], [r"'development/two\u2028lines.wav'", "rename"]),
    ],
)
def test_unsafe_or_foreign_entry_unpacks_nothing(tmp_path: Path, names: list[str], words: list[str]) -> None:
    archive = pack(tmp_path / "bad.7z", dict.fromkeys(names, b"evil"))
    with py7zr.SevenZipFile(archive) as packed:
        assert packed.getnames() == names
    assert_fails(extract(tmp_path / "in", archive), archive, *words)
    assert listing(tmp_path) == {"bad.7z"}


def test_absolute_path_unpacks_nothing(tmp_path: Path) -> None:
    evil = tmp_path / "evil.wav"
    archive = pack(tmp_path / "bad.7z", {"development/a.wav": b"", evil.as_posix(): b"evil"})
    assert_fails(extract(tmp_path, archive), archive, repr(str(evil)), "outside its folder")
    assert listing(tmp_path) == {"bad.7z"}


@pytest.mark.parametrize("target", ["/", ".."])
def test_symbolic_link_unpacks_nothing(tmp_path: Path, target: str) -> None:
    link, archive = tmp_path / "link", tmp_path / "bad.7z"
    link.symlink_to(target)
    with py7zr.SevenZipFile(archive, "w") as packed:
        packed.write(link, "development/link.wav")
    link.unlink()
    with py7zr.SevenZipFile(archive) as packed:
        assert packed.list()[0].is_symlink
    assert_fails(extract(tmp_path, archive), archive, "'development/link.wav'", "link")
    assert listing(tmp_path) == {"bad.7z"}


def test_one_name_in_two_archives_is_refused(tmp_path: Path) -> None:
    archives = [pack(tmp_path / f"{n}.7z", {"development/same.wav": n.encode()}) for n in "ab"]
    assert_fails(extract(tmp_path, *archives), archives[1], "'development/same.wav'")
    assert listing(tmp_path) == {"a.7z", "b.7z"}


def test_failed_repetition_leaves_the_earlier_folder(tmp_path: Path) -> None:
    assert_succeeds(extract(tmp_path, pack(tmp_path / "good.7z", {"development/a.wav": b"a"})))
    assert_fails(extract(tmp_path, pack(tmp_path / "bad.7z", {"evaluation/a.wav": b"b"})), "bad.7z")
    assert (tmp_path / "audio/development/a.wav").read_bytes() == b"a"
