"""Training in legs is repeatable bit by bit and resumes exactly. One line refuses a run that cannot be trained."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import pickle
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import wandb_server
from conftest import (
    ROOT,
    SCRIPTS,
    assert_fails,
    assert_succeeds,
    change,
    checksum,
    listing,
    needs_mount,
    run_script,
    small_disk,
)
from demo_corpus import make_corpus, make_initial, succeed
from forks import Forks, Started
from safetensors.torch import load_file
from sao.base.names import write_digests
from sao.training.memory import ADAPTER as DEFAULT_ADAPTER
from sao.training.metrics import Metrics


@pytest.fixture(scope="module")
def corpus(shared: Path, base_model: Path, forks: Forks) -> Path:
    return make_corpus(shared, base_model, forks)


SETTINGS = {
    "base_model": "demo", "corpus": "demo", "batch_size": 4, "devices": 1, "num_nodes": 1, "strategy": "auto",
    "accumulate": 1, "threads": 1, "method": "full", "adapter": None, "learning_rate": 1e-3, "optimizer": None,
    "scheduler": None, "training": {}, "gradient_clip": 0, "ema": None, "precision": "32-true", "recompute_activations": False,
    "compile": False, "captions": "random", "phase_flip": False, "seed": 3,
}  # fmt: skip
RUNNING = {"wandb": None, "tensorboard": False, "workers": 0, "validate_every": 4, "scratch": False}
ADAPTER: dict[str, Any] = DEFAULT_ADAPTER | {
    "rank": 4,
    "alpha": 8,
    "dropout": 0.1,
    "target_modules": ["to_qkv", "to_out"],
    "base_precision": "32",
}
LORA = {"method": "lora", "adapter": ADAPTER}
CONSTANT = {"scheduler": {"type": "constant"}}


@dataclasses.dataclass
class Trainer:
    """Starts legs of trainings on the corpus, each in the folder of its run."""

    forks: Forks
    corpus: Path
    model: Path
    base: Path  # the base model that encoded the corpus

    def command(
        self, run: Path, end: int | str, resume: Path | None = None, datasets: str = "latents", **changes: object
    ) -> list[object]:
        settings = {key: value for key, value in (SETTINGS | changes).items() if key not in RUNNING}
        running = {key: changes.get(key, value) for key, value in RUNNING.items()}
        folder = Path(datasets)
        encoded = folder.with_name(folder.name.replace("latents", "encoded"))
        sounds = "audio/{}.csv" if "audio" in folder.name else f"{encoded}/{{}}/0001-of-0001.json"
        return [
            "--run", run.name, "--leg", leg(end), *(["--resume", resume] if resume else []),
            "--settings", json.dumps(settings), "--running", json.dumps(running), "--dataset-configs", datasets,
            "--sound-digest", *(sounds.format(split) for split in ("development", "validation")),
            "--datasets-digest", f"{datasets}.sha256",
            "--captions", f"{datasets}_captions.safetensors", "--captions-digest", f"{datasets}_captions.json", "--model", self.model, "--model-digest", self.model / "checksums.sha256", "--code", "x",
            "--base-digest", self.base / "checksums.sha256",
            "--output", run / leg(end),
        ]  # fmt: skip

    def start(self, run: Path, end: int | str, *given: object, env: dict | None = None, **more: object) -> Started:
        return self.forks.start("train", *self.command(run, end, *given, **more), cwd=self.corpus, env=env)

    def train(self, run: Path, end: int | str, *given: object, **more: object) -> Path:
        """Train a leg, which has to succeed, and return its folder."""
        succeed(self.start(run, end, *given, **more))
        return run / leg(end)

    def chain(self, run: Path, ends: Sequence[int], **more: object) -> Path:
        """Train several legs, one after the other, and return the folder of the last."""
        state = None
        for end in ends:
            state = self.train(run, end, state, **more) / "state.ckpt"
        return state.parent


def leg(end: int | str) -> str:
    return f"step-{end:08d}" if isinstance(end, int) else end


@pytest.fixture(scope="module")
def trainer(forks: Forks, corpus: Path, base_model: Path, runs: Path) -> Trainer:
    return Trainer(forks, corpus, make_initial(base_model, runs / "model"), base_model)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def whole(trainer: Trainer, runs: Path) -> dict[str, Path]:
    """Single legs of 8 steps, one from latents and one from audio. Tests must not change them."""
    started = {name: trainer.start(runs / f"whole {name}", 8, datasets=name) for name in ("latents", "audio_dir")}
    succeed(*started.values())
    return {name: runs / f"whole {name}" / leg(8) for name in started}


def load(state: Path) -> dict:
    import torchao.optim  # noqa: F401 - so that torch knows its states of 8 bits

    return torch.load(state, weights_only=True, map_location="cpu")


def same(left: object, right: object) -> bool:
    """Whether two training states, or parts of them, are the same bit by bit."""
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    if hasattr(left, "tensor_attrs"):  # states of 8 bits
        return all(torch.equal(getattr(left, name), getattr(right, name)) for name in left.tensor_attrs)
    return torch.equal(left, right) if isinstance(left, torch.Tensor) else left == right


def assert_same_leg(found: Path, expected: Path, rows: bool = True) -> None:
    """Two legs have the same weights and state, bit by bit, and with `rows` the same rows of the table."""
    for path in (found / "weights").iterdir():
        # Checksums are compared, because pytest would spend hours on the difference of two such files.
        assert checksum(path) == checksum(expected / "weights" / path.name), path
    states = [load(folder / "state.ckpt") for folder in (found, expected)]
    for key in (set(states[0]) | set(states[1])) - {"speeds"} - (set() if rows else {"rows"}):
        assert same(states[0][key], states[1][key]), key
    if rows:
        pd.testing.assert_frame_equal(losses(found), losses(expected), check_exact=True)
        speeds = pd.read_csv(found / "metrics.csv")[list(Metrics.SPEEDS)]
        assert speeds.clips_per_second.gt(0).all() and speeds.waiting_for_data.between(0, 1).all()


def losses(folder: Path) -> pd.DataFrame:
    """The table of a training, without how fast it was."""
    return pd.read_csv(folder / "metrics.csv").drop(columns=list(Metrics.SPEEDS))


@pytest.fixture(scope="module")
def chained(trainer: Trainer, runs: Path, whole: dict[str, Path]) -> dict[str, Path]:
    """The last legs of trainings of 8 steps in other ways than `whole`, by the name of the way."""
    ways = {
        "latents in legs of 4": ([4, 8], {"workers": 2}),
        "latents in uneven legs": ([2, 4, 8], {}),
        "audio_dir in legs of 4": ([4, 8], {"workers": 2}),
        "audio_dir in uneven legs": ([2, 8], {}),
    }
    side_by_side(
        trainer, {runs / name: (ends, {"datasets": name.split()[0]} | more) for name, (ends, more) in ways.items()}
    )
    return {name: runs / name / leg(8) for name in ways}


def side_by_side(trainer: Trainer, ways: dict[Path, tuple[list[int], dict]]) -> None:
    """Train runs side by side, leg by leg. `ways` has, by folder, the ends of the legs and the changed settings."""
    for number in range(max(len(ends) for ends, _ in ways.values())):
        started = []
        for run, (ends, changes) in ways.items():
            if number < len(ends):
                state = run / leg(ends[number - 1]) / "state.ckpt" if number else None
                started.append(trainer.start(run, ends[number], state, **changes))
        succeed(*started)


@pytest.mark.parametrize(
    "way",
    ["latents in legs of 4", "latents in uneven legs", "audio_dir in legs of 4", "audio_dir in uneven legs"],
)
def test_legs_and_workers_change_no_bit(whole: dict[str, Path], chained: dict[str, Path], way: str) -> None:
    expected = whole[way.split()[0]]
    uneven = way.endswith("uneven legs")  # a leg that ends between two validations adds a row to the table
    assert_same_leg(chained[way], expected, rows=not uneven)
    table, other = losses(expected), losses(chained[way])
    assert other.step.tolist() == ([2, 4, 8] if uneven else [4, 8]) and other.notna().all(axis=None)
    assert other.validation_loss[other.step.isin(table.step)].tolist() == table.validation_loss.tolist()


@pytest.fixture
def half(chained: dict[str, Path]) -> dict[str, Path]:
    """The legs of 4 steps of `chained`, by where the clips are read. Tests must not change them."""
    return {name: chained[f"{name} in legs of 4"].with_name(leg(4)) for name in ("latents", "audio_dir")}


@pytest.fixture
def uneven(chained: dict[str, Path]) -> Path:
    """The folder of a training from latents with legs that end at 2, 4 and 8. Tests must not change it."""
    return chained["latents in uneven legs"].parent


def test_other_weights_are_told_apart(whole: dict[str, Path], half: dict[str, Path]) -> None:
    with pytest.raises(AssertionError):
        assert_same_leg(half["latents"], whole["latents"], rows=False)


def test_training_from_audio_has_the_losses_of_one_on_latents(whole: dict[str, Path]) -> None:
    on_latents, from_audio = (losses(whole[name]) for name in ("latents", "audio_dir"))
    pd.testing.assert_frame_equal(on_latents, from_audio, check_exact=False, rtol=1e-5)


@pytest.mark.slow  # a processor has no fast multiplication in these
@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed", "bf16-true"])
def test_low_precision_from_audio_is_that_on_latents(trainer: Trainer, tmp_path: Path, precision: str) -> None:
    changes = {"precision": precision, "gradient_clip": 1.0, "batch_size": 1, "accumulate": 2}
    ways = {tmp_path / name: ([1], {"datasets": name} | changes) for name in ("latents", "audio_dir")}
    side_by_side(trainer, ways)
    found, expected = (losses(run / leg(1)) for run in (tmp_path / "audio_dir", tmp_path / "latents"))
    pd.testing.assert_frame_equal(found, expected, rtol=1e-5)
    # Training and validation have the same objective, with drawn and fixed timesteps, so their first losses are alike.
    assert expected.validation_loss.between(0.3, 3).all() and expected.train_loss.between(0.3, 3).all()
    by_timestep = expected.filter(regex=r"^validation_loss_0\.[13579]$")
    assert by_timestep.shape[1] == 5 and by_timestep.nunique(axis=1).eq(5).all()
    assert by_timestep.mean(axis=1).tolist() == pytest.approx(expected.validation_loss.tolist(), rel=1e-6)


def test_crops_from_audio_have_the_losses_of_those_of_latents(trainer: Trainer, runs: Path) -> None:
    side_by_side(trainer, {runs / name: ([2], {"datasets": name}) for name in ("cropped_latents", "cropped_audio")})
    on_latents, from_audio = (losses(runs / name / leg(2)) for name in ("cropped_latents", "cropped_audio"))
    pd.testing.assert_frame_equal(on_latents, from_audio, check_exact=False, rtol=1e-4)


def test_first_line_says_what_is_trained(trainer: Trainer, tmp_path: Path) -> None:
    started = trainer.start(tmp_path / "run", 1, batch_size=3, accumulate=2)
    succeed(started)
    line = started.stderr().split("train: ")[1].splitlines()[0]
    weights = load_file(tmp_path / "run" / leg(1) / "weights/model.safetensors")
    # The conditioner's weights are among them except for the text encoder's. Tables of frequencies are not trained.
    trained = json.loads((tmp_path / "run" / leg(1) / "training.json").read_text())["trained_parameters"]
    assert 0.99 < trained / sum(value.numel() for value in weights.values()) <= 1
    assert line.startswith("batch of 6 (3 × 1 devices × 2), activations kept, 16 clips, 2.667 steps an epoch")
    assert f"{trained / 1e6:.3g} M parameters trained" in line and line.endswith(" MB of memory")


LONG = 24  # steps; enough for a signal to arrive in their midst


@pytest.fixture(scope="module")
def long(trainer: Trainer, runs: Path) -> Path:
    """The last leg of a training in two legs, the first of which ended at 4. Tests must not change it."""
    return trainer.chain(runs / "long", [4, LONG], batch_size=2, validate_every=8)


def begin(trainer: Trainer, run: Path, long: Path, **changes: object) -> tuple[Started, tuple, dict]:
    """Start the last leg of a training like `long` and wait until it trains. Returns it, and arguments to start it again."""
    shutil.copytree(long.parent / leg(4), run / leg(4))
    given = (run, LONG, run / leg(4) / "state.ckpt")
    changes = {"batch_size": 2, "validate_every": 8, "tensorboard": True} | changes
    started = trainer.start(*given, **changes)
    deadline = time.monotonic() + 100
    while not list(run.glob("tensorboard/*")):  # this file is opened right before the first step
        assert time.monotonic() < deadline, started.stderr()
        time.sleep(0.02)
    return started, given, changes


@pytest.mark.parametrize(("number", "workers"), [(signal.SIGINT, 2), (signal.SIGTERM, 0)])
def test_interrupted_leg_goes_on_exactly(
    trainer: Trainer, tmp_path: Path, long: Path, number: signal.Signals, workers: int
) -> None:
    started, given, changes = begin(trainer, tmp_path / "run", long, workers=workers)
    os.killpg(started.pid, number)  # like a terminal, also to the processes that load clips
    result = started.finish()
    assert result.returncode == 130
    assert_fails(result, "interrupted")
    assert not list((tmp_path / "run" / leg(LONG)).glob("*"))
    kept, vouching = sorted((tmp_path / "run/.interrupted").iterdir())
    assert vouching.read_text() == f"{checksum(kept, 'sha256')}  {kept.name}\n"
    reached = load(kept)["step"]
    assert kept.suffix == ".ckpt" and 4 < reached < LONG

    again = trainer.start(*given, **changes)
    succeed(again)
    assert f"resuming at step {reached} of {LONG}, from {kept}" in again.stderr()
    assert_same_leg(tmp_path / "run" / leg(LONG), long)
    assert not kept.exists()


def test_killed_leg_starts_again(trainer: Trainer, tmp_path: Path, long: Path) -> None:
    started, given, changes = begin(trainer, tmp_path / "run", long)
    os.kill(started.pid, signal.SIGKILL)
    assert started.finish().returncode == -signal.SIGKILL
    assert not (tmp_path / "run" / leg(LONG) / "state.ckpt").exists()
    trainer.train(*given, **changes)
    assert_same_leg(tmp_path / "run" / leg(LONG), long)


def test_state_on_the_way_is_picked_up(
    trainer: Trainer, tmp_path: Path, whole: dict[str, Path], uneven: Path, long: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(uneven / leg(2), run / leg(2))
    shutil.copytree(long.parent / leg(4), run / leg(4))  # of batches of 2
    longer, shorter = trainer.start(run, 8), trainer.start(run, 1)
    succeed(longer, shorter)
    assert f"resuming at step 2 of 8, from {run / leg(2) / 'state.ckpt'}" in longer.stderr()
    assert "resuming" not in shorter.stderr()  # neither from a state of other provenance, nor from one that is too far
    assert_same_leg(run / leg(8), whole["latents"], rows=False)


def test_state_further_on_than_the_given_one_is_picked_up(trainer: Trainer, tmp_path: Path, long: Path) -> None:
    run = tmp_path / "run"
    for end in (4, LONG):
        shutil.copytree(long.parent / leg(end), run / leg(end))
    started = trainer.start(run, LONG + 1, run / leg(4) / "state.ckpt", batch_size=2, validate_every=8)
    succeed(started)
    assert f"resuming at step {LONG} of {LONG + 1}" in started.stderr()


def test_finished_leg_made_again_is_the_same(trainer: Trainer, tmp_path: Path, whole: dict[str, Path]) -> None:
    shutil.copytree(whole["latents"], tmp_path / "run" / leg(8))
    trainer.train(tmp_path / "run", 8)
    assert_same_leg(tmp_path / "run" / leg(8), whole["latents"])


class Malicious:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return Path.touch, (self.marker,)


OTHERS = {
    "torch": (lambda past: past.update(torch="2.0.0"), "torch (2.0.0 then, "),
    "seed": (lambda past: past["settings"].update(seed=7), "settings.seed (7 then, 3 now)"),
    "rank": (lambda past: past["settings"].update(adapter={"rank": 2}), "settings.adapter"),
    "base model": (lambda past: past.update(base_model="0" * 64), "base_model (000000000000… then, "),
    "corpus": (lambda past: past.update(corpus="1" * 64), "corpus (111111111111… then, "),
    "sounds": (lambda past: past.update(sounds="2" * 64), "sounds (222222222222… then, "),
}


def test_state_of_another_training_is_refused(trainer: Trainer, tmp_path: Path, whole: dict[str, Path]) -> None:
    started = {}
    # The provenance is looked at first, so that nothing large has to be written.
    small = load(whole["latents"] / "state.ckpt") | {"weights": {}, "average": {}, "optimizer": {}}
    for name, (edit, _) in OTHERS.items():
        state = copy.deepcopy(small)
        edit(state["provenance"])
        path = tmp_path / name / leg(8) / "state.ckpt"
        path.parent.mkdir(parents=True)
        torch.save(state, path)
        started[name] = path, checksum(path), trainer.start(tmp_path / name, 9, path)
    for name, (path, before, process) in started.items():
        result = process.finish()
        line = assert_fails(result, f"{path}: was trained from something else", OTHERS[name][1], "delete")
        assert result.returncode == 1
        assert line.count(" then, ") == 1  # only one difference is listed
        assert checksum(path) == before and not list((tmp_path / name / leg(9)).glob("*"))


def spoil(name: str, path: Path, marker: Path) -> None:
    match name:
        case "truncated":
            os.truncate(path, path.stat().st_size // 2)
        case "empty":
            path.write_bytes(b"")
        case "code":
            torch.save({"step": 8, "weights": Malicious(marker)}, path)
        case "code, unzipped":
            path.write_bytes(pickle.dumps(Malicious(marker)))
        case "weights only":
            torch.save(load(path)["weights"], path)


SPOILT = ["truncated", "empty", "code", "code, unzipped", "weights only"]


def test_file_that_is_no_state_is_refused_and_not_run(trainer: Trainer, tmp_path: Path, whole: dict[str, Path]) -> None:
    started = {}
    for name in SPOILT:
        path = tmp_path / name / leg(8) / "state.ckpt"
        path.parent.mkdir(parents=True)
        shutil.copy(whole["latents"] / "state.ckpt", path)
        spoil(name, path, tmp_path / "marker")
        started[name] = path, trainer.start(tmp_path / name, 9, path)
    for path, process in started.values():
        result = process.finish()
        assert_fails(result, path, "state", "delete it")
        assert result.returncode == 1 and not list((path.parents[1] / leg(9)).glob("*"))
    assert not (tmp_path / "marker").exists()
    pickle.loads((tmp_path / "code, unzipped" / leg(8) / "state.ckpt").read_bytes())
    assert (tmp_path / "marker").exists()


def test_epochs_are_counted_in_items(trainer: Trainer, tmp_path: Path) -> None:
    settings = {
        "two": ("epoch-00000002", {"batch_size": 12}),  # of 16 items
        "all": ("epoch-00000001", {"batch_size": 15, "captions": "all", "accumulate": 2}),  # of 80
    }
    short = {"datasets": "cropped_latents"}  # of a second
    started = [trainer.start(tmp_path / name, end, **short, **more) for name, (end, more) in settings.items()]
    succeed(*started)
    steps = {
        n: json.loads((tmp_path / n / end / "training.json").read_text())["steps"] for n, (end, _) in settings.items()
    }
    assert steps == {"two": 3, "all": 3}


@pytest.mark.parametrize("strategy", ["auto", "fsdp"])
@pytest.mark.slow
def test_two_processes_train_as_one(trainer: Trainer, tmp_path: Path, uneven: Path, strategy: str) -> None:
    """In two legs. What is written is the same, whether each process has all weights or a share of each."""
    found, expected = (
        trainer.chain(tmp_path / "run", [2, 4], devices=2, batch_size=2, strategy=strategy),
        uneven / leg(4),
    )
    pd.testing.assert_frame_equal(losses(found), losses(expected), check_exact=False, rtol=1e-5)
    one, two = (load_file(folder / "weights/model.safetensors") for folder in (expected, found))
    assert list(one) == list(two)
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, rtol=1e-3, atol=1e-5)
    states = [load(folder / "state.ckpt") for folder in (expected, found)]
    assert shapes_of(states[0]) == shapes_of(states[1])


def shapes_of(value: object) -> object:
    """Nested dicts and lists, with the shapes and types of their tensors."""
    if isinstance(value, torch.Tensor):
        return value.shape, value.dtype, value.device
    if isinstance(value, dict):
        return {key: shapes_of(part) for key, part in value.items() if key not in ("provenance", "rows", "speeds")}
    return [shapes_of(part) for part in value] if isinstance(value, list | tuple) else type(value)


@pytest.mark.slow
def test_split_weights_accumulate_clip_and_validate_unevenly(trainer: Trainer, tmp_path: Path) -> None:
    """Three processes, of which one has fewer clips to validate; gradients of two batches; clipping at every step."""
    changes = {"accumulate": 2, "gradient_clip": 0.05, "batch_size": 1, "recompute_activations": True}
    three = {"devices": 3, "strategy": "fsdp"} | changes
    one, split = tmp_path / "one", tmp_path / "split"
    side_by_side(trainer, {one: ([1, 2], changes | {"batch_size": 3}), split: ([1, 2], three)})
    tables = [losses(run / leg(2)) for run in (split, one)]
    pd.testing.assert_frame_equal(*tables, check_exact=False, rtol=1e-4)
    found = weights_of(split / leg(2))
    for key, value in weights_of(one / leg(2)).items():
        torch.testing.assert_close(found[key], value, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("source", "changes"),
    [("latents", {"workers": 2}), ("latents", {"devices": 2, "batch_size": 2}), ("audio_dir", {})],
)
@pytest.mark.slow
def test_clips_on_scratch_give_the_same_training(
    trainer: Trainer, tmp_path: Path, half: dict[str, Path], source: str, changes: dict
) -> None:
    scratch = Path(tempfile.mkdtemp())  # a short name, which the sockets of workers need
    started = trainer.start(tmp_path / "run", 4, datasets=source, scratch=True, env={"TMPDIR": str(scratch)}, **changes)
    result = started.finish()
    assert_succeeds(result)
    assert result.stderr.count(f"clips are read from a copy in {scratch}") == 1
    assert listing(scratch) == set()
    shutil.rmtree(scratch)
    made = tmp_path / "run" / leg(4)
    pd.testing.assert_frame_equal(losses(made), losses(half[source]), check_exact=False, rtol=1e-5)
    if "devices" in changes:
        assert all(f"train: process {rank}: cpu on " in result.stderr for rank in range(2))
    else:
        assert_same_leg(made, half[source])


def test_temporary_folder_that_is_too_deep_for_workers_is_refused(trainer: Trainer, tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 75)
    deep.mkdir()
    command = trainer.command(tmp_path / "run", 2, workers=1)
    result = run_script("train", *command, cwd=trainer.corpus, env={"TMPDIR": str(deep)})
    assert_fails(result, "run run: workers need a shorter TMPDIR", deep, "workers to 0")


def test_speed_is_told_and_no_part_of_what_is_trained(whole: dict[str, Path]) -> None:
    speed = json.loads((whole["latents"] / "speed.json").read_text())
    assert 0.001 < speed["seconds_per_step"] < 60 and speed["settings"] == SETTINGS and speed["device"]
    assert "seconds_per_step" not in (whole["latents"] / "training.json").read_text()


def test_loss_that_is_nan_ends_the_training(trainer: Trainer, tmp_path: Path) -> None:
    rising = {"ema": False, "learning_rate": 1e-10, "scheduler": {"type": "ExponentialLR", "config": {"gamma": 1e10}}}
    state = trainer.train(tmp_path / "run", 2, **rising) / "state.ckpt"
    before = checksum(state)
    result = trainer.start(tmp_path / "run", 100, state, **rising).finish()
    # The norm of the gradient overflows before the loss, or after it.
    line = assert_fails(result, "run run: the ", f"({state}) stays", "lower learning_rate", "gradient_clip")
    assert "the loss is" in line or "the norm of the gradient is" in line
    assert result.returncode == 1 and 3 <= int(line.split(" at step ")[1].split(";")[0]) < 20
    assert not list((tmp_path / "run" / leg(100)).glob("*")) and not (tmp_path / "run/.interrupted").exists()
    assert checksum(state) == before


def test_loss_that_jumps_is_warned_of(trainer: Trainer, tmp_path: Path) -> None:
    started = trainer.start(tmp_path / "run", 4, validate_every=1, learning_rate=0.05, ema=False, **CONSTANT)
    result = started.finish()
    assert_succeeds(result)
    assert "warning: run run: the mean loss rose from " in result.stderr and "set gradient_clip" in result.stderr


def test_weights_broken_by_the_last_step_are_not_kept(trainer: Trainer, tmp_path: Path) -> None:
    """The loss of the last step belongs to the weights before it, so it does not show that they broke."""
    result = trainer.start(tmp_path / "run", 1, learning_rate=1e15, **CONSTANT).finish()
    assert_fails(result, "step 1", "lower learning_rate")
    assert not list((tmp_path / "run").rglob("*.*"))


@pytest.fixture
def copied(trainer: Trainer, tmp_path: Path) -> Path:
    """Copies of `latents`, the dataset configs, and of the latents themselves, which a test may spoil."""
    for name in ("latents", "encoded"):
        shutil.copytree(trainer.corpus / name, tmp_path / name)
    for path in (tmp_path / "latents").glob("*.json"):
        path.write_text(path.read_text().replace('"latents/', f'"{tmp_path}/latents/'))
    for end in ("safetensors", "json"):
        shutil.copy(trainer.corpus / f"latents_captions.{end}", tmp_path)
    vouch(tmp_path / "latents", tmp_path / "latents.sha256")
    return tmp_path / "latents"


def vouch(folder: Path, listing: Path) -> None:
    """Write the listing that vouches for the present contents of a folder. The listing may lie in the folder."""
    write_digests(listing, folder, sorted(path for path in folder.rglob("*") if path.is_file() and path != listing))
    summary = folder.with_name(f"{folder.name}_captions.json")
    if summary.is_file():
        known = json.loads(summary.read_text(encoding="utf-8"))
        summary.write_text(json.dumps(known | {"datasets": checksum(listing, "sha256")}), encoding="utf-8")


def vouch_for_latents(encoded: Path) -> None:
    for summary in encoded.glob("*/*.json"):
        listing = summary.with_suffix("") / "checksums.sha256"
        vouch(listing.parent, listing)
        summary.write_text(json.dumps(json.loads(summary.read_text()) | {"sha256": checksum(listing, "sha256")}))


CHANGED = {
    "weights": ("demo/model.safetensors", "demo/checksums.sha256", "delete {}/demo/model.safetensors and run again"),
    "encoded captions": ("latents_captions.safetensors", "latents_captions.json", "delete {}/latents_captions.safetensors"),
    "mean": ("encoded/development/*/*.npy", "0001-of-0001/checksums.sha256", "delete {}/encoded/development/0001-of-"),
    "deviation": ("encoded/development/*/*.std", "0001-of-0001/checksums.sha256", "delete {}/encoded/development/0001-"),
    "facts": ("encoded/development/*/*.json", "0001-of-0001/checksums.sha256", "delete {}/encoded/development/0001-of"),
    "listing": ("encoded/development/*/checksums.sha256", "development/0001-of-0001.json", "delete {}/encoded/develop"),
    "captions": ("latents/train/captions.json", "latents.sha256", "delete {}/latents and run again"),
    "state": ("run/step-00000008/state.ckpt", "step-00000008/checksums.sha256", "delete {}/run/step-00000008 and run"),
}  # fmt: skip


@pytest.mark.parametrize("what", CHANGED)
def test_what_changed_after_it_was_made_is_not_trained_on(
    trainer: Trainer, tmp_path: Path, copied: Path, whole: dict[str, Path], what: str
) -> None:
    """The size and the time stamps of the changed file stay the same."""
    shutil.copytree(trainer.model, tmp_path / "demo")
    run = tmp_path / "run"
    shutil.copytree(whole["latents"], run / leg(8))
    pattern, says, cure = CHANGED[what]
    victim = change(sorted(tmp_path.glob(pattern))[-1])
    end = 9 if what == "state" else 2
    given = (run, end, victim, "latents") if what == "state" else (run, end, None, str(copied))
    model = trainer.model if what == "state" else tmp_path / "demo"
    result = dataclasses.replace(trainer, model=model).start(*given).finish()
    line = assert_fails(result, f"{victim}: has the SHA-256 {checksum(victim, 'sha256')}", says, cure.format(tmp_path))
    assert line.count(".sha256 says ") + line.count(".json says ") == 1
    assert not list((run / leg(end)).rglob("*"))


def test_changed_audio_is_not_trained_on(trainer: Trainer, tmp_path: Path) -> None:
    shutil.copytree(trainer.corpus, tmp_path / "corpus", ignore=shutil.ignore_patterns("*encoded", "*latents"))
    at = dataclasses.replace(trainer, corpus=tmp_path / "corpus")
    for victim in (tmp_path / "corpus/audio/validation").iterdir():  # not all of them are used
        change(victim)
    result = at.start(tmp_path / "run", 2, datasets="audio_dir").finish()
    assert_fails(result, "audio/validation/", "audio/validation.csv says", "delete audio/validation and run again")


def test_state_that_nothing_vouches_for_is_not_gone_on_from(
    trainer: Trainer, tmp_path: Path, whole: dict[str, Path]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole["latents"], run / leg(8))
    (run / leg(8) / "checksums.sha256").unlink()
    result = trainer.start(run, 9, run / leg(8) / "state.ckpt").finish()
    assert_fails(result, run / leg(8) / "state.ckpt", "nothing vouches for it", "delete")


def test_state_on_the_way_that_changed_is_passed_over(
    trainer: Trainer, tmp_path: Path, whole: dict[str, Path], uneven: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(uneven / leg(2), run / leg(2))
    victim = change(run / leg(2) / "state.ckpt")
    started = trainer.start(run, 8)
    succeed(started)
    assert f"not gone on from: {victim}" in started.stderr() and "resuming" not in started.stderr()
    assert_same_leg(run / leg(8), whole["latents"])


@pytest.mark.parametrize("clip", [0, 1])
def test_gradient_that_overflows_ends_the_training(trainer: Trainer, tmp_path: Path, copied: Path, clip: int) -> None:
    """The latents are so large that the loss is finite, but the square of the gradient's norm is not."""
    for path in copied.with_name("encoded").rglob("*.npy"):
        np.save(path, np.load(path) * np.float32(1e17))
    vouch_for_latents(copied.with_name("encoded"))
    unsteady = {"ema": False, "learning_rate": 1.0, "gradient_clip": clip} | CONSTANT
    result = trainer.start(tmp_path / "run", 8, datasets=str(copied), **unsteady).finish()
    assert_fails(result, "run run: ", "step ")
    assert not list((tmp_path / "run").rglob("*.*"))


