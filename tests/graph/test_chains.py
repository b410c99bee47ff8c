"""Runs that start from runs: the first is trained first, and what changes it trains all that follow anew."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import GRAPH, assert_succeeds, checksum, link_checkout, run_script, run_snakemake
from sao.base.files import read_json
from tones import write_tones

RUN = {"base_model": "demo", "corpus": "tones", "steps": 4, "checkpoint_every": 2, "validate_every": 2, "batch_size": 4}
RUN |= {"threads": 1}
CONFIG: dict[str, Any] = {
    "base_models": {"demo": {"sampling": {"steps": 2}}},
    "runs": {
        "demo": None,
        "first": RUN | {"learning_rate": 1e-3},
        "second": RUN | {"init_from": "first@step-00000002", "learning_rate": 1e-3, "method": "lora"},
        "third": RUN | {"init_from": "second", "steps": 2, "learning_rate": 1e-4},
    },
    "render": {"clips": {"evaluation": 1, "train": None}},
    "evaluation": {"embeddings": ["log-mel"], "bootstrap": 10},
}


def snakemake(checkout: Path, *arguments: str, **first: object) -> subprocess.CompletedProcess[str]:
    """Snakemake with other settings of the first run."""
    runs = CONFIG["runs"] | {"first": CONFIG["runs"]["first"] | first}
    (checkout / "chain.yaml").write_text(json.dumps(CONFIG | {"runs": runs}))
    done = run_snakemake(*GRAPH, "--configfile=chain.yaml", *arguments, cwd=checkout)
    assert done.returncode == 0, done.stderr[-3000:]
    return done


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    checkout = link_checkout(tmp_path_factory.mktemp("chains") / "checkout")
    CONFIG["corpora"] = {"tones": write_tones(checkout / "tones")}
    done = snakemake(checkout, "results/samples", "--verbose")
    (checkout / "said.txt").write_text(done.stdout + done.stderr)
    return checkout


def test_snakemake_looks_for_jobs_to_start_only_when_one_has_ended(checkout: Path) -> None:
    said = (checkout / "said.txt").read_text()
    jobs = int(re.search(r"^total +(\d+)$", said, re.M)[1])
    looks = len(re.findall(r"^Ready jobs: \d+$", said, re.M))
    assert jobs > 30 and looks <= jobs + 1, looks


def test_each_run_starts_from_what_the_one_before_exported(checkout: Path) -> None:
    results = checkout / "results"
    leg = results / "checkpoints/first/step-00000002/model.safetensors"
    second, third = (read_json(results / f"initial/{run}/source.json") for run in ("second", "third"))
    assert second["sha256"] == {"model.safetensors": checksum(leg, "sha256")} and second["before"] is None
    assert second["leg"] == "step-00000002" and third["before"] == second
    # The model that a run starts from is the other's, to the bit.
    assert checksum(results / "initial/second/model.safetensors") == checksum(leg)
    card = (results / "checkpoints/third/README.md").read_text(encoding="utf-8")
    assert re.search(
        r"The training started from `second` \(model, step-00000004.*\)\.\n- That started from `first@step-", card
    )
    # A first step from elsewhere has another loss than the base model's, and all are compared with one base model.
    losses = [pd.read_csv(results / f"checkpoints/{run}/metrics.csv").validation_loss[0] for run in ("first", "third")]
    assert losses[1] < losses[0]
    assert set(pd.read_csv(results / "evaluation/summary.csv").run) == {"base", "first", "second", "third"}


def test_a_tried_adapter_has_the_bytes_of_the_graphs_render(checkout: Path, tmp_path: Path) -> None:
    (row,) = pd.read_csv(checkout / "results/renders/second.csv").itertuples()
    given = ["second", row.prompt, "--configfile", "chain.yaml", "--output", tmp_path / "out.wav"]
    assert_succeeds(run_script("try", *given, cwd=checkout))
    rendered = (tmp_path / "out.wav").read_bytes()
    assert rendered == (checkout / "results/renders/second" / row.file).read_bytes()
    assert_succeeds(run_script("try", *given, "--strength", 0.5, cwd=checkout))
    assert (tmp_path / "out.wav").read_bytes() != rendered


def test_a_changed_first_run_trains_all_anew(checkout: Path) -> None:
    nothing = snakemake(checkout, "-n", "results/samples")
    assert "Nothing to be done" in nothing.stdout + nothing.stderr
    dry = snakemake(checkout, "-n", "results/samples", learning_rate=2e-3)
    counts = dict(re.findall(r"^(\w+) +(\d+)$", dry.stdout + dry.stderr, re.M))
    assert (counts["init"], counts["train"], counts["train_last"]) == ("2", "2", "3")
    assert not {"encode", "encode_captions", "base_model"} & set(counts)


def test_a_run_becomes_a_base_model(checkout: Path) -> None:
    """Its folder has no text encoder: the config says where that is."""
    encoder = {"path": "resources/demo/base_model/text_encoder"}
    mine = {"path": "results/checkpoints/first", "text_encoder": encoder, "sampling": {"steps": 2}}
    config = CONFIG | {"base_models": CONFIG["base_models"] | {"mine": mine}}
    config["runs"] = CONFIG["runs"] | {"fourth": RUN | {"base_model": "mine"}}
    (checkout / "base.yaml").write_text(json.dumps(config))
    command = (*GRAPH, "--configfile=base.yaml", "--", "results/models/mine/checksums.sha256")
    done = run_snakemake(*command, cwd=checkout)
    assert done.returncode == 0, done.stderr[-3000:]
    results = checkout / "results"
    assert checksum(results / "models/mine/model.safetensors") == checksum(
        results / "checkpoints/first/model.safetensors"
    )
    (found,) = (results / "models/mine").glob("hub/*/snapshots/*/model.safetensors")
    assert checksum(found) == checksum(checkout / encoder["path"] / "model.safetensors")
    # Another first run makes another base model.
    config["runs"] = config["runs"] | {"first": CONFIG["runs"]["first"] | {"learning_rate": 2e-3}}
    (checkout / "base.yaml").write_text(json.dumps(config))
    dry = run_snakemake("-n", *command, cwd=checkout)
    counts = dict(re.findall(r"^(\w+) +(\d+)$", dry.stdout + dry.stderr, re.M))
    assert (counts["base_model"], counts["train_last"], counts["export"]) == ("1", "1", "1"), counts
