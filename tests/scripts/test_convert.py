"""An exported model in another program's form: what is written is measured, vouched for, and loads as the card says."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import (
    BASE_MODEL,
    assert_fails,
    assert_succeeds,
    change,
    checksum,
    kept_table,
    listing,
    put_in_place,
    run_script,
)
from forks import Forks
from hub import serve_hub
from safetensors.torch import load_file
from sao.base.files import read_json
from sao.base.names import write_digests
from test_model_card import LEG, SAMPLING, code_of, front_of, measured, run_code, training
from test_upload import REPO, TOKEN, environment

SETTINGS = {"form": "model", "precision": "float32", "sampling": SAMPLING | {"steps": 4}, "train_seconds": None}
ADAPTER = {
    "rank": 4,
    "alpha": 6,
    "rslora": False,
    "dropout": 0.0,
    "target_modules": ["to_qkv", "to_out", "preprocess_conv"],
}
ADAPTER |= {"include": None, "exclude": None, "base_precision": "fp32"}


@pytest.fixture(scope="module")
def whole_model(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's base model with all its blocks: what fewer of them render is noise, which each rounding changes."""
    return put_in_place(BASE_MODEL, tmp_path_factory.mktemp("whole") / "base_model")


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory, whole_model: Path, splits: Path) -> Path:
    """The export of a DoRA of the demo's base model with random weights. Tests must not change it."""
    from sao.training.adapters import adapter_state, add_adapters, write_adapter
    from steps import make_model

    folder = tmp_path_factory.mktemp("adapted")
    model: Any = make_model(whole_model, "v")
    add_adapters(model, "dora", ADAPTER, 0)
    generator = torch.Generator().manual_seed(1)
    state = {}
    for key, value in adapter_state(model, "dora").items():
        noise = torch.randn(value.shape, generator=generator)
        state[key] = value.detach() * (1 + 0.02 * noise) if "magnitude" in key else 0.05 * noise
    leg = folder / LEG
    (leg / "weights").mkdir(parents=True)
    write_adapter(leg / "weights", state, "dora", ADAPTER)
    (leg / "training.json").write_text(json.dumps(training()))
    write_digests(leg / "checksums.sha256", leg, sorted((leg / "weights").iterdir()))
    out = folder / "demo"
    given = ["--trained", leg / "weights", "--training", leg / "training.json", "--checksums", leg / "checksums.sha256"]
    given += ["--model", whole_model, "--model-digest", whole_model / "checksums.sha256"]
    assert_succeeds(run_script("export", *given, "--output", out, "--digest", out / "export.json"))
    kept_table(splits, folder / "kept.csv")
    measured(folder / "demo.json", LEG, 1)
    measured(folder / "base.json", None, 2)
    return folder


def convert(
    adapted: Path,
    whole_model: Path,
    output: Path,
    leg: Path | None = None,
    weights: Path | None = None,
    **settings: Any,
) -> subprocess.CompletedProcess[str]:
    """Run convert.py on the files of `adapted`, or on others in their place."""
    leg = leg or adapted / LEG
    of_adapter = ["--trained", leg / "weights", "--checksums", leg / "checksums.sha256"]
    of_adapter += ["--start", whole_model, "--start-digest", whole_model / "checksums.sha256"]
    return run_script(
        "convert", "--run", "demo", "--weights", weights or adapted / "demo/model.safetensors",
        "--weights-digest", adapted / "demo/export.json", "--model", whole_model,
        "--model-digest", whole_model / "checksums.sha256", "--kept", adapted / "kept.csv",
        "--settings", json.dumps(SETTINGS | settings), "--code", "0" * 16, "--output", output,
        "--digest", output.with_suffix(".json"),
        *(of_adapter if SETTINGS | settings != SETTINGS and settings["form"] in ("comfyui", "stable_audio_tools") else []),
    )  # fmt: skip


