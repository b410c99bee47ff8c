from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from conftest import (
    BASE_MODEL,
    ROOT,
    SCRIPTS,
    assert_fails,
    assert_succeeds,
    checksum,
    listing,
    run_script,
    write_shapes,
)
from forks import Forks
from hub import Hub, serve_hub
from model_configs import CONFIG, changed
from safetensors.numpy import load, save
from safetensors.torch import load_file
from sao.base.command import InputError
from sao.base.names import read_digests
from sao.models.build import read_pickled, read_safetensors
from sao.models.config import (
    check_sampler,
    inpaints,
    read_model_config,
    snapshot_folder,
    text_encoder_folder,
    text_encoder_name,
    text_encoder_names,
    text_max_length,
)
from sao.models.weight_files import T5_DEFAULTS, WORDS, t5_shapes, t5gemma_shapes
from sao.training.state import read_state
from settings import as_options
from tokenizers import Tokenizer

ENCODER = "someone/tiny-t5"
TEXT_ENCODER_FILES = {"config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"}
REVISION, ENCODER_REVISION, CLAP_REVISION = "a" * 40, "b" * 40, "c" * 40
MODEL_FILES = ("model_config.json", "model.safetensors")
SHAPES = {"a": [100_000]}
WEIGHTS = save({"a": np.random.default_rng(0).standard_normal(100_000, np.float32)})
TOKEN = "hf_secretOfTheTests"
STEPS = ("(1) accept the licence at https://huggingface.co/someone/model", "(2) make a token", "(3) log in", "HF_TOKEN")


