"""Unwrapping: every key matched with equal shape, EMA where there is one, and nothing unsafe loaded."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import ROOT, run_script
from export import unwrap
from safetensors.torch import load_file
from sao.command import InputError


def export(finished: Path, checkpoint: Path, output: Path, clips: Path | None = None):
    data = finished / "results/data/demo"
    return run_script(
        "export", "--checkpoint", checkpoint, "--model", finished / "results/models/demo",
        "--source", '{"repo": "owner/model", "revision": "abc"}',
        "--training", finished / "results/checkpoints/demo/training.json",
        "--clips", clips or data / "splits/train.csv", "--dropped", data / "dataset_configs/demo/dropped.csv",
        "--output", output, "--digest", output / "export.json",
    )  # fmt: skip


@pytest.fixture(scope="module")
def state(finished: Path) -> dict[str, torch.Tensor]:
    path = finished / "results/checkpoints/demo/last.ckpt"
    return torch.load(path, weights_only=True, map_location="cpu")["state_dict"]


def test_exported_file_holds_ema_and_online_weights_and_loads_strictly(finished: Path, state: dict) -> None:
    exported = load_file(finished / "results/checkpoints/demo/model.safetensors")
    ema = {k.removeprefix("diffusion_ema.ema_model."): v for k, v in state.items() if ".ema_model." in k}
    assert len(ema) > 40
    for key, value in ema.items():
        assert torch.equal(exported[f"model.{key}"], value)
    assert any(not torch.equal(state[f"diffusion.model.{key}"], value) for key, value in ema.items())
    others = [key for key in exported if not key.startswith("model.")]
    assert others and all(torch.equal(exported[key], state[f"diffusion.{key}"]) for key in others)

    code = (
        "import sys, json; from pathlib import Path; sys.path.insert(0, 'scripts')\n"
        "from sao.model import build; from safetensors.torch import load_file\n"
        "folder = Path(sys.argv[1]); run = folder / 'checkpoints/demo'\n"
        "model = build(json.loads((run / 'model_config.json').read_text()), folder / 'models/demo/hub')\n"
        "print(model.load_state_dict(load_file(run / 'model.safetensors'), strict=True))\n"
    )
    command = [sys.executable, "-c", code, str(finished / "results")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert "All keys matched" in done.stdout, done.stderr


def test_model_comes_with_its_card_and_credits(finished: Path, tmp_path: Path) -> None:
    train = pd.read_csv(finished / "results/data/demo/splits/train.csv")
    credits = pd.read_csv(finished / "results/checkpoints/demo/ATTRIBUTION.csv")
    assert list(credits.columns) == ["clip_id", "file_name", "author", "link", "license"]
    assert list(credits.clip_id) == list(train.clip_id) and list(credits.author) == list(train.manufacturer)
    assert list(credits.link) == list(train.sound_link) and list(credits.license) == list(train.license)

    train.loc[0, "license"] = "http://creativecommons.org/licenses/by-nc/3.0/"
    train.loc[1, "license"] = ""
    train.to_csv(tmp_path / "train.csv", index=False)
    checkpoint = finished / "results/checkpoints/demo/last.ckpt"
    assert export(finished, checkpoint, tmp_path / "out", tmp_path / "train.csv").returncode == 0
    card = (tmp_path / "out/README.md").read_text(encoding="utf-8")
    for text in (
        "base_model: owner/model",
        "`owner/model` at revision `abc`, fine-tuned for 1000 steps on 16 clips",
        "| CC-BY-NC-3.0 | 1 |",
        "| CC0-1.0 | 14 |",
        "1 of the clips are under non-commercial licences. The licence of 1 of the clips is not known.",
        "| batch_size | 16 |",
        json.loads((tmp_path / "out/export.json").read_text())["sha256"],
    ):
        assert text in card, card


def test_unwrap_takes_ema_over_online() -> None:
    wrapped = {
        "diffusion.model.a": torch.zeros(1),
        "diffusion.conditioner.b": torch.ones(1),
        "diffusion_ema.ema_model.a": torch.full((1,), 7.0),
        "diffusion_ema.step": torch.tensor(3),
    }
    weights, averaged = unwrap(wrapped)
    assert averaged == 1 and set(weights) == {"model.a", "conditioner.b"} and float(weights["model.a"]) == 7
    raw, averaged = unwrap({k: v for k, v in wrapped.items() if "ema" not in k})
    assert averaged == 0 and float(raw["model.a"]) == 0
    with pytest.raises(InputError, match=r"model\.stray belongs to no weight"):
        unwrap(wrapped | {"diffusion_ema.ema_model.stray": torch.zeros(1)})


def spoil(state: dict, how: str) -> dict:
    state = dict(state)
    key = next(k for k in state if k.startswith("diffusion.pretransform."))
    dit = next(k for k in state if k.startswith("diffusion_ema.ema_model.") and state[k].ndim == 2)
    match how:
        case "missing":
            del state[key]
        case "unexpected":
            state["diffusion.extra"] = torch.zeros(1)
        case "shape":
            state[key] = state[key].flatten()[:1]
        case "nan":
            state[dit] = torch.full_like(state[dit], float("nan"))
        case "bare":
            state = {k.removeprefix("diffusion."): v for k, v in state.items()}
    return state


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("missing", "1 keys are missing"),
        ("unexpected", "1 are unexpected (extra"),
        ("shape", "1 have another shape"),
        ("nan", "are NaN or infinite"),
        ("bare", "belongs to no weight of the model"),
    ],
)
def test_checkpoint_that_does_not_fit_gives_no_file(
    finished: Path, state: dict, tmp_path: Path, how: str, message: str
) -> None:
    torch.save({"state_dict": spoil(state, how)}, tmp_path / "bad.ckpt")
    done = export(finished, tmp_path / "bad.ckpt", tmp_path / "out")
    assert done.returncode == 1 and message in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert not (tmp_path / "out/model.safetensors").exists()


def test_untrained_weights_are_refused(finished: Path, tmp_path: Path) -> None:
    base = load_file(finished / "results/models/demo/model.safetensors")
    torch.save({"state_dict": {f"diffusion.{k}": v.float() for k, v in base.items()}}, tmp_path / "base.ckpt")
    done = export(finished, tmp_path / "base.ckpt", tmp_path / "out")
    assert done.returncode == 1 and "no weight of the diffusion model differs" in done.stderr


def test_malicious_pickle_executes_nothing(finished: Path, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'executed'}",)

    torch.save({"state_dict": Evil()}, tmp_path / "evil.ckpt")
    (tmp_path / "raw.ckpt").write_bytes(pickle.dumps(Evil()))
    for name in ("evil.ckpt", "raw.ckpt"):
        done = export(finished, tmp_path / name, tmp_path / "out")
        assert done.returncode == 1 and "not a training state that can be loaded safely" in done.stderr
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "executed").exists()