@pytest.mark.parametrize("workers", [0, 2])
def test_clip_that_cannot_be_read_stops_the_training(
    trainer: Trainer, tmp_path: Path, copied: Path, workers: int
) -> None:
    victim = sorted(copied.with_name("encoded").glob("development/*/*.npy"))[2]
    victim.write_bytes(b"not an array")
    vouch_for_latents(copied.with_name("encoded"))
    result = trainer.start(tmp_path / "run", 8, datasets=str(copied), workers=workers).finish()
    assert_fails(result, victim.name, "encode it again")
    assert not list((tmp_path / "run").rglob("*.*"))


def test_split_with_a_dot_in_its_name(trainer: Trainer, tmp_path: Path) -> None:
    shutil.copytree(trainer.corpus / "audio_dir", tmp_path / "audio_dir")
    (tmp_path / "audio_dir/train/development").rename(tmp_path / "audio_dir/train/v1.0")
    for path in (tmp_path / "audio_dir").glob("*.json"):
        text = path.read_text().replace("train/development", "train/v1.0")
        path.write_text(text.replace('"audio_dir/', f'"{tmp_path}/audio_dir/'))
    for end in ("safetensors", "json"):
        shutil.copy(trainer.corpus / f"audio_dir_captions.{end}", tmp_path)
    vouch(tmp_path / "audio_dir", tmp_path / "audio_dir.sha256")
    trainer.train(tmp_path / "run", 1, datasets=str(tmp_path / "audio_dir"))


