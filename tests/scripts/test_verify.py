"""Every file under results/ that has a digest is compared with it, and so are a user's own sounds."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import (
    ROOT,
    assert_fails,
    assert_succeeds,
    change,
    checksum,
    link_checkout,
    noise,
    run_script,
    run_snakemake,
    write_csv,
    write_wav,
)
from sao.base.names import write_digests
from sao.models.encoding import summarise


def verify(results: Path):
    return run_script("verify", "--results", results, "--threads", 2)


@pytest.fixture(scope="module")
def made(
    tmp_path_factory: pytest.TempPathFactory, base_model: Path, extracted: Path, published: dict, finished_leg: Path
) -> Path:
    """`results/` with an artefact of each kind, and `own/`, a folder of sounds. Tests must not change them."""
    top = tmp_path_factory.mktemp("verify")
    results = top / "results"
    archives = results / "data/mine/archives"
    archives.mkdir(parents=True)
    for archive, algorithm in ((published["development"].archive, "md5"), (published["validation"].archive, "sha256")):
        shutil.copy(archive, archives)
        listing = archives / f"checksums/{archive.name}.txt"
        listing.parent.mkdir(exist_ok=True)
        listing.write_text(f"{checksum(archive, algorithm)}  {archive.name}\n")
    shutil.copytree(extracted, results / "data/mine/audio")
    for name in ("a.wav", "sub/b.wav"):
        write_wav(top / "own" / name, noise(name))
    write_csv(top / "own/metadata.csv", [{"file_name": name, "text": name} for name in ("a.wav", "sub/b.wav")])
    data = results / "data/own"
    facts = data / "audio/all.csv"
    given = ["--captions", data / "captions/all.csv", "--facts", facts, "--digests", data / "audio/all.sha256"]
    given += ["--listing", data / "folder/all.txt", "--key", "0" * 64]
    assert_succeeds(run_script("scan", "--folder", top / "own", *given))
    given = ["--captions", data / "captions/all.csv", "--facts", facts, "--output", data / "manifests/all.csv"]
    assert_succeeds(run_script("manifest", "--split", "all", "--audio", top / "own", *given))
    datasets = data / "dataset_configs/demo"
    datasets.mkdir(parents=True)
    (datasets / "train.json").write_text("{}")
    write_digests(data / "dataset_configs/demo.sha256", datasets, [datasets / "train.json"])
    shutil.copytree(base_model, results / "models/demo")
    shutil.copytree(finished_leg, results / "checkpoints/run/step-00000002")
    exported = results / "checkpoints/run"
    shutil.copy(base_model / "model.safetensors", exported)
    (exported / "export.json").write_text(json.dumps({"sha256": checksum(exported / "model.safetensors", "sha256")}))
    converted = results / "exports/run/diffusers-float16"
    (converted / "vae").mkdir(parents=True)
    (converted / "vae/config.json").write_text("{}")
    record = {"files": {"vae/config.json": {"sha256": checksum(converted / "vae/config.json", "sha256")}}}
    converted.with_suffix(".json").write_text(json.dumps(record))
    latents = results / "latents/demo/own/all/0001-of-0001"
    latents.mkdir(parents=True)
    write_latents(latents)
    captions = results / "encoded_captions/demo/own.safetensors"
    captions.parent.mkdir(parents=True)
    captions.write_bytes(b"captions")
    captions.with_suffix(".json").write_text(json.dumps({"sha256": checksum(captions, "sha256")}))
    heard = write_wav(results / "listen/run@step-00000002/a.wav", noise("heard"))
    sounds = [{"file": "run@step-00000002/a.wav", "sha256": checksum(heard, "sha256")}]
    (results / "listen/run@step-00000002.json").write_text(json.dumps({"sounds": sounds}))
    return top


def write_latents(folder: Path) -> None:
    import numpy as np

    np.save(folder / "a.npy", np.ones((2, 3)))
    (folder / "a.std").write_bytes((folder / "a.npy").read_bytes())
    (folder / "a.json").write_text("{}")
    folder.with_suffix(".json").write_text(json.dumps(summarise(folder, 1)))


@pytest.fixture(scope="module")
def finished_leg(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the folder of a leg as rule train leaves it."""
    folder = tmp_path_factory.mktemp("leg") / "step-00000002"
    (folder / "weights").mkdir(parents=True)
    for name in ("state.ckpt", "weights/model.safetensors"):
        (folder / name).write_bytes(name.encode() * 9)
    files = [folder / name for name in ("state.ckpt", "weights/model.safetensors")]
    write_digests(folder / "checksums.sha256", folder, files)
    return folder


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    """A copy of `made`, which a test may spoil. The manifest names the copied sounds."""
    shutil.copytree(made, tmp_path / "top", symlinks=True)
    manifest = tmp_path / "top/results/data/own/manifests/all.csv"
    manifest.write_text(manifest.read_text().replace(str(made), str(tmp_path / "top")))
    return tmp_path / "top"


def test_what_is_as_it_was_made_is_counted(copy: Path) -> None:
    result = verify(copy / "results")
    assert_succeeds(result)
    sounds = sum(1 for path in (copy / "results/data/mine/audio").rglob("*.wav"))
    model = len((copy / "results/models/demo/checksums.sha256").read_text().splitlines())
    # Two archives, two sounds and a table of a user's own, a dataset config, three files of a clip's latents, encoded
    # captions, of a training a state, weights, a model and an export, and a sound of a leg.
    assert f"{2 + sounds + 3 + 1 + model + 3 + 1 + 4 + 1} files" in result.stderr and "wrong" not in result.stderr


