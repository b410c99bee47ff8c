"""Sounds of legs reach TensorBoard and Weights & Biases with their prompts, and nothing stops where they cannot be sent."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import soundfile
import wandb_server
from conftest import FORKS, assert_succeeds, listing, run_script
from listened import BASE, RATE, leg, listen

SHOWN = [BASE, leg(4), leg(8)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a base model and two legs rendered. Not to be changed."""
    root = tmp_path_factory.mktemp("log")
    for number, name in enumerate(SHOWN):
        listen(root, name, 200 + 100 * number, SHOWN)
    return root / "listen"


def log_audio(
    root: Path, folder: Path, name: str, env: dict[str, str | None] | None = None, base: bool = False, **settings: Any
) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    """What the script said, and the summary that it wrote."""
    given = ["--leg", root / f"{name}.json", *(["--base", root / f"{BASE}.json"] if base else [])]
    settings = {"wandb": None, "tensorboard": False} | settings
    output = folder / f"{name}.logged.json"
    result = run_script(
        "log_audio", *given, "--settings", json.dumps(settings), "--folder", folder, "--output", output, env=env
    )
    assert_succeeds(result)
    return result, json.loads(output.read_text())


def test_tensorboard_plays_each_prompt_by_step(root: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.audio.metadata import parse_plugin_metadata
    from tensorboard.util.tensor_util import make_ndarray

    for _ in range(2):  # logged again, a leg is there once
        log_audio(root, tmp_path, leg(4), base=True, tensorboard=True)
    log_audio(root, tmp_path, leg(8), tensorboard=True)
    assert len(list((tmp_path / "tensorboard/audio").iterdir())) == 2
    events = EventAccumulator(str(tmp_path / "tensorboard/audio")).Reload()
    tags = {"a/cfg-4", "a/cfg-10", "a/reference", "mine/cfg-4", "mine/source", "_empty-prompt/cfg-4"}
    assert set(events.Tags()["tensors"]) == tags == set(events.PluginTagToContent("audio"))
    assert parse_plugin_metadata(events.SummaryMetadata("a/cfg-4").plugin_data.content).encoding == 11  # WAV
    assert events.SummaryMetadata("a/cfg-4").summary_description == "Rain & <b>wind</b>."
    assert events.SummaryMetadata("_empty-prompt/cfg-4").summary_description == "(no prompt)"
    found = events.Tensors("a/cfg-4")
    assert [event.step for event in found] == [0, 4, 8]
    assert [event.step for event in events.Tensors("a/reference")] == [0]
    for event, name in zip(found, SHOWN, strict=True):
        ((wav, _),) = make_ndarray(event.tensor_proto)
        heard, rate = soundfile.read(io.BytesIO(wav), dtype="int16")
        wanted, _ = soundfile.read(root / name / "a@cfg-4.wav", dtype="int16")
        assert rate == RATE and heard.shape == wanted.shape and (heard == wanted).all()


def history(files: dict[str, list[str]]) -> list[dict[str, Any]]:
    return [json.loads(row) for row in files["wandb-history.jsonl"]]


@pytest.mark.slow
def test_wandb_gets_all_legs_in_one_run_of_the_trainings_group(root: Path, tmp_path: Path) -> None:
    uploads: dict[str, bytes] = {}
    online = {"wandb": {"project": "p", "mode": "online"}}
    with wandb_server.serving(uploads) as (environment, runs):
        env = {**environment, "WANDB_MODE": None}
        _, first = log_audio(root, tmp_path, leg(4), env, base=True, **online)
        _, second = log_audio(root, tmp_path, leg(8), env, **online)
        _, again = log_audio(root, tmp_path, leg(4), env, base=True, tensorboard=True, **online)
    assert again["wandb"] == first["wandb"]  # and no row is there twice
    assert first["wandb"]["sent"] and second["wandb"]["sent"] and first["wandb"]["id"] == second["wandb"]["id"]
    assert list(runs) == [first["wandb"]["id"]]
    base, four, eight = history(runs[first["wandb"]["id"]])
    assert [row["_step"] for row in (base, four, eight)] == [0, 4, 8]
    assert base["a/reference"]["caption"] == "Rain & <b>wind</b>." and "a/reference" not in four
    assert base["a/cfg-4"]["caption"] == "Rain & <b>wind</b>. (base, cfg scale 4)"
    assert eight["mine/cfg-4"]["caption"] == "Übung: ein Horn. (step-00000008, cfg scale 4)"
    sent = uploads[f"{first['wandb']['id']}/{eight['mine/cfg-4']['path']}"]
    assert sent == (root / leg(8) / "mine@cfg-4.wav").read_bytes()


@pytest.mark.slow
def test_what_is_logged_offline_is_sent_by_the_documented_command(root: Path, tmp_path: Path) -> None:
    for name in (leg(4), leg(8)):
        _, summary = log_audio(root, tmp_path, name, wandb={"project": "p", "mode": "offline"}, base=name == leg(4))
        assert not summary["wandb"]["sent"]
    with wandb_server.serving() as (environment, runs):
        for _ in range(2):
            command = FORKS[0].program(
                Path(shutil.which("wandb")), "sync", "--append", "--sync-all", cwd=tmp_path, env=environment
            )
            assert command.finish().returncode == 0
    (files,) = runs.values()
    assert [row["_step"] for row in history(files)] == [0, 4, 8]


@pytest.mark.slow
def test_where_wandb_does_not_answer_a_line_says_so_and_nothing_is_lost(root: Path, tmp_path: Path) -> None:
    online = {"wandb": {"project": "p", "mode": "online"}}
    home = {"HOME": str(tmp_path), "NETRC": None, "WANDB_MODE": None, "WANDB_API_KEY": None}
    result, summary = log_audio(root, tmp_path, leg(4), home, **online)
    (line,) = [line for line in result.stderr.splitlines() if "warning: " in line]
    assert f"the sounds of {leg(4)}: Weights & Biases does not answer (No API key" in line
    assert "the training goes on" in line and f"`wandb sync --append --sync-all`, called in {tmp_path}" in line
    assert not summary["wandb"]["sent"]
    assert len([path for path in listing(tmp_path / "wandb") if path.endswith(".wandb")]) == 1


def test_disabled_logger_gets_nothing(root: Path, tmp_path: Path) -> None:
    _, summary = log_audio(root, tmp_path, leg(4), wandb={"project": "p", "mode": "disabled"})
    assert summary["wandb"] is None and not (tmp_path / "wandb").exists()