class Payload:
    """Runs code when it is unpickled, which makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable, tuple]:
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A local base model with a real config and made-up weights."""
    folder = tmp_path / "a model"
    shutil.copytree(BASE_MODEL / "text_encoder", folder / "text_encoder")
    config = json.loads(json.dumps(CONFIG))
    config["model"]["conditioning"]["configs"][0]["config"]["t5_model_name"] = ENCODER
    (folder / "model_config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    return folder


def take(
    source: Path, output: Path, *more: object, shapes: dict[str, list[int]] = SHAPES
) -> subprocess.CompletedProcess[str]:
    expected = write_shapes(source.parent / "shapes.json", shapes)
    given = ["--path", source, "--shapes", expected, "--output", output, "--digest", output / "checksums.sha256"]
    return run_script("base_model", *given, *more)


def assert_whole(output: Path, source: Path) -> None:
    """The model, its text encoder in the Hub's cache, and a digest of all files are in place."""
    snapshot = snapshot_folder(output / "hub", ENCODER)
    for name in ("model_config.json", "model.safetensors"):
        assert (output / name).read_bytes() == (source / name).read_bytes()
    assert {path.name for path in snapshot.iterdir()} == TEXT_ENCODER_FILES
    for name in TEXT_ENCODER_FILES:
        assert (snapshot / name).read_bytes() == (source / "text_encoder" / name).read_bytes()
    digests = read_digests(output / "checksums.sha256")
    wanted = {output / "model_config.json", output / "model.safetensors", *snapshot.iterdir()}
    assert digests == {path.relative_to(output).as_posix(): checksum(path, "sha256") for path in wanted}
    code = f"from huggingface_hub import hf_hub_download as get; print(get({ENCODER!r}, 'config.json'))"
    env = os.environ | {"HF_HUB_CACHE": str(output / "hub"), "HF_HUB_OFFLINE": "1"}
    found = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert Path(found.stdout.strip()) == snapshot / "config.json"


def test_local_model_is_brought_into_place(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "models" / "mine"
    assert_succeeds(take(source, output))
    assert_whole(output, source)


def test_text_encoder_of_a_local_model_may_be_elsewhere(source: Path, tmp_path: Path) -> None:
    elsewhere = (source / "text_encoder").rename(tmp_path / "t5")
    line = assert_fails(take(source, tmp_path / "out"), f"{source / 'text_encoder' / 'config.json'}: missing")
    assert "or `text_encoder` in the config, which says where that is" in line
    assert_succeeds(take(source, tmp_path / "out", "--text-encoder-path", elsewhere))
    shutil.copytree(elsewhere, source / "text_encoder")
    assert_whole(tmp_path / "out", source)


def test_local_model_is_not_what_is_in_place(source: Path, tmp_path: Path) -> None:
    """If a program writes into one of the two in place, the other does not change."""
    output, before = tmp_path / "mine", {path: path.read_bytes() for path in source.rglob("*") if path.is_file()}
    assert_succeeds(take(source, output))
    for path in output.rglob("*"):
        if path.is_file():
            with path.open("r+b") as handle:
                handle.write(b"written into")
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize("relative", [True, False])
def test_model_of_links_is_brought_into_place_as_files(source: Path, tmp_path: Path, relative: bool) -> None:
    """A snapshot in a Hub cache is a folder of links to `blobs/`."""
    snapshot = tmp_path / "cache/models--a--b/snapshots/c"
    for number, path in enumerate(sorted(path for path in source.rglob("*") if path.is_file())):
        link, blob = snapshot / path.relative_to(source), tmp_path / f"cache/models--a--b/blobs/{number}"
        for folder in (link.parent, blob.parent):
            folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, blob)
        link.symlink_to(os.path.relpath(blob, link.parent) if relative else blob)
    output = tmp_path / "models/mine"
    assert_succeeds(take(snapshot, output))
    shutil.rmtree(tmp_path / "cache")
    assert not any(path.is_symlink() for path in output.rglob("*"))
    assert_whole(output, source)


def test_changed_model_replaces_the_old_one(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "mine"
    assert_succeeds(take(source, output))
    before = read_digests(output / "checksums.sha256")
    assert_succeeds(take(source, output))
    assert read_digests(output / "checksums.sha256") == before
    (source / "model.safetensors").write_bytes(save({"changed": np.zeros(1)}))
    with (source / "text_encoder/tokenizer.json").open("a") as tokenizer:
        tokenizer.write("\n")
    assert_succeeds(take(source, output, shapes={"changed": [1]}))
    assert_whole(output, source)
    assert len(list((output / "hub").glob("*/snapshots/*"))) == 1


@pytest.mark.parametrize(
    "name", ["model_config.json", "model.safetensors", *(f"text_encoder/{n}" for n in sorted(TEXT_ENCODER_FILES))]
)
def test_missing_file_is_named(source: Path, tmp_path: Path, name: str) -> None:
    (source / name).unlink()
    assert_fails(take(source, tmp_path / "out"), source / name, "missing")
    assert listing(tmp_path / "out") == set()


def edit_weights(path: Path, edit: Callable[[dict[str, np.ndarray]], object]) -> None:
    weights = load(path.read_bytes())
    edit(weights)
    path.write_bytes(save(weights))


def enlarge(tokenizer: Path) -> None:
    larger = Tokenizer.from_file(str(tokenizer))
    larger.add_tokens([f"word{number}" for number in range(50)])
    larger.save(str(tokenizer))


ATTENTION = "encoder.block.0.layer.0.SelfAttention.q.weight"
UNUSABLE = {
    "NaN": ("model.safetensors", lambda p: edit_weights(p, lambda w: w["a"].put(70_000, np.nan)), "a holds NaN"),
    "infinity in float16": (
        "text_encoder/model.safetensors",
        lambda p: edit_weights(p, lambda w: w[ATTENTION].put(0, -np.inf)),
        f"{ATTENTION} holds NaN or infinity",
    ),
    "quantised": (
        "model.safetensors",
        lambda p: p.write_bytes(save({"a": np.ones(100_000, np.int8)})),
        "a has the type I8",
    ),
    "cut short": (
        "text_encoder/model.safetensors",
        lambda p: p.write_bytes(p.read_bytes()[:-9]),
        "not a whole safetensors file",
    ),
    "in part": (
        "text_encoder/model.safetensors",
        lambda p: edit_weights(p, lambda w: w.pop(ATTENTION)),
        f"1 keys are missing ({ATTENTION} …)",
    ),
    "another width": (
        "text_encoder/config.json",
        lambda p: p.write_text(p.read_text().replace('"d_ff": 256', '"d_ff": 264')),
        "3 have another shape",
    ),
    "no config": ("text_encoder/config.json", lambda p: p.write_text("[]"), "not the config of a T5 text encoder"),
    "another tokenizer": (
        "text_encoder/tokenizer.json",
        enlarge,
        "tokens up to number 3049, but the text encoder knows 3000",
    ),
    "no tokenizer": ("text_encoder/tokenizer.json", lambda p: p.write_text('{"model": 3}'), "not a tokenizer"),
}


@pytest.mark.parametrize("what", UNUSABLE)
def test_what_would_quietly_train_another_model_is_refused(source: Path, tmp_path: Path, what: str) -> None:
    """transformers draws missing weights at random. NaN would be blamed on the training or its learning rate."""
    name, edit, words = UNUSABLE[what]
    edit(source / name)
    assert_fails(take(source, tmp_path / "out"), source, words)
    assert listing(tmp_path / "out") == set()


@pytest.mark.parametrize("settings", [{}, {"feed_forward_proj": "gated-gelu", "num_heads": 6, "num_layers": 3}])
def test_text_encoders_weights_are_known_from_its_config(settings: dict) -> None:
    from transformers import T5Config, T5EncoderModel

    with torch.device("meta"):
        weights = T5EncoderModel(T5Config(**settings)).state_dict()
    found = {key: tuple(weight.shape) for key, weight in weights.items()}
    vocabulary, shapes = t5_shapes(settings)
    assert vocabulary == (T5_DEFAULTS | settings)["vocab_size"]
    assert shapes == {key: found[key] for key in found if key != WORDS[1]}


def test_missing_folder_is_named(tmp_path: Path) -> None:
    assert_fails(take(tmp_path / "none", tmp_path / "out"), tmp_path / "none", "missing")
    assert listing(tmp_path / "out") == set()


def without(key: str, value: object = None) -> str:
    """The demo's model config without a dotted key, or with another value at it."""
    return json.dumps(changed((key, value)))


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ('{"model_type": ', ["not valid JSON"]),
        ("<!DOCTYPE html>", ["not valid JSON"]),
        ("[]", ["a list"]),
        (without("model_type", "autoencoder"), ["'autoencoder'", "diffusion_cond"]),
        (without("model"), ["model is missing"]),
        (without("model.pretransform"), ["pretransform"]),
        (without("model.pretransform.type", "wavelet"), ["pretransform.type", "'wavelet'"]),
        (without("model.pretransform.config"), ["model.pretransform.config.downsampling_ratio is missing"]),
        (without("model.pretransform.config.downsampling_ratio", "64"), ["downsampling_ratio is '64'"]),
        (without("sample_rate"), ["sample_rate is missing"]),
        (without("sample_size", 0), ["sample_size is not positive"]),
        (without("sample_size", 1), ["sample_size", "latent frame"]),
        (without("model.io_channels"), ["model.io_channels is missing"]),
        (without("model.diffusion"), ["model.diffusion.config is missing"]),
        (without("model.diffusion.diffusion_objective", "x"), ["diffusion_objective is 'x'", "rectified_flow"]),
        (without("model.conditioning"), ["model.conditioning.cond_dim is missing"]),
        (without("model.conditioning.configs"), ["model.conditioning.configs is missing"]),
        (
            without("model.conditioning.configs", []),
            ["has 0 text conditioners (t5, t5gemma, clap_text)", "its conditioners: none"],
        ),
        (
            without("model.conditioning.configs.0.type", "source_mix"),
            ["its conditioners: prompt (source_mix), seconds_start (number), seconds_total (number)"],
        ),
        *(
            (without("model.diffusion.type", kind), [f"model.diffusion.type is '{kind}'", "only 'dit'"])
            for kind in ("adp_cfg_1d", "adp_1d", "mmdit")
        ),
        (without("model.diffusion.config.patch_size", 0), ["patch_size is 0"]),
        (without("model.conditioning.configs.1.id"), ["configs, entry 2", "no id"]),
        (without("model.conditioning.configs.0.config.max_length", "long"), ["max_length"]),
        (without("model.conditioning.configs.0.id", "text"), ["'text' (t5)", "clips do not have"]),
        (without("model.conditioning.configs.1.type", "list"), ["'seconds_start' (list)", "clips do not have"]),
        (without("model.conditioning.configs.0.type", "clap_text"), ["clap_text", "declare its checkpoint as `clap`"]),
    ],
)
def test_model_that_cannot_be_fine_tuned_is_refused(
    source: Path, tmp_path: Path, config: str, words: list[str]
) -> None:
    (source / "model_config.json").write_text(config)
    assert_fails(take(source, tmp_path / "out"), "model_config.json", *words)
    assert listing(tmp_path / "out") == set()


