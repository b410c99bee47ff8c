"""Models whose text conditioner is CLAP are built from the files of rule base_model, or one line says what is missing."""

from __future__ import annotations

import importlib.util
import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from clap import save_tokenizer
from conftest import BASE_MODEL, SCRIPTS, assert_succeeds, run_script, write_shapes
from forks import Forks
from safetensors.numpy import save
from sao.models.config import read_model_config

INSTALLED = importlib.util.find_spec("laion_clap") is not None
BUILD = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from sao.base.command import InputError
from sao.models.build import build
from sao.models.config import read_model_config
folder = Path(sys.argv[1])
try:
    model = build(read_model_config(folder / "model_config.json"), folder / "hub")
except InputError as error:
    sys.exit(f"error: {error}")
import torch
clap = model.conditioner.conditioners["prompt"].model.model
clip = {"seconds_start": 0, "seconds_total": 3}
prompts = [{"prompt": prompt} | clip for prompt in ("rain", "a dog")]
given, mask = model.conditioner(prompts, "cpu")["prompt"]
torch.save({"given": given, "text": clap.text_branch.state_dict()}, sys.argv[2])
"""


MAKE = """
import os
import sys
sys.path.insert(0, sys.argv[3])
os.environ |= {"HF_HUB_CACHE": sys.argv[1], "HF_HUB_OFFLINE": "1"}
import torch
from sao.models.build import prepare_clap
prepare_clap()
import laion_clap
torch.manual_seed(5)
state = laion_clap.CLAP_Module(enable_fusion=False, amodel="HTSAT-tiny", device="cpu").model.state_dict()
torch.save({f"module.{k}": torch.rand_like(v) if v.is_floating_point() else v for k, v in state.items()}, sys.argv[2])
"""


def run(forks: Forks, program: str, given: Path, output: Path) -> subprocess.CompletedProcess[str]:
    """Run a program on a file or folder, in a process of its own."""
    path = output.with_suffix(".py")
    path.write_text(program)
    return forks.program(path, given, output, SCRIPTS, cwd=output.parent).finish()


def save_encoder(folder: Path) -> None:
    """An untrained RoBERTa of two thin layers. laion_clap requires a width of 768."""
    from transformers import RobertaConfig, RobertaModel

    save_tokenizer(folder, 512)
    config = RobertaConfig(
        vocab_size=300, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, max_position_embeddings=514
    )
    RobertaModel(config).save_pretrained(folder)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A local model with a `clap_text` conditioner. These tests do not load its weights."""
    folder = tmp_path / "source"
    save_encoder(folder / "text_encoder")
    config = json.loads((BASE_MODEL / "model_config.json").read_text(encoding="utf-8"))
    clap = {"clap_ckpt_path": "/path/of/the/author.pt", "audio_model_type": "HTSAT-tiny", "enable_fusion": False}
    config["model"]["conditioning"]["configs"][0] = {
        "id": "prompt", "type": "clap_text", "config": clap | {"use_text_features": True, "feature_layer_ix": -1},
    }  # fmt: skip
    (folder / "model_config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(save({"a": np.zeros(1)}))
    return folder


def take(source: Path, checkpoint: Path, output: Path) -> Path:
    options = ["--clap-path", checkpoint, "--output", output, "--digest", output / "checksums.sha256"]
    shapes = write_shapes(source.with_suffix(".json"), source / "model.safetensors")
    assert_succeeds(run_script("base_model", "--path", source, "--shapes", shapes, *options))
    return output


@pytest.mark.skipif(INSTALLED, reason="laion_clap is installed")
def test_missing_laion_clap_is_told(forks: Forks, source: Path, tmp_path: Path) -> None:
    torch.save({"state_dict": {"module.text_branch.a": torch.zeros(1)}}, tmp_path / "clap.pt")
    done = run(forks, BUILD, take(source, tmp_path / "clap.pt", tmp_path / "model"), tmp_path / "built.pt")
    assert done.returncode == 1 and "laion_clap is not installed: run `uv sync --group clap`" in done.stderr


@pytest.mark.skipif(not INSTALLED, reason="needs `uv sync --group clap`")
def test_clap_is_built_offline_with_the_weights_of_its_checkpoint(forks: Forks, source: Path, tmp_path: Path) -> None:
    # A checkpoint has the keys of the model, which are known only once it is built.
    torch.save({"state_dict": {"module.text_branch.a": torch.zeros(1)}}, tmp_path / "clap.pt")
    done = run(forks, BUILD, take(source, tmp_path / "clap.pt", tmp_path / "model"), tmp_path / "built.pt")
    assert done.returncode == 1 and "keys are missing (text_" in done.stderr, done.stderr

    made = run(forks, MAKE, tmp_path / "model/hub", tmp_path / "state.pt")
    assert made.returncode == 0, made.stderr
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    torch.save({"epoch": 1, "best": np.float64(0.5), "state_dict": state}, tmp_path / "clap.pt")

    moved = take(source, tmp_path / "clap.pt", tmp_path / "model").rename(tmp_path / "moved")
    done = run(forks, BUILD, moved, tmp_path / "built.pt")
    assert done.returncode == 0, done.stderr
    built = torch.load(tmp_path / "built.pt", weights_only=True)
    width = read_model_config(moved / "model_config.json")["model"]["conditioning"]["cond_dim"]
    assert built["given"].shape == (2, 77, width) and built["given"].isfinite().all()
    assert all(torch.equal(value, state[f"module.text_branch.{key}"]) for key, value in built["text"].items())
