from __future__ import annotations

import email.utils
import hashlib
import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import (
    ROOT,
    SCRIPTS,
    assert_fails,
    assert_succeeds,
    checksum,
    copy_checkout,
    listing,
    needs_mount,
    run_script,
    run_snakemake,
    small_disk,
)
from sao.data.corpora import resolve
from sao.data.transfer import retry_after
from sao.plan.plan import Plan
from servers import Server, serving

CONTENT = np.arange(600_000, dtype=">u4").tobytes()  # 2.4 MB without a repetition
MD5 = hashlib.md5(CONTENT).hexdigest()
LOST = 1 << 16  # bytes that may be lost on their way when a connection drops
QUICK = ("--wait", 0.02, "--timeout", 0.5, "--attempts", 4)
NAME = "clips, one & two.7z"
OUTPUTS = {"clips.7z", "checksums/clips.7z.txt"}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source" / NAME
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def remote(server: Server) -> str:
    """The URL of the file on a server. The fixture `server` sets how that server behaves."""
    (server.folder / "files").mkdir()
    (server.folder / "files" / "clips.7z").write_bytes(CONTENT)
    return f"{server.url}/files/clips.7z"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "target"


def arguments(url: object, target: Path, *more: object, md5: str = MD5) -> list[object]:
    digest = target / "checksums" / "clips.7z.txt"
    fixed = ["--url", url, "--algorithm", "md5", "--checksum", md5]
    return [*fixed, "--output", target / "clips.7z", "--digest", digest, *QUICK, *more]


def download(
    url: object, target: Path, *more: object, md5: str = MD5, **how: object
) -> subprocess.CompletedProcess[str]:
    return run_script("download", *arguments(url, target, *more, md5=md5), **how)


def start(url: object, target: Path, *more: object) -> subprocess.Popen[str]:
    command = [sys.executable, SCRIPTS / "download.py", *map(str, arguments(url, target, "--timeout", 60, *more))]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, encoding="utf-8")


def assert_arrived(target: Path) -> None:
    """The folder has both outputs and nothing else."""
    assert (target / "clips.7z").read_bytes() == CONTENT
    assert (target / "checksums/clips.7z.txt").read_text() == f"{MD5}  clips.7z\n"
    assert listing(target) == OUTPUTS


def assert_nothing_twice(server: Server) -> None:
    """Every byte was sent once, except for those on their way when a connection broke."""
    end = 0
    for asked in server.asked:
        if asked.sent:
            assert end - LOST <= asked.first <= end, server.asked
            end = asked.first + asked.sent
    assert end == len(CONTENT)


def wait_for_bytes(path: Path, size: int) -> None:
    for _ in range(600):
        if path.is_file() and path.stat().st_size >= size:
            return
        time.sleep(0.05)
    raise AssertionError(f"{path} never had {size} bytes")


@pytest.mark.parametrize("form", [str, Path.as_uri], ids=["path", "file URL"])
@pytest.mark.parametrize("algorithm", ["md5", "sha256"])
def test_local_file_arrives_with_its_digest(
    source: Path, target: Path, tmp_path: Path, form: Callable[[Path], str], algorithm: str
) -> None:
    wanted = checksum(source, algorithm)
    more = ["--algorithm", algorithm, "--checksum", wanted, "--size", len(CONTENT)]
    assert_succeeds(download(form(source), target, *more, log=tmp_path / "log"))
    assert (target / "clips.7z").read_bytes() == CONTENT
    assert (target / "checksums/clips.7z.txt").read_text() == f"{wanted}  clips.7z\n"
    assert listing(target) == OUTPUTS
    assert wanted in (tmp_path / "log").read_text()


def test_relative_path_is_taken_from_the_working_directory(source: Path, target: Path, tmp_path: Path) -> None:
    assert_succeeds(download(source.relative_to(tmp_path), target, cwd=tmp_path))
    assert_arrived(target)


def test_wrong_checksum_leaves_nothing(source: Path, target: Path) -> None:
    assert_fails(download(source, target, md5="0" * 32), source, MD5, "0" * 32, "config")
    assert listing(target) == set()


def test_local_file_of_another_size_leaves_nothing(source: Path, target: Path) -> None:
    source.write_bytes(CONTENT[:-1])
    result = download(source, target, "--size", len(CONTENT))
    assert_fails(result, source, len(CONTENT) - 1, len(CONTENT), "cut short")
    assert listing(target) == set()


