"""A model that takes a number beside the caption, from a column of a user's metadata to the renders."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import yaml
from conftest import BASE_MODEL, GRAPH, link_checkout, noise, run_snakemake, write_wav
from safetensors.numpy import load_file, save_file
from sao.base.files import read_json

CLIPS = 10
BPM = {f"{number:02}.wav": 60 + 10 * number for number in range(CLIPS)}


def write_metadata(folder: Path, bpm: dict[str, object]) -> None:
    rows = [{"file_name": name, "caption": "A drum is beaten.", "bpm": bpm[name]} for name in sorted(bpm)]
    pd.DataFrame(rows).to_csv(folder / "metadata.csv", index=False)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    checkout = link_checkout(tmp_path_factory.mktemp("numbers") / "checkout")
    for number, name in enumerate(BPM):
        write_wav(checkout / "sounds" / name, noise(f"drum {number}", 1, 16000), 16000)
    write_metadata(checkout / "sounds", BPM)
    model = shutil.copytree(BASE_MODEL, checkout / "model")
    config = read_json(model / "model_config.json")
    parts = config["model"]
    parts["conditioning"]["configs"].append({"id": "bpm", "type": "int", "config": {"min_val": 20, "max_val": 300}})
    parts["diffusion"]["cross_attention_cond_ids"].append("bpm")
    (model / "model_config.json").write_text(json.dumps(config))
    weights = load_file(model / "model.safetensors")
    drawn = np.random.default_rng(0).standard_normal((281, parts["conditioning"]["cond_dim"]), np.float32)
    save_file(weights | {"conditioner.conditioners.bpm.int_embedder.weight": drawn}, model / "model.safetensors")
    corpus = {
        "format": "audiofolder",
        "path": "sounds",
        "split": {"method": "fraction"},
        "columns": ["bpm"],
        "train_seconds": 1,
    }
    run = {"base_model": "drums", "corpus": "sounds", "steps": 2, "batch_size": 4, "threads": 1, "validate_every": 2}
    settings = {
        "corpora": {"sounds": corpus},
        "base_models": {"drums": {"path": "model", "sampling": {"steps": 2, "sigma_max": 100}}},
        "runs": {"drums": run | {"checkpoint_every": 2, "learning_rate": 0.01, "scheduler": {"type": "constant"}}},
        "render": {"clips": {"evaluation": "all"}, "prompts": "prompts.csv", "own_window": True},
        "evaluation": {"embeddings": ["log-mel"], "bootstrap": 10},
    }
    (checkout / "drums.yaml").write_text(yaml.safe_dump(settings))
    (checkout / "prompts.csv").write_text(
        "id,prompt,bpm,seed\nslow,A drum is beaten.,60,1\nfast,A drum is beaten.,180,1\n"
    )
    return checkout


def snakemake(checkout: Path, *targets: str) -> subprocess.CompletedProcess[str]:
    return run_snakemake(*GRAPH, "--configfile=drums.yaml", "--", *targets, cwd=checkout)


def test_bad_numbers_are_named_before_anything_is_encoded(checkout: Path) -> None:
    kept = "results/data/sounds/dataset_configs/drums.csv"
    write_metadata(checkout / "sounds", BPM | {"03.wav": ""})
    done = snakemake(checkout, kept)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    words = "sounds/03.wav bpm is '', not a whole number: correct its row in the metadata"
    assert words in done.stderr, done.stderr[-2000:]
    write_metadata(checkout / "sounds", BPM)
    done = snakemake(checkout, kept)
    assert done.returncode == 0, done.stderr[-2000:]
    assert not (checkout / "results/latents").exists()
    table = pd.read_csv(checkout / kept)
    assert dict(zip(table.file_name, table.value_bpm, strict=True)) == BPM


def test_numbers_reach_training_and_renders(checkout: Path) -> None:
    done = snakemake(checkout, "results/renders/drums")
    assert done.returncode == 0, done.stderr[-2000:]
    told = read_json(checkout / "results/data/sounds/dataset_configs/drums/train/numbers.json")
    table = pd.read_csv(checkout / "results/data/sounds/dataset_configs/drums.csv").set_index("clip_id")
    assert told == {clip: {"bpm": table.value_bpm[clip]} for clip in table.index[table.role == "train"]}
    # What changed much are the embeddings of the numbers that the training saw; weight decay changes all a little.
    before, after = (
        load_file(checkout / path / "model.safetensors")["conditioner.conditioners.bpm.int_embedder.weight"]
        for path in ("model", "results/checkpoints/drums")
    )
    changed = set(np.flatnonzero((np.abs(after - before) > 1e-3).any(axis=1)))
    assert changed and changed <= set(table.value_bpm[table.role == "train"])
    sounds = [soundfile.read(checkout / f"results/renders/drums/{name}.wav")[0] for name in ("slow", "fast")]
    assert sounds[0].shape == sounds[1].shape and not np.array_equal(*sounds)


def test_the_base_model_is_compared_in_its_own_window_too(checkout: Path) -> None:
    """The model's window has 3 s, the training's 1 s."""
    done = snakemake(checkout, "results/evaluation/summary.csv")
    assert done.returncode == 0, done.stderr[-2000:]
    names = ["base", "base--own-window", "drums"]
    assert pd.read_csv(checkout / "results/evaluation/summary.csv").run.drop_duplicates().tolist() == names
    folders = [checkout / f"results/renders/base--drums--sounds{more}" for more in ("", "--own-window")]
    one, other = ({path.name: soundfile.read(path)[0] for path in folder.glob("*.wav")} for folder in folders)
    assert set(one) == set(other) >= {"slow.wav"}
    assert all(one[name].shape == other[name].shape and not np.array_equal(one[name], other[name]) for name in one)


def test_prompts_without_the_number_are_refused(checkout: Path) -> None:
    (checkout / "prompts.txt").write_text("A drum is beaten.\n")
    text = (checkout / "drums.yaml").read_text().replace("prompts.csv", "prompts.txt")
    (checkout / "drums.yaml").write_text(text)
    done = snakemake(checkout, "results/data/sounds/prompts/drums.csv")
    assert done.returncode == 1 and "write a CSV with the columns prompt, bpm" in done.stderr
