"""One file from a server or a folder: resumed after an interruption, and checked while it streams."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import random
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from sao.base.command import InputError, log, progress

import requests
from urllib3.exceptions import HTTPError

from sao.base.files import CHUNK, local_path, read_json, size_text, write_json

PIECE = 1 << 16  # bytes per read from the network; a lost connection loses no more than this
CONNECT = 30.0  # s
LONGEST_WAIT = 60.0  # s between two attempts, unless the server asks for more
LONGEST_RETRY_AFTER = 300.0  # s; the longest wait that a server may ask for
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
BAD_URL = (
    requests.exceptions.InvalidURL,
    requests.exceptions.InvalidSchema,
    requests.exceptions.MissingSchema,
    requests.exceptions.TooManyRedirects,
)


@dataclass(frozen=True)
class Wanted:
    """A file to fetch: where it is, what it has to be, and how long to try."""

    url: str  # or a path
    mirror: str | None  # a base URL or a folder, in which a URL is looked for
    algorithm: str
    checksum: str  # hex digits
    size: int | None  # bytes, if they should be checked
    timeout: float  # s without a byte
    attempts: int  # without progress
    wait: float  # s before the second attempt, doubled from there

    def check_places(self) -> None:
        """Raise InputError on a URL or mirror of another kind than those that can be read."""
        for place in (self.url, self.mirror or ""):
            try:
                supported = "://" not in place or urlsplit(place).scheme in ("http", "https", "file")
            except ValueError as error:
                raise InputError(f"{place}: {error}: correct the config") from None
            if not supported:
                raise InputError(
                    f"{place}: only https://, http://, file:// and paths are supported; correct the config"
                )


class Refused(Exception):
    """The file cannot be fetched from this place, and another attempt would not help."""


class Broken(Exception):
    """A temporary failure. Another attempt may succeed, at the earliest in `after` seconds."""

    def __init__(self, reason: str, after: float = 0.0) -> None:
        super().__init__(reason)
        self.after = after


class Partial:
    """The received part of a file: `.partial/NAME.part`, and `NAME.json`, which describes the whole file.

    The folder is not an output of the rule, because Snakemake would delete an output when the job fails.
    """

    def __init__(self, output: Path, algorithm: str) -> None:
        folder = output.parent / ".partial"
        folder.mkdir(parents=True, exist_ok=True)
        self.output, self.algorithm = output, algorithm
        self.path, self.note = folder / f"{output.name}.part", folder / f"{output.name}.json"
        self.handle = open_alone(self.path)
        self.size, self.hasher = hash_all(self.handle, algorithm)
        self.resumed_at = 0  # position at which the download resumed last, or 0
        try:
            self.origin: dict[str, Any] = dict(read_json(self.note))
        except (OSError, ValueError, TypeError):
            self.origin = {}

    def start(self, origin: dict[str, Any]) -> None:
        """Discard the received bytes and begin the file that `origin` describes."""
        self.handle.truncate(0)
        self.size, self.hasher, self.resumed_at = 0, hashlib.new(self.algorithm), 0
        self.origin = origin
        write_json(self.note, origin)

    def append(self, piece: bytes) -> None:
        rest = memoryview(piece)
        try:
            while rest:  # a disk that fills up writes only a part of it
                rest = rest[self.handle.write(rest) :]
        except OSError as error:
            if error.errno not in FULL:
                raise
            raise InputError(
                f"{self.output}: no space left on the device, or no quota, after {size_text(self.size)}: make room, "
                "then run again"
            ) from None
        self.hasher.update(piece)
        self.size += len(piece)

    def remove(self) -> None:
        self.note.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)

    def finish(self) -> None:
        """Give the complete file its name."""
        self.path.replace(self.output)
        self.note.unlink(missing_ok=True)

    def close(self) -> None:
        if self.size == 0:
            self.remove()
        self.handle.close()


def open_alone(path: Path) -> Any:
    """Open a file to read and append. If a process of a killed run still writes to it, wait for that process."""
    waiting = False
    while True:
        handle = path.open("a+b", buffering=0)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.close()
            if not waiting:
                log.info("%s: another process is fetching it: waiting", path)
            waiting = True
            time.sleep(1)
            continue
        except OSError:  # a file system without locks
            return handle
        # The file may have been renamed during the wait.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle.fileno()), path.stat()):
                return handle
        handle.close()


def hash_all(handle: Any, algorithm: str) -> tuple[int, Any]:
    """`(size, hash)` of an open file."""
    size, hasher = 0, hashlib.new(algorithm)
    handle.seek(0)
    while chunk := handle.read(CHUNK):
        size += len(chunk)
        hasher.update(chunk)
    return size, hasher


def hash_file(path: Path, algorithm: str) -> str:
    with path.open("rb") as handle:
        return hash_all(handle, algorithm)[1].hexdigest()


def places(url: str, mirror: str | None) -> list[str]:
    """The places to try, in order: the URL, or with a mirror the URL's path there and then the bare file name there."""
    if not mirror or local_path(url):
        return [url]
    path = urlsplit(url).path.strip("/")
    names = list(dict.fromkeys([path, PurePosixPath(path).name]))
    folder = local_path(mirror)
    if folder:
        return [str(folder / unquote(name)) for name in names]
    base = urlsplit(mirror)
    return [base._replace(path=f"{base.path.rstrip('/')}/{name}").geturl() for name in names]


