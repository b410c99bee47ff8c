from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from conftest import SPLITS, assert_fails, assert_succeeds, dropped_table, edit_table, listing, official, run_script
from sao.base.tables import read_table


def split(
    folder: Path, manifests: list[Path], sides: dict | None = None, dropped: list[dict[str, str]] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run split.py, which writes to `folder/splits`."""
    folder.mkdir(exist_ok=True)
    (folder / "validation.json").write_text("{}")
    given = ["--manifest", *manifests, "--split", json.dumps(sides or official())]
    given += ["--validation-report", folder / "validation.json"]
    given += ["--dropped", dropped_table(folder / "dropped.csv", dropped or [])]
    return run_script("split", *given, "--output", folder / "splits")


def ids(folder: Path) -> dict[str, set[str]]:
    return {role: set(read_table(folder / "splits" / f"{role}.csv").clip_id) for role in SPLITS.values()}


def test_every_clip_goes_to_the_role_of_its_split(manifests: dict[str, Path], splits: Path) -> None:
    assert listing(splits) == {"train.csv", "validation.csv", "evaluation.csv"}
    for name, role in SPLITS.items():
        table = pd.read_csv(splits / f"{role}.csv", dtype=str, keep_default_na=False)
        manifest = pd.read_csv(manifests[name], dtype=str, keep_default_na=False)
        assert set(table.published_split) == {name}
        assert set(table.columns) == set(manifest.columns) - {"problem"}
        assert table.to_dict("records") == manifest[table.columns].sort_values("clip_id").to_dict("records")


def test_order_does_not_depend_on_the_order_of_rows_or_manifests(tmp_path: Path, manifests: dict[str, Path]) -> None:
    parts = [
        edit_table(manifests["development"], tmp_path / "even.csv", lambda table: table.iloc[::2]),
        edit_table(manifests["development"], tmp_path / "odd.csv", lambda table: table.iloc[1::2].iloc[::-1]),
        manifests["validation"],
        manifests["evaluation"],
    ]
    assert_succeeds(split(tmp_path / "a", parts))
    assert_succeeds(split(tmp_path / "b", parts[::-1]))
    a, b = ((tmp_path / run / "splits/train.csv").read_bytes() for run in "ab")
    assert a == b and a.count(b"\n") == 11


def test_left_out_clips_are_in_no_split(tmp_path: Path, manifests: dict[str, Path]) -> None:
    clips = [read_table(manifests[name]).iloc[0] for name in ("development", "evaluation")]
    rows = [clip[["clip_id", "published_split", "path"]].to_dict() | {"check": "x", "message": "y"} for clip in clips]
    assert_succeeds(split(tmp_path, list(manifests.values()), dropped=rows))
    left = ids(tmp_path)
    assert {role: len(found) for role, found in left.items()} == {"train": 9, "validation": 2, "evaluation": 1}
    assert not {clip.clip_id for clip in clips} & set().union(*left.values())


def test_several_published_splits_make_one_side_and_unnamed_ones_none(
    tmp_path: Path, manifests: dict[str, Path]
) -> None:
    assert_succeeds(
        split(tmp_path, list(manifests.values()), official(train=["validation"], validation=["development"]))
    )
    assert {role: len(found) for role, found in ids(tmp_path).items()} == {
        "train": 2,
        "validation": 10,
        "evaluation": 2,
    }
    assert_succeeds(
        split(tmp_path, list(manifests.values()), official(train=["development", "validation"], validation=[]))
    )
    assert {role: len(found) for role, found in ids(tmp_path).items()} == {
        "train": 12,
        "validation": 0,
        "evaluation": 2,
    }


def test_sides_by_a_column(tmp_path: Path, manifests: dict[str, Path]) -> None:
    values = ["train"] * 5 + ["val", "dev", "test", "", "other"]
    table = edit_table(manifests["development"], tmp_path / "m.csv", lambda t: t.insert(3, "given_split", values))
    sides = {"method": "column", "train": ["train"], "validation": ["val", "dev"], "evaluation": ["test"]}
    assert_succeeds(split(tmp_path, [table], sides))
    clips = read_table(table).clip_id.tolist()
    assert ids(tmp_path) == {"train": set(clips[:5]), "validation": set(clips[5:7]), "evaluation": {clips[7]}}


def test_sides_drawn_are_the_same_when_clips_are_gone(tmp_path: Path, manifests: dict[str, Path]) -> None:
    sides = {"method": "fraction", "train": ["development"], "validation": [], "evaluation": [], "seed": 0}
    sides |= {"fractions": {"validation": 0.3, "evaluation": 0.3}}
    assert_succeeds(split(tmp_path / "all", [manifests["development"]], sides))
    whole = ids(tmp_path / "all")
    assert sum(map(len, whole.values())) == 10 and all(whole.values())
    few = edit_table(manifests["development"], tmp_path / "few.csv", lambda table: table.iloc[2:])
    assert_succeeds(split(tmp_path / "few", [few], sides))
    kept = set(read_table(few).clip_id)
    assert ids(tmp_path / "few") == {role: found & kept for role, found in whole.items()}


@pytest.mark.parametrize("column", ["clip_id", "audio_sha256", "sound_id"])
def test_clip_in_two_roles_is_a_leak(tmp_path: Path, manifests: dict[str, Path], column: str) -> None:
    value = pd.read_csv(manifests["development"], dtype=str)[column][3]

    def leak(table: pd.DataFrame) -> None:
        table.loc[1, column] = value

    leaking = edit_table(manifests["evaluation"], tmp_path / "leaking.csv", leak)
    result = split(tmp_path, [manifests["development"], manifests["validation"], leaking])
    assert_fails(result, value, "train", "evaluation", "leak")
    assert not (tmp_path / "splits").exists()


def test_group_in_two_roles_is_a_leak_and_unknown_ones_are_none(tmp_path: Path, manifests: dict[str, Path]) -> None:
    for name, values in {"Ann": ["Ann", "Bob"], "NA": ["NA", "NA"]}.items():
        tables = []
        for side in SPLITS:

            def grouped(table: pd.DataFrame, side: str = side, values: list[str] = values) -> None:
                table["given_group"] = side
                table.loc[:1, "given_group"] = values

            tables.append(edit_table(manifests[side], tmp_path / f"{name}/{side}.csv", grouped))
        result = split(tmp_path / name, tables)
        assert_fails(result, "group Ann", "train", "validation") if name == "Ann" else assert_succeeds(result)


@pytest.mark.parametrize("missing", ["validation.json", "dropped.csv", "none.csv"])
def test_missing_input_is_named(tmp_path: Path, manifests: dict[str, Path], missing: str) -> None:
    paths = [*list(manifests.values())[:2], tmp_path / "none.csv" if missing == "none.csv" else manifests["evaluation"]]
    if missing != "validation.json":
        (tmp_path / "validation.json").write_text("{}")
    if missing != "dropped.csv":
        dropped_table(tmp_path / "dropped.csv")
    given = ["--manifest", *paths, "--split", json.dumps(official()), "--dropped", tmp_path / "dropped.csv"]
    given += ["--validation-report", tmp_path / "validation.json"]
    assert_fails(run_script("split", *given, "--output", tmp_path / "splits"), tmp_path / missing)
    assert not (tmp_path / "splits").exists()
