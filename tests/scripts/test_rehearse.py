"""A base model that would fail is refused in one line before gigabytes are fetched."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import BASE_MODEL, assert_fails, assert_succeeds, run_script, write_shapes
from hub import serve_hub
from model_configs import CONFIG, changed
from safetensors.numpy import load_file, save
from sao.base.command import InputError
from sao.base.files import read_json
from sao.models.config import downsampling_ratio, window_frames
from sao.models.header import assert_same_weights, tensor_shapes
from sao.training.memory import ADAPTER as DEFAULT_ADAPTER

ADAPTER: dict[str, Any] = DEFAULT_ADAPTER | {"rank": 4, "alpha": 4, "target_modules": ["to_q", "to_kv"]}
RUN = {
    "optimizer": None, "scheduler": None, "training": {}, "learning_rate": None, "ema": None, "method": "full", "precision": "32-true",
    "adapter": ADAPTER,
}  # fmt: skip
LORA = RUN | {"method": "lora"}


def rehearse(config: dict, trainings: dict | None = None) -> dict[str, tuple[int, ...]]:
    from sao.training.rehearsal import rehearse

    return rehearse(config, "m.json", {"mine": RUN} if trainings is None else trainings)


def test_the_demos_weights_have_the_shapes_of_the_model_built_without_them() -> None:
    expected = rehearse(CONFIG, {"full": RUN, "lora": LORA, "low": RUN | {"precision": "bf16-true"}})
    found = tensor_shapes(BASE_MODEL / "model.safetensors")
    assert expected == found
    assert_same_weights(found, expected, "w")
    key = next(iter(found))
    for other, words in (
        ({k: v for k, v in found.items() if k != key}, f"1 keys are missing ({key}"),
        (found | {"x": (1,)}, "1 are unexpected (x"),
        (found | {key: (*found[key], 1)}, "1 have another shape"),
    ):
        with pytest.raises(InputError, match=re.escape(words)):
            assert_same_weights(other, expected, "w")


ENCODER, DIT = "model.pretransform.config.encoder", "model.diffusion.config"
ONE_BLOCK = (DIT + ".depth", 1)
REFUSED = {
    "dac": ([(ENCODER, {"type": "dac", "config": {}})], "needs the Python package dac, which is not part"),
    "seanet": ([(ENCODER, {"type": "seanet", "config": {}})], "needs the Python package encodec, which is not part"),
    "encoder": ([(ENCODER + ".type", "x")], "cannot build this model .*Unknown encoder type x"),
    "no encoder": ([(ENCODER, None)], "cannot build this model .*encoder"),
    "bottleneck": ([("model.pretransform.config.bottleneck.type", "x")], "cannot build this model .*bottleneck type: x"),
    "t5 by its new name": (
        [("model.conditioning.configs.0.config.t5_model_name", "google-t5/t5-base")],
        "t5_model_name is 'google-t5/t5-base'; stable-audio-tools knows t5-small, t5-base",
    ),
    "t5gemma": ([("model.conditioning.configs.0.config.t5_model_name", "google/t5gemma-b-b-ul2")], "t5gemma-b-b-ul2"),
    "path": ([("model.conditioning.configs.0.config.t5_model_name", "/models/t5")], "'/models/t5'; stable-audio-tools"),
    "argument": ([(DIT + ".depht", 3)], "cannot build this model .*depht"),
    "heads": ([(DIT + ".num_heads", 7)], "cannot process a clip .*correct its dimensions|cannot build"),
    "width of the prompt": ([(DIT + ".cond_token_dim", 96)], "cannot process a clip of .*correct its dimensions"),
    "channels": ([("model.io_channels", 32)], "latents of 64 channels and .* but model.io_channels is 32"),
    "channels of the dit": ([(DIT + ".io_channels", 32)], "cannot process a clip"),
    "stride": ([("model.pretransform.config.downsampling_ratio", 512)], "frames from .* samples, but .*ratio 512"),
    "conditioner": ([("model.diffusion.global_cond_ids", ["bpm"])], "cannot process a clip .*KeyError: 'bpm'"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_model_that_would_fail_late_is_refused(name: str) -> None:
    changes, words = REFUSED[name]
    with pytest.raises(InputError, match=words) as error:
        rehearse(changed(ONE_BLOCK, *changes))
    assert str(error.value).startswith("m.json: ") and "\n" not in str(error.value)


ADAMW = {"type": "AdamW", "config": {"lr": 5e-5, "betas": [0.9, 0.999], "weight_decay": 1e-3}}
OPTIMIZER = "training.optimizer_configs.diffusion.optimizer"


@pytest.mark.parametrize(
    ("changes", "run", "words"),
    [
        ([(OPTIMIZER, ADAMW | {"config": ADAMW["config"] | {"foreach": True}})], {}, None),
        ([(OPTIMIZER, {"type": "FusedAdam", "config": {"lr": 1e-4}})], {}, "run mine: .*no optimiser 'FusedAdam'"),
        ([(OPTIMIZER, {"type": "FusedAdam", "config": {"lr": 1e-4}})], {"optimizer": ADAMW}, None),
        ([("training", None)], {}, "run mine: .*no learning rate: set learning_rate"),
        ([("training", None)], {"learning_rate": 1e-4}, None),
        ([("training.optimizer_configs", None), ("training.learning_rate", 1e-4)], {}, None),
        ([(OPTIMIZER, None)], {}, "run mine: .*diffusion.optimizer has no type: set the run's optimizer"),
        ([(OPTIMIZER, {"type": "AdamW"})], {"learning_rate": 1e-4}, None),
        ([], {"scheduler": {"type": "CosineAnnealingLR"}}, "run mine: .*T_max.*set the run's scheduler"),
        ([("training.timestep_sampler", "cosine")], {}, "run mine: .*unknown timestep_sampler 'cosine'"),
        ([], {"method": "lora", "adapter": ADAPTER | {"target_modules": ["to_x"]}}, "run mine: .*'to_x'.*choose among"),
        ([], {"method": "dora"}, None),
        ([], {"precision": "bf16-true", "ema": True}, "run mine: .*does not move: set ema to false"),
    ],
)
def test_training_that_could_not_step_is_refused(changes: list, run: dict, words: str | None) -> None:
    config = changed(ONE_BLOCK, *changes)
    if words is None:
        rehearse(config, {"mine": RUN | run})
    else:
        with pytest.raises(InputError, match=words) as error:
            rehearse(config, {"mine": RUN | run})
        assert "\n" not in str(error.value)


def test_model_half_is_built_in_float32() -> None:
    import torch
    from sao.models.build import create

    config = changed(
        ("model.pretransform.model_half", True),
        ("model.conditioning.configs", CONFIG["model"]["conditioning"]["configs"][1:]),
    )
    model = create(config, "m.json")
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    assert config["model"]["pretransform"]["model_half"] is True


@pytest.mark.parametrize(
    ("samples", "patch", "seconds", "frames"),
    [
        (441_000, 1, None, 216),  # 10 s at 44.1 kHz are 215.3 latent frames of 2,048 samples
        (441_000, 1, 10, 216),
        (441_000, 1, 9.99, 216),
        (441_000, 1, 9.9, 214),
        (441_000, 1, 10.001, "train_seconds = 10.001 is longer than the model's window of 10 s"),
        (441_000, 2, 9.9, 214),
        (441_000, 4, 9.9, 216),
        (2_097_152, 1, None, 1024),
        (2_097_152, 1, 30, 646),
        (2_097_152, 1, 47.5, 1023),
        (2_097_152, 1, 47.56, "longer than the model's window of 47.554 s"),
    ],
)
def test_window_holds_what_the_config_says(samples: int, patch: int, seconds: float | None, frames: int | str) -> None:
    config = changed(
        ("sample_rate", 44100), ("sample_size", samples), ("model.pretransform.config.downsampling_ratio", 2048),
        ("model.diffusion.config.patch_size", patch),
    )  # fmt: skip
    if isinstance(frames, str):
        with pytest.raises(InputError, match=frames):
            window_frames(config, seconds)
    else:
        assert window_frames(config, seconds) == frames and frames % patch == 0


def test_window_that_is_no_whole_number_of_frames_or_patches_is_processed() -> None:
    ratio = downsampling_ratio(CONFIG)
    for patch in (1, 2, 4):
        rehearse(changed(ONE_BLOCK, ("sample_size", 37 * ratio + 5), ("model.diffusion.config.patch_size", patch)))


def command(*source: object, output: Path, trainings: dict | None = None, exports: dict | None = None) -> list[object]:
    given = ["--trainings", json.dumps(trainings or {"mine": RUN}), "--exports", json.dumps(exports or {})]
    return [*source, *given, "--output", output]


def test_script_reads_a_folder(tmp_path: Path) -> None:
    output = tmp_path / "rehearsal.json"
    assert_succeeds(run_script("rehearse", *command("--path", BASE_MODEL, output=output)))
    shapes = {key: tuple(shape) for key, shape in read_json(output).items()}
    assert shapes == tensor_shapes(BASE_MODEL / "model.safetensors")
    assert_fails(
        run_script("rehearse", *command("--path", tmp_path, output=tmp_path / "x")), "model_config.json", "missing"
    )
    assert not (tmp_path / "x").exists()


def test_export_that_the_model_cannot_have_is_told_first(tmp_path: Path) -> None:
    model = shutil.copytree(BASE_MODEL, tmp_path / "model")
    config = changed(("model.diffusion.diffusion_objective", "rectified_flow"))
    (model / "model_config.json").write_text(json.dumps(config), encoding="utf-8")
    given = command("--path", model, output=tmp_path / "x.json", exports={"mine": ["model", "diffusers"]})
    words = (model / "model_config.json", "runs.mine: diffusers cannot express this model", "'rectified_flow'")
    assert_fails(run_script("rehearse", *given), *words)


@pytest.mark.parametrize("trained", [True, False])
def test_training_of_a_distilled_model_is_warned_of(tmp_path: Path, trained: bool) -> None:
    model = shutil.copytree(BASE_MODEL, tmp_path / "model")
    config = changed(("model.diffusion.diffusion_objective", "rf_denoiser"))
    (model / "model_config.json").write_text(json.dumps(config), encoding="utf-8")
    given = ["--path", model, "--trainings", json.dumps({"mine": RUN} if trained else {}), "--exports", "{}"]
    done = run_script("rehearse", *given, "--output", tmp_path / "rehearsal.json")
    assert_succeeds(done)
    assert ("is a distilled model" in done.stderr and "the runs mine train it" in done.stderr) == trained


def test_script_reads_the_header_alone_of_weights_on_the_hub(tmp_path: Path) -> None:
    weights = load_file(BASE_MODEL / "model.safetensors")
    config = (BASE_MODEL / "model_config.json").read_bytes()
    revision, token = "a" * 40, "hf_secret"
    key = next(iter(weights))
    other = save({name: weight for name, weight in weights.items() if name != key})
    files = {
        "model_config.json": config,
        "model.safetensors": (BASE_MODEL / "model.safetensors").read_bytes(),
        "other.safetensors": other,
        "no.safetensors": b"<html>" * 100,
        "model.ckpt": b"a pickle",
    }
    with serve_hub({("someone/model", revision): files}) as hub:
        hub.token = token
        env = {"HF_ENDPOINT": hub.endpoint, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path), "HF_TOKEN": token}

        def fetch(name: str) -> object:
            source = ("--repo", "someone/model", "--revision", revision, "--weights", name)
            return run_script("rehearse", *command(*source, output=tmp_path / f"{name}.json"), env=env)

        assert_succeeds(fetch("model.safetensors"))
        sent = hub.transfers("model.safetensors")
        assert sent and all(
            re.fullmatch(r"bytes=\d+-\d+", headers.get("range") or headers["Range"]) for headers in sent
        )
        assert not any(token in str(headers) for headers in sent)
        assert_fails(fetch("other.safetensors"), "someone/model: other.safetensors", "1 keys are missing", key)
        assert_fails(fetch("no.safetensors"), "someone/model", "no.safetensors", "`weights`")
        assert_succeeds(fetch("model.ckpt"))  # nothing is known of a pickle before it has arrived
        assert not hub.transfers("model.ckpt")


def wrapped(found: dict, prefix: str) -> dict:
    """Weights in a training's form: a prefix before the model's keys and, after stock training, a moving average."""
    kept = {f"{prefix}{key}": value for key, value in found.items()}
    if prefix == "diffusion.":
        average = {key: value for key, value in found.items() if key.startswith("model.")}
        kept |= {f"diffusion_ema.ema_model.{key.removeprefix('model.')}": value for key, value in average.items()}
        kept |= {"diffusion_ema.initted": next(iter(found.values())), "diffusion_ema.step": next(iter(found.values()))}
    return kept


WRAPPED = {
    "diffusion.": ["stable-audio-tools' own training", "moving average beside it", "unwrap_model.py", "`weights`"],
    "module.": ["put 'module.' before", "remove the prefix"],
    "_orig_mod.": ["put '_orig_mod.' before", "remove the prefix"],
}


@pytest.mark.parametrize(
    ("prefix", "name"),
    [
        ("diffusion.", "model.safetensors"),
        ("diffusion.", "last.ckpt"),
        ("module.", "last.ckpt"),
        ("_orig_mod.", "model.safetensors"),
    ],
)
def test_checkpoint_of_a_training_is_told_with_the_cure(tmp_path: Path, prefix: str, name: str) -> None:
    import shutil

    import torch
    from safetensors.torch import load_file, save_file

    weights = wrapped(load_file(BASE_MODEL / "model.safetensors"), prefix)
    shutil.copytree(BASE_MODEL / "text_encoder", tmp_path / "mine/text_encoder")
    shutil.copy(BASE_MODEL / "model_config.json", tmp_path / "mine")
    path = tmp_path / "mine" / name
    if path.suffix == ".ckpt":
        torch.save({"state_dict": weights, "epoch": 3, "loops": {"fit_loop": {}}, "optimizer_states": []}, path)
    else:
        save_file({key: value.clone() for key, value in weights.items()}, path)
    source = ("--path", tmp_path / "mine", "--weights", name)
    words = [path, *WRAPPED[prefix]]
    assert_fails(run_script("rehearse", *command(*source, output=tmp_path / "x.json")), *words)
    # Rule base_model is the first to see a pickle from the Hub.
    shapes = write_shapes(tmp_path / "shapes.json", BASE_MODEL / "model.safetensors")
    given = ("--shapes", shapes, "--output", tmp_path / "out", "--digest", tmp_path / "out/checksums.sha256")
    assert_fails(run_script("base_model", *source, *given), f"{tmp_path / 'mine'}/{name}", *WRAPPED[prefix])
    assert not (tmp_path / "out/checksums.sha256").exists()


def test_schedule_that_is_too_short_is_told_before_the_download() -> None:
    short = {"type": "OneCycleLR", "config": {"max_lr": 0.1, "total_steps": 5}}
    config = changed(ONE_BLOCK)
    rehearse(config, {"mine": RUN | {"scheduler": short, "steps": 5}})
    with pytest.raises(InputError, match="run mine: schedule OneCycleLR ends after 5 of 6 steps"):
        rehearse(config, {"mine": RUN | {"scheduler": short, "steps": 6}})


def test_checkpoint_of_another_model_is_told_by_its_keys() -> None:
    expected = tensor_shapes(BASE_MODEL / "model.safetensors")
    some = dict(list(wrapped(expected, "diffusion.").items())[:3])
    with pytest.raises(InputError, match="does not fit the model of"):
        assert_same_weights(some, expected, "w")
