"""Fetch files of pinned commits on the Hugging Face Hub. Interrupted transfers resume; sizes and hashes are checked.

`describe` asks the Hub for size and hash of a file, `fetch` transfers described files into a folder.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO, TypeVar, cast

from sao.base.command import InputError, log, progress

from huggingface_hub import HfApi, constants, get_hf_file_metadata, get_token, hf_hub_url
from huggingface_hub.errors import (
    EntryNotFoundError,
    FileMetadataError,
    GatedRepoError,
    HfHubHTTPError,
    HTTPError,  # of the HTTP library in use, which differs between huggingface_hub 1 and 2
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import HfFileMetadata, http_get
from huggingface_hub.utils import SafetensorsParsingError, build_hf_headers, disable_progress_bars
from huggingface_hub.utils.logging import set_verbosity_error

from sao.base.files import CHUNK, sha256

PASSING = (408, 429, 500, 502, 503, 504)  # temporary errors of a server
PAUSES = (1, 2, 4)  # s before such a request is sent again
LONGEST_PAUSE = 60  # s, even if the server asks for more
ANSWER_TIMEOUT = 5  # s, unless HF_HUB_ETAG_TIMEOUT is set
Result = TypeVar("Result")
MODEL, DATASET = "model", "dataset"  # kinds of repositories

disable_progress_bars()
set_verbosity_error()  # type: ignore[no-untyped-call]  # its warnings quote signed addresses
constants.DOWNLOAD_CHUNK_SIZE = 1 << 16  # bytes; an interrupted transfer loses its last chunk


class NoSuchFile(InputError):
    """The repository has no file of this name at this commit."""


@dataclass(frozen=True)
class HubFile:
    """A file as the Hub describes it. `size` is None if the Hub does not give it."""

    repo: str
    revision: str
    name: str
    size: int | None
    etag: str
    kind: str = MODEL

    def path(self, folder: Path) -> Path:
        """Its place below the folder that files are fetched into."""
        return folder / f"{self.kind}s--{self.repo.replace('/', '--')}" / self.revision / self.name


def commit_of(repo: str, revision: str, name: str) -> str:
    """Ask the Hub for the commit that a branch stands at, by a file of it. Raises InputError if there is none."""
    commit = _metadata(repo, revision, name).commit_hash
    if not commit:
        raise InputError(f"{repo}: {name}: the server does not say its commit: set `revision` to one")
    return commit


def describe(repo: str, revision: str, name: str) -> HubFile:
    """Ask the Hub for size and hash of a file. Raises InputError if it cannot be fetched."""
    metadata = _metadata(repo, revision, name)
    if not metadata.etag:
        raise InputError(f"{repo}: {name}: the server gives no hash for it: is HF_ENDPOINT a Hub?")
    return HubFile(repo, revision, name, metadata.size, metadata.etag)


def _metadata(repo: str, revision: str, name: str) -> HfFileMetadata:
    url = hf_hub_url(repo, name, revision=revision)
    timeout = constants.HF_HUB_ETAG_TIMEOUT if "HF_HUB_ETAG_TIMEOUT" in os.environ else ANSWER_TIMEOUT
    return persist(
        lambda: get_hf_file_metadata(url, timeout=timeout),
        f"{repo}: {name}",
        partial(_explain, repo, revision, name),
        2,
    )


def files_of_dataset(repo: str, revision: str) -> list[HubFile]:
    """All files of a data set at a commit, by name. Raises InputError if the Hub does not give them."""
    timeout = constants.HF_HUB_ETAG_TIMEOUT if "HF_HUB_ETAG_TIMEOUT" in os.environ else ANSWER_TIMEOUT
    info = persist(
        lambda: HfApi().dataset_info(repo, revision=revision, files_metadata=True, timeout=12 * timeout),
        repo,
        partial(_explain, repo, revision, "the list of files", kind=DATASET),
        2,
    )
    files = []
    for file in info.siblings or []:
        etag = file.lfs.sha256 if file.lfs else file.blob_id
        if not etag:
            raise InputError(f"{repo}: {file.rfilename}: the server gives no hash for it: is HF_ENDPOINT a Hub?")
        files.append(HubFile(repo, revision, file.rfilename, file.size, etag, DATASET))
    return sorted(files, key=lambda file: file.name)


def remote_shapes(repo: str, revision: str, name: str) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors of a safetensors file, by key. Only its header is fetched. Raises InputError."""
    try:
        metadata = persist(
            lambda: HfApi().parse_safetensors_file_metadata(repo, name, revision=revision),
            f"{repo}: {name}",
            partial(_explain, repo, revision, name),
            2,
        )
    except SafetensorsParsingError as error:
        raise InputError(
            f"{repo}: {name} is not a safetensors file ({said(error)}): check `weights` in the config"
        ) from None
    return {key: tuple(entry.shape) for key, entry in metadata.tensors.items()}