def test_models_with_other_conditioners_are_read(tmp_path: Path) -> None:
    config = json.loads(json.dumps(CONFIG))
    text, _, total = config["model"]["conditioning"]["configs"]
    path = tmp_path / "model_config.json"

    def read(*conditioners: dict, **more: Any) -> dict[str, Any]:
        names = [entry["id"] for entry in conditioners]
        config["model"]["conditioning"] |= {"configs": list(conditioners)} | more
        config["model"]["diffusion"] |= {"cross_attention_cond_ids": names, "global_cond_ids": names[1:]}
        path.write_text(json.dumps(config))
        return read_model_config(path)

    assert text_max_length(read(text, total)) == text["config"]["max_length"]
    found = read(text | {"id": "prompt_t5"}, default_keys={"prompt_t5": "prompt"})
    assert text_encoder_name(found) == "t5-small"
    found = read({"id": "prompt", "type": "clap_text", "config": {}})
    assert (text_encoder_name(found), text_max_length(found)) == ("roberta-base", 77)
    gemma = {"id": "prompt", "type": "t5gemma", "config": {"max_length": 256}}
    found = read(gemma, total)
    assert (text_encoder_name(found), text_encoder_folder(found)) == ("google/t5gemma-b-b-ul2", "")
    gemma["config"] |= {"repo_id": "someone/their-model", "subfolder": "t5gemma"}
    found = read(gemma, total)
    assert (text_encoder_name(found), text_encoder_folder(found)) == ("someone/their-model", "t5gemma")
    assert text_encoder_names(found) == ["someone/their-model", "google/t5gemma-b-b-ul2"]


