"""The contents of files of embeddings, for recordings and renders. A CLAP model works without a network."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import networks
import numpy as np
import pandas as pd
import pytest
from clap import REPO, REVISION, clap_files
from conftest import RATE, assert_fails, assert_succeeds, checksum, noise, run_script, write_wav
from hub import serve_hub
from sao.evaluation.embedded import Embedded

OFFLINE = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "1"}
CLAP = {"repo": REPO, "revision": REVISION}


def make_renders(folder: Path, clips: list[str], **columns: object) -> Path:
    """Write a table of renders, and their WAVs beside it."""
    for clip in clips:
        write_wav(folder.with_suffix("") / f"{clip}.wav", noise(clip, 0.6), RATE)
    table = {"clip_id": clips, "split": "evaluation", "prompt": [f"rain on {c}" for c in clips]}
    table |= {"reference": "", "source": ""}
    table["file"] = [f"{clip}.wav" for clip in clips]
    path = folder.with_suffix(".csv")
    pd.DataFrame(table | columns).to_csv(path, index=False)
    return path


def embed(table: Path, output: Path, embedding: object = "log-mel", *more: object) -> subprocess.CompletedProcess[str]:
    given = ["--embedding", json.dumps(embedding), "--table", table, "--renders", table.with_suffix("")]
    return run_script("embed", *given, "--output", output, *more, env=OFFLINE)


@pytest.fixture(scope="module")
def clap(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Hub's cache of the tiny CLAP, made by embedding_model.py."""
    folder = tmp_path_factory.mktemp("clap")
    with serve_hub({(REPO, REVISION): clap_files()}) as hub:
        hub.lfs = (*hub.lfs, ".bin")
        given = ["--repo", REPO, "--revision", REVISION, "--output", folder, "--digest", folder / "checksums.sha256"]
        assert_succeeds(run_script("embedding_model", *given, env={"HF_ENDPOINT": hub.endpoint, "HF_HUB_OFFLINE": "0"}))
    return folder / "hub"


@pytest.mark.parametrize(("embedding", "dim"), [("log-mel", 192), ("aisfx", 512), ("spectrogram", None)])
def test_renders_are_embedded_the_same_each_time(tmp_path: Path, embedding: str, dim: int | None) -> None:
    table = make_renders(tmp_path / "mine", ["x", "y"])
    assert_succeeds(embed(table, tmp_path / "a.npz", embedding))
    found = Embedded.read(tmp_path / "a.npz")
    assert found.ids == ["x", "y"] and found.splits == ["evaluation"] * 2 and found.text is None
    assert found.vectors.shape[0] == 2 and found.vectors.dtype == (np.float32 if dim else np.uint8)
    assert dim is None or found.vectors.shape[1] == dim
    assert not np.array_equal(*found.vectors)
    assert found.provenance["name"] == embedding
    assert found.provenance["tables"] == {table.as_posix(): checksum(table, "sha256")}
    assert_succeeds(embed(table, tmp_path / "b.npz", embedding))
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_windows_of_splits_that_are_rendered_are_kept(tmp_path: Path) -> None:
    file = networks.write(tmp_path / "vggish.pth", "vggish")
    given = ["--name", "vggish", "--settings", '{"sha256": null}', "--file", file, "--digest", tmp_path / "sums.sha256"]
    assert_succeeds(run_script("weights", *given, "--output", tmp_path / "model.safetensors"))
    table = make_renders(tmp_path / "mine", ["x", "y"], split=["train", "evaluation"])
    write_wav(tmp_path / "mine/y.wav", noise("y", 2.2), RATE)
    settings = json.dumps({"embedding": "vggish", "windows": ["evaluation"]})
    given = ["--settings", settings, "--model", tmp_path / "model.safetensors", "--table", table]
    given += ["--renders", table.with_suffix(""), "--output", tmp_path / "a.npz"]
    assert_succeeds(run_script("embed", *given))
    found = Embedded.read(tmp_path / "a.npz")
    assert found.vectors.shape == (2, 6) and found.windows is not None
    assert [len(windows) for windows in found.windows] == [0, 2]
    assert np.allclose(found.windows[1].mean(axis=0), found.vectors[1], atol=1e-5)
    assert found.provenance["weights"] == checksum(tmp_path / "model.safetensors", "sha256")


def test_recordings_of_a_corpus_are_one_set(splits: Path, tmp_path: Path) -> None:
    tables = [splits / f"{role}.csv" for role in ("train", "validation", "evaluation")]
    given = ["--embedding", '"log-mel"', "--table", *tables, "--output", tmp_path / "corpus.npz"]
    assert_succeeds(run_script("embed", *given))
    found = Embedded.read(tmp_path / "corpus.npz")
    for table in tables:
        split = found.of_splits(table.stem)
        assert split.ids == pd.read_csv(table).clip_id.tolist() and len(split.vectors) == len(split.ids)


def test_sounds_are_found_by_the_column_that_names_them(tmp_path: Path) -> None:
    table = make_renders(tmp_path / "mine", ["x", "y"], file=["0001/x.flac", "0001/y.flac"])
    (tmp_path / "mine/0001").mkdir()
    for clip in "xy":
        (tmp_path / f"mine/{clip}.wav").rename(tmp_path / f"mine/0001/{clip}.flac")
    assert_succeeds(embed(table, tmp_path / "a.npz"))
    (tmp_path / "mine/0001/y.flac").unlink()
    assert_fails(embed(table, tmp_path / "a.npz"), "0001/y.flac", "missing")


def test_broken_sound_is_named(tmp_path: Path) -> None:
    table = make_renders(tmp_path / "mine", ["x"])
    (tmp_path / "mine/x.wav").write_bytes(b"RIFF")
    assert_fails(embed(table, tmp_path / "a.npz"), tmp_path / "mine/x.wav", "cannot be read")
    assert not (tmp_path / "a.npz").exists()


@pytest.mark.slow
def test_clap_embeds_sounds_and_captions_offline(clap: Path, tmp_path: Path) -> None:
    table = make_renders(tmp_path / "mine", ["x", "y", "long"])
    write_wav(tmp_path / "mine/long.wav", noise("long", 2.2), RATE)  # the window of the model is 1 s
    assert_succeeds(embed(table, tmp_path / "a.npz", CLAP, "--model", clap))
    found = Embedded.read(tmp_path / "a.npz")
    assert found.vectors.shape == found.text.shape == (3, 8)
    for vectors in (found.vectors, found.text):
        assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert not np.allclose(found.text[0], found.text[1])
    assert {key: found.provenance[key] for key in ("name", "revision", "rate")} == {
        "name": REPO, "revision": REVISION, "rate": 48000,
    }  # fmt: skip
    assert_succeeds(embed(table, tmp_path / "b.npz", CLAP, "--model", clap))
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_clap_whose_weights_do_not_fit_is_refused(clap: Path, tmp_path: Path) -> None:
    """transformers would draw the missing weights at random, with no more than a warning."""
    import shutil

    from safetensors.torch import load_file, save_file

    broken = shutil.copytree(clap, tmp_path / "hub")
    weights = next(broken.rglob("model.safetensors"))
    tensors = load_file(weights)
    del tensors["audio_projection.linear1.weight"]
    save_file(tensors, weights)
    table = make_renders(tmp_path / "mine", ["x"])
    assert_fails(embed(table, tmp_path / "a.npz", CLAP, "--model", broken), "audio_projection.linear1.weight")
