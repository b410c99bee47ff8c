"""A new format of corpora is one file, a line in the registry and a word in the schema."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from conftest import GRAPH, ROOT, assert_succeeds, noise, run_script, run_snakemake, write_wav
from sao.base.tables import read_table
from sao.config.resolve import SCHEMA
from sao.data.formats import FORMATS

FORMAT = '''"""A file of JSON lines, each with the path of a sound and its caption."""

import json
from pathlib import Path

from sao.base.command import InputError
from sao.data.formats.base import Captioned, InPlace, is_file


class JsonLines(InPlace):
    def folder(self, corpus, split):
        return Path(corpus["path"]).parent.as_posix()

    def options(self, corpus, split):
        return {"table": Path(corpus["path"]).name}

    def names(self, folder, options):
        return [options["table"], *(row["audio"] for row in self._rows(folder, options))]

    def read(self, folder, options, lost):
        captioned = {}
        for row in self._rows(folder, options):
            where = f"{folder / options['table']}: {row['audio']!r}"
            if not is_file(folder / row["audio"]):
                raise InputError(f"{where}: no such sound: correct the row")
            captioned[row["audio"]] = Captioned([row["text"]], where, {"license": row["license"]})
        return captioned

    def _rows(self, folder, options):
        return list(map(json.loads, (folder / options["table"]).read_text(encoding="utf-8").splitlines()))
'''
REGISTRY = "scripts/sao/data/formats/__init__.py"


def test_schema_and_registry_have_the_same_formats() -> None:
    schema = yaml.safe_load(SCHEMA.read_text(encoding="utf-8"))
    assert schema["$defs"]["corpus"]["properties"]["format"]["enum"] == list(FORMATS)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project with a format more, and a corpus of it."""
    folder = tmp_path_factory.mktemp("formats")
    for name in ("Snakefile", "config.yaml", "rules", "envs", "profiles", "report", "resources"):
        (folder / name).symlink_to(ROOT / name)
    for name in ("scripts", "schemas"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "scripts/sao/data/formats/jsonlines.py").write_text(FORMAT)
    registry = (folder / REGISTRY).read_text()
    line = 'FORMATS["jsonlines"] = jsonlines.JsonLines()'
    (folder / REGISTRY).write_text(f"{registry}from sao.data.formats import jsonlines\n{line}\n")
    schema = folder / "schemas/config.schema.yaml"
    schema.write_text(
        schema.read_text().replace("enum: [clotho, audiofolder, hub]", "enum: [clotho, audiofolder, hub, jsonlines]")
    )

    rows = []
    for number in range(12):
        name = f"clips/{number:02d} a.wav"
        write_wav(folder / "mine" / name, noise(name))
        rows.append({"audio": name, "text": f"Noise number {number}.", "license": "CC0"})
    (folder / "mine/list.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def configure(folder: Path, **corpus: Any) -> None:
    entry = {"format": "jsonlines", "path": "mine/list.jsonl"} | corpus
    run = {"base_model": "demo", "corpus": "mine", "steps": 1, "batch_size": 1}
    (folder / "mine.yaml").write_text(yaml.safe_dump({"corpora": {"mine": entry}, "runs": {"mine": run}}))


def snakemake(folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return run_snakemake(*GRAPH, "--configfile=mine.yaml", "--", *more, cwd=folder)


def test_new_format_goes_from_manifest_to_dataset_configs(checkout: Path, base_model: Path) -> None:
    configure(checkout, split={"method": "fraction"})
    done = snakemake(checkout, "results/data/mine/splits/train.csv")
    assert done.returncode == 0, done.stderr
    splits = checkout / "results/data/mine/splits"
    tables = {role: read_table(splits / f"{role}.csv") for role in ("train", "validation", "evaluation")}
    assert sum(map(len, tables.values())) == 12 and all(map(len, tables.values()))
    table = pd.concat(tables.values())
    numbers = table.file_name.str.extract(r"clips/(\d\d) a\.wav")[0].astype(int)
    assert (table.caption_1 == [f"Noise number {number}." for number in numbers]).all()
    assert (table.license == "CC0").all() and (table.path == "mine/" + table.file_name).all()
    # From here on no job knows of formats.
    output = checkout / "results/data/mine/dataset_configs/demo"
    options = ["--model-config", base_model / "model_config.json", "--hub", base_model / "hub"]
    options += ["--latents", "results/latents/demo/mine", "--output", output]
    options += ["--kept", f"{output}.csv", "--digest", f"{output}.sha256"]
    assert_succeeds(run_script("dataset_configs", "--splits", splits, *options, cwd=checkout))
    captions = json.loads((output / "train/captions.json").read_text())
    assert captions == {row.clip_id: [row.caption_1] for row in tables["train"].itertuples()}


@pytest.mark.parametrize(
    ("corpus", "message"),
    [
        ({}, "corpora.mine.train: missing; split.method official needs it"),
        ({"train": ["a"], "validation": ["b"], "evaluation": ["c"]}, "format jsonlines has no published splits"),
        ({"split": {"method": "fraction"}, "path": "none.jsonl"}, "corpora.mine.path: found 'none.jsonl'"),
        (
            {"split": {"method": "fraction"}, "format": "jsonl"},
            "found 'jsonl'; allowed: clotho, audiofolder, hub, jsonlines",
        ),
    ],
)
def test_config_of_a_new_format_is_checked(checkout: Path, corpus: dict[str, Any], message: str) -> None:
    configure(checkout, **corpus)
    done = snakemake(checkout, "results/data/mine/splits/train.csv")
    assert done.returncode == 1 and message in done.stderr and "Traceback" not in done.stderr, done.stderr
