"""Training: on every clip with its own caption, to the last step, repeatable and resumable."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import SCRIPTS, run_script
from hypothesis import given
from hypothesis import strategies as st
from sao.command import InputError
from sao.latents import EndlessBatches, LatentDataset, collate
from train import training_config

SETTINGS = {
    "base_model": "demo", "corpus": "demo", "steps": 6, "batch_size": 4, "accumulate": 2, "learning_rate": 1e-3,
    "precision": "32-true", "gradient_clip": 0, "captions": "random", "seed": 3, "workers": 0, "threads": 1,
    "checkpoint_every": 3, "validate_every": 3, "wandb": None, "recompute_activations": False,
}  # fmt: skip


def arguments(root: Path, output: Path, **changes) -> list:
    return [
        "--run", "test", "--settings", json.dumps(SETTINGS | changes),
        "--dataset-configs", "results/data/demo/dataset_configs/demo",
        "--latents-digest", "results/latents/demo/demo/development.json",
        "--model", "results/models/demo", "--model-digest", "results/models/demo/checksums.sha256",
        "--code", "x", "--output", output,
    ]  # fmt: skip


def train(root: Path, output: Path, **changes) -> subprocess.CompletedProcess[str]:
    return run_script("train", *arguments(root, output, **changes), cwd=root)


def weights(output: Path) -> dict[str, torch.Tensor]:
    return torch.load(output / "last.ckpt", weights_only=True, map_location="cpu")["state_dict"]


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    """Data, latents and base model, to be spoiled."""
    for part in ("data/demo/dataset_configs", "latents", "models"):
        shutil.copytree(finished / "results" / part, tmp_path / "results" / part)
    return tmp_path


def test_resumed_equals_unbroken_bit_by_bit(finished: Path, tmp_path: Path) -> None:
    assert train(finished, tmp_path / "whole").returncode == 0
    assert train(finished, tmp_path / "parts", steps=3).returncode == 0
    done = train(finished, tmp_path / "parts")
    assert done.returncode == 0 and "resuming at step 3 of 6" in done.stderr, done.stderr
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[key], parts[key]) for key in whole)
    table, resumed = (pd.read_csv(tmp_path / name / "metrics.csv") for name in ("whole", "parts"))
    assert list(table.step) == [3, 6] and table.notna().all(axis=None)
    assert table.equals(resumed)


def test_interrupted_training_keeps_its_state_and_goes_on(finished: Path, tmp_path: Path) -> None:
    command = [sys.executable, SCRIPTS / "train.py", *map(str, arguments(finished, tmp_path / "out", steps=100000))]
    process = subprocess.Popen(command, cwd=finished, stderr=subprocess.PIPE, text=True)
    state = tmp_path / "out/state"
    deadline = time.monotonic() + 120
    while not list(state.glob("*/last.ckpt")) and time.monotonic() < deadline:
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130 and "interrupted" in stderr and "Traceback" not in stderr, stderr
    assert not (tmp_path / "out/last.ckpt").exists()
    reached = torch.load(next(state.glob("*/last.ckpt")), weights_only=True, map_location="cpu")["global_step"]
    done = train(finished, tmp_path / "out", steps=reached + 2)
    assert done.returncode == 0 and f"resuming at step {reached} of {reached + 2}" in done.stderr, done.stderr
    assert json.loads((tmp_path / "out/training.json").read_text())["steps"] == reached + 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 17}, "16 training clips do not fill one batch of 17: lower batch_size or add clips"),
        ({"precision": "16-mixed"}, "precision 16-mixed needs a GPU"),
        ({"wandb": {"project": "p", "mode": "online"}}, "run `wandb login`, set wandb.mode to offline"),
    ],
)
def test_training_that_could_not_step_fails(finished: Path, tmp_path: Path, changes: dict, message: str) -> None:
    done = train(finished, tmp_path / "out", **changes)
    assert done.returncode == 1 and message in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "out/last.ckpt").exists()


def test_wandb_offline_writes_to_the_state(finished: Path, tmp_path: Path) -> None:
    done = train(finished, tmp_path / "out", steps=2, wandb={"project": "p", "mode": "offline"})
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "out/state").rglob("*.wandb"))


def test_finished_training_made_again_is_the_same(finished: Path, tmp_path: Path) -> None:
    assert train(finished, tmp_path / "out").returncode == 0
    before = (tmp_path / "out/metrics.csv").read_text(), weights(tmp_path / "out")
    done = train(finished, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out/metrics.csv").read_text() == before[0]
    assert all(torch.equal(value, before[1][key]) for key, value in weights(tmp_path / "out").items())


def test_clip_with_an_empty_caption_stops_the_training(copy: Path) -> None:
    path = copy / "results/data/demo/dataset_configs/demo/train/captions.json"
    captions = json.loads(path.read_text())
    clip = sorted(captions)[0]
    captions[clip] = [" "] * 5
    path.write_text(json.dumps(captions))
    done = train(copy, copy / "out")
    assert done.returncode == 1 and clip in done.stderr and "is empty" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and not (copy / "out/last.ckpt").exists()


def dataset(root: Path, monkeypatch: pytest.MonkeyPatch, captions: str = "random", seed: int = 0) -> LatentDataset:
    monkeypatch.chdir(root)
    return LatentDataset(Path("results/data/demo/dataset_configs/demo/train.json"), captions, seed, 64)


def test_exception_in_the_hook_is_raised_with_the_clip(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hook = copy / "results/data/demo/dataset_configs/demo/train/metadata.py"
    hook.write_text("def get_custom_metadata(info, audio):\n    raise KeyError('prompt')\n")
    with pytest.raises(InputError, match=r"\.npy: the metadata hook failed \(KeyError"):
        dataset(copy, monkeypatch)[0, 0]


@pytest.mark.parametrize("prompt", ["None", "''", "'  '", "3"])
def test_hook_without_a_prompt_is_refused(copy: Path, monkeypatch: pytest.MonkeyPatch, prompt: str) -> None:
    hook = copy / "results/data/demo/dataset_configs/demo/train/metadata.py"
    hook.write_text(f"def get_custom_metadata(info, audio):\n    return {{'prompt': {prompt}}}\n")
    with pytest.raises(InputError, match="gave no prompt"):
        dataset(copy, monkeypatch)[0, 0]


@pytest.mark.parametrize("spoil", ["nan", "short", "missing", "garbage"])
def test_bad_latents_are_never_replaced_by_another_clip(
    copy: Path, monkeypatch: pytest.MonkeyPatch, spoil: str
) -> None:
    data = dataset(copy, monkeypatch)
    path = data.clips[2][0]
    latents = np.load(path)
    match spoil:
        case "nan":
            np.save(path, np.full_like(latents, np.nan))
        case "short":
            np.save(path, latents[:, :-1])
        case "missing":
            path.unlink()
        case "garbage":
            path.write_bytes(b"not an array")
    with pytest.raises(InputError, match=path.name):
        data[0, 2]


def test_every_clip_comes_with_its_own_latents_and_captions(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = dataset(finished, monkeypatch)
    captions = json.loads(Path("results/data/demo/dataset_configs/demo/train/captions.json").read_text())
    seen: dict[str, set[str]] = {}
    for epoch in range(30):
        for index in range(len(data)):
            latents, info = data[epoch, index]
            assert (latents.numpy() == np.load(data.clips[index][0])).all()
            assert info["prompt"] in captions[info["clip_id"]]
            seen.setdefault(info["clip_id"], set()).add(info["prompt"])
    assert {clip: len(prompts) for clip, prompts in seen.items()} == {clip: 5 for clip in captions}
    # A pure function of (seed, epoch, clip).
    assert data[7, 3][1]["prompt"] == dataset(finished, monkeypatch)[7, 3][1]["prompt"]


def test_caption_modes(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = dataset(finished, monkeypatch, "first")
    assert {first[epoch, 0][1]["caption_index"] for epoch in range(9)} == {0}
    every = dataset(finished, monkeypatch, "all")
    assert len(every) == 80 and len({every[0, i][1]["prompt"] for i in range(80)}) == 80


def test_collated_batch_has_the_form_that_the_wrapper_takes(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = dataset(finished, monkeypatch)
    latents, infos = collate([data[0, 0], data[0, 1]])
    assert latents.shape == (2, 64, 48) and len(infos) == 2
    assert infos[0]["padding_mask"][0].shape == (48,)


@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 5), st.integers(0, 30))
def test_batches_cover_each_epoch_once_and_can_start_anywhere(items: int, size: int, seed: int, start: int) -> None:
    batches = EndlessBatches(items, size, seed)
    need = -(-3 * items // size)
    flat = [item for _, batch in zip(range(need), batches, strict=False) for item in batch][: 3 * items]
    for epoch in range(3):
        assert sorted(flat[epoch * items : (epoch + 1) * items]) == [(epoch, index) for index in range(items)]
    later = next(iter(EndlessBatches(items, size, seed, start)))
    assert later == [batch for _, batch in zip(range(start + 1), batches, strict=False)][-1]


def test_learning_rate_goes_where_the_models_config_keeps_it() -> None:
    config = {"training": {"optimizer_configs": {"diffusion": {"optimizer": {"config": {"lr": 1.0}}}}}}
    changed = training_config(config, SETTINGS)["training"]
    assert changed["optimizer_configs"]["diffusion"]["optimizer"]["config"]["lr"] == 1e-3
    assert changed["pre_encoded"] is True
    assert training_config({"training": {}}, SETTINGS)["training"]["learning_rate"] == 1e-3
    with pytest.raises(InputError, match="set learning_rate"):
        training_config({"training": {}}, SETTINGS | {"learning_rate": None})
    kept = training_config({"training": {"learning_rate": 5.0}}, SETTINGS | {"learning_rate": None})
    assert kept["training"]["learning_rate"] == 5.0


def test_inverse_lr_is_upstreams_schedule() -> None:
    from sao.training import InverseLR

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    schedule = InverseLR(optimizer, inv_gamma=10, power=0.5, warmup=0.9, final_lr=0.01)
    for n in range(50):
        expected = (1 - 0.9 ** (n + 1)) * max(0.01, 0.1 * (1 + n / 10) ** -0.5)
        assert schedule.get_last_lr()[0] == pytest.approx(expected)
        optimizer.step()
        schedule.step()