def obtain(wanted: Wanted, part: Partial) -> None:
    """Fetch the file with this checksum into `part`."""
    if part.hasher.hexdigest() == wanted.checksum:
        log.info("%s: was already complete", part.output)
        return
    sources = places(wanted.url, wanted.mirror)
    for last in (False, True):
        source = fetch_from_one(sources, wanted, part)
        checksum, resumed = part.hasher.hexdigest(), part.resumed_at > 0
        if checksum == wanted.checksum:
            return
        part.start({})
        if last or not resumed:
            raise InputError(
                f"{source}: {wanted.algorithm.upper()} is {checksum}, the config says {wanted.checksum}: the file is damaged "
                "or another version; run again, or correct the checksum in the config"
            )
        log.info("%s: wrong checksum after resuming: fetching it again from the beginning", source)


def fetch_from_one(sources: list[str], wanted: Wanted, part: Partial) -> str:
    """Fetch from the first place that has the file, and return that place."""
    refusals = []
    for source in sources:
        path = local_path(source)
        try:
            copy(path, wanted, part) if path else fetch(source, wanted, part)
            return source
        except Refused as error:
            refusals.append(f"{path or source} ({error})")
    key = "`mirror` or the `url`" if wanted.mirror else "`url`"
    raise InputError(f"{' and '.join(refusals)}: cannot be fetched: correct the {key} in the config")


def copy(path: Path, wanted: Wanted, part: Partial) -> None:
    if not path.is_file():
        raise Refused("no such file")

    def pieces() -> Iterator[bytes]:
        with path.open("rb") as handle:
            while piece := handle.read(CHUNK):
                yield piece

    size = path.stat().st_size
    check_size(str(path), size, wanted)
    part.start({})
    try:
        write(pieces(), size, str(path), wanted, part)
    except BaseException:
        part.start({})  # a partial copy of a local file is not worth keeping
        raise


def fetch(url: str, wanted: Wanted, part: Partial) -> None:
    """Fetch a remote file. Attempts are repeated as long as they make progress."""
    failures, furthest = 0, part.size
    while True:
        before = part.size
        try:
            return receive(url, wanted, part)
        except Broken as error:
            # A new beginning that gets no further than an earlier attempt is no progress, else this could go on for ever.
            further = part.size > furthest or 0 < before == part.resumed_at < part.size
            failures = 1 if further else failures + 1
            furthest = max(furthest, part.size)
            position = f"{part.size / 1e6:.1f} MB"
            if failures >= wanted.attempts:
                raise InputError(
                    f"{url}: cannot be fetched ({error}; {failures} attempts got no further than {position}): check the "
                    "network and the `url` in the config, then run again: it will resume"
                ) from None
            backoff = min(LONGEST_WAIT, wanted.wait * 2 ** (failures - 1)) * random.uniform(0.5, 1.5)
            seconds = max(backoff, error.after)
            log.info("%s: %s at %s; trying again in %.1f s", url, error, position, seconds)
            time.sleep(seconds)


