from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT, SCRIPTS, Handler, assert_fails, assert_succeeds, checksum, listing, run_script

CONTENT = bytes(range(256)) * 9000  # more than two chunks


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source" / "clips, one & two.7z"
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    return path


def arguments(url: object, target: Path, md5: str, *more: object) -> list[object]:
    digest = target / "checksums" / "clips.7z.txt"
    fixed = ["--url", url, "--algorithm", "md5", "--checksum", md5]
    return [*fixed, "--output", target / "clips.7z", "--digest", digest, *more]


@pytest.mark.parametrize("form", [str, Path.as_uri], ids=["path", "file URL"])
@pytest.mark.parametrize("algorithm", ["md5", "sha256"])
def test_local_file_arrives_with_its_digest(
    source: Path, tmp_path: Path, form: Callable[[Path], str], algorithm: str
) -> None:
    target, wanted = tmp_path / "target", checksum(source, algorithm)
    more = ["--algorithm", algorithm, "--checksum", wanted, "--size", len(CONTENT)]
    assert_succeeds(run_script("download", *arguments(form(source), target, "", *more), log=tmp_path / "log"))
    assert (target / "clips.7z").read_bytes() == CONTENT
    assert (target / "checksums/clips.7z.txt").read_text() == f"{wanted}  clips.7z\n"
    assert listing(target) == {"clips.7z", "checksums/clips.7z.txt"}
    assert wanted in (tmp_path / "log").read_text()


def test_relative_path_is_taken_from_the_working_directory(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    url = source.relative_to(tmp_path)
    assert_succeeds(run_script("download", *arguments(url, target, checksum(source)), cwd=tmp_path))
    assert (target / "clips.7z").read_bytes() == CONTENT


def test_wrong_checksum_leaves_nothing(source: Path, tmp_path: Path) -> None:
    result = run_script("download", *arguments(source, tmp_path / "target", "0" * 32))
    assert_fails(result, source, checksum(source), "0" * 32, "config")
    assert listing(tmp_path / "target") == set()


def test_file_shorter_than_its_size_leaves_nothing(source: Path, tmp_path: Path) -> None:
    md5 = checksum(source)
    source.write_bytes(CONTENT[:-1])
    result = run_script("download", *arguments(source, tmp_path / "target", md5, "--size", len(CONTENT)))
    assert_fails(result, source, len(CONTENT) - 1, len(CONTENT), "cut short")
    assert listing(tmp_path / "target") == set()


@pytest.mark.parametrize("form", [str, Path.as_uri], ids=["path", "file URL"])
def test_missing_local_file_is_named(tmp_path: Path, form: Callable[[Path], str]) -> None:
    missing = tmp_path / "no such.7z"
    assert_fails(run_script("download", *arguments(form(missing), tmp_path / "t", "0" * 32)), missing, "`url`")
    assert listing(tmp_path / "t") == set()


def test_remote_file_arrives(source: Path, tmp_path: Path, serve: tuple[str, Path]) -> None:
    url, folder = serve
    (folder / "clips.7z").write_bytes(CONTENT)
    query = f"{url}/clips.7z?download=1"
    assert_succeeds(run_script("download", *arguments(query, tmp_path / "target", checksum(source))))
    assert (tmp_path / "target/clips.7z").read_bytes() == CONTENT


def test_missing_remote_file_is_named(tmp_path: Path, serve: tuple[str, Path]) -> None:
    url = f"{serve[0]}/nothing.7z"
    assert_fails(run_script("download", *arguments(url, tmp_path / "target", "0" * 32)), url, "404", "`url`")
    assert listing(tmp_path / "target") == set()


def test_connection_cut_midway_leaves_nothing(source: Path, tmp_path: Path, serve: tuple[str, Path]) -> None:
    url, folder = serve
    (folder / "clips.7z").write_bytes(CONTENT)
    result = run_script("download", *arguments(f"{url}/cut/clips.7z", tmp_path / "target", checksum(source)))
    assert_fails(result, f"{url}/cut/clips.7z", "broke", "again")
    assert listing(tmp_path / "target") == set()


def test_page_in_place_of_the_file_leaves_nothing(source: Path, tmp_path: Path, serve: tuple[str, Path]) -> None:
    url, folder = serve
    (folder / "clips.7z").write_text("<!DOCTYPE html><title>Log in</title>")
    result = run_script("download", *arguments(f"{url}/clips.7z", tmp_path / "target", checksum(source)))
    assert_fails(result, f"{url}/clips.7z", "MD5")
    assert listing(tmp_path / "target") == set()


def test_refusing_server_is_named(tmp_path: Path, serve: tuple[str, Path]) -> None:
    url = f"{serve[0]}/refuse/clips.7z"
    assert_fails(run_script("download", *arguments(url, tmp_path / "target", "0" * 32)), url, "403")
    assert listing(tmp_path / "target") == set()


def test_interrupted_download_leaves_nothing(source: Path, tmp_path: Path, serve: tuple[str, Path]) -> None:
    url, folder = serve
    (folder / "clips.7z").write_bytes(CONTENT)
    command = [*arguments(f"{url}/stall/clips.7z", tmp_path / "target", checksum(source))]
    process = subprocess.Popen(
        [sys.executable, SCRIPTS / "download.py", *map(str, command)],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    assert Handler.stalled.wait(60)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=60)
    assert_fails(subprocess.CompletedProcess(command, process.returncode, "", stderr), "interrupted")
    assert process.returncode == 130
    assert listing(tmp_path / "target") == set()


def test_failed_repetition_leaves_the_earlier_file(source: Path, tmp_path: Path) -> None:
    target, md5 = tmp_path / "target", checksum(source)
    assert_succeeds(run_script("download", *arguments(source, target, md5)))
    source.write_bytes(b"damaged")
    assert_fails(run_script("download", *arguments(source, target, md5)), source)
    assert (target / "clips.7z").read_bytes() == CONTENT