def test_an_input_of_the_network_without_a_conditioner_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model_config.json"
    place = "model.diffusion.local_add_cond_ids"
    path.write_text(json.dumps(changed((place, ["inpaint_mask"]))))
    with pytest.raises(InputError, match=f"{place} names 'inpaint_mask', and the model has no such conditioner"):
        read_model_config(path)
    path.write_text(json.dumps(changed((place, ["inpaint_mask"]), ("model_type", "diffusion_cond_inpaint"))))
    assert inpaints(read_model_config(path))


@pytest.mark.parametrize("layers", [1, 3])
def test_t5gemma_weights_are_known_from_its_config(layers: int) -> None:
    from transformers import T5GemmaConfig, T5GemmaEncoderModel

    one = {"vocab_size": 50, "hidden_size": 12, "intermediate_size": 16, "num_hidden_layers": layers, "head_dim": 4}
    one |= {"num_attention_heads": 6, "num_key_value_heads": 2}
    config = T5GemmaConfig(encoder=one, decoder=one, is_encoder_decoder=False)
    with torch.device("meta"):
        weights = T5GemmaEncoderModel(config).state_dict()
    found = {key: tuple(weight.shape) for key, weight in weights.items()}
    assert t5gemma_shapes(config.to_dict()) == (50, found)


@pytest.mark.parametrize(
    ("objective", "sampler", "fits"),
    [
        ("v", "dpmpp-3m-sde", True),
        ("v", "euler", False),
        ("rectified_flow", "euler", True),
        ("rectified_flow", "dpmpp-3m-sde", False),
        ("rf_denoiser", "pingpong", True),
    ],
)
def test_sampler_has_to_fit_the_objective(objective: str, sampler: str, fits: bool) -> None:
    config = json.loads(without("model.diffusion.diffusion_objective", objective))
    if fits:
        check_sampler(config, sampler, 2)
    else:
        with pytest.raises(InputError, match=rf"'{sampler}'.*'{objective}'.*(pingpong|k-heun)"):
            check_sampler(config, sampler, 2)


def test_files_of_other_names_are_taken(source: Path, tmp_path: Path) -> None:
    (source / "model_config.json").rename(source / "base_model_config.json")
    (source / "model.safetensors").unlink()
    shared = torch.arange(6.0)
    torch.save({"state_dict": {"a": shared, "b": shared[:2]}, "step": 7}, source / "base_model.ckpt")
    output = tmp_path / "out"
    names = ["--model-config", "base_model_config.json", "--weights", "base_model.ckpt"]
    # The shapes in a pickle are known only once it has arrived.
    assert_fails(
        take(source, output, *names, shapes={"a": [6], "c": [2]}),
        "base_model.ckpt",
        "1 keys are missing (c",
        "1 are unexpected (b",
    )
    assert_succeeds(take(source, output, *names, shapes={"a": [6], "b": [2]}))
    assert (output / "model_config.json").read_bytes() == (source / "base_model_config.json").read_bytes()
    weights = load_file(output / "model.safetensors")
    assert set(weights) == {"a", "b"} and torch.equal(weights["a"], shared) and torch.equal(weights["b"], shared[:2])
    assert "model.safetensors" in read_digests(output / "checksums.sha256")


def save_harmful(path: Path, form: str, mark: Path) -> None:
    """Save a checkpoint that makes the folder `mark` when it is unpickled."""
    harmful = {"state_dict": {"a": torch.zeros(1), "b": Payload(mark)}}
    if form in ("torch", "old torch"):
        torch.save(harmful, path, _use_new_zipfile_serialization=form == "torch")
    else:
        path.write_bytes(pickle.dumps(harmful["state_dict"]["b"], protocol=int(form)))


@pytest.mark.parametrize("form", ["torch", "old torch", "0", "2", "4"])
def test_malicious_pickle_executes_nothing(tmp_path: Path, form: str) -> None:
    path, mark = tmp_path / "weights", tmp_path / "executed"
    save_harmful(path, form, mark)
    with pytest.raises(InputError, match="weights: cannot be loaded safely"):
        read_pickled(path)
    with pytest.raises(InputError, match="not a whole safetensors file"):
        read_safetensors(path)
    with pytest.raises(InputError, match="not a training state that can be loaded safely"):
        read_state(path)
    assert not mark.exists()


