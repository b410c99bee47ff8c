"""The losses of a run are drawn, and its best leg is named."""

from __future__ import annotations

import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from conftest import assert_succeeds, run_script
from sao.base.files import read_json, write_json

METRICS = """\
step,train_loss,validation_loss,learning_rate,validation_loss_0.1,validation_loss_0.9
50,1.5,,1e-3,,
100,1.25,1.4,1e-3,0.4,2.4
200,1,1.2,1e-3,0.3,2.1
300,0.75,1.3,1e-3,0.2,2.4
"""
LOSSES = {100: 1.4, 200: 1.2, 300: 1.3}


def curves(folder: Path, losses: dict[int, float] = LOSSES) -> subprocess.CompletedProcess[str]:
    """Run the script on legs with these validation losses, given by the last step of each leg."""
    (folder / "leg.csv").write_text(METRICS)
    for step, loss in losses.items():
        leg = {
            "run": "demo",
            "leg": f"step-{step:08d}",
            "steps": step,
            "validation_loss": loss,
            "settings": {"seed": 1},
        }
        write_json(folder / f"{step}.json", leg)
    legs = [folder / f"{step}.json" for step in losses]
    output = [
        "--output",
        folder / "metrics.csv",
        "--picture",
        folder / "loss.svg",
        "--summary",
        folder / "training.json",
    ]
    return run_script("curves", "--run", "de<mo & é", "--metrics", folder / "leg.csv", "--leg", *legs, *output)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("curves")
    result = curves(folder)
    assert_succeeds(result)
    assert "best leg step-00000200, validation loss 1.2000" in result.stderr
    return folder


def test_summary_is_the_last_legs_with_the_best(made: Path) -> None:
    last = read_json(made / "300.json")
    losses = {f"step-{step:08d}": loss for step, loss in LOSSES.items()}
    assert read_json(made / "training.json") == last | {"best_leg": "step-00000200", "validation_losses": losses}
    assert (made / "metrics.csv").read_text() == METRICS


def test_picture_shows_both_losses_and_the_best_leg(made: Path) -> None:
    svg = (made / "loss.svg").read_text(encoding="utf-8")
    root = ET.fromstring(svg)
    assert root.tag.endswith("svg")
    for words in ("training", "validation", "best leg, step 200", "de&lt;mo &amp; é"):
        assert f"<!-- {words} -->" in svg or words in svg, words
    lines = [element for element in root.iter() if (element.get("id") or "").startswith("line2d_")]
    points = [path.get("d").count("L") + 1 for line in lines for path in line if path.tag.endswith("path")]
    assert {4, 3} <= set(points)  # logged steps and validated steps


def test_picture_is_the_same_each_time_and_changes_with_the_losses(made: Path, tmp_path: Path) -> None:
    for name, losses in {"again": LOSSES, "other": LOSSES | {300: 1.1}}.items():
        (tmp_path / name).mkdir()
        assert_succeeds(curves(tmp_path / name, losses))
    assert (tmp_path / "again/loss.svg").read_bytes() == (made / "loss.svg").read_bytes()
    assert (tmp_path / "other/loss.svg").read_bytes() != (made / "loss.svg").read_bytes()
    assert read_json(tmp_path / "other/training.json")["best_leg"] == "step-00000300"


def test_first_of_equals_is_the_best(tmp_path: Path) -> None:
    assert_succeeds(curves(tmp_path, {100: 1.2, 200: 1.2}))
    assert read_json(tmp_path / "training.json")["best_leg"] == "step-00000100"