@pytest.fixture(scope="module")
def exports(adapted: Path, whole_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Every form, in half precision and, of the pipeline, in float32. Tests must not change them."""
    folder = tmp_path_factory.mktemp("exports")
    kinds = {"model": "bfloat16", "stable_audio_tools": "float16", "comfyui": "float16", "diffusers": "float32"}
    for form, precision in kinds.items():
        output = folder / f"{form}-{precision}"
        assert_succeeds(convert(adapted, whole_model, output, form=form, precision=precision))
    return {form: folder / f"{form}-{precision}" for form, precision in kinds.items()}


FILES = {
    "model": {"model.safetensors", "model_config.json"},
    "stable_audio_tools": {"lora.safetensors"},
    "comfyui": {"demo-comfyui.safetensors"},
}


def test_the_record_vouches_for_the_files_and_tells_sizes_and_differences(
    adapted: Path, exports: dict[str, Path]
) -> None:
    for form, folder in exports.items():
        record = read_json(folder.with_suffix(".json"))
        assert (record["form"], f"{form}-{record['precision']}", record["leg"]) == (form, folder.name, LEG)
        assert record["model_sha256"] == read_json(adapted / "demo/export.json")["sha256"]
        assert set(record["files"]) == listing(folder) and listing(folder) >= FILES.get(form, {"model_index.json"})
        for name, of in record["files"].items():
            assert of == {"bytes": (folder / name).stat().st_size, "sha256": checksum(folder / name, "sha256")}
        assert record["bytes"] == sum(of["bytes"] for of in record["files"].values())
        if record["precision"] == "float32":
            assert record["weights"]["largest_error"] == 0 and record["render"] is None
        else:
            assert 1e-7 < record["weights"]["mean_error"] <= record["weights"]["largest_error"] < 5e-3
            assert -130 < record["render"]["decibels"] < 0
    # Of a number in half precision, bfloat16 keeps three binary digits less.
    errors = [read_json(exports[form].with_suffix(".json"))["weights"]["mean_error"] for form in ("model", "comfyui")]
    assert errors[0] > 3 * errors[1]


def test_half_precision_is_of_matrices_alone_and_loads_strictly(adapted: Path, exports: dict[str, Path]) -> None:
    found, exact = load_file(exports["model"] / "model.safetensors"), load_file(adapted / "demo/model.safetensors")
    assert found.keys() == exact.keys()
    for key, value in found.items():
        matrix = sum(size > 1 for size in value.shape) > 1
        assert value.dtype == (torch.bfloat16 if matrix else torch.float32), key
        torch.testing.assert_close(value.float(), exact[key].float(), rtol=2**-8, atol=1e-6)
    frequencies = "model.model.transformer.rotary_pos_emb.inv_freq"
    assert torch.equal(found[frequencies], exact[frequencies].float())


def test_what_does_not_belong_together_gives_no_folder(adapted: Path, whole_model: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    copied = shutil.copytree(adapted / "demo", tmp_path / "demo")
    victim = change(copied / "model.safetensors")
    assert_fails(
        convert(adapted, whole_model, output, weights=victim), victim, "changed after it was made", "run again"
    )
    leg = shutil.copytree(adapted / LEG, tmp_path / LEG)
    spoiled = change(leg / "weights/lora.safetensors")
    assert_fails(convert(adapted, whole_model, output, leg=leg, form="comfyui"), spoiled, "changed after it was made")
    spoiled.unlink()
    assert_fails(convert(adapted, whole_model, output, leg=leg, form="comfyui"), spoiled, "missing", "run again")
    other = leg.rename(tmp_path / "step-00000007")
    words = (other / "weights", f"of another leg than the export, {LEG}", "run again")
    assert_fails(convert(adapted, whole_model, output, leg=other, form="stable_audio_tools"), *words)
    assert not output.exists() and not output.with_suffix(".json").exists()


def test_a_model_that_a_form_cannot_express_is_refused(adapted: Path, whole_model: Path, tmp_path: Path) -> None:
    model = shutil.copytree(whole_model, tmp_path / "model", symlinks=True)
    config = read_json(model / "model_config.json")
    config["model"]["diffusion"]["config"]["global_cond_type"] = "adaLN"
    (model / "model_config.json").write_text(json.dumps(config))
    words = ("model_config.json: diffusers cannot express this model", "global_cond_type 'adaLN'", "take another form")
    assert_fails(convert(adapted, model, tmp_path / "out", form="diffusers"), *words)


def card(adapted: Path, whole_model: Path, splits: Path, folder: Path, exports: list[Path], sent: list[str]) -> str:
    """The card of what is published; the files that it speaks of lie beside it, as in the repository."""
    source = {"name": "demo", "path": str(whole_model), "weights": "model.safetensors"}
    records = [path.with_suffix(".json") for path in exports]
    settings = {
        "source": source,
        "corpora": {"demo": 1},
        "sampling": SETTINGS["sampling"],
        "train_seconds": None,
        "sent": sent,
    }
    done = run_script(
        "model_card", "--export", adapted / "demo/export.json", "--training", adapted / LEG / "training.json",
        "--model-config", adapted / "demo/model_config.json", "--model-digest", whole_model / "checksums.sha256",
        "--model-source", whole_model / "source.json", "--kept", adapted / "kept.csv",
        "--measures", adapted / "demo.json", "--base-measures", adapted / "base.json",
        "--settings", json.dumps(settings), "--exports", *records,
        "--card", folder / "README.md", "--attribution", folder / "ATTRIBUTION.csv",
    )  # fmt: skip
    assert_succeeds(done)
    return (folder / "README.md").read_text(encoding="utf-8")


SENT = ["model", "adapter", "diffusers"]
LOOK = """
print("found", soundfile.info("sound.wav").frames, float(abs(soundfile.read("sound.wav")[0]).max()))
"""


@pytest.mark.slow
def test_everything_that_is_published_loads_by_the_code_on_its_card(
    adapted: Path, whole_model: Path, splits: Path, tmp_path: Path, exports: dict[str, Path]
) -> None:
    folder = shutil.copytree(adapted / "demo", tmp_path / "demo")
    text = card(adapted, whole_model, splits, folder, list(exports.values()), SENT)
    with serve_hub({}) as hub:
        hub.token = TOKEN
        done = run_script(
            "upload", "--run", "demo", "--folder", folder, "--digest", folder / "export.json", "--repo", REPO,
            "--send", *SENT, "--exports", *exports.values(),
            "--records", *(path.with_suffix(".json") for path in exports.values()),
            "--output", tmp_path / "published.json", env=environment(hub, tmp_path / "home"),
        )  # fmt: skip
        assert_succeeds(done)
        files = hub.at(REPO)
    assert "comfyui" in text and front_of(text)["library_name"] == "stable-audio-tools"
    assert {"lora.safetensors", "demo-comfyui.safetensors", "diffusers/model_index.json", "model.safetensors"} <= set(
        files
    )
    assert files["model.safetensors"] == (exports["model"] / "model.safetensors").read_bytes()
    received = tmp_path / "received"
    for name, content in files.items():
        (received / name).parent.mkdir(parents=True, exist_ok=True)
        (received / name).write_bytes(content)
    (received / "base").mkdir()
    shutil.copy(whole_model / "model.safetensors", received / "base")
    frames = set()
    sections = text.split("\n### ")[1:]
    headings = [section.partition("\n")[0] for section in sections]
    assert headings == [
        "The merged model", "The adapter, in stable-audio-tools", "The adapter, in ComfyUI", "The merged model, in diffusers"
    ]  # fmt: skip
    for heading, section in zip(headings, sections, strict=True):
        blocks = code_of(section)
        assert bool(blocks) == (heading != "The adapter, in ComfyUI")
        if blocks:
            done = run_code("".join(blocks) + LOOK, received, whole_model / "hub")
            assert done.returncode == 0, done.stderr
            count, peak = done.stdout.split("found ")[1].split()
            frames.add(count)
            assert float(peak) > 0, heading
    assert len(frames) == 1


def test_an_adapter_alone_is_published_with_its_card(
    adapted: Path, whole_model: Path, splits: Path, tmp_path: Path, exports: dict[str, Path]
) -> None:
    folder = shutil.copytree(adapted / "demo", tmp_path / "demo")
    sent = [exports[form] for form in ("stable_audio_tools", "comfyui")]
    text = card(adapted, whole_model, splits, folder, sent, ["adapter"])
    assert "`model.safetensors`" not in text.split("## How to load it")[0] and "have to lie in `base/`" in text
    assert "| comfyui | float16 | " in text and " dB |" in text
    with serve_hub({}) as hub:
        hub.token = TOKEN

        def upload(*records: Path) -> subprocess.CompletedProcess[str]:
            return run_script(
                "upload", "--run", "demo", "--folder", folder, "--digest", folder / "export.json", "--repo", REPO,
                "--send", "adapter", "--exports", *sent, "--records", *records,
                "--output", tmp_path / "published.json", env=environment(hub, tmp_path / "home"),
            )  # fmt: skip

        record = tmp_path / "other.json"
        record.write_text(json.dumps(read_json(sent[0].with_suffix(".json")) | {"model_sha256": "0" * 64}))
        assert_fails(upload(record, sent[1].with_suffix(".json")), record, "made of other weights", "run again")
        assert not hub.messages
        assert_succeeds(upload(*(path.with_suffix(".json") for path in sent)))
        files = set(hub.at(REPO)) - {".gitattributes"}
    assert files == {
        "README.md",
        "ATTRIBUTION.csv",
        "model_config.json",
        "lora.safetensors",
        "demo-comfyui.safetensors",
    }
