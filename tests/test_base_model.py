from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import BASE_MODEL, assert_fails, assert_succeeds, checksum, listing, run_script
from sao.clips import read_digests
from sao.model_config import snapshot_folder

CONFIG = json.loads((BASE_MODEL / "model_config.json").read_text(encoding="utf-8"))
ENCODER = "someone/tiny-t5"
TEXT_ENCODER_FILES = {"config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"}
REVISION, ENCODER_REVISION = "a" * 40, "b" * 40


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A local base model with a real config and made-up weights."""
    folder = tmp_path / "a model"
    (folder / "text_encoder").mkdir(parents=True)
    config = json.loads(json.dumps(CONFIG))
    config["model"]["conditioning"]["configs"][0]["config"]["t5_model_name"] = ENCODER
    (folder / "model_config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(b"weights")
    for name in TEXT_ENCODER_FILES:
        (folder / "text_encoder" / name).write_bytes(f"{name} of the text encoder".encode())
    return folder


def take(source: Path, output: Path) -> subprocess.CompletedProcess[str]:
    return run_script("base_model", "--path", source, "--output", output, "--digest", output / "checksums.sha256")


def assert_whole(output: Path, source: Path) -> None:
    """Model, text encoder where the Hub client finds it without a network, and a digest of them all."""
    snapshot = snapshot_folder(output / "hub", ENCODER)
    for name in ("model_config.json", "model.safetensors"):
        assert (output / name).read_bytes() == (source / name).read_bytes()
    assert {path.name for path in snapshot.iterdir()} == TEXT_ENCODER_FILES
    for name in TEXT_ENCODER_FILES:
        assert (snapshot / name).read_bytes() == (source / "text_encoder" / name).read_bytes()
    digests = read_digests(output / "checksums.sha256")
    wanted = {output / "model_config.json", output / "model.safetensors", *snapshot.iterdir()}
    assert digests == {path.relative_to(output).as_posix(): checksum(path, "sha256") for path in wanted}
    code = f"from huggingface_hub import hf_hub_download as get; print(get({ENCODER!r}, 'config.json'))"
    env = os.environ | {"HF_HUB_CACHE": str(output / "hub"), "HF_HUB_OFFLINE": "1"}
    found = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert Path(found.stdout.strip()) == snapshot / "config.json"


def test_local_model_is_brought_into_place(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "models" / "mine"
    assert_succeeds(take(source, output))
    assert_whole(output, source)


def test_changed_model_replaces_the_old_one(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "mine"
    assert_succeeds(take(source, output))
    before = read_digests(output / "checksums.sha256")
    assert_succeeds(take(source, output))
    assert read_digests(output / "checksums.sha256") == before
    for name in ("model.safetensors", "text_encoder/tokenizer.json"):
        (source / name).unlink()  # what is in place may be a hard link of it
        (source / name).write_bytes(b"changed")
    assert_succeeds(take(source, output))
    assert_whole(output, source)
    assert len(list((output / "hub").glob("*/snapshots/*"))) == 1


@pytest.mark.parametrize(
    "name", ["model_config.json", "model.safetensors", *(f"text_encoder/{n}" for n in sorted(TEXT_ENCODER_FILES))]
)
def test_missing_file_is_named(source: Path, tmp_path: Path, name: str) -> None:
    (source / name).unlink()
    assert_fails(take(source, tmp_path / "out"), source / name, "missing")
    assert listing(tmp_path / "out") == set()


def test_missing_folder_is_named(tmp_path: Path) -> None:
    assert_fails(take(tmp_path / "none", tmp_path / "out"), tmp_path / "none", "missing")
    assert listing(tmp_path / "out") == set()


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ('{"model_type": ', ["not valid JSON"]),
        ("<!DOCTYPE html>", ["not valid JSON"]),
        (json.dumps(CONFIG | {"model_type": "autoencoder"}), ["'autoencoder'", "diffusion_cond"]),
        (json.dumps(CONFIG | {"model": {"conditioning": {"configs": []}}}), ["pretransform"]),
        (json.dumps(CONFIG | {"model": {"pretransform": {}, "conditioning": {"configs": []}}}), ["t5"]),
    ],
)
def test_model_that_cannot_be_fine_tuned_is_refused(
    source: Path, tmp_path: Path, config: str, words: list[str]
) -> None:
    (source / "model_config.json").write_text(config)
    assert_fails(take(source, tmp_path / "out"), "model_config.json", *words)
    assert listing(tmp_path / "out") == set()


class Hub(http.server.BaseHTTPRequestHandler):
    """The part of the Hub's protocol that a download of single files uses; `refuse` is the answer to the model."""

    root: Path
    refuse: tuple[int, str] | None

    def do_HEAD(self) -> None:
        self.answer(b"")

    def do_GET(self) -> None:
        self.answer(None)

    def answer(self, body: bytes | None) -> None:
        repo, _, rest = self.path.lstrip("/").partition("/resolve/")
        revision, _, name = rest.partition("/")
        if not name:
            return self.send_error(404)
        if self.refuse and repo == "someone/model":
            self.send_response(self.refuse[0])
            self.send_header("X-Error-Code", self.refuse[1])
            self.send_header("Content-Length", "0")
            return self.end_headers()
        path = self.root / name if repo == "someone/model" else self.root / "text_encoder" / name
        data = path.read_bytes()
        self.send_response(200)
        self.send_header("ETag", f'"{checksum(path, "sha1")}"')
        self.send_header("X-Repo-Commit", revision)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data if body is None else body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(source: Path) -> Iterator[tuple[str, type[Hub]]]:
    """`(URL, handler class)` of a Hub on the loopback interface that has the local model and its text encoder."""
    handler = type("Handler", (Hub,), {"root": source, "refuse": None})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", handler
    server.shutdown()
    server.server_close()


