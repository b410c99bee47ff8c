"""A config with runs of its own stands alone: nothing of the default run is trained or rendered."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT, run_snakemake
from sao.config.layers import stand_alone
from snakemake.utils import update_config

DEFAULT = ROOT / "config.yaml"
MINE = {"base_model": "demo", "corpus": "demo", "steps": 7}


def laid_over(given: dict[str, Any]) -> dict[str, Any]:
    """A user's config, merged over config.yaml by Snakemake itself."""
    config = yaml.safe_load(DEFAULT.read_text(encoding="utf-8"))
    update_config(config, copy.deepcopy(given))
    return stand_alone(config, given, DEFAULT)


@pytest.mark.parametrize(
    ("given", "runs", "clips"),
    [
        ({}, {"demo": 600}, {"evaluation": "all", "train": "all"}),
        ({"cluster": {"walltime": 60}}, {"demo": 600}, {"evaluation": "all", "train": "all"}),
        ({"render": {"clips": {"train": 2}}}, {"demo": 600}, {"evaluation": "all", "train": 2}),
        ({"runs": {"mine": MINE}}, {"mine": 7}, None),
        ({"runs": {"mine": MINE}, "render": {"clips": {"train": 2}}}, {"mine": 7}, {"train": 2}),
        ({"runs": {"mine": MINE, "demo": None}}, {"mine": 7, "demo": None}, None),
        ({"runs": {"demo": {"steps": 9}}}, {"demo": 9}, {"evaluation": "all", "train": "all"}),
        ({"runs": {"mine": MINE, "demo": {}}}, {"demo": 600, "mine": 7}, {"evaluation": "all", "train": "all"}),
    ],
    ids=str,
)
def test_default_run_is_left_out_with_its_render(
    given: dict[str, Any], runs: dict[str, int | None], clips: dict[str, Any] | None
) -> None:
    config = laid_over(given)
    assert {name: run and run["steps"] for name, run in config["runs"].items()} == runs
    assert config.get("render", {}).get("clips") == clips
    # Entries that other runs may use stay.
    assert "demo" in config["corpora"] and "demo" in config["base_models"]


@pytest.mark.parametrize("runs", [None, [], "demo"])
def test_runs_that_are_none_are_left_to_the_schema(runs: object) -> None:
    assert laid_over({"runs": runs})["runs"] == runs


def test_config_yaml_may_be_missing_or_empty(tmp_path: Path) -> None:
    given = {"runs": {"mine": MINE}}
    assert stand_alone(given, given, tmp_path / "config.yaml") == given
    (tmp_path / "config.yaml").write_text("# nothing\n")
    assert stand_alone(given, given, tmp_path / "config.yaml") == given


def test_graph_of_a_config_has_no_job_of_the_default_run(tmp_path: Path) -> None:
    for name in ("config.yaml", "profiles", "resources"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"runs": {"mine": MINE}}))
    command = ["--snakefile", ROOT / "Snakefile", "-n", "--configfile=mine.yaml", "results/samples"]
    done = run_snakemake(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    said = done.stdout + done.stderr
    assert "Train run mine" in said and "results/checkpoints/demo" not in said
