"""The splits of several corpora are joined, and what leaks from one corpus into another is found."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import assert_fails, assert_succeeds, run_script
from sao.base.files import read_json
from sao.base.names import corpus_of, own_id
from sao.base.tables import read_table

ROLES = ("train", "validation", "evaluation")


def clip(corpus: str, role: str, number: int, **more: Any) -> dict[str, Any]:
    name = f"{role}-{number}"
    row = {"clip_id": name, "path": f"{corpus}/{name}.wav", "file_name": f"{name}.wav", "published_split": "all"}
    row |= {"sha256": f"{corpus}{name}", "audio_sha256": f"{corpus}{name}", "seconds": 1.5, "sample_rate": 44100}
    row |= {"channels": 1, "frames": 66150, "peak_dbfs": -3.0, "rms_dbfs": -20.0, "sound_id": "", "license": "CC0"}
    return row | {"caption_count": 1, "caption_1": f"{name} of {corpus}."} | more


def corpora(folder: Path, **changed: dict[str, Any]) -> list[Path]:
    """Splits of corpora `a` and `b`; `changed` are other values by clip: `b_train_0={…}`."""
    for corpus in ("a", "b"):
        for role in ROLES:
            rows = [
                clip(corpus, role, number, **changed.get(f"{corpus}_{role}_{number}", {}))
                for number in range(3 if role == "train" else 1)
            ]
            (folder / corpus).mkdir(parents=True, exist_ok=True)
            pd.DataFrame(rows).to_csv(folder / corpus / f"{role}.csv", index=False)
    return [folder / "a", folder / "b"]


def mix(folder: Path, splits: list[Path], on_leak: str = "fail") -> subprocess.CompletedProcess[str]:
    (folder / "a-1+b-3").mkdir(exist_ok=True)
    output = folder / "a-1+b-3"
    return run_script(
        "mix", "--splits", *splits, "--settings", json.dumps({"corpora": ["a", "b"], "on_leak": on_leak}),
        "--report", output / "validation.json", "--page", output / "validation.html", "--output", output / "splits",
    )  # fmt: skip


def test_clips_are_named_by_their_corpus(tmp_path: Path) -> None:
    more = {"b_train_1": {"caption_2": "A second one.", "caption_count": 2, "field_mood": "calm"}}
    assert_succeeds(mix(tmp_path, corpora(tmp_path, **more)))
    train = read_table(tmp_path / "a-1+b-3/splits/train.csv")
    assert train.clip_id.tolist() == [f"{corpus}--train-{number}" for corpus in "ab" for number in range(3)]
    assert [corpus_of(name) for name in train.clip_id] == train.corpus.tolist() == ["a"] * 3 + ["b"] * 3
    assert own_id("b", train.clip_id[4]) == "train-1"
    assert train.caption_2.tolist() == ["", "", "", "", "A second one.", ""] and train.field_mood[4] == "calm"
    report = read_json(tmp_path / "a-1+b-3/validation.json")
    assert report["corpus"] == "a-1+b-3" and report["clips"] == {"train": 6, "validation": 2, "evaluation": 2}
    assert "a-1+b-3" in (tmp_path / "a-1+b-3/validation.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("same", [{"audio_sha256": "same"}, {"sound_id": "123"}])
def test_a_leak_from_one_corpus_into_another_stops_or_is_left_out(tmp_path: Path, same: dict[str, str]) -> None:
    splits = corpora(tmp_path, a_train_2=same, b_evaluation_0=same)
    line = assert_fails(mix(tmp_path, splits), "a/train-2.wav (train) has the same", "b/evaluation-0.wav (evaluation)")
    assert "set on_leak to drop in a, b" in line
    assert_succeeds(mix(tmp_path, splits, "drop"))
    train = read_table(tmp_path / "a-1+b-3/splits/train.csv")
    assert "a--train-2" not in train.clip_id.tolist() and len(train) == 5
    (left_out,) = read_json(tmp_path / "a-1+b-3/validation.json")["left_out"]
    assert left_out["check"] == "leak" and left_out["clip_id"] == "a--train-2"


def test_one_sound_in_two_corpora_on_one_side_is_warned_of(tmp_path: Path) -> None:
    result = mix(tmp_path, corpora(tmp_path, a_train_0={"audio_sha256": "x"}, b_train_0={"audio_sha256": "x"}))
    assert_succeeds(result)
    assert "has the same audio as a/train-0.wav" in result.stderr


def test_groups_of_two_corpora_that_share_a_name_are_no_leak(tmp_path: Path) -> None:
    groups = {"a_train_0": {"given_group": "Ann"}, "b_evaluation_0": {"given_group": "Ann"}}
    assert_succeeds(mix(tmp_path, corpora(tmp_path, **groups)))