def fetch(url: str, output: Path, encoder: str = ENCODER, **environment: str) -> subprocess.CompletedProcess[str]:
    pinned = ["--repo", "someone/model", "--revision", REVISION]
    pinned += ["--text-encoder-repo", encoder, "--text-encoder-revision", ENCODER_REVISION]
    env = {"HF_ENDPOINT": url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(output.parent / "home"), "HF_TOKEN": ""}
    env |= environment
    digest = output / "checksums.sha256"
    return run_script("base_model", *pinned, "--output", output, "--digest", digest, env=env)


def test_pinned_revisions_are_fetched(source: Path, tmp_path: Path, hub: tuple[str, type[Hub]]) -> None:
    output = tmp_path / "out"
    assert_succeeds(fetch(hub[0], output))
    assert snapshot_folder(output / "hub", ENCODER).name == ENCODER_REVISION
    assert (output / "model.safetensors").read_bytes() == b"weights"
    digests = read_digests(output / "checksums.sha256")
    assert all(checksum(output / name, "sha256") == digest for name, digest in digests.items())
    assert {Path(name).name for name in digests} == TEXT_ENCODER_FILES | {"model_config.json"}


@pytest.mark.parametrize("refusal", [(403, "GatedRepo"), (401, "RepoNotFound"), (401, ""), (403, "")])
def test_gated_model_tells_the_three_steps(
    tmp_path: Path, hub: tuple[str, type[Hub]], refusal: tuple[int, str]
) -> None:
    url, handler = hub
    handler.refuse = refusal
    output = tmp_path / "out"
    line = assert_fails(fetch(url, output), "someone/model", "(1) accept the licence", "(2)", "(3)", "HF_TOKEN")
    assert ("access denied" in line) == bool(refusal[1])
    assert not (output / "checksums.sha256").exists() and not (output / "model.safetensors").exists()


@pytest.mark.parametrize("refusal", ["RevisionNotFound", "EntryNotFound"])
def test_unknown_revision_or_file_is_named(tmp_path: Path, hub: tuple[str, type[Hub]], refusal: str) -> None:
    url, handler = hub
    handler.refuse = (404, refusal)
    assert_fails(fetch(url, tmp_path / "out"), "someone/model", "model_config.json", REVISION, "`revision`")
    assert not (tmp_path / "out/checksums.sha256").exists()


def test_hub_out_of_reach_is_told(tmp_path: Path, hub: tuple[str, type[Hub]]) -> None:
    result = fetch(hub[0], tmp_path / "out", HF_HUB_OFFLINE="1")
    assert_fails(result, "someone/model", "model_config.json", "network")
    assert not (tmp_path / "out/checksums.sha256").exists()


def test_text_encoder_that_the_model_does_not_name_is_refused(tmp_path: Path, hub: tuple[str, type[Hub]]) -> None:
    line = assert_fails(fetch(hub[0], tmp_path / "out", encoder="someone/other-t5"), "someone/model", ENCODER)
    assert "'someone/other-t5'" in line
    assert not (tmp_path / "out/checksums.sha256").exists()
