"""A run on two corpora, one with prompts from templates: from the config to the page, and what a change makes anew."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
from conftest import GRAPH, link_checkout, run_snakemake
from sao.base.files import read_json
from sao.base.tables import read_table

RUN = {"base_model": "demo", "steps": 4, "checkpoint_every": 4, "validate_every": 2, "batch_size": 4, "threads": 1}
TAGS = {"mood": {"drop": 0.3}}
CONFIG: dict[str, Any] = {
    "corpora": {
        "mine": {
            "format": "audiofolder",
            "path": "mine",
            "split": {"method": "column", "column": "side"},
            "prompts": {"templates": ["zxq, {caption}", {"text": "{folder}, {mood}", "weight": 2}], "tags": TAGS},
        },
    },
    "base_models": {"demo": {"sampling": {"steps": 2}}},
    "runs": {"demo": None, "both": RUN | {"corpora": {"demo": 0.5, "mine": 2}}},
    "render": {"clips": {"train": 2, "evaluation": 2}, "templates": True},
    "evaluation": {"embeddings": ["log-mel"], "bootstrap": 10},
}


def snakemake(checkout: Path, *arguments: str, **changed: Any) -> subprocess.CompletedProcess[str]:
    (checkout / "both.yaml").write_text(json.dumps(CONFIG | changed))
    return run_snakemake(*GRAPH, "--configfile=both.yaml", *arguments, cwd=checkout)


def make_folder(folder: Path) -> None:
    rows = []
    for number, side in enumerate(["train"] * 5 + ["validation", "evaluation", "evaluation"]):
        name = f"soft_tones/t{number}.wav"
        tone = 0.2 * np.sin(2 * np.pi * (200 + 60 * number) * np.arange(16000) / 16000)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / name, tone, 16000)
        rows.append({"file_name": name, "caption": f"Tone number {number}.", "mood": "calm;dark;warm", "side": side})
    pd.DataFrame(rows).to_csv(folder / "metadata.csv", index=False)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    checkout = link_checkout(tmp_path_factory.mktemp("mixtures") / "checkout")
    make_folder(checkout / "mine")
    done = snakemake(checkout, "results/samples")
    assert done.returncode == 0, done.stderr[-3000:]
    return checkout


NAME = "demo-0.5+mine-2"


def test_an_epoch_has_the_share_of_each_corpus(checkout: Path) -> None:
    log = (checkout / "results/logs/train/both/step-00000004.log").read_text(encoding="utf-8")
    clips = read_table(checkout / f"results/data/{NAME}/dataset_configs/demo.csv")
    own = clips[clips.role == "train"].corpus.value_counts()
    items = round(own["demo"] * 0.5) + own["mine"] * 2
    assert own["mine"] == 5 and f"{items / 4:.4g} steps an epoch" in log
    assert read_table(checkout / "results/checkpoints/both/metrics.csv").columns.tolist()[-5:-3] == [
        "validation_loss_of_demo",
        "validation_loss_of_mine",
    ]
    table = pd.read_csv(checkout / "results/checkpoints/both/metrics.csv")
    counts = clips[clips.role == "validation"].corpus.value_counts()
    mean = sum(table[f"validation_loss_of_{name}"] * count for name, count in counts.items()) / counts.sum()
    assert np.allclose(mean, table.validation_loss)


def test_latents_are_those_of_the_corpora_and_measures_are_of_each(checkout: Path) -> None:
    assert sorted(path.name for path in (checkout / "results/latents/demo").iterdir()) == ["demo", "mine"]
    summary = pd.read_csv(checkout / "results/evaluation/summary.csv")
    splits = {f"{split}{corpus}" for split in ("evaluation", "train") for corpus in ("", ", demo", ", mine")}
    assert set(summary.split) == splits
    kad = summary[(summary.measure == "kad") & (summary.run == "both")].set_index("split")
    assert kad.n["evaluation"] == 4 and kad.n["evaluation, mine"] == 2
    card = (checkout / "results/checkpoints/both/README.md").read_text(encoding="utf-8")
    assert "of the corpora `demo` (weight 0.5), `mine` (weight 2)" in card


def test_templates_are_trained_rendered_and_shown(checkout: Path) -> None:
    samples = pd.read_csv(checkout / "results/samples/samples.csv")
    mine = samples[samples.clip_id.str.startswith("mine--")]
    assert len(mine) == 2 * 4 and mine.prompt.str.fullmatch(r"zxq, Tone number \d\.").all()
    captions = read_json(checkout / f"results/data/{NAME}/dataset_configs/demo/train/mine/captions.json")
    texts = {text for given in captions.values() for text in given}
    assert all(
        re.fullmatch(r"zxq, Tone number \d\.|soft tones, (calm|dark|warm)(, (calm|dark|warm))*", t) for t in texts
    )
    page = (checkout / f"results/data/{NAME}/dataset_configs/demo/prompts.html").read_text(encoding="utf-8")
    assert "soft tones, " in page and page.count("<tr>") == 51


def test_nothing_is_made_anew_and_another_weight_trains_anew_without_encoding(checkout: Path) -> None:
    done = snakemake(checkout, "results/samples")
    assert done.returncode == 0 and "Nothing to be done" in done.stdout + done.stderr
    run = CONFIG["runs"] | {"both": RUN | {"corpora": {"demo": 1, "mine": 2}}}
    done = snakemake(checkout, "-n", "results/samples", runs=run)
    jobs = dict(
        re.findall(r"^(mix|encode|scan|validate|train_last|dataset_configs) +(\d+)$", done.stdout + done.stderr, re.M)
    )
    assert jobs == {"mix": "1", "dataset_configs": "1", "train_last": "1"}, done.stderr[-3000:]