def test_recordings_that_were_cut_are_checked_in_their_folder_and_so_are_their_clips(tmp_path: Path) -> None:
    """There, the manifest names the clips instead of the recordings."""
    data, clips = tmp_path / "results/data/own", tmp_path / "results/data/own/cuts/audio/all"
    write_wav(tmp_path / "own/sub/a.wav", noise("a", 2))
    write_csv(tmp_path / "own/metadata.csv", [{"file_name": "sub/a.wav", "text": "A."}])
    options = {"caption_columns": None, "top": None, "splits": None, "segments": None}
    scanned = {"format": "audiofolder", "folder": str(tmp_path / "own"), "options": options}
    given = ["--captions", data / "captions/all.csv", "--facts", data / "audio/all.csv"]
    more = ["--digests", data / "audio/all.sha256", "--listing", data / "folder/all.txt", "--key", "0" * 64]
    assert_succeeds(run_script("scan", *given, *more, "--settings", json.dumps(scanned)))
    chosen = {"method": "length", "seconds": 1, "hop": None, "min_seconds": 0.5}
    settings = {"format": "audiofolder", "source": str(tmp_path / "own"), "silence_dbfs": -60, "cut": chosen}
    more = ["--output", clips, "--clip-facts", f"{clips}.csv", "--table", data / "cuts/all.csv"]
    more += ["--left-out", data / "cuts/left_out/all.csv"]
    assert_succeeds(run_script("cut", *given, *more, "--settings", json.dumps(settings)))
    given = ["--captions", data / "cuts/all.csv", "--facts", f"{clips}.csv", "--output", data / "manifests/all.csv"]
    assert_succeeds(run_script("manifest", "--split", "all", "--audio", clips, *given))
    done = verify(tmp_path / "results")
    assert_succeeds(done)
    assert "4 files" in done.stderr  # a recording, a table and two clips
    victims = [tmp_path / "own/sub/a.wav", clips / "sub/a_00001-00002.wav"]
    for victim in victims:
        change(victim)
    assert_fails(done := verify(tmp_path / "results"), "2 of 4 checked files are wrong")
    assert all(f"wrong: {victim}: has the SHA-256" in done.stderr for victim in victims)


VICTIMS = [
    "results/data/mine/archives/clotho_audio_development.7z",
    "results/data/mine/archives/clotho_audio_validation.7z",
    "results/data/mine/audio/validation/a.wav",
    "results/data/own/dataset_configs/demo/train.json",
    "results/models/demo/model.safetensors",
    "results/models/demo/model_config.json",
    "results/models/demo/hub/*/snapshots/*/tokenizer.json",
    "results/latents/demo/own/all/0001-of-0001/a.npy",
    "results/latents/demo/own/all/0001-of-0001/a.std",
    "results/latents/demo/own/all/0001-of-0001/a.json",
    "results/latents/demo/own/all/0001-of-0001/checksums.sha256",
    "results/encoded_captions/demo/own.safetensors",
    "results/checkpoints/run/step-00000002/state.ckpt",
    "results/checkpoints/run/step-00000002/weights/model.safetensors",
    "results/checkpoints/run/model.safetensors",
    "results/exports/run/diffusers-float16/vae/config.json",
    "results/listen/run@step-00000002/a.wav",
    "own/a.wav",
    "own/sub/b.wav",
    "own/metadata.csv",
]


@pytest.mark.parametrize(("damage", "word"), [(change, "says"), (Path.unlink, "missing")], ids=["changed", "missing"])
def test_each_thing_that_is_wrong_has_a_line(copy: Path, damage: Callable[[Path], object], word: str) -> None:
    """Files that are not missing keep their sizes and time stamps."""
    victims = [next(copy.glob(pattern)) for pattern in VICTIMS if "checksums" not in pattern]
    for victim in victims:
        damage(victim)
    result = verify(copy / "results")
    lines = [line for line in result.stderr.splitlines() if line.startswith("verify: wrong: ")]
    gone = damage is Path.unlink and 1  # a missing state is no error, because it is removed after the next leg
    assert_fails(result, f"{len(victims) - gone} of ", "wrong")
    assert len(lines) == len(victims) - gone
    for victim in victims:
        if not (gone and victim.name == "state.ckpt"):
            (line,) = [line for line in lines if line.startswith(f"verify: wrong: {victim}: ")]
            assert word in line and ("run again" in line)


def test_listing_of_latents_is_vouched_for_too(copy: Path) -> None:
    victim = change(copy / "results/latents/demo/own/all/0001-of-0001/checksums.sha256")
    result = verify(copy / "results")
    assert_fails(result, "1 of ")
    assert f"wrong: {victim}: has the SHA-256" in result.stderr and "0001-of-0001.json says" in result.stderr


def test_sounds_of_an_unknown_place_are_told_of(copy: Path) -> None:
    (copy / "results/data/own/manifests/all.csv").unlink()
    result = verify(copy / "results")
    assert_succeeds(result)
    assert "all.sha256: not checked: there is no manifest" in result.stderr


def test_nothing_is_there(tmp_path: Path) -> None:
    result = verify(tmp_path / "results")
    assert_succeeds(result)
    assert "0 files" in result.stderr


def test_target_always_runs_and_is_part_of_no_other(tmp_path: Path) -> None:
    link_checkout(tmp_path)
    for more in ([], ["-n"]):
        done = run_snakemake("--cores", "1", "verify", *more, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "Check everything under results/" in done.stdout + done.stderr
    rules = "".join(path.read_text() for path in [ROOT / "Snakefile", *ROOT.glob("rules/*.smk")])
    assert "rules.verify" not in rules