@pytest.mark.parametrize("form", [str, Path.as_uri], ids=["path", "file URL"])
def test_missing_local_file_is_named(tmp_path: Path, target: Path, form: Callable[[Path], str]) -> None:
    missing = tmp_path / "no such.7z"
    assert_fails(download(form(missing), target), missing, "`url`")
    assert listing(target) == set()


@pytest.mark.parametrize(
    "url", ["ftp://example.org/clips.7z", "https://[::1/clips.7z", "http:///clips.7z", "http://a b/x", "http://h:x/y"]
)
def test_url_that_is_none_is_one_line(target: Path, url: str) -> None:
    assert_fails(download(url, target), url, "correct")
    assert listing(target) == set()


def test_failed_repetition_leaves_the_earlier_file(source: Path, target: Path) -> None:
    assert_succeeds(download(source, target))
    assert_fails(download(source, target, md5="0" * 32), source)
    assert_arrived(target)


def test_remote_file_arrives(server: Server, remote: str, target: Path) -> None:
    assert_succeeds(download(f"{remote}?download=1", target, "--size", len(CONTENT)))
    assert_arrived(target)
    assert [asked.range for asked in server.asked] == [None]


def test_redirect_is_followed_and_its_file_resumed(server: Server, remote: str, target: Path) -> None:
    server.redirects = {"/moved": "/files/clips.7z"}
    server.faults = [{}, {"stop": 1_000_000}]
    assert_succeeds(download(f"{server.url}/moved", target))
    assert_arrived(target)
    assert_nothing_twice(server)


def test_dropped_connections_are_resumed(server: Server, remote: str, target: Path) -> None:
    server.faults = [{"stop": 1_000_000}, {"stop": 700_000}]
    result = download(remote, target)
    assert_succeeds(result)
    assert_arrived(target)
    assert_nothing_twice(server)
    assert [asked.if_range for asked in server.asked] == [None, '"one"', '"one"']
    assert result.stderr.count("trying again") == 2


def test_progress_resets_the_count_of_attempts(server: Server, remote: str, target: Path) -> None:
    server.faults = [{"stop": 200_000}] * 8  # twice as many as are allowed without progress
    assert_succeeds(download(remote, target))
    assert_nothing_twice(server)


def test_stalled_connection_is_resumed(server: Server, remote: str, target: Path) -> None:
    server.faults = [{"stop": 1_000_000, "hang": True}]
    assert_succeeds(download(remote, target))
    assert_arrived(target)
    assert_nothing_twice(server)


def test_connection_that_stays_dropped_ends_with_one_line_and_keeps_what_arrived(
    server: Server, remote: str, target: Path
) -> None:
    server.faults = [{"stop": 1_000_000}] + [{"stop": 0}] * 4
    assert_fails(download(remote, target), remote, "4 attempts", "again")
    assert listing(target) == {".partial/clips.7z.part", ".partial/clips.7z.json"}
    assert_succeeds(download(remote, target))
    assert_arrived(target)
    assert_nothing_twice(server)


def test_nobody_there_is_one_line(target: Path, tmp_path: Path) -> None:
    with serving(tmp_path) as gone:
        url = f"{gone.url}/clips.7z"
    assert_fails(download(url, target), url, "Connection refused", "4 attempts")
    assert listing(target) == set()


def test_server_without_ranges_sends_all_again(server: Server, remote: str, target: Path) -> None:
    server.ranges = False
    server.faults = [{"stop": 1_000_000}]
    assert_succeeds(download(remote, target))
    assert_arrived(target)
    assert [asked.first for asked in server.asked] == [0, 0]


def test_server_without_ranges_that_always_drops_is_given_up(server: Server, remote: str, target: Path) -> None:
    server.ranges = False
    server.faults = [{"stop": 1_000_000}] * 20
    assert_fails(download(remote, target), remote, "4 attempts")
    assert [asked.sent for asked in server.asked] == [1_000_000] * 4