ONLINE = {"wandb": {"project": "p", "mode": "online"}}
REFUSED = {
    "batch": ({"batch_size": 17}, ["16 training clips do not fill one batch of 17", "lower batch_size or add clips"]),
    "ema": ({"precision": "bf16-true", "ema": True}, ["moving average in bfloat16 does not move", "ema to false"]),
    "wandb": (ONLINE, ["Weights & Biases", "wandb login", "wandb.mode to offline"]),
    "targets": (LORA | {"adapter": ADAPTER | {"target_modules": ["to_x"]}}, ["target_modules", "'to_x'", "choose among"]),
    "optimizer": ({"optimizer": {"type": "Adamm"}}, ["'Adamm'", "optimizer.type"]),
    "argument": ({"optimizer": {"type": "AdamW", "config": {"momentum": 1}}}, ["AdamW", "momentum"]),
    "scheduler": ({"scheduler": {"type": "Cosine"}}, ["'Cosine'", "scheduler.type"]),
    "lacking": ({"scheduler": {"type": "CosineAnnealingLR"}}, ["CosineAnnealingLR", "T_max"]),
}  # fmt: skip


@pytest.fixture(scope="module")
def refused(trainer: Trainer, runs: Path) -> dict[str, Started]:
    home = runs / "home"
    home.mkdir()
    nobody = {"HOME": str(home), "WANDB_API_KEY": None, "NETRC": None}
    return {
        name: trainer.start(runs / "refused" / name, 2, env=nobody, **change) for name, (change, _) in REFUSED.items()
    }


