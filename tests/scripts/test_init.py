"""A run starts from any form in which people keep a fine-tuned model, and from nothing that does not fit."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import assert_fails, assert_succeeds, run_script
from safetensors.torch import load_file, save_file
from sao.base.files import read_json, sha256
from sao.base.names import read_digests
from steps import upstream_training

State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def base(base_model: Path) -> State:
    return load_file(base_model / "model.safetensors")


@pytest.fixture(scope="module")
def tuned(base: State) -> State:
    """The base model with other weights where a training would have changed them."""
    noise = torch.Generator().manual_seed(0)
    return {
        key: value
        if key.startswith("pretransform.")
        else value.float() + 0.01 * torch.randn(value.shape, generator=noise)
        for key, value in base.items()
    }


def init(
    base_model: Path, weights: Path, output: Path, *more: object, which: str = "ema"
) -> subprocess.CompletedProcess[str]:
    settings = json.dumps({"init_from": "mine", "init_weights": which})
    return run_script(
        "init", "--weights", weights, "--settings", settings, "--model", base_model,
        "--model-digest", base_model / "checksums.sha256", "--output", output, "--digest", output / "checksums.sha256", *more,
    )  # fmt: skip


def made(result: subprocess.CompletedProcess[str], output: Path, expected: State, kind: str) -> None:
    """The result has to hold exactly the expected weights, and say what they are."""
    assert_succeeds(result)
    found = load_file(output / "model.safetensors")
    assert set(found) == set(expected)
    for key, value in found.items():
        torch.testing.assert_close(value.float(), expected[key].float(), rtol=0, atol=0)
    assert read_json(output / "source.json")["kind"] == kind
    digests = read_digests(output / "checksums.sha256")
    assert digests == {name: sha256(output / name) for name in ("model_config.json", "model.safetensors")}


@pytest.mark.parametrize("form", ["whole", "folder", "trained part", "pickled"])
def test_a_model_is_taken_in_each_form(base_model: Path, tuned: State, tmp_path: Path, form: str) -> None:
    path = tmp_path / ("model.ckpt" if form == "pickled" else "model.safetensors")
    part = {key: value for key, value in tuned.items() if not key.startswith("pretransform.")}
    if form == "pickled":
        torch.save({"state_dict": tuned, "global_step": 7}, path)
    else:
        save_file(part if form == "trained part" else tuned, path)
    result = init(base_model, tmp_path if form == "folder" else path, tmp_path / "out")
    made(result, tmp_path / "out", tuned, "model")


@pytest.mark.parametrize("which", ["ema", "online"])
@pytest.mark.parametrize("averaged", [True, False])
def test_checkpoints_of_stable_audio_tools_are_unwrapped(
    base_model: Path, tuned: State, tmp_path: Path, which: str, averaged: bool
) -> None:
    """Written by the wrapper that stable-audio-tools trains with. Its moving average is another than its weights."""
    from sao.models.build import build

    model = build(read_json(base_model / "model_config.json"), base_model / "hub")
    model.load_state_dict({key: value.float() for key, value in tuned.items()})
    optimizer = {"diffusion": {"optimizer": {"type": "AdamW", "config": {"lr": 1e-3}}}}
    wrapper = upstream_training().DiffusionCondTrainingWrapper(model, use_ema=averaged, optimizer_configs=optimizer)
    expected = dict(tuned)
    if averaged:
        for name, weight in wrapper.diffusion_ema.ema_model.named_parameters():
            weight.data += 1
            if which == "ema":
                expected[f"model.{name}"] = weight.data
    torch.save({"state_dict": wrapper.state_dict(), "epoch": 0}, tmp_path / "epoch=0.ckpt")
    result = init(base_model, tmp_path / "epoch=0.ckpt", tmp_path / "out", which=which)
    made(
        result,
        tmp_path / "out",
        expected,
        "moving average of a checkpoint" if averaged and which == "ema" else "checkpoint",
    )
    assert ("has no moving average" in result.stderr) == (which == "ema" and not averaged)


@pytest.fixture(scope="module")
def adapter(base_model: Path, base: State, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, State]:
    """The folder of an adapter, and the base model's weights with it. Not to be changed."""
    from sao.models.build import build
    from sao.training.adapters import adapter_state, add_adapters, merged_weights, write_adapter
    from sao.training.memory import ADAPTER

    settings = ADAPTER | {"rank": 2, "alpha": 4, "target_modules": ["to_qkv"], "base_precision": "32"}
    model = build(read_json(base_model / "model_config.json"), base_model / "hub")
    add_adapters(model, "lora", settings, 0)
    state = {key: torch.full_like(value, 0.1) for key, value in adapter_state(model, "lora").items()}
    folder = tmp_path_factory.mktemp("adapter")
    write_adapter(folder, state, "lora", settings)
    expected = merged_weights(base, folder)
    layer = next(key for key in expected if key.endswith("layers.0.self_attn.to_qkv.weight"))
    change = expected[layer].float() - base[layer].float()
    assert change == pytest.approx(0.1 * 0.1 * 2 * 4 / 2, abs=1e-3)  # rank 2, scaled by alpha / rank
    return folder, expected