@pytest.mark.parametrize("honest", [True, False], ids=["If-Range", "no If-Range"])
def test_file_that_changes_midway_is_begun_anew(server: Server, remote: str, target: Path, honest: bool) -> None:
    new, file = CONTENT[::-1], server.folder / "files/clips.7z"
    server.honour_if_range = honest
    server.faults = [{"stop": 1_000_000}, *[{"status": 503, "headers": {"Retry-After": 1}}]]
    process = start(remote, target, "--checksum", hashlib.md5(new).hexdigest())
    wait_for_bytes(target / ".partial/clips.7z.part", 900_000)
    file.write_bytes(new)
    server.etag = '"two"'
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    assert (target / "clips.7z").read_bytes() == new
    assert listing(target) == OUTPUTS


def test_file_that_changed_its_size_is_begun_anew(server: Server, remote: str, target: Path) -> None:
    server.etag = None
    server.faults = [{"stop": 1_000_000}, *[{"stop": 0}] * 4]
    assert_fails(download(remote, target), remote)
    new = CONTENT[7:]
    (server.folder / "files/clips.7z").write_bytes(new)
    assert_succeeds(download(remote, target, md5=hashlib.md5(new).hexdigest()))
    assert (target / "clips.7z").read_bytes() == new


def test_file_that_became_shorter_than_what_arrived_is_begun_anew(server: Server, remote: str, target: Path) -> None:
    server.etag = None
    server.faults = [{"stop": 1_000_000}, *[{"stop": 0}] * 4]
    assert_fails(download(remote, target), remote)
    new = CONTENT[:500_000]
    (server.folder / "files/clips.7z").write_bytes(new)
    assert_succeeds(download(remote, target, md5=hashlib.md5(new).hexdigest()))
    assert (target / "clips.7z").read_bytes() == new


@pytest.mark.parametrize(
    ("etag", "modified", "sent"),
    [('W/"weak"', "Mon, 01 Jan 2024 00:00:00 GMT", "Mon, 01 Jan 2024 00:00:00 GMT"), ('W/"weak"', None, None)],
    ids=["date", "nothing"],
)
def test_weak_etag_that_lies_costs_one_more_fetch(
    server: Server, remote: str, target: Path, etag: str, modified: str | None, sent: str | None
) -> None:
    """The bytes come from another file, although the server says that nothing changed."""
    server.etag, server.last_modified = etag, modified
    server.faults = [{"stop": 1_000_000}, *[{"stop": 0}] * 4]
    file = server.folder / "files/clips.7z"
    file.write_bytes(bytes(len(CONTENT)))
    assert_fails(download(remote, target), remote)
    file.write_bytes(CONTENT)
    result = download(remote, target)
    assert_succeeds(result)
    assert "wrong checksum" in result.stderr
    assert_arrived(target)
    *_, resumed, anew = server.asked
    assert resumed.first > 0 and resumed.if_range == sent and anew.first == 0 and anew.sent == len(CONTENT)


def test_resumed_file_with_a_wrong_checksum_is_fetched_once_more_and_no_oftener(
    server: Server, remote: str, target: Path
) -> None:
    server.faults = [{"stop": 1_000_000}, {}, {"stop": 1_000_000}]
    assert_fails(download(remote, target, md5="0" * 32), remote, MD5, "0" * 32)
    assert [asked.first > 0 for asked in server.asked] == [False, True, False, True]
    assert listing(target) == set()


def test_wrong_checksum_of_a_file_in_one_piece_is_not_fetched_again(server: Server, remote: str, target: Path) -> None:
    assert_fails(download(remote, target, md5="0" * 32), remote, MD5, "0" * 32)
    assert len(server.asked) == 1
    assert listing(target) == set()


def test_page_in_place_of_the_file_leaves_nothing(server: Server, remote: str, target: Path) -> None:
    (server.folder / "files/clips.7z").write_text("<!DOCTYPE html><title>Log in</title>")
    assert_fails(download(remote, target), remote, "MD5")
    assert listing(target) == set()


def test_size_that_differs_fails_before_the_download(server: Server, remote: str, target: Path) -> None:
    assert_fails(download(remote, target, "--size", len(CONTENT) + 1), remote, len(CONTENT), len(CONTENT) + 1, "`size`")
    assert listing(target) == set()


def test_page_instead_of_the_rest_does_not_cost_what_arrived(server: Server, remote: str, target: Path) -> None:
    more = ("--size", len(CONTENT))
    server.faults = [{"stop": 1_000_000}, *[{"stop": 0}] * 4]
    assert_fails(download(remote, target, *more), remote)
    file = server.folder / "files/clips.7z"
    file.write_text("<!DOCTYPE html><title>Maintenance</title>")
    server.etag = None
    assert_fails(download(remote, target, *more), remote, len(CONTENT))
    file.write_bytes(CONTENT)
    server.etag = '"one"'
    assert_succeeds(download(remote, target, *more))
    assert server.asked[-1].first > 900_000