@pytest.mark.parametrize("name", REFUSED)
def test_training_that_could_not_step_is_refused(refused: dict[str, Started], runs: Path, name: str) -> None:
    result = refused[name].finish()
    line = result.stderr.splitlines()[-1]
    assert result.returncode == 1 and line.startswith("train: error: ")
    assert result.stderr.count("error: ") == 1 and "Traceback" not in result.stderr, result.stderr
    assert all(word in line for word in REFUSED[name][1]), line
    assert " steps in " not in result.stderr and not list((runs / "refused" / name).rglob("step-*/*"))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
def test_compiled_training_is_the_eager_one(trainer: Trainer, tmp_path: Path) -> None:
    """Ten validation items make a batch of eight and one of two, for which nothing is compiled anew."""
    changes = {"batch_size": 8, "validate_every": 1}
    command = trainer.command(tmp_path / "compiled", 3, compile=True, **changes)
    # Vectorised kernels would take a minute to compile.
    env = {"TORCH_LOGS": "recompiles", "TORCHINDUCTOR_VEC_ISA_OK": "0", "TORCHINDUCTOR_COMPILE_THREADS": "1"}
    # In a process that has not imported the compiler, nor anything else, as a training begins.
    result = run_script("train", *command, cwd=trainer.corpus, env=env, fresh=True)
    assert_succeeds(result)
    assert "compiled 1 graphs" in result.stderr
    assert result.stderr.count("Recompiling function") == 1  # once, without gradients
    eager = trainer.start(tmp_path / "eager", 3, **changes)
    succeed(eager)
    assert "compiled 1 graphs" not in eager.stderr()
    compiled, expected = (losses(tmp_path / name / leg(3)) for name in ("compiled", "eager"))
    assert expected.step.tolist() == [1, 2, 3]
    # The first loss is of the same weights.
    np.testing.assert_allclose(compiled.train_loss[0], expected.train_loss[0], rtol=1e-5)
    pd.testing.assert_frame_equal(compiled, expected, check_exact=False, rtol=1e-3)


