from __future__ import annotations

import contextlib
import gzip
import io
import shutil
import struct
import subprocess
import tarfile
import zipfile
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
from hypothesis import given, settings
from hypothesis import strategies as st
from media import write_media
from sao.base.command import InputError
from sao.base.tables import read_table
from sao.data.archives import ARCHIVES, PROGRAM, STREAMS, contents
from sao.sound.read import measure


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
    """No file is measured before it is whole. Two archives have long and short files, also in folders."""
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


def test_sound_that_ffmpeg_reads_is_measured(tmp_path: Path) -> None:
    path = write_media(tmp_path / "a.m4a", noise("m", 1, 44100, 2))
    assert_succeeds(extract(tmp_path, pack(tmp_path / "a.7z", {"development/a.m4a": path.read_bytes()})))
    (row,) = read_table(tmp_path / "audio/development.csv").to_dict("records")
    assert row.pop("file_name") == "a.m4a" and row == vars(measure(path)) and row["problem"] == ""


def test_several_archives_make_one_folder_and_replace_the_old_one(tmp_path: Path) -> None:
    archives = [pack(tmp_path / f"{n}.7z", {f"development/{n}.wav": n.encode()}) for n in "ab"]
    stale = tmp_path / "audio/development/stale.wav"
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b"")
    assert_succeeds(extract(tmp_path, *archives))
    assert listing(tmp_path / "audio") == {"development/a.wav", "development/b.wav", "development.csv"}


def rename_entry(archive: Path, old: str, new: str) -> None:
    """Rename an entry in the archive's table of contents, since py7zr writes no odd names. `new` is as long as `old`."""
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
    line = assert_fails(extract(tmp_path, *paths), paths[-1], f"{'development/' + other!a} appears twice", "keep one")
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
    assert_fails(extract(tmp_path, archive), archive, "web page", "<!DOCTYPE html>")
    assert listing(tmp_path) == {"page.7z"}


FILES = {
    "development/a.wav": b"a" * 3000,
    "development/sub/\u00fc = b.wav": b"b",
    "development/c.wav": bytes(range(256)),
}


def seven_zip(folder: Path, name: str, *options: str) -> Path:
    """Pack FILES with 7-Zip's own program. The suffix of the name decides the format."""
    for file, data in FILES.items():
        (folder / "made" / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / "made" / file).write_bytes(data)
    command = [PROGRAM, "a", *options, folder / name, "development"]
    subprocess.run(command, cwd=folder / "made", check=True, capture_output=True)
    shutil.rmtree(folder / "made")
    return folder / name


def tar(folder: Path, name: str, mode: str, start: str = "") -> Path:
    with tarfile.open(folder / name, mode) as packed:
        for file, data in FILES.items():
            entry = tarfile.TarInfo(start + file)
            entry.size = len(data)
            packed.addfile(entry, io.BytesIO(data))
    return folder / name


def assert_unpacked(folder: Path) -> None:
    wanted = {f"{name.removeprefix('development/')}": data for name, data in FILES.items()}
    assert listing(folder / "audio/development") == set(wanted)
    assert all((folder / "audio/development" / name).read_bytes() == data for name, data in wanted.items())
    assert read_table(folder / "audio/development.csv").file_name.tolist() == sorted(wanted)
    assert {path.name for path in (folder / "audio").iterdir()} == {"development", "development.csv"}


@pytest.mark.parametrize("called", ["a.zip", "a.7z", "a"])
def test_zip_is_read_whatever_it_is_called(tmp_path: Path, called: str) -> None:
    archive = seven_zip(tmp_path, "made.zip").rename(tmp_path / called)
    with zipfile.ZipFile(archive, "a") as packed:
        packed.writestr("__MACOSX/development/._a.wav", b"notes of macOS")
    assert_succeeds(extract(tmp_path, archive))
    assert_unpacked(tmp_path)


@pytest.mark.parametrize("start", ["", "./"])
@pytest.mark.parametrize(
    ("name", "mode"), [("a.tar", "w"), ("a.tar.gz", "w:gz"), ("a.tbz2", "w:bz2"), ("a.7z", "w:xz")]
)
def test_tar_is_read_compressed_or_not(tmp_path: Path, name: str, mode: str, start: str) -> None:
    assert_succeeds(extract(tmp_path, tar(tmp_path, name, mode, start)))
    assert_unpacked(tmp_path)


@pytest.mark.parametrize("name", ["a.7z", "a.zip", "a.tar"])
def test_archive_in_parts_is_read_whole(tmp_path: Path, name: str) -> None:
    seven_zip(tmp_path, name, "-v300b", *([] if name == "a.tar" else ["-mx0"]))
    parts = sorted(tmp_path.glob("a.*.0*"))
    assert len(parts) > 3
    assert_succeeds(extract(tmp_path, *parts))
    assert_unpacked(tmp_path)
    assert_fails(extract(tmp_path, *parts[1:]), parts[1], "first")
    for part in parts[2:]:
        part.unlink()
    assert_fails(extract(tmp_path, *parts[:2]), parts[0], "parts", "config")