def receive(url: str, wanted: Wanted, part: Partial) -> None:
    """One attempt: fetch the missing rest, or the whole file if the server cannot resume or the file has changed."""
    headers = {"Accept-Encoding": "identity"}
    begun = part.origin if part.size and part.origin.get("url") == url else None
    if begun:
        headers["Range"] = f"bytes={part.size}-"
        etag = str(begun.get("etag") or "")
        # A weak ETag is not allowed here. `differ` compares it with the answer's.
        validator = etag if etag and not etag.startswith("W/") else begun.get("last_modified")
        headers |= {"If-Range": validator} if validator else {}
    timeout = (min(CONNECT, wanted.timeout), wanted.timeout)
    try:
        response = requests.get(url, stream=True, timeout=timeout, headers=headers)
    except BAD_URL as error:
        raise InputError(f"{url}: {error}: correct the `url` in the config") from None
    except requests.exceptions.SSLError as error:
        if "CERTIFICATE_VERIFY_FAILED" not in str(error):
            raise Broken(cause(error)) from None
        raise InputError(
            f"{url}: the server's certificate is not trusted ({cause(error)}); if it is your own site's, name its "
            "certificates in the environment variable REQUESTS_CA_BUNDLE"
        ) from None
    except requests.RequestException as error:
        raise Broken(cause(error)) from None
    except OSError as error:  # REQUESTS_CA_BUNDLE names no file
        raise InputError(f"{url}: {error}: correct the environment variable REQUESTS_CA_BUNDLE") from None
    with response:
        status, answer = response.status_code, response.headers
        if status == 416 and begun:
            part.start({})
            raise Broken("the file has changed: fetching it again from the beginning")
        if status in (408, 429) or status >= 500:
            raise Broken(f"{status} {response.reason}", retry_after(answer.get("Retry-After")))
        if status not in (200, 206):
            raise Refused(f"{status} {response.reason}")
        origin: dict[str, Any] = {"url": url, "etag": answer.get("ETag"), "last_modified": answer.get("Last-Modified")}
        length = answer.get("Content-Length", "")
        origin["size"] = int(length) if length.isdecimal() else None
        if status == 206:
            first, origin["size"] = content_range(answer.get("Content-Range", ""))
            if not begun or first != part.size or differ(begun, origin):
                part.start({})
                raise Broken("the file has changed: fetching it again from the beginning")
            part.resumed_at = part.size
            log.info("%s: resumes at %.1f MB", url, part.size / 1e6)
        check_size(url, origin["size"], wanted)
        if status == 200:
            if part.size:
                log.info("%s: begins anew: the file has changed, or the server cannot resume", url)
            part.start(origin)
        write(body(response), origin["size"], url, wanted, part)


def write(pieces: Iterable[bytes], size: int | None, source: str, wanted: Wanted, part: Partial) -> None:
    """Append the pieces to the received part. The whole file has `size` bytes."""
    size = wanted.size or size
    needed, free = (size or 0) - part.size, shutil.disk_usage(part.path.parent).free
    if needed > free:
        raise InputError(
            f"{part.output}: needs {size_text(needed)} more, {size_text(free)} are free: make room, then run again"
        )
    for piece in progress(pieces, part.output.name, total=size, unit="B", initial=part.size, size=len):
        part.append(piece)
        if size is not None and part.size > size:
            part.start({})
            raise InputError(f"{source}: has more than the expected {size} bytes: correct `size` in the config")
    if size is not None and part.size < size:
        raise Broken(f"{part.size} of {size} bytes arrived")


def body(response: requests.Response) -> Iterator[bytes]:
    """The body of an answer as the server sends it, not decompressed, because checksum and ranges refer to these bytes."""
    try:
        yield from response.raw.stream(PIECE, decode_content=False)
    except HTTPError as error:
        raise Broken(cause(error)) from None


def check_size(source: str, size: int | None, wanted: Wanted) -> None:
    if wanted.size and size is not None and size != wanted.size:
        raise InputError(
            f"{source}: has {size} bytes, {wanted.size} were expected: the file is cut short or a different one; correct "
            "`size` or `url` in the config"
        )


def content_range(header: str) -> tuple[int | None, int | None]:
    """The first byte and the size of the whole file in a Content-Range header."""
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", header.strip())
    if not match:
        return None, None
    return int(match[1]), None if match[2] == "*" else int(match[2])


def differ(begun: dict[str, Any], origin: dict[str, Any]) -> bool:
    """Whether two answers describe different files. A field that one of them lacks is not compared."""
    keys = ("etag", "last_modified", "size")
    return any(begun.get(key) and origin[key] and begun[key] != origin[key] for key in keys)


def retry_after(header: str | None) -> float:
    """The seconds that a server asks to wait. The header has seconds or a date."""
    try:
        seconds = float(header or 0)
    except ValueError:
        try:
            date = parsedate_to_datetime(header or "")
        except ValueError:
            return 0.0
        seconds = (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER)


def cause(error: BaseException) -> str:
    """The innermost cause of an error, without the exceptions that libraries wrap it in."""
    while deeper := error.__cause__ or error.__context__:
        error = deeper
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