@pytest.mark.slow
def test_compiler_that_fails_ends_the_training(trainer: Trainer, tmp_path: Path) -> None:
    broken = tmp_path / "g++"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    result = trainer.start(tmp_path / "run", 2, compile=True, env=env).finish()
    assert_fails(result, "blocks cannot be compiled", "set compile to false")
    assert not list((tmp_path / "run").rglob("state.ckpt"))


@needs_mount
def test_room_for_a_state_is_asked_for_before_the_first_step(trainer: Trainer, tmp_path: Path) -> None:
    run = tmp_path / "small"
    command = [sys.executable, SCRIPTS / "train.py", *trainer.command(run, 2)]
    line = assert_fails(small_disk(run, "8m", command, trainer.corpus), "state and the weights of a leg need", run)
    # 2 M parameters of 4 bytes each, five times: weights, moving average, two moments, and the weights to export.
    assert 35 < float(line.split(" need ")[1].split(" MB")[0]) < 45
    assert listing(Path(f"{run}.after")) == set()


@pytest.mark.slow
def test_two_processes_speak_as_one(trainer: Trainer, tmp_path: Path) -> None:
    result = trainer.start(tmp_path / "run", 8, devices=2, batch_size=2, learning_rate=1e15, **CONSTANT).finish()
    assert result.returncode == 1
    assert_fails(result, "the loss is", "step 2")


