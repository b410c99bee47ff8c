"""Votes count only while the sounds that they are about are there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import assert_fails, assert_succeeds, run_script
from sao.base.files import read_json, sha256
from sao.evaluation.votes import FORMAT

CLIPS = {"a": "evaluation", "b": "evaluation", "b@take-2": "evaluation", "t": "train"}


@pytest.fixture
def options(tmp_path: Path) -> list[object]:
    """The options of the script that name the renders of two models; a render is a few bytes here."""
    given: dict[str, list[object]] = {"--run": ["base", "demo"], "--table": [], "--render": []}
    for run in ("base", "demo"):
        folder = tmp_path / run
        folder.mkdir()
        for clip in CLIPS:
            (folder / f"{clip}.wav").write_text(f"{run} {clip}")
        rows = [{"clip_id": clip, "split": split, "reference": "", "source": "", "file": f"{clip}.wav"} for clip, split in CLIPS.items()]  # fmt: skip
        pd.DataFrame(rows).to_csv(tmp_path / f"{run}.csv", index=False)
        given["--table"].append(tmp_path / f"{run}.csv")
        given["--render"].append(folder)
    named = [part for key, values in given.items() for part in (key, *values)]
    return [*named, "--level", 0.9, "--output", tmp_path / "votes.json", "--summary", tmp_path / "votes.csv"]


def save(root: Path, name: str, better: dict[str, str | None], runs: Sequence[str] = ("base", "demo")) -> Path:
    """A file of votes: by sound, the run that is better."""
    entries: list[dict[str, Any]] = []
    for clip, best in better.items():
        a, b = ({"run": run, "sha256": sha256(root / run / f"{clip}.wav")} for run in runs)
        entries.append({"clip_id": clip, "a": a, "b": b, "better": best and "ab"[runs.index(best)]})
    path = root / f"{name}.json"
    path.write_text(json.dumps({"format": FORMAT, "session": name, "saved": "2026-01-01", "votes": entries}))
    return path


def test_votes_are_counted_by_prompt_and_split(tmp_path: Path, options: list[object]) -> None:
    mine = save(tmp_path, "mine", {"a": "demo", "b": "demo", "b@take-2": "demo", "t": None})
    yours = save(tmp_path, "yours", {"a": "demo", "b": "base"}, ("demo", "base"))
    done = run_script("votes", "--votes", mine, yours, *options)
    assert_succeeds(done)
    found = read_json(tmp_path / "votes.json")
    held_out, trained = found["pairs"]
    assert (found["level"], found["left_out"], trained["split"], trained["neither"]) == (0.9, 0, "train", 1)
    assert (held_out["first"], held_out["second"]) == ("base", "demo")
    assert (held_out["first_better"], held_out["second_better"], held_out["neither"]) == (0, 2, 0)
    assert (held_out["votes"], held_out["listeners"]) == (5, 2)
    table = pd.read_csv(tmp_path / "votes.csv")
    assert table.to_dict("records")[0] == pytest.approx(held_out) and len(table) == 2
    assert "In a blind test of 2 prompts (evaluation), demo was better on 2, base on 0" in done.stderr


def test_votes_about_sounds_that_are_gone_are_told_and_left_out(tmp_path: Path, options: list[object]) -> None:
    path = save(tmp_path, "mine", {"a": "demo", "b": "demo"})
    (tmp_path / "demo/b.wav").write_text("of another training")
    done = run_script("votes", "--votes", path, *options)
    assert_succeeds(done)
    assert "1 of 2 votes are left out, because their sounds are no longer there (b of base and demo, …)" in done.stderr
    found = read_json(tmp_path / "votes.json")
    assert found["left_out"] == 1 and found["pairs"][0]["second_better"] == 1
    path.write_text(path.read_text().replace('"demo"', '"another"'))
    assert_succeeds(run_script("votes", "--votes", path, *options))
    assert read_json(tmp_path / "votes.json") == {"level": 0.9, "left_out": 2, "pairs": []}
    assert pd.read_csv(tmp_path / "votes.csv").empty


def test_file_that_is_none_of_votes_is_named(tmp_path: Path, options: list[object]) -> None:
    path = tmp_path / "mine.json"
    path.write_text("{}")
    assert_fails(run_script("votes", "--votes", path, *options), path, "is not a file of votes")
    assert not (tmp_path / "votes.csv").exists()
