"""CLAP models from the Hub are checked, converted from pickles that are read as data, and loaded without a network."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from clap import REPO, REVISION, clap_files
from conftest import assert_fails, assert_succeeds, checksum, listing, run_script
from hub import Hub, serve_hub
from sao.base.names import read_digests

SNAPSHOT = f"hub/models--someone--tiny-clap/snapshots/{REVISION}"
NAMES = {"config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"}


@pytest.fixture
def hub() -> Iterator[Hub]:
    files = dict(clap_files()) | {"README.md": b"not wanted"}
    with serve_hub({(REPO, REVISION): files}) as state:
        state.lfs = (*state.lfs, ".bin")
        yield state


def take(hub: Hub, output: Path, **env: str) -> subprocess.CompletedProcess[str]:
    given = ["--repo", REPO, "--revision", REVISION, "--output", output, "--digest", output / "checksums.sha256"]
    env = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(output.parent / "home"), "HF_HUB_OFFLINE": "0"} | env
    return run_script("embedding_model", *given, env=env)


def test_pickled_model_is_fetched_and_converted(hub: Hub, tmp_path: Path) -> None:
    output = tmp_path / "model"
    assert_succeeds(take(hub, output))
    assert listing(output) == {"checksums.sha256", *(f"{SNAPSHOT}/{name}" for name in NAMES)}
    digests = read_digests(output / "checksums.sha256")
    assert digests == {f"{SNAPSHOT}/{name}": checksum(output / SNAPSHOT / name, "sha256") for name in NAMES}
    assert not hub.transfers("README.md")


def test_safetensors_are_taken_where_there_are_any(hub: Hub, tmp_path: Path) -> None:
    hub.repos[REPO, REVISION] |= {"model.safetensors": clap_files(pickled=False)["model.safetensors"]}
    assert_succeeds(take(hub, tmp_path / "model"))
    assert not hub.transfers("pytorch_model.bin")


def test_broken_transfer_is_tried_again(hub: Hub, tmp_path: Path) -> None:
    hub.mishaps["pytorch_model.bin"] = ["cut"]
    assert_succeeds(take(hub, tmp_path / "model"))
    assert len(hub.transfers("pytorch_model.bin")) == 2


def test_damaged_weights_are_refused(hub: Hub, tmp_path: Path) -> None:
    hub.mishaps["pytorch_model.bin"] = ["damage"] * 9
    assert_fails(take(hub, tmp_path / "model"), REPO, "pytorch_model.bin", "damaged")
    assert not (tmp_path / "model/checksums.sha256").exists()


def test_another_kind_of_model_is_refused_before_its_weights(hub: Hub, tmp_path: Path) -> None:
    hub.repos[REPO, REVISION]["config.json"] = json.dumps({"model_type": "bert"}).encode()
    assert_fails(take(hub, tmp_path / "model"), REPO, "'bert'", "not 'clap'")
    assert not hub.transfers("pytorch_model.bin")


def test_token_is_asked_for_and_stays_secret(hub: Hub, tmp_path: Path) -> None:
    hub.token = "hf_secretOfTheTests"
    refused = take(hub, tmp_path / "model", HF_TOKEN="hf_another")
    assert_fails(refused, REPO, "HF_TOKEN")
    done = take(hub, tmp_path / "model", HF_TOKEN=hub.token)
    assert_succeeds(done)
    assert hub.token not in done.stderr + (tmp_path / "model/checksums.sha256").read_text()