def test_file_of_unknown_length_arrives(server: Server, remote: str, target: Path) -> None:
    server.length = False
    assert_succeeds(download(remote, target))
    assert_arrived(target)


def test_file_of_unknown_length_that_stops_early_is_resumed(server: Server, remote: str, target: Path) -> None:
    server.length = False
    server.faults = [{"stop": 1_000_000}]
    assert_succeeds(download(remote, target, "--size", len(CONTENT)))
    assert_arrived(target)
    assert_nothing_twice(server)


def test_file_in_chunks_that_stops_early_is_resumed(server: Server, remote: str, target: Path) -> None:
    server.chunked = True
    server.faults = [{"stop": 1_000_000}]
    assert_succeeds(download(remote, target))
    assert_arrived(target)
    assert_nothing_twice(server)


def test_file_that_does_not_end_is_stopped_at_its_size(server: Server, remote: str, target: Path) -> None:
    server.length = False
    assert_fails(download(remote, target, "--size", 1000), remote, "more than", 1000)
    assert listing(target) == set()


@pytest.mark.parametrize("status", [404, 403])
def test_refusal_is_final(server: Server, remote: str, target: Path, status: int) -> None:
    server.faults = [{"status": status}]
    assert_fails(download(remote, target), remote, status, "`url`")
    assert len(server.asked) == 1
    assert listing(target) == set()


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_overload_is_tried_again(server: Server, remote: str, target: Path, status: int) -> None:
    server.faults = [{"status": status}] * 3
    assert_succeeds(download(remote, target))
    assert len(server.asked) == 4


def test_overload_that_stays_is_one_line(server: Server, remote: str, target: Path) -> None:
    server.faults = [{"status": 503}] * 9
    assert_fails(download(remote, target), remote, "503", "4 attempts")
    assert len(server.asked) == 4


def test_waits_grow(server: Server, remote: str, target: Path) -> None:
    server.faults = [{"status": 503}] * 3
    assert_succeeds(download(remote, target, "--wait", 0.2))
    times = [asked.at for asked in server.asked]
    first, second, third = (later - earlier for earlier, later in itertools.pairwise(times))
    assert first >= 0.1 and second >= 0.2 and third >= 0.4


@pytest.mark.parametrize(("status", "form"), [(429, "seconds"), (503, "date")])
def test_retry_after_is_honoured(server: Server, remote: str, target: Path, status: int, form: str) -> None:
    # The date has whole seconds, so at least two of the three seconds remain.
    value = "1" if form == "seconds" else email.utils.formatdate(time.time() + 3, usegmt=True)
    server.faults = [{"status": status, "headers": {"Retry-After": value}}]
    assert_succeeds(download(remote, target))
    first, second = server.asked
    assert second.at - first.at >= 1


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, 0),
        ("", 0),
        ("0", 0),
        ("-5", 0),
        ("soon", 0),
        ("Mon, 01 Jan 1990 00:00:00 GMT", 0),
        ("7", 7),
        ("86400", 300),
        ("Fri, 01 Jan 2999 00:00:00 GMT", 300),
        ("Fri, 01 Jan 2999 00:00:00 -0000", 300),
    ],
)
def test_retry_after_is_read_and_capped(value: str | None, seconds: float) -> None:
    assert retry_after(value) == seconds


def test_kill_9_costs_nothing_that_had_arrived(server: Server, remote: str, target: Path) -> None:
    server.faults = [{"stop": 1_500_000, "hang": True}]
    process = start(remote, target)
    assert server.stalled.wait(60)
    wait_for_bytes(target / ".partial/clips.7z.part", 1_500_000 - LOST)
    process.kill()
    process.wait()
    assert not (target / "clips.7z").exists()
    assert_succeeds(download(remote, target))
    assert_arrived(target)
    assert_nothing_twice(server)


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_interruption_is_one_line_and_costs_nothing_that_had_arrived(
    server: Server, remote: str, target: Path, sent: signal.Signals
) -> None:
    server.faults = [{"stop": 1_500_000, "hang": True}]
    process = start(remote, target)
    assert server.stalled.wait(60)
    wait_for_bytes(target / ".partial/clips.7z.part", 1_500_000 - LOST)
    process.send_signal(sent)
    _, stderr = process.communicate(timeout=60)
    assert_fails(subprocess.CompletedProcess([], process.returncode, "", stderr), "interrupted")
    assert process.returncode == 130
    assert listing(target) == {".partial/clips.7z.part", ".partial/clips.7z.json"}
    assert_succeeds(download(remote, target))
    assert_arrived(target)
    assert_nothing_twice(server)