def sent_to_wandb(forks: Forks, run: Path, times: int = 1) -> list[int]:
    """The steps that the documented command sends if it is called so many times."""
    folder, command = re.search(
        r"^\(cd (\S+) && uv run (wandb sync .+)\)$", (ROOT / "docs/guides/clotho.md").read_text(), re.M
    ).groups()
    assert Path(folder).parent == Path("results/checkpoints")
    program, *arguments = command.split()
    found = shutil.which(program)
    assert found
    with wandb_server.serving() as (environment, runs):
        for _ in range(times):
            done = forks.program(Path(found), *arguments, cwd=run, env=environment).finish()
            assert done.returncode == 0, done.stderr
    (files,) = runs.values()
    return [json.loads(row)["_step"] for row in files["wandb-history.jsonl"]]


@pytest.mark.slow
def test_loggers_go_on_from_leg_to_leg(trainer: Trainer, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = tmp_path / "run"
    trainer.chain(run, [2, 4], wandb={"project": "p", "mode": "offline"}, tensorboard=True)
    files = sorted(run.glob("wandb/offline-run-*/run-*.wandb"))
    assert len(files) == 2 and len({file.name for file in files}) == 1, files
    assert sent_to_wandb(trainer.forks, run, times=2) == [2, 4]
    events = EventAccumulator(str(run / "tensorboard")).Reload()
    table = losses(run / leg(4))
    assert table.step.tolist() == [2, 4]
    columns = {"train/loss": "train_loss", "validation/loss": "validation_loss"}
    for name, column in (columns | {"validation/loss_0.9": "validation_loss_0.9"}).items():
        scalars = events.Scalars(name)
        assert [scalar.step for scalar in scalars] == [2, 4]
        assert [scalar.value for scalar in scalars] == pytest.approx(table[column].tolist(), rel=1e-6)


@pytest.mark.slow  # waits for W&B
def test_where_wandb_does_not_answer_the_training_goes_on_and_logs_to_disk(trainer: Trainer, tmp_path: Path) -> None:
    run = tmp_path / "run"
    env = {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": "0" * 40, "WANDB_MODE": None}
    result = trainer.start(run, 1, env=env, wandb={"project": "p", "mode": "online"}).finish()
    assert_succeeds(result)
    (line,) = [line for line in result.stderr.splitlines() if "warning: " in line]
    assert "Weights & Biases does not answer (http://127.0.0.1:9: ConnectionError)" in line
    assert "`wandb sync --append --sync-all`" in line and str(run) in line
    assert sent_to_wandb(trainer.forks, run) == [1]


def test_a_step_in_parts_is_the_step(trainer: Trainer, tmp_path: Path, uneven: Path) -> None:
    """`auto` is what fits: all at once here. Less memory only changes how a step is taken."""
    auto, parts = (tmp_path / name for name in ("auto", "parts"))
    ways = {auto: {"accumulate": "auto"}, parts: {"accumulate": 4, "batch_size": 1}}
    side_by_side(trainer, {run: ([2], changes) for run, changes in ways.items()})
    assert checksum(auto / leg(2) / "weights/model.safetensors") == checksum(
        uneven / leg(2) / "weights/model.safetensors"
    )
    pd.testing.assert_frame_equal(losses(parts / leg(2)), losses(uneven / leg(2)), check_exact=False, rtol=1e-4)
    settings = json.loads((auto / leg(2) / "training.json").read_text())["settings"]
    assert (settings["batch_size"], settings["accumulate"]) == (4, 1)


LORA_XS = LORA | {"method": "lora-xs"}


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param(LORA, id="lora"),
        pytest.param(LORA_XS, id="lora-xs"),
        pytest.param({"precision": "bf16-true", "batch_size": 1}, id="bf16-true", marks=pytest.mark.slow),
    ],
)
def test_other_ways_of_training_resume_exactly(trainer: Trainer, tmp_path: Path, changes: dict) -> None:
    base = checksum(trainer.model / "model.safetensors")
    one, two = tmp_path / "one", tmp_path / "two"
    changes = changes | {"validate_every": 2}
    side_by_side(trainer, {one: ([2], changes), two: ([1, 2], changes)})
    assert_same_leg(two / leg(2), one / leg(2), rows=False)
    files = {path.name for path in (one / leg(2) / "weights").iterdir()}
    expected = {"adapter_config.json", "adapter_model.safetensors", "lora.safetensors"}
    expected = {"lora": expected, "lora-xs": {"lora.safetensors"}}.get(changes.get("method"), {"model.safetensors"})
    assert files == expected
    assert checksum(trainer.model / "model.safetensors") == base
    state = load(one / leg(2) / "state.ckpt")
    assert state["average"] is None
    before = load(two / leg(1) / "state.ckpt")["weights"]
    moved = [key for key, value in state["weights"].items() if not torch.equal(value, before[key])]
    # The demo's to_out starts at zero, so that an adapter's other half moves only once this one has.
    assert len(moved) > 0.6 * len(before) and any("to_out.lora_B" in key for key in moved) == (
        changes.get("method") == "lora"
    )
    # A training of another kind refuses the state.
    result = trainer.start(one, 3, one / leg(2) / "state.ckpt").finish()
    assert_fails(result, "was trained from something else", next(iter(changes)), "then,")


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "weights/model.safetensors")


