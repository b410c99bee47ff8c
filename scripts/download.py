"""Fetch one file of a corpus, checked against its checksum while it streams."""

from __future__ import annotations

import argparse
import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import requests
from requests.adapters import HTTPAdapter
from sao.command import InputError, log, parse, progress, run
from sao.files import CHUNK, whole
from urllib3.util import Retry

TIMEOUT = (30, 120)  # s to connect, s between two packets


def local_path(url: str) -> Path | None:
    """The path behind a `file://` URL or a plain path; None for a remote one."""
    parts = urlsplit(url)
    if parts.scheme in ("http", "https"):
        return None
    return Path(unquote(parts.path)) if parts.scheme == "file" else Path(url)


def read_local(path: Path) -> tuple[int, Iterator[bytes]]:
    """`(size in bytes, chunks)` of a local file."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; correct its `url` in the config")

    def chunks() -> Iterator[bytes]:
        with path.open("rb") as handle:
            while chunk := handle.read(CHUNK):
                yield chunk

    return path.stat().st_size, chunks()


def read_remote(url: str) -> tuple[int | None, Iterator[bytes]]:
    """`(size in bytes if the server tells, chunks)` of a remote file; refused connections are tried again."""
    session = requests.Session()
    retry = Retry(
        total=5, backoff_factor=1, status_forcelist=[429, 500, 502, 503, 504], respect_retry_after_header=True
    )
    session.mount("https://", HTTPAdapter(max_retries=retry))
    session.mount("http://", HTTPAdapter(max_retries=retry))
    try:
        response = session.get(url, stream=True, timeout=TIMEOUT, headers={"Accept-Encoding": "identity"})
        response.raise_for_status()
    except requests.RequestException as error:
        raise InputError(f"{url}: cannot be fetched ({error}): check the network and the `url` in the config") from None

    def chunks() -> Iterator[bytes]:
        try:
            yield from response.iter_content(CHUNK)
        except requests.RequestException as error:
            raise InputError(f"{url}: the connection broke ({error}): run the same command again") from None

    size = response.headers.get("Content-Length")
    return (int(size) if size else None), chunks()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True, help="http(s)://, file:// or a path")
    parser.add_argument("--algorithm", required=True, choices=["md5", "sha256"])
    parser.add_argument("--checksum", required=True, help="hex digits")
    parser.add_argument("--size", type=int, help="bytes, checked when given")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--digest", type=Path, required=True, help="checksum file written beside the output")
    args = parse(parser)

    source = local_path(args.url)
    size, chunks = read_local(source) if source else read_remote(args.url)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(args.output.parent).free
    if size and size > free:
        raise InputError(f"{args.output}: needs {size / 1e9:.2f} GB, {free / 1e9:.2f} GB are free: make room first")

    hasher, received = hashlib.new(args.algorithm), 0
    with whole(args.output) as temporary, temporary.open("wb") as handle:
        total = None if size is None else -(-size // CHUNK)
        for chunk in progress(chunks, args.output.name, total=total, unit="MiB"):
            hasher.update(chunk)
            handle.write(chunk)
            received += len(chunk)
        wanted_size = args.size or size
        if wanted_size is not None and received != wanted_size:
            raise InputError(
                f"{args.url}: {received} bytes arrived, {wanted_size} were expected: the file is cut short or another; "
                "run again, or correct `size` in the config"
            )
        if hasher.hexdigest() != args.checksum:
            raise InputError(
                f"{args.url}: {args.algorithm.upper()} is {hasher.hexdigest()}, the config says {args.checksum}: the "
                "file is damaged or another version; fetch it anew, or correct the checksum in the config"
            )
    with whole(args.digest) as temporary:
        temporary.write_text(f"{args.checksum}  {args.output.name}\n", encoding="utf-8")
    log.info("%s: %d bytes, %s %s", args.output, received, args.algorithm, args.checksum)


if __name__ == "__main__":
    run(main)