def test_7z_with_a_method_of_others_is_named(tmp_path: Path) -> None:
    methods = {"Zstandard": py7zr.FILTER_ZSTD, "Brotli": py7zr.FILTER_BROTLI}
    for name, method in methods.items():
        with py7zr.SevenZipFile(tmp_path / name, "w", filters=[{"id": method, "level": 3}]) as packed:
            for file, data in FILES.items():
                packed.writestr(data, file)
        assert_fails(extract(tmp_path, tmp_path / name), tmp_path / name, f"7-Zip lacks ({name})", "pack it anew")


@pytest.mark.parametrize("name", ["a.zip", "a.7z"])
@pytest.mark.parametrize("options", [["-psecret"], ["-psecret", "-mhe=on"]])
def test_encrypted_archive_is_named(tmp_path: Path, name: str, options: list[str]) -> None:
    archive = seven_zip(tmp_path, name, *(options if name == "a.7z" else options[:1]))
    assert_fails(extract(tmp_path, archive), archive, "encrypted")


def test_compressed_file_that_is_no_tar_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.wav.gz").write_bytes(gzip.compress(b"RIFF" + bytes(100)))
    assert_fails(extract(tmp_path, tmp_path / "a.wav.gz"), "a.wav.gz", "not an archive")


@pytest.mark.parametrize("head", [b"RIFF\x10\0\0\0WAVEfmt ", b"fLaC", bytes(100), b"version https://git-lfs"])
def test_what_is_no_archive_is_named_by_its_beginning(tmp_path: Path, head: bytes) -> None:
    (tmp_path / "a.7z").write_bytes(head + bytes(500))
    assert_fails(extract(tmp_path, tmp_path / "a.7z"), "a.7z", "not an archive that 7-Zip can read", repr(head)[1:6])


@pytest.mark.parametrize("kind", ["zip", "tar", "tgz"])
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("../evil.wav", "outside its folder"),
        ("/tmp/evil.wav", "outside its folder"),
        ("validation/a.wav", "top folder"),
        ("development/" + "n" * 256, "longer than 255 bytes"),
        ("development/a.wav/b.wav", "is a file and a folder"),
        ("development/./a.wav", "appears twice"),
    ],
)
def test_entry_of_any_archive_that_cannot_be_unpacked_is_named(
    tmp_path: Path, kind: str, name: str, words: str
) -> None:
    archive = tmp_path / f"a.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(archive, "w") as packed:
            for file in ("development/a.wav", name):
                packed.writestr(file, b"a")
    else:
        with tarfile.open(archive, "w:gz" if kind == "tgz" else "w") as packed:
            for file in ("development/a.wav", name):
                packed.addfile(tarfile.TarInfo(file))
    assert_fails(extract(tmp_path / "in", archive), archive, words)
    assert listing(tmp_path) == {archive.name}


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_in_a_tar_unpack_nothing(tmp_path: Path, kind: bytes) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as packed:
        packed.addfile(tarfile.TarInfo("development/a.wav"))
        entry = tarfile.TarInfo("development/b.wav")
        entry.type, entry.linkname = kind, "development/a.wav"
        packed.addfile(entry)
    assert_fails(extract(tmp_path / "in", tmp_path / "a.tar"), "a.tar", "'development/b.wav' is a link or a device")
    assert listing(tmp_path) == {"a.tar"}


@pytest.mark.parametrize("name", ["n" * 256, "a.wav/b.wav"])
def test_name_that_no_disk_takes_is_named(tmp_path: Path, name: str) -> None:
    archive = pack(tmp_path / "a.7z", {"development/a.wav": b"a", f"development/{name}": b"b"})
    assert_fails(extract(tmp_path / "in", archive), archive, "rename" if "/" in name else "longer than 255 bytes")


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from([b"", b"PK\3\4", b"7z\xbc\xaf\x27\x1c", b"\x1f\x8b\x08", b"Rar!\x1a\7\0", b"BZh9", b"MSCF"]),
    st.binary(max_size=300),
    st.sampled_from(["a.7z", "a.zip", "a.7z.001", "a"]),
)
def test_any_bytes_are_read_or_told_in_a_line(
    tmp_path_factory: pytest.TempPathFactory, head: bytes, data: bytes, name: str
) -> None:
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(head + data)
    with contextlib.suppress(InputError):
        assert contents(path)[0] in ARCHIVES | STREAMS


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
