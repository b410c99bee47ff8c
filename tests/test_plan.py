"""Which files and options a config asks for, without Snakemake."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT, noise, write_wav
from sao.config import resolve
from sao.plan import Plan

Corpus = dict[str, Any]


def plan(**corpus: Any) -> Plan:
    """The plan of the default config with a corpus `mine`, a folder."""
    path = ROOT / "config.yaml"
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    config["corpora"]["mine"] = {"format": "audiofolder", "path": "sounds"} | corpus
    return Plan(resolve(config, [path]))


def arguments(options: str) -> dict[str, str]:
    """What a script would be handed, through a shell, by option."""
    parts = shlex.split(options)
    flat = [p for part in parts for p in (part.split("=", 1) if part.startswith("--silence") else [part])]
    return dict(zip(flat[::2], flat[1::2], strict=True))


@pytest.mark.parametrize("path", ["sounds", "./sounds", "sounds/", "sounds/."])
def test_folder_is_read_where_it_is_by_a_path_that_snakemake_takes(path: str) -> None:
    assert plan(path=path).audio("mine", "train") == "sounds/train"
    drawn = plan(path=path, split={"method": "fraction"})
    assert drawn.audio("mine", "all") == "sounds"
    assert drawn.manifests("mine") == ["results/data/mine/manifests/all.csv"]
    assert arguments(drawn.scan_options("mine", "all")) == {"--folder": "sounds"}


def test_every_file_of_a_folder_is_an_input_or_a_key(tmp_path: Path) -> None:
    names = ["a.wav", "a.txt", "sub/metadata.csv", "sub/{b}.wav", "{c}/d.wav", "e.png", ".f.wav"]
    for name in names:
        write_wav(tmp_path / name, noise(name, 0.01))
    here = plan(path=str(tmp_path), split={"method": "fraction"})
    assert here.folder_files("mine", "all") == [f"{tmp_path}/{name}" for name in ("a.txt", "a.wav", "sub/metadata.csv")]
    before = here.folder_rest("mine", "all")
    assert len(before) == 2 and before[0].startswith("sub/{b}.wav") and before[1].startswith("{c}/d.wav")
    write_wav(tmp_path / "sub/{b}.wav", noise("other", 0.01))
    after = here.folder_rest("mine", "all")
    assert after[0] != before[0] and after[1] == before[1]


def test_table_above_the_top_folders_is_an_input_too(tmp_path: Path) -> None:
    write_wav(tmp_path / "train/a.wav", noise("a", 0.01))
    (tmp_path / "metadata.csv").write_text("file_name,caption\ntrain/a.wav,A.\n")
    here = plan(path=str(tmp_path))
    assert here.folder_files("mine", "train") == [f"{tmp_path}/train/a.wav", f"{tmp_path}/metadata.csv"]
    assert arguments(here.scan_options("mine", "train")) == {"--folder": f"{tmp_path}/train", "--top": str(tmp_path)}


def test_folder_with_braces_in_its_own_path(tmp_path: Path) -> None:
    folder = tmp_path / "{x}"
    write_wav(folder / "a.wav", noise("a", 0.01))
    here = plan(path=str(folder), split={"method": "fraction"})
    assert here.folder_files("mine", "all") == [] and len(here.folder_rest("mine", "all")) == 1


def test_folder_that_is_not_there_stops_no_plan() -> None:
    assert plan(path="/no/such/folder").folder_files("mine", "train") == []


@pytest.mark.parametrize(
    ("corpus", "split"),
    [
        ({}, {"method": "official", "train": ["train"], "validation": ["validation"], "evaluation": ["test"]}),
        (
            {"split": {"method": "fraction", "seed": 7, "validation": 0.2}},
            {
                "method": "fraction",
                "train": ["all"],
                "validation": [],
                "evaluation": [],
                "seed": 7,
                "fractions": {"validation": 0.2, "evaluation": 0.1},
            },
        ),
    ],
)
def test_split_is_told_without_what_it_does_not_use(corpus: Corpus, split: dict) -> None:
    assert json.loads(plan(**corpus).split("mine")) == split


def test_options_survive_the_shell() -> None:
    odd = 'it\'s $HOME; `x` "y" é'
    here = plan(
        path=f"/data/{odd}",
        caption_columns=[odd, "b"],
        split={"method": "column", "column": odd, "group": f"{odd} 2"},
        licenses={"allow": ["CC-BY", odd]},
        on_invalid="drop",
        window_seconds=2.5,
    )
    scanned = arguments(here.scan_options("mine", "all"))
    assert scanned["--folder"] == f"/data/{odd}" and json.loads(scanned["--caption-columns"]) == [odd, "b"]
    joined = arguments(here.manifest_options("mine", "all"))
    assert joined == {"--audio": f"/data/{odd}", "--split-column": odd, "--group-column": f"{odd} 2"}
    validated = arguments(here.validate_options("mine"))
    assert json.loads(validated.pop("--licenses")) == ["CC-BY", odd]
    assert json.loads(validated.pop("--split")) == json.loads(here.split("mine"))
    assert validated == {"--on-invalid": "drop", "--silence-dbfs": "-60", "--window-seconds": "2.5"}


def test_corpora_by_format() -> None:
    assert re.fullmatch(plan().with_format("audiofolder"), "mine")
    assert not re.fullmatch(plan().with_format("audiofolder"), "demo")
    assert re.fullmatch(plan().with_format("clotho"), "demo")
