"""Export matches every key, takes moving averages if there are any, merges adapters, and loads nothing unsafe."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from conftest import SCRIPTS, assert_fails, change, run_script
from forks import Forks
from safetensors.torch import load_file, save_file
from sao.base.names import write_digests

LAST = "results/checkpoints/demo/step-00000600"


def export(finished: Path, trained: list[Path], output: Path, trainings=()):
    return run_script(
        "export", "--trained", *trained, "--training", *(trainings or [finished / LAST / "training.json"]),
        "--checksums", *(checksums(folder) for folder in trained),
        "--model", finished / "results/models/demo",
        "--model-digest", finished / "results/models/demo/checksums.sha256", "--output", output, "--digest", output / "export.json",
    )  # fmt: skip


def checksums(folder: Path) -> Path:
    """The file of checksums of a leg's present weights."""
    listing = folder.with_name("checksums.sha256")
    if not listing.is_file():  # a copy has no listing yet
        write_digests(listing, folder.parent, sorted(path for path in folder.rglob("*") if path.is_file()))
    return listing


LOAD = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from sao.models.build import build
from safetensors.torch import load_file
folder = Path(sys.argv[2])
run = folder / "checkpoints/demo"
model = build(json.loads((run / "model_config.json").read_text()), folder / "models/demo/hub")
print(model.load_state_dict(load_file(run / "model.safetensors"), strict=True))
"""


def test_exported_file_holds_what_was_trained_and_loads_strictly(finished: Path, forks: Forks, tmp_path: Path) -> None:
    exported = load_file(finished / "results/checkpoints/demo/model.safetensors")
    state = torch.load(finished / LAST / "state.ckpt", weights_only=True, map_location="cpu")
    average = {key: value for key, value in state["average"].items() if key != "step"}
    assert len(average) > 40 and all(key.startswith("model.") for key in average)
    for key, value in average.items():
        assert torch.equal(exported[key], value)
    assert any(not torch.equal(state["weights"][key], value) for key, value in average.items())
    online = [key for key in state["weights"] if key.startswith("conditioner.")]
    assert online and all(torch.equal(exported[key], state["weights"][key]) for key in online)
    base = load_file(finished / "results/models/demo/model.safetensors")
    assert all(torch.equal(value, base[key]) for key, value in exported.items() if key.startswith("pretransform."))

    program = tmp_path / "load.py"
    program.write_text(LOAD, encoding="utf-8")
    done = forks.program(program, SCRIPTS, finished / "results", cwd=tmp_path).finish()
    assert "All keys matched" in done.stdout, done.stderr


def test_of_several_legs_the_best_is_taken(finished: Path, tmp_path: Path) -> None:
    legs = [finished / "results/checkpoints/demo" / leg for leg in ("step-00000300", "step-00000600")]
    trainings = [leg / "training.json" for leg in legs]
    losses = [json.loads(path.read_text())["validation_loss"] for path in trainings]
    best = losses.index(min(losses))
    done = export(finished, [leg / "weights" for leg in legs], tmp_path / "out", trainings=trainings)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out/export.json").read_text())["leg"] == legs[best].name
    exported, trained = (
        load_file(tmp_path / "out/model.safetensors"),
        load_file(legs[best] / "weights/model.safetensors"),
    )
    assert all(torch.equal(exported[key], value) for key, value in trained.items())


@pytest.fixture
def weights(finished: Path, tmp_path: Path) -> Path:
    """A copy of the weights of the last leg, which a test may spoil."""
    return shutil.copytree(finished / LAST / "weights", tmp_path / "weights")


@pytest.mark.parametrize("what", ["trained", "base"])
def test_weights_that_changed_after_they_were_made_are_not_exported(
    finished: Path, weights: Path, tmp_path: Path, what: str
) -> None:
    listing = checksums(weights)
    model = shutil.copytree(finished / "results/models/demo", tmp_path / "demo")
    victim = change((weights if what == "trained" else model) / "model.safetensors")
    done = run_script(
        "export", "--trained", weights, "--training", finished / LAST / "training.json", "--checksums", listing,
        "--model", model, "--model-digest", model / "checksums.sha256",
        "--output", tmp_path / "out", "--digest", tmp_path / "out/export.json",
    )  # fmt: skip
    assert_fails(done, f"{victim}: has the SHA-256", "checksums.sha256 says", "run again")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("missing", "1 keys are missing (model."),
        ("unexpected", "1 are unexpected (model.extra"),
        ("shape", "1 have another shape"),
        ("nan", "are NaN or infinite"),
        ("truncated", "not a whole safetensors file"),
        ("base", "no weight of the diffusion model differs"),
    ],
)
def test_weights_that_do_not_fit_give_no_file(finished: Path, weights: Path, how: str, message: str) -> None:
    path = weights / "model.safetensors"
    state = load_file(path)
    key = next(key for key in state if key.startswith("model.") and state[key].ndim == 2)
    match how:
        case "missing":
            del state[key]
        case "unexpected":
            state["model.extra"] = torch.zeros(1)
        case "shape":
            state[key] = state[key].flatten()[:1].clone()
        case "nan":
            state[key] = torch.full_like(state[key], float("nan"))
        case "base":
            base = load_file(finished / "results/models/demo/model.safetensors")
            state = {key: base[key] for key in state}
    save_file(state, path)
    if how == "truncated":
        path.write_bytes(path.read_bytes()[:-10])
    done = export(finished, [weights], weights.parent / "out")
    assert done.returncode == 1 and message in done.stderr and str(weights) in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
    assert not (weights.parent / "out/model.safetensors").exists()


def test_malicious_pickle_executes_nothing(finished: Path, weights: Path) -> None:
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {weights.parent / 'executed'}",)

    (weights / "model.safetensors").write_bytes(pickle.dumps(Evil()))
    assert_fails(export(finished, [weights], weights.parent / "out"), "not a whole safetensors file")
    assert not (weights.parent / "executed").exists()


def test_adapter_is_merged_and_one_of_another_model_refused(finished: Path, tmp_path: Path) -> None:
    from sao.training.adapters import write_adapter
    from sao.training.memory import ADAPTER

    base = load_file(finished / "results/models/demo/model.safetensors")
    name = next(key for key in base if key.endswith("self_attn.to_out.weight"))
    prefix = f"base_model.model.{name.removeprefix('model.').removesuffix('.weight')}"
    rows, columns = base[name].shape
    generator = torch.Generator().manual_seed(0)
    adapter = ADAPTER | {"rank": 2, "alpha": 4, "target_modules": ["to_out"]}
    state = {
        f"{prefix}.lora_A.weight": torch.randn(2, columns, generator=generator),
        f"{prefix}.lora_B.weight": torch.randn(rows, 2, generator=generator),
    }
    (tmp_path / "weights").mkdir()
    write_adapter(tmp_path / "weights", state, "lora", adapter)
    done = export(finished, [tmp_path / "weights"], tmp_path / "out")
    assert done.returncode == 0, done.stderr
    exported = load_file(tmp_path / "out/model.safetensors")
    product = state[f"{prefix}.lora_B.weight"] @ state[f"{prefix}.lora_A.weight"]
    assert torch.allclose(exported[name].float(), base[name].float() + 4 / 2 * product, atol=1e-2)
    assert {key for key, value in exported.items() if not torch.equal(value, base[key])} == {name}

    wrong = {key.replace("to_out", "to_nowhere"): value for key, value in state.items()}
    write_adapter(tmp_path / "weights", wrong, "lora", adapter)
    assert_fails(export(finished, [tmp_path / "weights"], tmp_path / "other"), tmp_path / "weights")
    assert not (tmp_path / "other/model.safetensors").exists()
