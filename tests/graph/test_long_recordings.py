"""The whole graph on long recordings: a table with captioned parts of each, a window by lengths, and what reruns when."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import py7zr
import pytest
import soundfile
import yaml
from conftest import GRAPH, ROOT, link_checkout, run_snakemake
from sao.base.files import read_json
from sao.base.tables import read_table, read_tables

pytestmark = pytest.mark.slow

RECORDINGS, PARTS = 6, 4
ROLES = ("train", "validation", "evaluation")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six recordings of four instruments each, whose parts are captioned, and a run on them."""
    folder = link_checkout(tmp_path_factory.mktemp("cuts") / "checkout")
    unpacked = tmp_path_factory.mktemp("instruments")
    for split in ("development", "evaluation"):
        with py7zr.SevenZipFile(ROOT / f"resources/demo/corpus/clotho_audio_{split}.7z") as archive:
            archive.extractall(unpacked)
    sounds = sorted(unpacked.rglob("*.wav"))
    (folder / "sounds").mkdir()
    rows = []
    for number in range(RECORDINGS):
        chosen, at, pieces = sounds[PARTS * number : PARTS * (number + 1)], 0, []
        for sound in chosen:
            samples, rate = soundfile.read(sound, dtype="int16", always_2d=True)
            pieces += [samples, np.zeros((rate, samples.shape[1]), np.int16)]
            times = {"start": at / rate, "end": (at + len(samples)) / rate}
            rows.append({"file_name": f"{number}.wav", "caption": f"{sound.stem.title()}.", "license": "CC0"} | times)
            at += len(samples) + rate
        soundfile.write(folder / f"sounds/{number}.wav", np.concatenate(pieces), rate)
    pd.DataFrame(rows).to_csv(folder / "sounds/metadata.csv", index=False)
    configure(folder)
    return folder


def configure(folder: Path, **cut: Any) -> None:
    """The config: captioned parts, and a window by their lengths."""
    corpus = {
        "format": "audiofolder",
        "path": "sounds",
        "split": {"method": "fraction", "validation": 0.2, "evaluation": 0.2},
    }
    run = {
        "base_model": "demo",
        "steps": 2,
        "batch_size": 4,
        "threads": 1,
        "learning_rate": 1e-3,
        "checkpoint_every": 2,
    }
    settings = {
        "corpora": {
            "parts": corpus | {"cut": {"method": "columns"} | cut, "train_seconds": "auto"},
        },
        "base_models": {
            "demo": {"path": str(ROOT / "resources/demo/base_model"), "sampling": {"steps": 2, "sigma_max": 100}}
        },
        # The silence after a clip does not count in the loss.
        "runs": {"parts": run | {"corpus": "parts", "training": {"mask_loss_weight": 0}}},
        "render": {"clips": {"evaluation": 2}},
        "evaluation": {"embeddings": ["log-mel"], "bootstrap": 10},
    }
    (folder / "cuts.yaml").write_text(yaml.safe_dump(settings))


def snakemake(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    done = run_snakemake(*GRAPH, "--configfile=cuts.yaml", *arguments, cwd=checkout)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr[-3000:]
    return done


def planned(checkout: Path, target: str) -> set[str]:
    """The rules that a dry run would run."""
    done = snakemake(checkout, "-n", "--", target)
    table = re.search(r"^job +count\n-+ +-+\n(.*?)^total", done.stdout + done.stderr, re.M | re.S)
    return {line.split()[0] for line in table[1].splitlines()} if table else set()


def test_from_captioned_parts_to_renders(checkout: Path) -> None:
    done = snakemake(checkout, "--", "results/renders/parts", "results/data/parts/validation.html")
    data = checkout / "results/data/parts"
    clips = read_tables([data / f"splits/{role}.csv" for role in ROLES])
    table = pd.read_csv(checkout / "sounds/metadata.csv")
    assert len(clips) == len(table) == RECORDINGS * PARTS
    told = clips.assign(start=clips.source_start.astype(float)).sort_values(["source_file", "start"])
    assert told.caption_1.tolist() == table.caption.tolist() and set(told.license) == {"CC0"}
    np.testing.assert_allclose(told.start, table.start, atol=1e-6)
    np.testing.assert_allclose(told.source_end.astype(float), table.end, atol=1e-6)
    sides = {role: set(read_table(data / f"splits/{role}.csv").source_file) for role in ROLES}
    assert sum(map(len, sides.values())) == RECORDINGS and all(sides.values())
    assert {path.name for path in (checkout / "sounds").iterdir()} == {"metadata.csv", *(f"{n}.wav" for n in range(6))}

    window = read_json(data / "windows/demo.json")
    assert window["longest_seconds"] == clips.seconds.max() and window["train_seconds"] < 3.072  # the model's own
    for role in ("train", "validation"):
        assert read_json(data / f"dataset_configs/demo/{role}.json")["latent_crop_length"] == window["frames"]
    latents = sorted((checkout / "results/latents/demo/parts/all/0001-of-0001").glob("*.npy"))
    assert len(latents) == len(clips) and {np.load(path).shape[1] for path in latents} == {window["frames"]}
    assert "of what the training computes is padding" in done.stderr
    assert len(list((checkout / "results/renders/parts").glob("*.wav"))) == 2
    assert planned(checkout, "results/renders/parts") == set()
    snakemake(checkout, "--", "verify")


def test_what_changes_is_cut_again(checkout: Path) -> None:
    target = "results/renders/parts"
    manifest = checkout / "results/data/parts/manifests/all.csv"
    before = manifest.read_bytes()
    configure(checkout, min_seconds=0.4)
    rules = planned(checkout, target)
    assert {"cut", "manifest"} <= rules and "scan" not in rules
    # The clips are the same, and so is all that follows.
    snakemake(checkout, "--", str(manifest.relative_to(checkout)))
    assert manifest.read_bytes() == before
    samples, rate = soundfile.read(checkout / "sounds/3.wav", dtype="int16", always_2d=True)
    samples[rate // 2] ^= 1  # in the first part
    soundfile.write(checkout / "sounds/3.wav", samples, rate)
    assert {"scan", "cut", "manifest", "encode", "train_last"} <= planned(checkout, target)
    snakemake(checkout, "--", "results/data/parts/splits/train.csv")
    after = read_table(manifest).set_index("file_name")
    changed = [name for name, row in after.iterrows() if row.sha256 not in before.decode()]
    assert len(changed) == 1 and changed[0].startswith("3_00000-")


def test_a_faulty_row_stops_before_anything_is_cut(checkout: Path) -> None:
    path = checkout / "sounds/metadata.csv"
    text = path.read_text()
    lines = text.splitlines()
    lines[2] = lines[2].rsplit(",", 1)[0] + ",99"
    path.write_text("\n".join(lines) + "\n")
    try:
        done = run_snakemake(*GRAPH, "--configfile=cuts.yaml", "--", "results/renders/parts", cwd=checkout)
        assert done.returncode == 1 and "Traceback" not in done.stderr
        assert "sounds/metadata.csv, row 3: ends at 99 s, but the recording ends at" in done.stderr, done.stderr[-2000:]
    finally:
        path.write_text(text)