def fetch(files: list[HubFile], folder: Path) -> None:
    """Fetch files into `folder`, continuing partial ones. A file that fails the Hub's checks is deleted."""
    label = files[0].name if len(files) == 1 else f"{len(files)} files"
    bar = progress(range(sum(-(-(file.size or 0) // CHUNK) for file in files)), f"fetching {label}", unit="MiB")
    for file in files:
        path = file.path(folder)
        path.parent.mkdir(parents=True, exist_ok=True)
        if file.size is None or (path.is_file() and path.stat().st_size > file.size):
            path.unlink(missing_ok=True)
        resumed = path.is_file()
        _transfer(file, path, bar)
        complaint = _complaint(file, path)
        if complaint and resumed:
            # The partial file may have come from another transfer, so fetch it once more from the start.
            path.unlink()
            _transfer(file, path, bar)
            complaint = _complaint(file, path)
        if complaint:
            path.unlink()
            raise InputError(
                f"{file.repo}: {file.name} {complaint}: damaged in transfer or tampered with; it was deleted, run again"
            )
    for _ in bar:
        pass


def missing_bytes(files: list[HubFile], folder: Path) -> int:
    """The number of bytes that are still to be transferred."""
    present = [file.path(folder).stat().st_size if file.path(folder).is_file() else 0 for file in files]
    return sum(max(0, (file.size or 0) - size) for file, size in zip(files, present, strict=True))


class Meter:
    """A file that advances a progress bar, in MiB, as it is written."""

    def __init__(self, handle: BinaryIO, bar: Iterator[int]) -> None:
        self.handle, self.bar = handle, bar
        self.moved = 0
        self.move(handle.tell())

    def move(self, size: int) -> None:
        while self.moved < size // CHUNK:
            next(self.bar, None)
            self.moved += 1

    def write(self, data: bytes) -> int:
        written = self.handle.write(data)
        self.move(self.handle.tell())
        return written

    def __getattr__(self, name: str) -> object:
        return getattr(self.handle, name)


def _transfer(file: HubFile, path: Path, bar: Iterator[int]) -> None:
    """Download the missing rest of a file over plain HTTP, which every Hub supports."""
    url = hf_hub_url(file.repo, file.name, revision=file.revision, repo_type=file.kind)

    def get() -> None:
        with path.open("ab") as handle:
            http_get(
                url,
                cast(BinaryIO, Meter(handle, bar)),
                resume_size=handle.tell(),
                headers={**build_hf_headers(), "Accept-Encoding": "identity"},
                expected_size=file.size,
                displayed_filename=file.name,
            )

    persist(
        get,
        f"{file.repo}: {file.name}",
        partial(_explain, file.repo, file.revision, file.name, kind=file.kind),
        tries=5,
    )


def _complaint(file: HubFile, path: Path) -> str:
    """The fault of a transferred file; empty if it matches the Hub's description."""
    size = path.stat().st_size
    if file.size is not None and size != file.size:
        return f"has {size} bytes, the Hub says {file.size}"
    expected = file.etag.lower()
    if len(expected) == 64:
        hashes = [sha256(path)]
    elif len(expected) == 40:
        # Small files are stored in git under the hash of a blob. A mirror may give the plain hash instead.
        data = path.read_bytes()
        hashes = [hashlib.sha1(header + data).hexdigest() for header in (b"blob %d\0" % len(data), b"")]
    else:
        log.warning(
            "warning: %s: %s: the server gives no SHA-256 for it: only its size is checked", file.repo, file.name
        )
        return ""
    return "" if expected in hashes else f"has the hash {hashes[0]}, the Hub says {expected}"


def persist(call: Callable[[], Result], label: str, explain: Callable[[Exception], InputError], tries: int) -> Result:
    """Call a function, and try again after temporary failures of the server or, up to `tries` calls, of the network.

    Any other failure, and the last one, is raised as the InputError that `explain` makes of it.
    """
    for number in range(max(tries, len(PAUSES) + 1)):
        try:
            return call()
        except (HTTPError, OSError, ValueError) as error:
            if not isinstance(error, HTTPError) and isinstance(error, OSError) and error.errno:
                raise  # an error of the disk
            status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
            most = len(PAUSES) + 1 if status in PASSING else tries if status is None else 1
            if isinstance(error, ValueError | OfflineModeIsEnabled) or number + 1 >= most:
                raise explain(error) from None
            header = error.response.headers.get("Retry-After", "") if isinstance(error, HfHubHTTPError) else ""
            pause = min(int(header), LONGEST_PAUSE) if header.isdecimal() else PAUSES[min(number, len(PAUSES) - 1)]
            log.info("%s: %s; again in %d s", label, said(error), pause)
            time.sleep(pause)
    raise AssertionError("unreachable")


def _explain(repo: str, revision: str, name: str, error: Exception, kind: str = MODEL) -> InputError:
    """The error for a file that cannot be fetched, with the steps to take."""
    page = f"https://huggingface.co/{'datasets/' if kind == DATASET else ''}{repo}"
    steps = (
        f"(1) accept the licence at {page}, (2) make a token at "
        "https://huggingface.co/settings/tokens, (3) log in with `hf auth login` or set HF_TOKEN"
    )
    if isinstance(error, GatedRepoError):
        return InputError(f"{repo}: access denied, the {kind} is gated: {steps}")
    if isinstance(error, RepositoryNotFoundError):
        return InputError(
            f"{repo}: access denied, or there is no such {'dataset' if kind == DATASET else 'repository'}: check the name in the config; if it is right, {steps}"
        )
    if isinstance(error, RevisionNotFoundError):
        return InputError(f"{repo}: has no commit {revision} to fetch {name} from: correct `revision` in the config")
    if isinstance(error, EntryNotFoundError):
        return NoSuchFile(f"{repo}: has no {name} at {revision}: correct the file's name or `revision` in the config")
    if isinstance(error, HfHubHTTPError):
        if error.response.status_code in (401, 403):
            return InputError(f"{repo}: access to {name} denied ({said(error)}): {steps}")
        advice = "try again later" if error.response.status_code in PASSING else "check `repo` and HF_ENDPOINT"
        return InputError(f"{repo}: {name} at {revision} cannot be fetched ({said(error)}): {advice}")
    if isinstance(error, OfflineModeIsEnabled):
        return InputError(
            f"{repo}: {name} cannot be fetched: HF_HUB_OFFLINE is set and turns the network off; unset it"
        )
    if isinstance(error, FileMetadataError | ValueError):
        return InputError(f"{repo}: {name} cannot be fetched ({said(error)}): check `repo` and HF_ENDPOINT")
    return InputError(
        f"{repo}: {name} cannot be fetched from {constants.ENDPOINT} ({said(error)}): is there a network? Run again: it "
        "continues with the partial file"
    )


def said(error: Exception) -> str:
    """The first line of an error, without secrets."""
    if isinstance(error, HfHubHTTPError):
        return without_token(f"{error.response.status_code} {error.response.reason_phrase}")
    return without_token(next(iter(str(error).strip().splitlines()), "") or type(error).__name__)


def without_token(text: str) -> str:
    token = get_token()
    return text.replace(token, "***") if token else text