@pytest.mark.parametrize("form", ["folder", "peft's file", "file of another name"])
def test_adapters_are_merged(base_model: Path, adapter: tuple[Path, State], tmp_path: Path, form: str) -> None:
    folder, expected = adapter
    path = {
        "folder": folder,
        "peft's file": folder / "adapter_model.safetensors",
        "file of another name": shutil.copy(folder / "lora.safetensors", tmp_path / "mine.safetensors"),
    }[form]
    made(init(base_model, path, tmp_path / "out"), tmp_path / "out", expected, "adapter")


def test_lineage_is_kept(base_model: Path, tuned: State, tmp_path: Path) -> None:
    path, export, before = (tmp_path / name for name in ("model.safetensors", "export.json", "before.json"))
    save_file(tuned, path)
    export.write_text(json.dumps({"sha256": sha256(path), "leg": "step-00000004"}))
    before.write_text(json.dumps({"init_from": "first", "before": None}))
    out = tmp_path / "out"
    assert_succeeds(init(base_model, path, out, "--export", export, "--before", before))
    source = read_json(out / "source.json")
    assert (source["init_from"], source["leg"]) == ("mine", "step-00000004")
    assert source["sha256"] == {"model.safetensors": sha256(path)} and source["before"]["init_from"] == "first"
    export.write_text(json.dumps({"sha256": "0" * 64, "leg": "step-00000004"}))
    assert_fails(
        init(base_model, path, tmp_path / "other", "--export", export), f"{path}: has the SHA-256", str(export)
    )
    assert not (tmp_path / "other").exists()


def first(state: State, start: str) -> str:
    return next(key for key in sorted(state) if key.startswith(start))


def without(state: State, start: str) -> State:
    return {key: value for key, value in state.items() if key != first(state, start)}


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda base, tuned: base, "all weights are those of the base model"),
        (lambda base, tuned: without(tuned, "model."), "1 keys are missing (model."),
        (lambda base, tuned: tuned | {"other.weight": torch.zeros(1)}, "1 are unexpected (other.weight"),
        (lambda base, tuned: tuned | {first(tuned, "model."): torch.zeros(3)}, "1 have another shape (model."),
        (
            lambda base, tuned: tuned | {key: tuned[key] + 1 for key in [first(tuned, "pretransform.")]},
            "has another autoencoder than the base model (1 weights",
        ),
        (
            lambda base, tuned: tuned | {key: tuned[key] * torch.nan for key in [first(tuned, "model.")]},
            "1 weights are NaN or infinite",
        ),
        (
            lambda base, tuned: {f"diffusion.{key}": value for key, value in tuned.items()} | {"x.y": torch.zeros(1)},
            "1 keys are not known in a checkpoint of stable-audio-tools (x.y",
        ),
    ],
    ids=["the base itself", "missing", "unexpected", "shape", "autoencoder", "NaN", "strange wrapper"],
)
def test_what_does_not_fit_is_one_line(
    base_model: Path, base: State, tuned: State, tmp_path: Path, spoil: Callable[[State, State], State], words: str
) -> None:
    path = tmp_path / "mine.safetensors"
    save_file(spoil(base, tuned), path)
    assert_fails(init(base_model, path, tmp_path / "out"), path, words)
    assert not (tmp_path / "out").exists()


def test_what_is_no_model_is_one_line(base_model: Path, tmp_path: Path) -> None:
    assert_fails(init(base_model, tmp_path / "none.ckpt", tmp_path / "out"), "none.ckpt: no such file or folder")
    (tmp_path / "empty").mkdir()
    assert_fails(init(base_model, tmp_path / "empty", tmp_path / "out"), "empty: has no model.safetensors")
    (tmp_path / "text.safetensors").write_text("weights")
    assert_fails(init(base_model, tmp_path / "text.safetensors", tmp_path / "out"), "not a whole safetensors file")
    (tmp_path / "text.ckpt").write_text("weights")
    assert_fails(init(base_model, tmp_path / "text.ckpt", tmp_path / "out"), "cannot be loaded safely")
