"""The presets of Stable Audio 3 as they are, with narrow models of their form: from the Hub to the page.

Inpainting models, a T5Gemma in a folder of the model's repository, revision `main`, autoencoders that are transformers.
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import yaml
from conftest import ROOT, copy_checkout, run_snakemake
from hub import serve_hub
from micro import gemma_encoder, safetensors, stable_audio_3
from sao.base.files import read_json

COMMIT = "d" * 40
PRESETS = {"small-sfx": "taae_v2", "medium": "same"}


def snakemake(checkout: Path, preset: str, *targets: str, **env: str) -> subprocess.CompletedProcess[str]:
    configs = ["--configfile", f"configs/stable-audio-3-{preset}.yaml", "overlay.yaml"]
    return run_snakemake("--cores", "2", *targets, *configs, cwd=checkout, env=env)


@pytest.fixture(scope="module", params=list(PRESETS))
def trained(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> tuple[str, Path]:
    """The preset's name, and a checkout in which its run and a full fine-tuning were trained and rendered."""
    name = f"stable-audio-3-{request.param}"
    checkout = copy_checkout(tmp_path_factory.mktemp("sa3") / "checkout")
    # Only what would take long.
    short = {"steps": 4, "checkpoint_every": 2, "validate_every": 2, "workers": 0, "threads": 1}
    full = {"base_model": name, "corpus": "demo", "method": "full", "batch_size": 2, "precision": "32-true", **short}
    overlay = {
        "runs": {name: short, "full": full},
        "render": {"clips": {"train": None, "evaluation": 1}},
        "evaluation": {"embeddings": ["log-mel"], "bootstrap": 10},
        "base_models": {name: {"sampling": {"steps": 2}}},
    }
    (checkout / "overlay.yaml").write_text(yaml.safe_dump(overlay))
    preset = yaml.safe_load((checkout / f"configs/{name}.yaml").read_text(encoding="utf-8"))["base_models"][name]
    config = stable_audio_3(PRESETS[request.param], preset["repo"])
    model = {"model_config.json": json.dumps(config).encode(), "model.safetensors": safetensors(config)}
    model |= {f"{preset['text_encoder']['subfolder']}/{file}": data for file, data in gemma_encoder().items()}
    with serve_hub({(preset["repo"], COMMIT): model}) as hub:
        hub.heads[preset["repo"]] = COMMIT
        done = snakemake(checkout, request.param, "downloads", HF_ENDPOINT=hub.endpoint, HF_HUB_OFFLINE="0")
        assert done.returncode == 0, done.stderr
    done = snakemake(checkout, request.param, "results/samples")
    assert done.returncode == 0, done.stderr[-3000:]
    return name, checkout


def test_the_commit_is_recorded_and_the_log_pins_it(trained: tuple[str, Path]) -> None:
    name, checkout = trained
    source = read_json(checkout / f"results/models/{name}/source.json")
    assert source["revision"] == source["text_encoder"]["revision"] == COMMIT
    log = (checkout / f"results/logs/base_model/{name}.log").read_text(encoding="utf-8")
    assert f"`revision: {COMMIT}`" in log and f"`text_encoder.revision: {COMMIT}`" in log
    assert f"at revision `{COMMIT}`" in (checkout / f"results/checkpoints/{name}/README.md").read_text(encoding="utf-8")


def test_adapter_and_full_fine_tuning_learn(trained: tuple[str, Path]) -> None:
    name, checkout = trained
    for run in (name, "full"):
        metrics = pd.read_csv(checkout / f"results/checkpoints/{run}/step-00000004/metrics.csv")
        assert metrics.step.tolist() == [2, 4] and np.isfinite(metrics[["train_loss", "validation_loss"]]).all(
            axis=None
        )
        export = read_json(checkout / f"results/checkpoints/{run}/export.json")
        assert export["changed_keys"] > 0, export
    summary = read_json(next((checkout / f"results/latents/{name}/demo/development").glob("*.json")))
    assert summary["clips"] == 16 and np.isfinite([summary["mean"], summary["std"]]).all()


def test_renders_are_on_the_page_and_as_long_as_their_clips(trained: tuple[str, Path]) -> None:
    name, checkout = trained
    page = (checkout / "results/samples/index.html").read_text(encoding="utf-8")
    for folder in (name, "full", f"base--{name}--demo"):
        table = pd.read_csv(checkout / f"results/renders/{folder}.csv")
        sound = soundfile.info(str(checkout / "results/renders" / folder / table.file[0]))
        assert (sound.samplerate, sound.channels) == (44100, 2)
        assert sound.duration == pytest.approx(table.seconds[0], abs=1e-4)
        assert re.search(rf"\b{re.escape(folder.split('--')[0])}\b", page)


@pytest.mark.parametrize("path", sorted(ROOT.glob("configs/stable-audio-3-*.yaml")), ids=lambda path: path.stem)
def test_presets_of_the_family_differ_in_names_alone(path: Path) -> None:
    def form(path: Path) -> dict:
        text = path.read_text(encoding="utf-8").replace(path.stem.removeprefix("stable-audio-3-"), "X")
        preset = yaml.safe_load(text)
        preset["base_models"]["stable-audio-3-X"].pop("memory_mb")
        return preset

    assert form(path) == form(ROOT / "configs/stable-audio-3-medium.yaml")
