from __future__ import annotations

import subprocess
from pathlib import Path

import pandas as pd
import pytest
from conftest import SPLITS, assert_fails, assert_succeeds, edit_table, listing, run_script


def split(folder: Path, **manifests: Path | list[Path]) -> subprocess.CompletedProcess[str]:
    """Split into `folder/splits`; a role's manifest or manifests by the role."""
    folder.mkdir(exist_ok=True)
    (folder / "validation.json").write_text("{}")
    roles = []
    for role, paths in manifests.items():
        roles += [f"--{role}", *(paths if isinstance(paths, list) else [paths])]
    report = ["--validation-report", folder / "validation.json"]
    return run_script("split", *roles, *report, "--output", folder / "splits")


@pytest.fixture
def roles(manifests: dict[str, Path]) -> dict[str, Path]:
    return {role: manifests[name] for name, role in SPLITS.items()}


def test_every_clip_goes_to_the_role_of_its_split(manifests: dict[str, Path], splits: Path) -> None:
    assert listing(splits) == {"train.csv", "validation.csv", "evaluation.csv", "validation.json"}
    for name, role in SPLITS.items():
        table = pd.read_csv(splits / f"{role}.csv", dtype=str, keep_default_na=False)
        manifest = pd.read_csv(manifests[name], dtype=str, keep_default_na=False)
        assert set(table.published_split) == {name}
        assert set(table.columns) == set(manifest.columns) - {"problem"}
        assert table.to_dict("records") == manifest[table.columns].sort_values("clip_id").to_dict("records")


def test_order_does_not_depend_on_the_order_of_rows_or_manifests(tmp_path: Path, roles: dict[str, Path]) -> None:
    parts = [
        edit_table(roles["train"], tmp_path / "even.csv", lambda table: table.iloc[::2]),
        edit_table(roles["train"], tmp_path / "odd.csv", lambda table: table.iloc[1::2].iloc[::-1]),
    ]
    assert_succeeds(split(tmp_path / "a", **roles | {"train": parts}))
    assert_succeeds(split(tmp_path / "b", **roles | {"train": parts[::-1]}))
    a, b = ((tmp_path / run / "splits/train.csv").read_bytes() for run in "ab")
    assert a == b and a.count(b"\n") == 11


@pytest.mark.parametrize("column", ["clip_id", "sha256"])
def test_clip_in_two_roles_is_a_leak(tmp_path: Path, roles: dict[str, Path], column: str) -> None:
    value = pd.read_csv(roles["train"], dtype=str)[column][3]

    def leak(table: pd.DataFrame) -> None:
        table.loc[1, column] = value

    leaking = edit_table(roles["evaluation"], tmp_path / "leaking.csv", leak)
    assert_fails(split(tmp_path, **roles | {"evaluation": leaking}), value, "train", "evaluation", "leak")
    assert not (tmp_path / "splits").exists()


@pytest.mark.parametrize("missing", ["validation.json", "none.csv"])
def test_missing_input_is_named(tmp_path: Path, roles: dict[str, Path], missing: str) -> None:
    changed = roles if missing == "validation.json" else roles | {"train": tmp_path / missing}
    arguments = [part for role, path in changed.items() for part in (f"--{role}", path)]
    if missing != "validation.json":
        (tmp_path / "validation.json").write_text("{}")
    report = tmp_path / "validation.json"
    result = run_script("split", *arguments, "--validation-report", report, "--output", tmp_path / "splits")
    assert_fails(result, tmp_path / missing)
    assert not (tmp_path / "splits").exists()
