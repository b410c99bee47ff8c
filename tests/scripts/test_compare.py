"""One table of all runs and legs, the best of them by each measure, the curves, and the jobs that the graph needs."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from conftest import ROOT, assert_succeeds, link_checkout, run_script, run_snakemake
from sao.base.command import InputError
from sao.data.corpora import resolve
from sao.plan.plan import Plan


def evaluated(name: str, run: str | None, step: int, **values: float | None) -> dict[str, Any]:
    """The JSON of evaluate.py, with these values of measures of `evaluation`."""
    better = {"clap_score": "higher", "clap_floor": ""}
    measures = [
        {
            "key": f"evaluation/{measure}", "name": measure.upper(), "measure": measure, "embedding": None,
            "split": "evaluation", "difference": None, "difference_low": None, "difference_high": None, "difference_n": 0,
            "value": value, "low": value, "high": value, "n": 4, "n_reference": None, "unit": "",
            "better": better.get(measure, "lower"), "note": "",
        }
        for measure, value in values.items()
    ]  # fmt: skip
    leg = f"step-{step:08d}" if step else None
    source = {"folder": name, "run": run, "base_model": "demo", "corpus": "demo", "leg": leg, "step": step}
    settings = {"bootstrap": 10, "level": 0.95, "seed": 0}
    told = {"comparisons": 3 if run else 1, "verdict": f"closer, says {name}" if run else None}
    rest = {
        "settings": settings,
        **told,
        "embeddings": [],
        "measures": measures,
        "memorisation": [],
        "clips": {"a": {}},
    }
    return {"name": name} | source | rest


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    found = [
        evaluated("base", None, 0, kad=20.0, clap_score=0.1),
        evaluated("demo@step-00000300", "demo", 300, kad=5.0, clap_score=0.2),
        evaluated("demo", "demo", 600, kad=8.0, clap_score=0.3, clap_floor=0.9),
        evaluated("other", "other", 100, kad=None, clap_score=0.3),
    ]
    paths = [tmp_path / f"{entry['name']}.json" for entry in found]
    for path, entry in zip(paths, found, strict=True):
        path.write_text(json.dumps(entry))
    return paths


def compare(files: list[Path], folder: Path, *more: object) -> subprocess.CompletedProcess[str]:
    outputs = ["--table", folder / "summary.csv", "--summary", folder / "summary.json"]
    return run_script("compare", "--evaluation", *files, *outputs, *more)


def test_best_run_and_step_by_each_measure(files: list[Path], tmp_path: Path) -> None:
    assert_succeeds(compare(files, tmp_path))
    summary = json.loads((tmp_path / "summary.json").read_text())
    leg = {"run": "demo@step-00000300", "leg": "step-00000300", "step": 300, "value": 5.0}
    last = {"run": "demo", "leg": "step-00000600", "step": 600, "value": 0.3}
    assert summary["best"] == {
        "evaluation/kad": leg | {"chosen_on": "evaluation", "among": 3},
        "evaluation/clap_score": last | {"chosen_on": "evaluation", "among": 4},
    }
    assert next(iter(summary)) == "verdicts" and summary["verdicts"] == {
        name: f"closer, says {name}" for name in ("demo@step-00000300", "demo", "other")
    }
    assert summary["runs"]["demo"]["comparisons"] == 3
    assert list(summary["runs"]) == ["base", "demo@step-00000300", "demo", "other"]
    assert summary["runs"]["demo"]["clips"] == {"a": {}} and summary["runs"]["demo"]["step"] == 600
    assert summary["settings"]["level"] == 0.95
    table = pd.read_csv(tmp_path / "summary.csv")
    assert len(table) == 9 and {"run", "step", "difference", "difference_low", "value", "low", "n", "better"} <= set(
        table
    )
    assert table[(table.run == "other") & (table.measure == "kad")].value.isna().all()


def test_runs_that_differ_in_their_seed_are_a_spread(files: list[Path], tmp_path: Path) -> None:
    for seed, kad in enumerate([4.0, 5.0, 9.0]):
        path = tmp_path / f"s--seed-{seed}.json"
        path.write_text(json.dumps(evaluated(path.stem, path.stem, 10, kad=kad, clap_score=0.5 if seed else None)))
        files.append(path)
    families = {"s": [f"s--seed-{seed}" for seed in range(3)]}
    assert_succeeds(compare(files, tmp_path, "--families", json.dumps(families)))
    kad, clap = json.loads((tmp_path / "summary.json").read_text())["spreads"]["s"]
    assert (kad["key"], kad["mean"], kad["runs"]) == ("evaluation/kad", 6.0, 3)
    assert kad["deviation"] == pytest.approx(7**0.5) and (clap["runs"], clap["deviation"]) == (2, 0)


def test_families_of_seeds_are_found() -> None:
    config = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    config["runs"]["demo"] |= {"seed": [0, 1], "learning_rate": [1e-3, 1e-4]}
    config["runs"]["other"] = config["runs"]["demo"] | {"seed": 5, "learning_rate": 1e-3, "batch_size": 4}
    plan = Plan(resolve(config, [ROOT / "config.yaml"]))
    assert plan.evaluation.families() == {
        f"demo--learning_rate-{rate}": [f"demo--learning_rate-{rate}--seed-{seed}" for seed in (0, 1)]
        for rate in ("0.001", "0.0001")
    }


def test_curves_are_drawn_from_the_base_model_on(files: list[Path], tmp_path: Path) -> None:
    pictures = [tmp_path / "demo.svg"]
    assert_succeeds(compare(files, tmp_path, "--picture", *pictures))
    picture = pictures[0].read_text()
    assert "<svg" in picture
    assert_succeeds(compare(files, tmp_path, "--picture", *pictures))
    assert pictures[0].read_text() == picture


def plan(evaluation: dict[str, Any] | None = None, **run: Any) -> Plan:
    """The plan of the default config with other settings."""
    path = ROOT / "config.yaml"
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    config["runs"]["demo"] |= run
    return Plan(resolve(config | {"evaluation": evaluation or {}}, [path]))


def test_what_is_measured() -> None:
    assert plan().evaluation.evaluated() == ["base--demo--demo", "demo"] and plan().evaluation.by_step() == []
    legs = plan({"legs": True}).evaluation
    assert legs.evaluated() == ["base--demo--demo", "demo@step-00000300", "demo"]
    assert legs.by_step() == ["demo"]
    best = plan({"legs": True}, checkpoint="best").evaluation.evaluated()
    assert best == ["base--demo--demo", "demo@step-00000300", "demo@step-00000600", "demo"]
    assert [legs.settings(name)["comparisons"] for name in legs.evaluated()] == [1, 2, 2]
    assert legs.base_clips("demo@step-00000300") == ["results/evaluation/base--demo--demo.csv"]
    assert legs.base_clips("base--demo--demo") == legs.base_embedded("base--demo--demo") == []
    assert [plan().evaluation.label(name) for name in legs.evaluated()] == ["base", "demo@step-00000300", "demo"]


def test_embeddings_by_name_and_by_commit() -> None:
    other = {"repo": "someone/clap", "revision": "a" * 40}
    here = plan({"embeddings": ["aisfx", "laion/clap-htsat-unfused", other]}).evaluation
    assert here.embeddings() == ["aisfx", "laion--clap-htsat-unfused", "someone--clap"]
    assert here.downloads() == [f"results/embeddings/{name}/model/checksums.sha256" for name in here.embeddings()[1:]]
    assert re.fullmatch(here.fetched_pattern(), "someone--clap") and not re.fullmatch(here.fetched_pattern(), "aisfx")
    assert here.embed("someone--clap") == {"embedding": other}
    assert here.hubs("someone--clap") == ["results/embeddings/someone--clap/model/hub"] and here.hubs("aisfx") == []
    assert plan().evaluation.downloads() == []
    assert not re.fullmatch(plan().evaluation.fetched_pattern(), "aisfx")


@pytest.mark.parametrize(
    ("evaluation", "words"),
    [
        ({"embeddings": []}, "evaluation.embeddings"),
        ({"embeddings": ["mert"]}, "found 'mert'; allowed: `aisfx`"),
        ({"embeddings": [{"repo": "a/b", "revision": "main"}]}, "evaluation.embeddings.0"),
        ({"legs": "yes"}, "evaluation.legs: found 'yes'"),
    ],
)
def test_bad_settings_are_one_line(evaluation: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=re.escape(words)) as raised:
        plan(evaluation)
    assert "\n" not in str(raised.value)


def test_a_run_cannot_be_called_like_the_summary() -> None:
    path = ROOT / "config.yaml"
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    config["runs"]["summary"] = config["runs"]["demo"]
    with pytest.raises(InputError, match="'summary' is taken by the summary of the evaluation"):
        resolve(config, [path])


@pytest.mark.parametrize(
    ("more", "jobs"),
    [
        ("", {"embed": 4, "signals": 3, "evaluate": 2, "compare": 1, "render": 2}),
        ("evaluation: {legs: true}", {"embed": 5, "signals": 4, "evaluate": 3, "compare": 1, "render": 3, "export": 2}),
        (
            "evaluation: {embeddings: [log-mel, laion/clap-htsat-unfused]}",
            {"embedding_model": 1, "embed": 7, "evaluate": 2, "compare": 1},
        ),
    ],
)
def test_graph_asks_for_what_the_config_names(tmp_path: Path, more: str, jobs: dict[str, int]) -> None:
    link_checkout(tmp_path)
    (tmp_path / "more.yaml").write_text(more or "{}")
    done = run_snakemake("-n", "results/evaluation/summary.json", "--configfile", "more.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = dict(re.findall(r"^(\w+) +(\d+)$", done.stdout + done.stderr, re.M))
    assert {name: int(found[name]) for name in jobs} == jobs