def test_two_at_once_fetch_it_once(server: Server, remote: str, target: Path) -> None:
    """A killed run can leave a job behind, which still downloads."""
    server.pause = 0.005
    left_over = start(remote, target)
    wait_for_bytes(target / ".partial/clips.7z.part", 100_000)
    assert_succeeds(download(remote, target))
    assert left_over.wait(60) == 0
    assert_arrived(target)
    assert_nothing_twice(server)


def put_partial(target: Path, content: bytes, note: str | None) -> None:
    (target / ".partial").mkdir(parents=True)
    (target / ".partial/clips.7z.part").write_bytes(content)
    if note is not None:
        (target / ".partial/clips.7z.json").write_text(note)


@pytest.mark.parametrize("note", [None, "{}"])
def test_whole_partial_is_not_fetched_again(server: Server, remote: str, target: Path, note: str | None) -> None:
    put_partial(target, CONTENT, note)
    assert_succeeds(download(remote, target))
    assert_arrived(target)
    assert server.asked == []


@pytest.mark.parametrize(
    "note", [None, "nonsense", "[1]", '{"url": "https://example.org/clips.7z", "etag": "\\"one\\""}']
)
def test_partial_of_unknown_origin_is_not_used(server: Server, remote: str, target: Path, note: str | None) -> None:
    put_partial(target, bytes(1000), note)
    assert_succeeds(download(remote, target))
    assert_arrived(target)
    assert [asked.range for asked in server.asked] == [None]


@pytest.mark.parametrize("length", [True, False], ids=["server", "config"])
def test_too_small_a_disk_is_noticed_first(target: Path, server: Server, length: bool) -> None:
    with (server.folder / "huge").open("wb") as handle:
        handle.truncate(shutil.disk_usage(target.parent).free + (1 << 34))
    size = (server.folder / "huge").stat().st_size
    (server.folder / "small").write_bytes(b"x")
    server.length = False
    url, more = (server.folder / "huge", ()) if length else (f"{server.url}/small", ("--size", size))
    assert_fails(download(url, target, *more), target / "clips.7z", "GB are free", "make room")
    assert listing(target) == set()


@needs_mount
def test_full_disk_is_one_line_and_what_arrived_is_kept(server: Server, remote: str, target: Path) -> None:
    server.length = False
    command = [sys.executable, SCRIPTS / "download.py", *arguments(remote, target)]
    assert_fails(small_disk(target, "1m", command), target / "clips.7z", "no space left", "make room")
    after = Path(f"{target}.after")
    assert listing(after) == {".partial/clips.7z.part", ".partial/clips.7z.json"}
    assert (after / ".partial/clips.7z.part").stat().st_size > 900_000
    server.length = True
    assert_succeeds(download(remote, after))
    assert_arrived(after)
    assert server.asked[-1].first > 900_000