@pytest.mark.parametrize("form", ["torch", "old torch", "0", "1", "2", "4"])
@pytest.mark.parametrize("name", ["model.safetensors", "text_encoder/model.safetensors", "base_model.ckpt", "clap.pt"])
def test_malicious_pickle_is_not_put_into_place(source: Path, tmp_path: Path, name: str, form: str) -> None:
    mark, path = tmp_path / "executed", source / name
    save_harmful(path, form, mark)
    if name == "clap.pt":
        configure_clap(source)
    options = {"base_model.ckpt": ["--weights", name], "clap.pt": ["--clap-path", path]}
    assert_fails(take(source, tmp_path / "out", *options.get(name, [])), path)
    assert not mark.exists() and listing(tmp_path / "out") == set()


@pytest.mark.parametrize("name", ["model.safetensors", "text_encoder/model.safetensors"])
@pytest.mark.parametrize(
    "content", [b"", b"{", b"\x09" + bytes(7) + b"{}", b"\x02" + bytes(7) + b"[]", b"<!DOCTYPE html>"]
)
def test_what_does_not_begin_as_safetensors_do_is_refused(
    source: Path, tmp_path: Path, name: str, content: bytes
) -> None:
    (source / name).write_bytes(content)
    assert_fails(take(source, tmp_path / "out"), source / name, "not a safetensors file")
    assert listing(tmp_path / "out") == set()


def configure_clap(source: Path) -> None:
    """Give a local model a `clap_text` conditioner."""
    config = json.loads((source / "model_config.json").read_text())
    clap = {"clap_ckpt_path": "/path/of/the/author.pt", "audio_model_type": "HTSAT-tiny", "enable_fusion": False}
    config["model"]["conditioning"]["configs"][0] = {"id": "prompt", "type": "clap_text", "config": clap}
    (source / "model_config.json").write_text(json.dumps(config))


def save_clap(path: Path) -> dict[str, torch.Tensor]:
    """Save a checkpoint in laion_clap's form: weights, numpy scalars, an optimiser."""
    weights = {"module.text_branch.a": torch.rand(3), "module.audio_branch.b": torch.rand(2)}
    more = {"epoch": 3, "best": np.float64(0.5), "optimizer": {"state": {0: torch.rand(1000)}}}
    torch.save({"state_dict": weights, **more}, path)
    return weights


def assert_clap_in_place(output: Path, weights: dict[str, torch.Tensor]) -> None:
    config = read_model_config(output / "model_config.json")
    path = Path(config["model"]["conditioning"]["configs"][0]["config"]["clap_ckpt_path"])
    assert path == output / "hub/clap.pt"
    found = read_pickled(path)
    assert set(found) == set(weights) and all(torch.equal(found[k], weights[k]) for k in found)
    assert set(torch.load(path, weights_only=True)) == {"state_dict"}
    digests = read_digests(output / "checksums.sha256")
    assert digests["hub/clap.pt"] == checksum(path, "sha256")
    assert digests["model_config.json"] == checksum(output / "model_config.json", "sha256")
    assert {p.name for p in snapshot_folder(output / "hub", "roberta-base").iterdir()} == TEXT_ENCODER_FILES


def test_clap_checkpoint_is_one_more_file(source: Path, tmp_path: Path) -> None:
    configure_clap(source)
    before = (source / "model_config.json").read_bytes()
    weights = save_clap(tmp_path / "my clap.pt")
    assert_succeeds(take(source, tmp_path / "out", "--clap-path", tmp_path / "my clap.pt"))
    assert_clap_in_place(tmp_path / "out", weights)
    assert (source / "model_config.json").read_bytes() == before
    assert_fails(take(source, tmp_path / "two", "--clap-path", tmp_path / "none.pt"), "none.pt", "clap.path")


def test_clap_that_no_conditioner_wants_is_refused(source: Path, tmp_path: Path) -> None:
    save_clap(tmp_path / "clap.pt")
    assert_fails(take(source, tmp_path / "out", "--clap-path", tmp_path / "clap.pt"), "remove `clap`")


@pytest.fixture
def hub(source: Path) -> Iterator[Hub]:
    """A Hub with the local model, the other files that such repositories have, and the text encoder."""
    more = {"model.ckpt": b"a pickle", "README.md": b"card", "text_encoder/pytorch_model.bin": b"a pickle"}
    model = {name: (source / name).read_bytes() for name in MODEL_FILES} | more
    encoder = {name: (source / "text_encoder" / name).read_bytes() for name in TEXT_ENCODER_FILES}
    repos = {
        ("someone/model", REVISION): model,
        (ENCODER, ENCODER_REVISION): encoder | {"pytorch_model.bin": b"a pickle"},
    }
    with serve_hub(repos) as hub:
        yield hub


def files_of(hub: Hub) -> dict[str, bytes]:
    return hub.repos["someone/model", REVISION]


def command(output: Path, encoder: str = ENCODER) -> list[object]:
    pinned = ["--repo", "someone/model", "--revision", REVISION]
    pinned += ["--text-encoder-repo", encoder, "--text-encoder-revision", ENCODER_REVISION]
    shapes = output.parent / "shapes.json"
    if not shapes.is_file():
        write_shapes(shapes, SHAPES)
    return [*pinned, "--shapes", shapes, "--output", output, "--digest", output / "checksums.sha256"]


