"""A corpus on the Hub, through the graph: fetched, scanned, validated and split."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import GRAPH, change, link_checkout, run_snakemake
from hub import Hub, serve_hub
from hub_datasets import REPO, REVISION, card, config, parquet, row
from sao.base.tables import read_table

SPLITS = [f"results/data/sounds/splits/{role}.csv" for role in ("train", "validation", "evaluation")]


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    files = {
        f"data/{split}.parquet": parquet([row(f"{split}{n}", fold=n) for n in range(3)]) for split in ("a", "b", "c")
    }
    files["README.md"] = card(config(train="data/a*", validation="data/b*", test="data/c*"))
    with serve_hub({(f"datasets/{REPO}", REVISION): files}) as hub:
        hub.lfs = (".parquet",)
        yield hub


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return link_checkout(tmp_path_factory.mktemp("hub"))


def snakemake(folder: Path, hub: Hub, *more: str, **corpus: Any) -> subprocess.CompletedProcess[str]:
    entry = {"format": "hub", "repo": REPO, "revision": REVISION} | corpus
    entry = {key: value for key, value in entry.items() if value is not None}
    run = {"base_model": "demo", "corpus": "sounds", "steps": 1, "batch_size": 1}
    (folder / "hub.yaml").write_text(yaml.safe_dump({"corpora": {"sounds": entry}, "runs": {"sounds": run}}))
    env = {"HF_ENDPOINT": hub.endpoint, "HF_HUB_OFFLINE": "0", "HF_HOME": str(folder / "home"), "HF_TOKEN": ""}
    return run_snakemake(*GRAPH, "--configfile=hub.yaml", *more, cwd=folder, env=env)


def test_from_the_hub_to_splits_and_nothing_is_left_to_do(checkout: Path, hub: Hub) -> None:
    done = snakemake(checkout, hub, "-n", "--", "downloads")
    assert done.returncode == 0 and "fetch" in done.stdout + done.stderr and "scan" not in done.stdout, done.stderr
    assert not (checkout / "results").exists() and not hub.asked
    done = snakemake(checkout, hub, "--", *SPLITS)
    assert done.returncode == 0, done.stderr
    tables = [read_table(checkout / path) for path in SPLITS]
    assert [table.file_name.tolist() for table in tables] == [[f"{s}{n}.wav" for n in range(3)] for s in "abc"]
    assert (tables[0].caption_1 == [f"It is a{n}." for n in range(3)]).all()
    assert (tables[0].path == [f"results/data/sounds/audio/train/a{n}.wav" for n in range(3)]).all()
    asked = len(hub.asked)
    done = snakemake(checkout, hub, "--", *SPLITS)
    assert "Nothing to be done" in done.stdout + done.stderr and len(hub.asked) == asked
    # Other caption columns, and tags, rerun the scan, and fetch nothing.
    done = snakemake(checkout, hub, "--", *SPLITS, caption_columns=["fold"], tags=True)
    assert done.returncode == 0 and len(hub.asked) == asked, done.stderr
    assert read_table(checkout / SPLITS[0]).caption_1.tolist() == ["0", "1", "2"]
    assert "tag_title" in read_table(checkout / "results/data/sounds/captions/train.csv")
    assert snakemake(checkout, hub, "--", "verify").returncode == 0
    change(checkout / "results/data/sounds/audio/test/c1.wav")
    done = snakemake(checkout, hub, "--", "verify")
    assert (
        "audio/test/c1.wav: has the SHA-256" in done.stderr
        and "delete results/data/sounds/audio/test and run" in done.stderr
    )


def test_all_clips_are_split_by_a_column_or_by_lot(tmp_path: Path, hub: Hub) -> None:
    folder = link_checkout(tmp_path / "checkout")
    columns: dict[str, Any] = {"train": ["0"], "validation": ["1"], "evaluation": ["2"]}
    done = snakemake(folder, hub, "--", *SPLITS, split={"method": "column", "column": "fold"}, **columns)
    assert done.returncode == 0, done.stderr
    assert [sorted(read_table(folder / path).file_name) for path in SPLITS] == [
        [f"{s}{n}.wav" for s in "abc"] for n in range(3)
    ]
    done = snakemake(folder, hub, "--", *SPLITS, split={"method": "fraction"})
    assert done.returncode == 0, done.stderr
    sizes = [len(read_table(folder / path)) for path in SPLITS]
    assert sum(sizes) == 9 and all(sizes)


def test_data_set_that_is_not_there_is_one_line(tmp_path: Path, hub: Hub) -> None:
    folder = link_checkout(tmp_path / "checkout")
    done = snakemake(folder, hub, "--", *SPLITS, repo="no/one")
    assert done.returncode == 1 and "no/one: access denied, or there is no such dataset" in done.stderr
    assert "Traceback" not in done.stderr
