"""configs/stable-audio-open-small.yaml as it is, with a narrow model of its form: from the Hub to rendered samples.

Rectified flow, weights that are pickled, an autoencoder in half precision, no `seconds_start`, mixed precision.
"""

from __future__ import annotations

import html
import json
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
import yaml
from conftest import GRAPH, ROOT, assert_succeeds, copy_checkout, run_script, run_snakemake
from hub import serve_hub
from micro import random_weights, stable_audio_open_small, text_encoder
from prompt_tables import RENDER
from sao.base.files import read_json
from tones import write_tones

PRESET = ROOT / "configs/stable-audio-open-small.yaml"
# Only what would take long: the preset trains 2,000 steps. And an adapter beside.
SHORT = {"corpus": "tones", "workers": 0, "threads": 1}
BASE = {"base_model": "stable-audio-open-small", **SHORT}
ADAPTED = BASE | {"method": "dora-cols", "precision": "bf16-mixed", "batch_size": 2, "learning_rate": 1e-3}
OVERLAY = {
    "runs": {
        "small": SHORT | {"steps": 6, "checkpoint_every": 3, "validate_every": 3},
        "adapted": ADAPTED | {"steps": 2, "checkpoint_every": 2, "validate_every": 2},
    },
    "evaluation": {"embeddings": ["log-mel"], "bootstrap": 10},
    "render": {"clips": {"train": None, "evaluation": 1}, "prompts": "mine.csv"},
    "base_models": {"stable-audio-open-small": {"sampling": {"steps": 2}}},
}


def snakemake(checkout: Path, *targets: str, **env: str) -> subprocess.CompletedProcess[str]:
    configs = ["--configfile", PRESET.relative_to(ROOT), "overlay.yaml"]
    return run_snakemake(*GRAPH, *targets, *configs, cwd=checkout, env=env)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout into which the base model has been fetched; the Hub is out of reach by now."""
    folder = tmp_path_factory.mktemp("small")
    checkout = copy_checkout(folder / "checkout")
    corpora = {"tones": write_tones(checkout / "tones", train=8, validation=1)}
    (checkout / "overlay.yaml").write_text(yaml.safe_dump(OVERLAY | {"corpora": corpora}))
    (checkout / "mine.csv").write_text("id,prompt,init_audio,init_noise_level\nvaried,A bell.,notes.ogg,0.7\n")
    soundfile.write(checkout / "notes.ogg", 0.3 * np.sin(0.1 * np.arange(16000)), 32000)
    entry = yaml.safe_load(PRESET.read_text(encoding="utf-8"))["base_models"]["stable-audio-open-small"]
    config = stable_audio_open_small()
    weights = {key: torch.from_numpy(weight) for key, weight in random_weights(config).items()}
    torch.save({"state_dict": weights, "global_step": 0}, folder / "base_model.ckpt")
    model = {
        entry["model_config"]: json.dumps(config).encode(),
        entry["weights"]: (folder / "base_model.ckpt").read_bytes(),
    }
    encoder = entry["text_encoder"]
    repos = {
        (entry["repo"], entry["revision"]): model,
        (encoder["repo"], encoder["revision"]): text_encoder(),
    }
    with serve_hub(repos) as hub:
        done = snakemake(checkout, "downloads", HF_ENDPOINT=hub.endpoint, HF_HUB_OFFLINE="0")
    assert done.returncode == 0, done.stderr
    return checkout


@pytest.fixture(scope="module")
def trained(checkout: Path) -> Path:
    done = snakemake(checkout, "results/samples")
    assert done.returncode == 0, done.stderr[-3000:]
    return checkout


def test_the_preset_trains_two_legs_in_its_own_precision(trained: Path) -> None:
    run = trained / "results/checkpoints/small"
    metrics = pd.read_csv(run / "step-00000006/metrics.csv")
    assert metrics.step.tolist() == [3, 6]
    assert metrics.train_loss.gt(0).all() and metrics.train_loss.is_monotonic_decreasing
    assert metrics.validation_loss.gt(0).all() and metrics.validation_loss.is_monotonic_decreasing
    settings = read_json(run / "step-00000006/training.json")["settings"]
    preset = yaml.safe_load(PRESET.read_text(encoding="utf-8"))["runs"]["small"]
    assert {key: settings[key] for key in ("precision", "batch_size")} == {
        key: preset[key] for key in ("precision", "batch_size")
    }
    latents = read_json(next((trained / "results/latents/stable-audio-open-small/tones").glob("all/*.json")))
    assert latents["clips"] == 11 and np.isfinite([latents["mean"], latents["std"]]).all()


def test_samples_are_as_long_as_their_clips(trained: Path) -> None:
    page = (trained / "results/samples/index.html").read_text(encoding="utf-8")
    assert html.unescape(page).count('"sound": "source/varied.wav"') == 1 and "source noised to 0.7" in page
    for folder in ("small", "adapted", "base--stable-audio-open-small--tones"):
        table = pd.read_csv(trained / f"results/renders/{folder}.csv")
        assert table.split.tolist() == ["evaluation", "prompts"] and table.seconds[1] == pytest.approx(0.5, abs=1e-4)
        for row in table.itertuples():
            sound = soundfile.info(str(trained / "results/renders" / folder / row.file))
            assert sound.samplerate == 44100 and sound.channels == 2
            assert sound.duration == pytest.approx(row.seconds, abs=1e-4)


@pytest.mark.parametrize("sampler", ["pingpong", "dpmpp-3m-sde"])
def test_sampler_of_the_other_kind_is_refused(trained: Path, tmp_path: Path, sampler: str) -> None:
    model = trained / "results/models/stable-audio-open-small"
    options = ["--run", "base", "--code", "x", "--weights", model / "model.safetensors", "--model", model]
    options += ["--weights-digest", model / "checksums.sha256", "--model-digest", model / "checksums.sha256"]
    options += ["--clips", trained / "results/data/tones/prompts/stable-audio-open-small.csv"]
    sampling = {"sampler": sampler, "steps": 2, "cfg_scale": 1, "apg_scale": 0, "sigma_min": 0.3, "sigma_max": 500}
    sampling |= {"negative_prompt": None}
    options += ["--render", json.dumps(RENDER)]
    options += ["--sampling", json.dumps(sampling), "--output", tmp_path / "out", "--table", tmp_path / "out.csv"]
    result = run_script("render", *options, cwd=trained)
    if sampler == "dpmpp-3m-sde":
        assert result.returncode == 1 and "'dpmpp-3m-sde'" in result.stderr and "pingpong" in result.stderr
    else:
        assert_succeeds(result)
        assert len(list((tmp_path / "out").glob("*.wav"))) == 2