def environment(url: str, home: Path, **more: str) -> dict[str, str]:
    return {"HF_ENDPOINT": url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(home), "HF_TOKEN": "", **more}


def fetch(
    hub: Hub | str, output: Path, *more: object, encoder: str = ENCODER, **variables: str
) -> subprocess.CompletedProcess[str]:
    url = hub if isinstance(hub, str) else hub.endpoint
    env = environment(url, output.parent / "home", **variables)
    return run_script("base_model", *command(output, encoder), *more, env=env, log=output.parent / "log.txt")


def assert_nothing_in_place(output: Path) -> None:
    assert not {name for name in listing(output) if not name.startswith(".partial/")}


def test_pinned_revisions_are_fetched(source: Path, tmp_path: Path, hub: Hub) -> None:
    output = tmp_path / "out"
    assert_succeeds(fetch(hub, output))
    assert_whole(output, source)
    assert snapshot_folder(output / "hub", ENCODER).name == ENCODER_REVISION
    # Only the necessary files were fetched, each once, and the disk has no second copy of them.
    names = [path.split("/resolve/")[1].split("/", 1)[1] for server, m, path, _ in hub.asked if "/resolve/" in path]
    assert set(names) == {*MODEL_FILES, *TEXT_ENCODER_FILES}
    assert len(hub.transfers("model.safetensors")) == 2  # the model's and the text encoder's
    assert not list(output.glob(".*"))


def test_token_goes_to_the_hub_and_not_to_its_cdn(tmp_path: Path, hub: Hub) -> None:
    hub.token = TOKEN
    result = fetch(hub, tmp_path / "out", HF_TOKEN=TOKEN)
    assert_succeeds(result)
    sent = [headers for server, _, path, headers in hub.asked if server == "cdn"]
    assert sent and not any(TOKEN in str(headers) for headers in sent)
    (tmp_path / "home").mkdir(exist_ok=True)
    (tmp_path / "home/token").write_text(TOKEN)  # where `hf auth login` stores it
    assert_succeeds(fetch(hub, tmp_path / "two"))
    assert_fails(fetch(hub, tmp_path / "three", HF_TOKEN="hf_another"), *STEPS)


def test_broken_transfer_goes_on_where_it_stopped(source: Path, tmp_path: Path, hub: Hub) -> None:
    hub.mishaps = {"model.safetensors": ["cut", 503, "cut"], "model_config.json": [429]}
    assert_succeeds(fetch(hub, tmp_path / "out"))
    assert_whole(tmp_path / "out", source)
    ranges = [headers.get("Range") or headers.get("range") for headers in hub.transfers("model.safetensors")]
    assert ranges[0] is None and all(r and int(r[6:-1]) > 100_000 for r in ranges[1:4])


def test_answers_that_pass_are_waited_for(tmp_path: Path, hub: Hub) -> None:
    hub.only, hub.mishaps = "HEAD", {"model.safetensors": [500, 429]}
    assert_succeeds(fetch(hub, tmp_path / "out"))


def test_killed_transfer_goes_on_where_it_stopped(source: Path, tmp_path: Path, hub: Hub) -> None:
    output = tmp_path / "out"
    hub.mishaps = {"model.safetensors": ["stall"]}
    process = subprocess.Popen(
        [sys.executable, SCRIPTS / "base_model.py", *as_options("base_model", [str(part) for part in command(output)])],
        env=os.environ | environment(hub.endpoint, tmp_path / "home"),
        stderr=subprocess.DEVNULL,
    )
    assert hub.stalled.wait(60)
    time.sleep(0.5)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert_nothing_in_place(output)
    assert_succeeds(fetch(hub, output))
    assert_whole(output, source)
    _, again, *_ = (headers.get("Range") or headers.get("range") for headers in hub.transfers("model.safetensors"))
    assert again and int(again[6:-1]) > 100_000
    assert not list(output.glob(".*"))


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_damaged_file_is_refused_and_deleted(source: Path, tmp_path: Path, hub: Hub, name: str) -> None:
    output = tmp_path / "out"
    hub.mishaps = {name: ["damage"]}
    assert_fails(fetch(hub, output), name, "has the hash", "the Hub says", "tampered")
    assert_nothing_in_place(output)
    assert name not in {Path(path).name for path in listing(output / ".partial/models--someone--model")}
    assert_succeeds(fetch(hub, output))
    assert_whole(output, source)