def test_gradient_clip_is_the_length_of_a_plain_step(trainer: Trainer, tmp_path: Path) -> None:
    plain = {"ema": False, "optimizer": {"type": "SGD"}, "learning_rate": 1.0} | CONSTANT
    ways = {0.01: tmp_path / "small", 0.1: tmp_path / "large"}
    side_by_side(trainer, {run: ([1], plain | {"gradient_clip": length}) for length, run in ways.items()})
    base = load_file(trainer.model / "model.safetensors")
    for length, run in ways.items():
        moved = [
            (value.double() - base[key].double()).square().sum() for key, value in weights_of(run / leg(1)).items()
        ]
        assert torch.stack(moved).sum().sqrt().item() == pytest.approx(length, rel=1e-3)


def test_accumulated_batches_are_one_batch(trainer: Trainer, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    each = {"validate_every": 1}
    side_by_side(trainer, {one: ([2], each | {"batch_size": 8}), two: ([2], each | {"accumulate": 2})})
    pd.testing.assert_frame_equal(losses(one / leg(2)), losses(two / leg(2)), check_exact=False, rtol=1e-5)
    expected = weights_of(one / leg(2))
    for key, value in weights_of(two / leg(2)).items():
        torch.testing.assert_close(value, expected[key], rtol=1e-3, atol=1e-5)


def test_schedule_reaches_the_table_across_legs(trainer: Trainer, tmp_path: Path) -> None:
    cosine = {"scheduler": {"type": "CosineAnnealingLR", "config": {"T_max": 8, "eta_min": 1e-5}}}
    table = losses(trainer.chain(tmp_path / "run", [2, 3], **cosine))
    steps = table.step.to_numpy() - 1  # the first step has number 0 in the schedule
    expected = 1e-5 + (1e-3 - 1e-5) * (1 + np.cos(np.pi * steps / 8)) / 2
    np.testing.assert_allclose(table.learning_rate, expected, rtol=1e-6)


def test_validation_is_the_same_for_all_seeds_and_steps(trainer: Trainer, tmp_path: Path) -> None:
    still = {"learning_rate": 1e-30, "validate_every": 1} | CONSTANT  # weights that do not move
    ways = {seed: tmp_path / str(seed) for seed in (3, 4)}
    side_by_side(trainer, {run: ([2], still | {"seed": seed}) for seed, run in ways.items()})
    tables = [losses(run / leg(2)) for run in ways.values()]
    assert len({*tables[0].validation_loss, *tables[1].validation_loss}) == 1
    assert not set(tables[0].train_loss) & set(tables[1].train_loss)