@needs_mount
def test_what_is_there_already_counts_as_room(server: Server, remote: str, target: Path) -> None:
    server.faults = [{"stop": 2_000_000}, *[{"stop": 0}] * 4]
    assert_fails(download(remote, target), remote)
    kept = shutil.move(target, f"{target}.kept")
    script = 'cp -r "$0/.partial" "$1"; shift; exec "$@"'
    command = ["sh", "-c", script, kept, target, sys.executable, SCRIPTS / "download.py", *arguments(remote, target)]
    assert_succeeds(small_disk(target, "3m", command))  # 2.4 MB in all; the disk has room for 1 MB more
    assert_arrived(Path(f"{target}.after"))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for localhost, and its key."""
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    path = tmp_path_factory.mktemp("certificate") / "both.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost"
    command += f" -addext subjectAltName=DNS:localhost -keyout {path} -out {path}.crt"
    subprocess.run(command.split(), check=True, capture_output=True)
    with path.open("a") as handle:
        handle.write(Path(f"{path}.crt").read_text())
    return path


def test_untrusted_certificate_is_one_line(tmp_path: Path, target: Path, certificate: Path) -> None:
    (tmp_path / "clips.7z").write_bytes(CONTENT)
    with serving(tmp_path, certificate) as server:
        url = f"{server.url}/clips.7z"
        assert_fails(download(url, target), url, "self-signed", "REQUESTS_CA_BUNDLE")
        assert server.asked == [] and listing(target) == set()
        assert_succeeds(download(url, target, env={"REQUESTS_CA_BUNDLE": f"{certificate}.crt"}))
        assert_arrived(target)
        assert_fails(download(url, tmp_path / "t", env={"REQUESTS_CA_BUNDLE": "/nothing.crt"}), "REQUESTS_CA_BUNDLE")


@pytest.mark.parametrize(
    ("kind", "place"),
    [("path", NAME), ("file URL", f"records/1/files/{NAME}"), ("http", NAME), ("http", f"records/1/files/{NAME}")],
)
def test_mirror_has_it_at_its_path_or_by_its_name(
    server: Server, tmp_path: Path, target: Path, kind: str, place: str
) -> None:
    folder = server.folder / "the mirror"
    (folder / place).parent.mkdir(parents=True)
    (folder / place).write_bytes(CONTENT)
    mirror = {"path": folder, "file URL": folder.as_uri(), "http": f"{server.url}/the%20mirror/"}[kind]
    url = "https://nowhere.invalid/records/1/files/clips,%20one%20%26%20two.7z?download=1"
    assert_succeeds(download(url, target, "--mirror", mirror))
    assert_arrived(target)


def test_mirror_without_the_file_names_both_places(server: Server, tmp_path: Path, target: Path) -> None:
    url = "https://nowhere.invalid/records/1/clips.7z?download=1"
    result = download(url, target, "--mirror", f"{server.url}/copy")
    assert_fails(result, f"{server.url}/copy/records/1/clips.7z", f"{server.url}/copy/clips.7z", "404", "`mirror`")
    result = download(url, target, "--mirror", tmp_path / "copy")
    assert_fails(result, tmp_path / "copy/records/1/clips.7z", tmp_path / "copy/clips.7z", "`mirror`")
    assert listing(target) == set()


def test_checksum_holds_for_a_mirror_too(server: Server, target: Path) -> None:
    (server.folder / "clips.7z").write_bytes(CONTENT[1:])
    place = f"{server.url}/clips.7z"
    assert_fails(download("http://nowhere.invalid/a/clips.7z", target, "--mirror", server.url), place, MD5)
    assert listing(target) == set()


def test_local_file_is_not_mirrored(source: Path, target: Path, tmp_path: Path) -> None:
    assert_succeeds(download(source, target, "--mirror", tmp_path / "empty"))
    assert_arrived(target)


def test_log_has_rate_and_time_left(server: Server, remote: str, target: Path, tmp_path: Path) -> None:
    server.pause = 0.004
    code = "import sao.base.command, download; sao.base.command.PLAIN_EVERY = 0.1; sao.base.command.run(download.main)"
    parts = [sys.executable, "-c", code, *map(str, arguments(remote, target, "--log", tmp_path / "log"))]
    subprocess.run(parts, cwd=SCRIPTS, check=True, capture_output=True, env=os.environ | {"PYTHONPATH": str(SCRIPTS)})
    assert re.search(
        r"clips\.7z: [\d.]+[kM]B of 2\.40MB, [\d.]+[kM]B/s, \d\d:\d\d left", (tmp_path / "log").read_text()
    )


@pytest.fixture(scope="module")
def fetched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Server]:
    """A copy of the checkout after the target `downloads`, with tables from a server and archives from a folder."""
    checkout = copy_checkout(tmp_path_factory.mktemp("downloads") / "checkout")
    with serving(checkout / "resources/demo") as server:
        server.delay = 0.5
        config = yaml.safe_load((checkout / "config.yaml").read_text())
        config["corpora"]["demo"]["mirror"] = server.url
        for split in config["corpora"]["demo"]["splits"].values():
            for file in [*split["captions"], *split["metadata"]]:
                file["url"] = file["url"].replace("resources/demo", "https://nowhere.invalid")
        (checkout / "config.yaml").write_text(yaml.safe_dump(config))
        done = snakemake(checkout, "--cores", "6", "downloads")
    assert done.returncode == 0, done.stderr
    return checkout, server


@pytest.fixture
def checkout(fetched: tuple[Path, Server]) -> Path:
    return fetched[0]


def snakemake(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_snakemake(*arguments, cwd=checkout, timeout=120)


@pytest.mark.slow
def test_target_downloads_fetches_files_and_models_and_makes_nothing(checkout: Path) -> None:
    assert {path.name for path in (checkout / "results").iterdir()} == {"data", "models", "logs", "benchmarks"}
    assert [path.name for path in (checkout / "results/data/demo").iterdir()] == ["archives"]
    published = {path.name for path in (checkout / "resources/demo/corpus").iterdir()}
    assert {path.name for path in (checkout / "results/data/demo/archives").iterdir() if path.is_file()} == published
    assert (checkout / "results/models/demo/checksums.sha256").is_file()


@pytest.mark.slow
def test_interrupted_job_is_resumed_by_the_next_run(server: Server, remote: str, tmp_path: Path) -> None:
    """Snakemake deletes only the outputs of an interrupted job."""
    checkout = copy_checkout(tmp_path / "checkout")
    config = yaml.safe_load((checkout / "config.yaml").read_text())
    config["corpora"]["demo"]["splits"]["development"]["archives"] = [{"url": remote, "md5": MD5}]
    (checkout / "config.yaml").write_text(yaml.safe_dump(config))
    file = "results/data/demo/archives/clips.7z"
    server.faults = [{"stop": 1_500_000, "hang": True}]
    process = subprocess.Popen(
        ["snakemake", "--cores", "1", file], cwd=checkout, stderr=subprocess.DEVNULL, start_new_session=True
    )
    wait_for_bytes(checkout / "results/data/demo/archives/.partial/clips.7z.part", 1_500_000 - LOST)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(60) != 0
    done = snakemake(checkout, "--cores", "1", file)
    assert done.returncode == 0, done.stderr
    assert (checkout / file).read_bytes() == CONTENT
    assert_nothing_twice(server)


def planned(checkout: Path, edit: Callable[[dict], object]) -> str:
    """The output of a dry run of `downloads` with an edited demo corpus."""
    path = checkout / "config.yaml"
    text = path.read_text()
    config = yaml.safe_load(text)
    edit(config["corpora"]["demo"])
    path.write_text(yaml.safe_dump(config))
    done = snakemake(checkout, "-n", "downloads")
    path.write_text(text)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def captions(corpus: dict) -> dict:
    return corpus["splits"]["development"]["captions"][0]


def test_another_place_of_the_same_file_reruns_nothing(checkout: Path) -> None:
    def edit(corpus: dict) -> None:
        corpus["mirror"] = "/another/mirror"
        for split, prefix in (("development", "http://elsewhere.invalid/x"), ("validation", "moved")):
            for file in corpus["splits"][split]["captions"]:
                file["url"] = f"{prefix}/{Path(file['url']).name}"

    assert "Nothing to be done" in planned(checkout, edit)


def test_another_checksum_reruns_the_download(checkout: Path) -> None:
    said = planned(checkout, lambda corpus: captions(corpus).update(md5="0" * 32))
    assert re.search(r"^download +1$", said, re.M) and re.search(r"^total +2$", said, re.M), said


def test_two_at_a_time_come_from_elsewhere(fetched: tuple[Path, Server]) -> None:
    assert len(fetched[1].asked) == 6
    assert fetched[1].busiest == 2


@pytest.mark.parametrize(
    ("url", "mirror", "remote"),
    [
        ("https://example.org/a.csv", None, True),
        ("HTTP://example.org/a.csv", "https://mirror.example", True),
        ("https://example.org/a.csv", "/mirror", False),
        ("https://example.org/a.csv", "file:///mirror", False),
        ("a.csv", None, False),
        ("file:///a.csv", "https://mirror.example", False),
    ],
)
def test_only_files_from_elsewhere_count(url: str, mirror: str | None, remote: bool) -> None:
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    config["corpora"]["demo"]["mirror"] = mirror
    captions(config["corpora"]["demo"])["url"] = url
    assert Plan(resolve(config, [])).data.remote("demo", "a.csv") == remote