def test_remains_of_another_transfer_are_thrown_away(source: Path, tmp_path: Path, hub: Hub) -> None:
    output = tmp_path / "out"
    stale = output / ".partial/models--someone--model" / REVISION / "model.safetensors"
    stale.parent.mkdir(parents=True)
    for content in (b"x" * 1000, b"x" * (len(WEIGHTS) + 1)):
        stale.parent.mkdir(parents=True, exist_ok=True)
        stale.write_bytes(content)
        assert_succeeds(fetch(hub, output))
        assert_whole(output, source)


def test_full_disk_is_noticed_before_the_transfer(tmp_path: Path, hub: Hub) -> None:
    hub.sizes = {"model.safetensors": 10**16}
    assert_fails(fetch(hub, tmp_path / "out"), " GB are free: make room")
    assert not hub.transfers("model.safetensors")


@pytest.mark.parametrize(
    ("refusal", "words"),
    [
        ((403, "GatedRepo"), ["gated", *STEPS]),
        ((401, "GatedRepo"), ["gated", *STEPS]),
        ((401, "RepoNotFound"), ["no such repository", "check the name", *STEPS]),
        ((404, "RepoNotFound"), ["no such repository", "check the name", *STEPS]),
        ((401, ""), STEPS),
        ((403, ""), STEPS),
        ((404, "RevisionNotFound"), [REVISION, "`revision`"]),
        ((404, "EntryNotFound"), ["model_config.json", REVISION]),
        ((404, ""), ["404", "HF_ENDPOINT"]),
        ((500, ""), ["500", "try again later"]),
    ],
)
def test_refusal_tells_what_to_do(tmp_path: Path, hub: Hub, refusal: tuple[int, str], words: list[str]) -> None:
    hub.refusal = {"someone/model": refusal}
    hub.message = f"Invalid user token {TOKEN}."
    line = assert_fails(fetch(hub, tmp_path / "out", HF_TOKEN=TOKEN), "someone/model", *words)
    found = [line.index(step) for step in STEPS if step in line]
    assert found == sorted(found)
    assert_nothing_in_place(tmp_path / "out")
    assert TOKEN not in line + (tmp_path / "log.txt").read_text()


def test_token_that_no_header_can_carry_is_not_told(tmp_path: Path, hub: Hub) -> None:
    result = fetch(hub, tmp_path / "out", HF_TOKEN=f"{TOKEN}\x01é")
    assert_fails(result, "someone/model")
    assert TOKEN not in result.stderr + (tmp_path / "log.txt").read_text()


@pytest.mark.slow  # it waits
def test_hub_out_of_reach_is_told_soon(tmp_path: Path, hub: Hub) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        silent = f"http://127.0.0.1:{unused.getsockname()[1]}"
        start = time.monotonic()
        # This server accepts a connection and never answers.
        assert_fails(fetch(silent, tmp_path / "out", HF_HUB_ETAG_TIMEOUT="1"), "someone/model", silent, "network")
        assert time.monotonic() - start < 10
    start = time.monotonic()
    assert_fails(fetch(silent, tmp_path / "out"), "someone/model", "model_config.json", silent, "network")
    assert time.monotonic() - start < 6
    assert_fails(fetch(hub, tmp_path / "out", HF_HUB_OFFLINE="1"), "someone/model", "HF_HUB_OFFLINE")
    assert_nothing_in_place(tmp_path / "out")


def test_text_encoder_that_the_model_does_not_name_is_refused(tmp_path: Path, hub: Hub) -> None:
    line = assert_fails(fetch(hub, tmp_path / "out", encoder="someone/other-t5"), "someone/model", ENCODER)
    assert "'someone/other-t5'" in line
    assert not hub.transfers("model.safetensors")


def test_text_encoder_of_a_local_model_is_fetched(source: Path, tmp_path: Path, hub: Hub) -> None:
    """What is published has no text encoder, and what is exported has none."""
    kept = (source / "text_encoder").rename(tmp_path / "t5")
    pinned = ["--text-encoder-repo", ENCODER, "--text-encoder-revision", ENCODER_REVISION]
    shapes = write_shapes(tmp_path / "shapes.json", SHAPES)
    out = tmp_path / "out"
    given = ["--path", source, "--shapes", shapes, "--output", out, "--digest", out / "checksums.sha256", *pinned]
    env = {"HF_ENDPOINT": hub.endpoint, "HF_HUB_OFFLINE": "0"}
    assert_succeeds(run_script("base_model", *given, env=env))
    shutil.copytree(kept, source / "text_encoder")
    assert_whole(out, source)
    described = json.loads((out / "source.json").read_text())
    assert described == {"text_encoder": {"repo": ENCODER, "revision": ENCODER_REVISION}}


