"""A model of another kind than the demo's, from the Hub to samples: rectified flow, pickled, without `seconds_start`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest
import yaml
from conftest import BASE_MODEL, ROOT, SPLITS, PublishedSplit, assert_succeeds, checksum, run_script
from hub import serve_hub

REVISION, ENCODER_REVISION = "a" * 40, "b" * 40


def rectified_flow(config: dict) -> dict:
    """The demo's model config, small still, in the form of Stable Audio Open Small's."""
    model = config["model"]
    model["conditioning"]["configs"] = [c for c in model["conditioning"]["configs"] if c["id"] != "seconds_start"]
    model["conditioning"]["configs"][0]["config"]["max_length"] = 64
    diffusion = model["diffusion"]
    diffusion |= {
        "diffusion_objective": "rectified_flow",
        "cross_attention_cond_ids": ["prompt", "seconds_total"],
        "global_cond_ids": ["seconds_total"],
    }
    diffusion["config"] |= {"global_cond_dim": model["conditioning"]["cond_dim"], "depth": 1}
    return config


def files_of(split: PublishedSplit) -> dict[str, Path]:
    return {"archives": split.archive, "captions": split.captions, "metadata": split.metadata}


MAKE = """
import json, sys
from pathlib import Path
import torch
from sao.model import build
folder = Path(sys.argv[1])
torch.manual_seed(0)
state = build(json.loads((folder / "model_config.json").read_text()), folder / "hub").state_dict()
torch.save({"state_dict": state, "global_step": 0}, sys.argv[2])
"""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory, base_model: Path, published: dict[str, PublishedSplit]) -> Path:
    """A copy of the checkout in which base_model.py has fetched such a model; the Hub is out of reach by now."""
    folder = tmp_path_factory.mktemp("rectified_flow")
    checkout = folder / "checkout"
    checkout.mkdir()
    for name in ("Snakefile", "rules", "schemas", "scripts", "envs", "profiles", "report"):
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, checkout / name)
    config = rectified_flow(json.loads((BASE_MODEL / "model_config.json").read_text(encoding="utf-8")))
    (folder / "hub").symlink_to(base_model / "hub")
    (folder / "model_config.json").write_text(json.dumps(config))
    made = ["python", "-c", MAKE, folder, folder / "base_model.ckpt"]
    subprocess.run(made, env=os.environ | {"PYTHONPATH": str(ROOT / "scripts")}, check=True, capture_output=True)

    model = {"base_model_config.json": "model_config.json", "base_model.ckpt": "base_model.ckpt"}
    encoder = {path.name: path.read_bytes() for path in (BASE_MODEL / "text_encoder").iterdir()}
    repos = {
        ("someone/small", REVISION): {name: (folder / file).read_bytes() for name, file in model.items()},
        ("google-t5/t5-small", ENCODER_REVISION): encoder,
    }
    entry = {
        "repo": "someone/small",
        "revision": REVISION,
        "model_config": "base_model_config.json",
        "weights": "base_model.ckpt",
        "text_encoder": {"repo": "google-t5/t5-small", "revision": ENCODER_REVISION},
        "sampling": {"sampler": "euler", "steps": 2, "cfg_scale": 2, "sigma_max": 1},
    }
    splits = {
        name: {key: [{"url": str(file), "md5": checksum(file)}] for key, file in files_of(split).items()}
        for name, split in published.items()
    }
    corpus = {"splits": splits} | {role: [split] for split, role in SPLITS.items()}
    run = {"base_model": "small", "corpus": "noise", "steps": 2, "batch_size": 2, "threads": 1, "validate_every": 2}
    (checkout / "config.yaml").write_text(
        yaml.safe_dump(
            {
                "corpora": {"noise": corpus},
                "base_models": {"small": entry},
                "runs": {"small": run},
                "render": {"clips": {"evaluation": 1}},
            }
        )
    )
    with serve_hub(repos) as hub:
        done = snakemake(checkout, "results/models/small/checksums.sha256", HF_ENDPOINT=hub.endpoint)
    assert done.returncode == 0, done.stderr
    return checkout


def snakemake(checkout: Path, target: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["snakemake", "--cores", "2", target], cwd=checkout, env=os.environ | env, capture_output=True, text=True
    )


def test_rectified_flow_model_is_trained_and_rendered(checkout: Path) -> None:
    done = snakemake(checkout, "results/samples")
    assert done.returncode == 0, done.stderr[-3000:]
    samples = pd.read_csv(checkout / "results/samples/samples.csv")
    assert set(samples.run) == {"base", "small"} and len(samples) == 2
    metrics = pd.read_csv(checkout / "results/checkpoints/small/metrics.csv")
    assert metrics.step.tolist() == [2] and metrics.train_loss.notna().all()


@pytest.mark.parametrize("sampler", ["pingpong", "dpmpp-3m-sde"])
def test_sampler_of_the_other_kind_is_refused(checkout: Path, tmp_path: Path, sampler: str) -> None:
    if not (checkout / "results/renders").is_dir():
        pytest.skip("the graph has not run")
    model = checkout / "results/models/small"
    options = ["--run", "base", "--weights", model / "model.safetensors", "--model", model]
    options += ["--splits", checkout / "results/data/noise/splits"]
    options += ["--dropped", checkout / "results/data/noise/dataset_configs/small/dropped.csv"]
    render = {"clips": {"evaluation": 1}, "caption": 1, "seed": 0, "seconds": None, "loudness": None, "format": "wav16"}
    sampling = {"sampler": sampler, "steps": 2, "cfg_scale": 1, "sigma_min": 0.3, "sigma_max": 500}
    sampling |= {"negative_prompt": None}
    options += ["--render", json.dumps(render)]
    options += ["--sampling", json.dumps(sampling), "--output", tmp_path / "out", "--table", tmp_path / "out.csv"]
    result = run_script("render", *options)
    if sampler == "dpmpp-3m-sde":
        assert result.returncode == 1 and "'dpmpp-3m-sde'" in result.stderr and "pingpong" in result.stderr
    else:
        assert_succeeds(result)
        assert len(list((tmp_path / "out").glob("*.wav"))) == 1
