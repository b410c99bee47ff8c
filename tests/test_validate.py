from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from conftest import SPLITS, assert_fails, assert_succeeds, edit_table, error_lines, run_script

Edit = Callable[[dict[str, pd.DataFrame]], object]


def validate(output: Path, manifests: dict[str, Path], *more: object) -> subprocess.CompletedProcess[str]:
    fixed = ["--roles", json.dumps(SPLITS), "--silence-dbfs=-60", "--output", output]
    return run_script("validate", "--manifest", *manifests.values(), *fixed, *more)


@pytest.fixture
def edited(tmp_path: Path, manifests: dict[str, Path]) -> Callable[[Edit], dict[str, Path]]:
    """Copies of the manifests, changed by a function of `{split: table}`."""

    def copy(edit: Edit) -> dict[str, Path]:
        tables = {split: pd.read_csv(path, dtype=str, keep_default_na=False) for split, path in manifests.items()}
        edit(tables)
        return {
            split: edit_table(manifests[split], tmp_path / "manifests" / f"{split}.csv", lambda _, t=table: t)
            for split, table in tables.items()
        }

    return copy


def put(split: str, **values: str) -> Edit:
    """Overwrite columns of the first clip of a split."""

    def edit(tables: dict[str, pd.DataFrame]) -> None:
        for column, value in values.items():
            tables[split].loc[0, column] = value

    return edit


def same(column: str, first: str, second: str) -> Edit:
    """Give the first clip of one split what the first clip of another has."""
    return lambda tables: put(second, **{column: tables[first].loc[0, column]})(tables)


def test_sound_corpus_gives_a_report(tmp_path: Path, manifests: dict[str, Path]) -> None:
    output = tmp_path / "validation.json"
    assert_succeeds(validate(output, manifests, "--window-seconds", 0.1))
    assert json.loads(output.read_text()) == {
        "clips": {"train": 10, "validation": 2, "evaluation": 2},
        "seconds": 1.4,
        "captions": 28,
        "warnings": json.loads(output.read_text())["warnings"],
    }


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (put("validation", caption_2=""), ["caption_2 is empty"]),
        (put("validation", caption_1=" \t"), ["caption_1 is empty"]),
        (put("validation", peak_dbfs="-inf"), ["silent", "-60"]),
        (put("validation", peak_dbfs="-60.5"), ["silent", "-60.5"]),
        (put("validation", problem="holds NaN or infinite samples"), ["NaN"]),
        (put("validation", problem="has 3 channels; one or two are allowed", channels="3"), ["3 channels"]),
        (put("validation", problem="cannot be read (Format not recognised)", seconds="0.0"), ["cannot be read"]),
        (put("validation", seconds="30.01"), ["30.01 s", "window_seconds = 30"]),
        (same("sound_id", "development", "validation"), ["same sound_id 10", "(train)", "leak"]),
        (same("sha256", "development", "validation"), ["same audio", "(train)", "leak"]),
        (same("sound_id", "evaluation", "validation"), ["same sound_id 30", "(evaluation)", "leak"]),
    ],
)
def test_what_would_corrupt_a_training_is_named(
    tmp_path: Path, edited: Callable[[Edit], dict[str, Path]], edit: Edit, words: list[str]
) -> None:
    result = validate(tmp_path / "validation.json", edited(edit), "--window-seconds", 30)
    assert_fails(result, "/validation/", *words)
    assert not (tmp_path / "validation.json").exists()


def test_all_errors_are_listed_and_counted(tmp_path: Path, edited: Callable[[Edit], dict[str, Path]]) -> None:
    def spoil(tables: dict[str, pd.DataFrame]) -> None:
        put("validation", caption_1="")(tables)
        put("evaluation", peak_dbfs="-inf")(tables)
        tables["development"].loc[1, "clip_id"] = tables["development"].loc[0, "clip_id"]

    lines = error_lines(validate(tmp_path / "validation.json", edited(spoil)))
    assert len(lines) == 4
    assert sum("caption_1 is empty" in line for line in lines) == 1
    assert sum("silent" in line for line in lines) == 1
    assert sum("shares its clip_id" in line for line in lines) == 2
    assert "3 more, listed above" in lines[-1]
    assert not (tmp_path / "validation.json").exists()


@pytest.mark.parametrize("unknown", ["Not found", "", "NA"])
def test_unknown_sound_ids_are_not_the_same_recording(
    tmp_path: Path, edited: Callable[[Edit], dict[str, Path]], unknown: str
) -> None:
    def forget(tables: dict[str, pd.DataFrame]) -> None:
        for split in SPLITS:
            put(split, sound_id=unknown)(tables)

    output = tmp_path / "validation.json"
    assert_succeeds(validate(output, edited(forget)))
    warnings = [w for w in json.loads(output.read_text())["warnings"] if repr(unknown) in w["message"]]
    assert len([w for w in warnings if w["check"] == "sound_id"]) >= 3


def test_oddities_are_warned_of_and_allowed(tmp_path: Path, edited: Callable[[Edit], dict[str, Path]]) -> None:
    def odd(tables: dict[str, pd.DataFrame]) -> None:
        put("development", peak_dbfs="0.0")(tables)
        put("validation", dc_offset="0.3")(tables)
        tables["evaluation"].loc[1, "sha256"] = tables["evaluation"].loc[0, "sha256"]
        tables["evaluation"].loc[1, "sound_id"] = tables["evaluation"].loc[0, "sound_id"]

    output = tmp_path / "validation.json"
    result = validate(output, edited(odd))
    assert_succeeds(result)
    warnings = json.loads(output.read_text())["warnings"]
    assert {"clipping", "dc_offset", "duplicate"} <= {w["check"] for w in warnings}
    assert all(w["path"] in result.stderr and w["message"] in result.stderr for w in warnings)


def test_manifests_with_other_caption_columns_are_named(
    tmp_path: Path, edited: Callable[[Edit], dict[str, Path]]
) -> None:
    paths = edited(lambda tables: tables["evaluation"].drop(columns="caption_2", inplace=True))
    assert_fails(validate(tmp_path / "validation.json", paths), paths["evaluation"], "caption")
    assert not (tmp_path / "validation.json").exists()