def test_text_encoder_in_parts_is_fetched(tmp_path: Path, hub: Hub) -> None:
    encoder = hub.repos[ENCODER, ENCODER_REVISION]
    weights = sorted(load(encoder["model.safetensors"]).items())
    parts = {f"model-0000{i}-of-00002.safetensors": save(dict(weights[i - 1 :: 2])) for i in (1, 2)}
    encoder |= {
        "model.safetensors.index.json": json.dumps({"weight_map": dict(zip("ab", parts, strict=True))}).encode()
    }
    encoder |= parts
    del encoder["model.safetensors"]
    assert_succeeds(fetch(hub, tmp_path / "out"))
    assert set(parts) < {path.name for path in snapshot_folder(tmp_path / "out/hub", ENCODER).iterdir()}


def test_checkpoint_on_the_hub_is_converted(tmp_path: Path, hub: Hub) -> None:
    torch.save({"state_dict": {"a": torch.ones(3)}}, tmp_path / "saved.ckpt")
    files_of(hub)["base_model.ckpt"] = (tmp_path / "saved.ckpt").read_bytes()
    files_of(hub)["base_model_config.json"] = files_of(hub).pop("model_config.json")
    output = tmp_path / "out"
    names = ["--model-config", "base_model_config.json", "--weights", "base_model.ckpt"]
    write_shapes(tmp_path / "shapes.json", {"a": [3]})
    assert_succeeds(fetch(hub, output, *names))
    assert torch.equal(load_file(output / "model.safetensors")["a"], torch.ones(3))
    assert {p.name for p in output.iterdir()} == {*MODEL_FILES, "hub", "checksums.sha256", "source.json"}
    assert not hub.transfers("model.ckpt")
    assert_fails(fetch(hub, tmp_path / "two", "--weights", "none.ckpt", *names[:2]), "none.ckpt", REVISION)


def test_clap_checkpoint_is_fetched(source: Path, tmp_path: Path, hub: Hub) -> None:
    configure_clap(source)
    files_of(hub)["model_config.json"] = (source / "model_config.json").read_bytes()
    weights = save_clap(tmp_path / "saved.pt")
    hub.repos["someone/clap", CLAP_REVISION] = {"best.pt": (tmp_path / "saved.pt").read_bytes()}
    hub.repos["someone/roberta-base", ENCODER_REVISION] = hub.repos[ENCODER, ENCODER_REVISION]
    clap = ["--clap-repo", "someone/clap", "--clap-revision", CLAP_REVISION, "--clap-file", "best.pt"]
    output = tmp_path / "out"
    assert_succeeds(fetch(hub, output, *clap, encoder="someone/roberta-base"))
    assert_clap_in_place(output, weights)
    assert not list(output.glob(".*"))


def everything_written(folder: Path) -> str:
    return "".join(f"{path}\n{path.read_bytes().decode('latin-1')}" for path in folder.rglob("*") if path.is_file())


@pytest.mark.slow
def test_token_is_written_nowhere(tmp_path: Path, hub: Hub, forks: Forks) -> None:
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    for name in ("Snakefile", "config.yaml", "rules", "schemas", "scripts", "envs", "profiles", "report", "resources"):
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, checkout / name)
    entry = {
        "repo": "someone/model",
        "revision": REVISION,
        "text_encoder": {"repo": ENCODER, "revision": ENCODER_REVISION},
    }
    target = "results/models/theirs/checksums.sha256"
    snakemake = ["--cores", "1", target, "--configfile", "hub.yaml", "--verbose", "--printshellcmds"]
    env = environment(hub.endpoint, tmp_path / "home", HF_TOKEN=TOKEN) | {"PATH": forks.path()}
    weights = (BASE_MODEL / "model.safetensors").read_bytes()
    files_of(hub).update({"model_config.json": json.dumps(CONFIG).encode(), "model.safetensors": weights})
    entry["text_encoder"]["repo"] = "someone/t5-small"
    hub.repos["someone/t5-small", ENCODER_REVISION] = hub.repos[ENCODER, ENCODER_REVISION]
    (checkout / "hub.yaml").write_text(yaml.safe_dump({"base_models": {"theirs": entry}}))
    hub.token, hub.message = TOKEN, f"Bad token {TOKEN}"
    for refusal in ((403, "GatedRepo"), (500, ""), None):
        hub.refusal = {"someone/model": refusal} if refusal else {}
        done = forks.snakemake(*snakemake, cwd=checkout, env=env).finish()
        assert (done.returncode == 0) == (refusal is None), done.stderr
        assert (checkout / target).exists() == (refusal is None)
        assert TOKEN not in done.stdout + done.stderr + everything_written(checkout)
        assert "Traceback" not in (checkout / "results/logs/rehearse/theirs.log").read_text()
    assert "Traceback" not in (checkout / "results/logs/base_model/theirs.log").read_text()
    report = forks.snakemake(*snakemake, "--report", "report.html", cwd=checkout, env=env).finish()
    assert report.returncode == 0, report.stderr
    assert (checkout / "report.html").is_file() and TOKEN not in everything_written(checkout)
