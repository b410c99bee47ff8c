"""A new embedding and a new measure: a class or a function, and an entry; nothing else is touched."""

from __future__ import annotations

import json
import re
import runpy
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import FORKS, ROOT, SCRIPTS, assert_fails, assert_succeeds, run_script, write_wav
from sao.config.resolve import SCHEMA
from sao.evaluation.embeddings import EMBEDDINGS, THUMBNAIL, find
from sao.evaluation.measures import MEASURES

HERTZ = 16000
EMBEDDING = """
import numpy as np

from sao.evaluation.embeddings.embedding import Embedding


class Blocks(Embedding):
    name, label, about, rate = "blocks", "Blocks!", "levels of eight blocks", 8000

    def sound(self, signal):
        return np.array([np.abs(part).mean() for part in np.array_split(signal, 8)], np.float32)

    def text(self, captions):
        return np.ones((len(captions), 8), np.float32)
"""
CREST = """
def crest(audio, rate):
    return float(np.abs(audio).max() / np.sqrt(np.square(audio).mean()))


"""
MINE = """
def crest_error(render, recording):
    return abs(render.facts["crest"] - recording.facts["crest"])


def mean_distance(x, y, own):
    distance = float(np.abs(x.mean(axis=0) - y.mean(axis=0)).sum())
    return Distance(distance, note="of means alone")


"""
# What is put before a line of a file: the function, and the entry that registers it.
ADDED = {
    "evaluation/embeddings/blocks.py": {"": EMBEDDING},
    "evaluation/embeddings/__init__.py": {
        "from sao.evaluation.embeddings.clap ": "from sao.evaluation.embeddings.blocks import Blocks\n",
        "    LogMel(),": "    Blocks(),\n",
    },
    "evaluation/signals.py": {
        "FACTS = (": CREST,
        '    OfSound(key="seconds"': '    OfSound(key="crest", name="Crest factor", better="higher", of=crest, about="peak over mean", '
        'shown=Shown("Crest", "{:.2f}x", sortable=True)),\n',
    },
    "evaluation/measures.py": {
        "# The order is": MINE,
        "    *FACTS,": '    BesideRecording(key="crest_error", name="Crest error", better="lower", of=crest_error, about="of it"),\n'
        '    BetweenSets(key="means", name="Means", better="lower", of=mean_distance, about="of means", drawn=True),\n',
    },
}
PAGE = """
import json, sys
import pandas as pd
from sao.pages.samples import render_page
samples = pd.read_csv(sys.argv[1], keep_default_na=False).assign(run="mine", negative_prompt="", seed=1, seconds=1.0, warning="")
samples = samples.assign(take=1, corpus="demo", sha256="")
print(render_page(samples, json.load(open(sys.argv[2])), {}, {}, [], "1"))
"""


def add(path: Path, additions: dict[str, str]) -> None:
    """Put texts before lines that begin as said; make the file where there is none."""
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    for before, added in additions.items():
        assert not before or text.count(f"\n{before}") == 1, (path, before)
        text = text.replace(f"\n{before}", f"\n{added}{before}") if before else added
    path.write_text(text, encoding="utf-8")


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's scripts with an embedding, a fact of sounds, a measure of clips and one of sets more."""
    target = tmp_path_factory.mktemp("more") / "scripts"
    folder = shutil.copytree(SCRIPTS, target, ignore=shutil.ignore_patterns("__pycache__"))
    for name, additions in ADDED.items():
        add(folder / "sao" / name, additions)
    return folder


def run(scripts: Path, name: str, *arguments: object) -> None:
    assert_succeeds(FORKS[0].program(scripts / f"{name}.py", *arguments, cwd=scripts).finish())


def sounds(folder: Path, names: Sequence[str], seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    levels = np.linspace(0.02, 0.2, HERTZ)
    return [str(write_wav(folder / f"{name}.wav", levels * rng.standard_normal(HERTZ), HERTZ)) for name in names]


@pytest.fixture(scope="module")
def made(scripts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the scripts make of a corpus and of renders: embedded, measured, evaluated, compared."""
    folder = tmp_path_factory.mktemp("made")
    tables = []
    for number, (split, count) in enumerate({"train": 3, "validation": 8, "evaluation": 3}.items()):
        ids = [f"{split}{n}" for n in range(count)]
        pd.DataFrame({"clip_id": ids, "path": sounds(folder, ids, number)}).to_csv(folder / f"{split}.csv", index=False)
        tables.append(folder / f"{split}.csv")
    clips = pd.read_csv(folder / "evaluation.csv")
    sounds(folder / "renders", clips.clip_id, 9)
    renders = clips.assign(
        split="evaluation", prompt="noise", reference=clips.path, source="", file=clips.clip_id + ".wav"
    )
    renders.drop(columns="path").to_csv(folder / "renders.csv", index=False)
    of_renders = ["--table", folder / "renders.csv", "--renders", folder / "renders"]
    for name, given, output in (
        ("blocks", ["--table", *tables], "corpus.npz"),
        ("spectrogram", ["--table", *tables], "thumbnails.npz"),
        ("blocks", of_renders, "embedded.npz"),
    ):
        run(scripts, "embed", "--settings", json.dumps({"embedding": name}), *given, "--output", folder / output)
    run(scripts, "signals", *of_renders, "--output", folder / "signals.npz")
    run(scripts, "signals", *of_renders[:2], "--output", folder / "recorded.npz")
    source = {"folder": "mine", "run": "mine", "base_model": "demo", "corpus": "demo"}
    settings = {"source": source, "embeddings": ["blocks"], "bootstrap": 10, "level": 0.9, "seed": 0, "comparisons": 1}
    inputs = {"embedded": "embedded", "recordings": "corpus", "thumbnails": "thumbnails", "signals": "signals"}
    given = [x for option, name in inputs.items() for x in (f"--{option}", folder / f"{name}.npz")]
    given += ["--recorded-signals", folder / "recorded.npz", "--output", folder / "mine.json"]
    given += ["--settings", json.dumps(settings), "--table", folder / "renders.csv", "--clips", folder / "clips.csv"]
    run(scripts, "evaluate", "--run", "mine", *given)
    outputs = [
        "--table",
        folder / "summary.csv",
        "--summary",
        folder / "summary.json",
        "--picture",
        folder / "mine.svg",
    ]
    run(scripts, "compare", "--evaluation", folder / "mine.json", *outputs)
    return folder


@pytest.fixture(scope="module")
def page(scripts: Path, made: Path) -> str:
    """The page of samples."""
    (scripts / "page.py").write_text(PAGE)
    done = FORKS[0].program(scripts / "page.py", made / "renders.csv", made / "summary.json", cwd=made).finish()
    assert_succeeds(done)
    return done.stdout


def measures(made: Path) -> dict[str, dict[str, Any]]:
    return {m["key"]: m for m in json.loads((made / "mine.json").read_text())["measures"]}


def test_new_embedding_arrives_everywhere(made: Path, page: str) -> None:
    found = measures(made)
    for measure in ("kad", "fad", "clap_score", "memorised"):  # it has a text side
        assert found[f"evaluation/{measure}/blocks"]["name"].endswith("(Blocks!)")
        assert f"evaluation/{measure}/blocks" in json.loads((made / "summary.json").read_text())["best"]
    assert {"clap_score/blocks", "nearest_train/blocks"} <= set(pd.read_csv(made / "clips.csv"))
    assert json.loads((made / "mine.json").read_text())["embeddings"][0] | {"tables": {}} == {
        "name": "blocks", "rate": 8000, "tables": {}, "dim": 8,
    }  # fmt: skip
    assert "KAD (Blocks!)" in set(pd.read_csv(made / "summary.csv").name)
    assert "KAD (Blocks!)" in page and "CLAP score (blocks)" in page


def test_new_fact_of_sounds_arrives_everywhere(made: Path, page: str) -> None:
    clips, found = pd.read_csv(made / "clips.csv"), measures(made)["evaluation/crest"]
    assert clips.crest.between(3, 12).all() and found["value"] == pytest.approx(clips.crest.mean(), rel=1e-5)
    assert (found["name"], found["better"], found["n"]) == ("Crest factor", "higher", 3)
    assert "Crest factor" in set(pd.read_csv(made / "summary.csv").name) and "Crest factor" in page
    # Beside each render and each recording, and in the list that clips are sorted by.
    assert len(re.findall(r"<dt>Crest</dt><dd>[\d.]+x</dd>", page)) == 6 and "<option>Crest, mine</option>" in page


def test_new_measure_of_clips_arrives_everywhere(made: Path, page: str) -> None:
    clips, found = pd.read_csv(made / "clips.csv"), measures(made)["evaluation/crest_error"]
    assert np.allclose(clips.crest_error, (clips.crest - clips.reference_crest).abs())
    assert found["value"] == pytest.approx(clips.crest_error.mean(), rel=1e-5) and found["name"] == "Crest error"
    assert "Crest error" in set(pd.read_csv(made / "summary.csv").name) and "Crest error" in page


def test_new_measure_of_sets_arrives_everywhere(made: Path, page: str) -> None:
    found = measures(made)["evaluation/means/blocks"]
    assert (found["name"], found["note"]) == ("Means (Blocks!)", "of means alone") and found["n_reference"] == 3
    assert (found["low"], found["high"]) == (None, None)  # it tells no influence of clips
    assert "Means (Blocks!)" in set(pd.read_csv(made / "summary.csv").name) and "Means (Blocks!)" in page
    assert "of means alone" in page
    assert "Means (Blocks!)" in (made / "mine.svg").read_text()  # it is drawn by step


def test_schema_allows_the_registered_embeddings() -> None:
    schema = yaml.safe_load(SCHEMA.read_text(encoding="utf-8"))
    entries = schema["$defs"]["evaluation"]["properties"]["embeddings"]["items"]
    names = [embedding.name for embedding in EMBEDDINGS]
    declared = [embedding.name for embedding in EMBEDDINGS if embedding.published]
    plain, *_, weighted = entries["oneOf"]
    assert plain["enum"] == names, "write into schemas/config.schema.yaml what the registry has"
    assert weighted["properties"]["name"]["enum"] == declared, "and what needs weights"
    assert all(f"`{name}`" in entries["description"] for name in names)


def test_registered_names_and_keys_are_unique() -> None:
    folders = [embedding.folder for embedding in (*EMBEDDINGS, THUMBNAIL)]
    keys = [measure.key for measure in MEASURES]
    assert len(set(folders)) == len(folders) and len(set(keys)) == len(keys)
    assert all(measure.better in ("higher", "lower", "") and measure.about for measure in MEASURES)


def test_an_entry_finds_its_embedding(tmp_path: Path) -> None:
    assert [find(embedding.name) for embedding in EMBEDDINGS] == list(EMBEDDINGS)
    other = find({"repo": "someone/clap", "revision": "a" * 40})
    assert (other.folder, other.label, other.fetched, other.gpu) == ("someone--clap", "someone/clap", True, True)
    given = ["--embedding", '"mert"', "--table", ROOT / "resources/demo/prompts.csv", "--renders", tmp_path]
    (tmp_path / "table.csv").write_text("clip_id,split,file,reference,source,prompt\na,train,a.wav,,,x\n")
    (tmp_path / "a.wav").touch()
    given[3] = tmp_path / "table.csv"
    assert_fails(run_script("embed", *given, "--output", tmp_path / "a.npz"), "'mert', which is no embedding", "aisfx")


def test_page_of_measures_is_made_from_the_registries() -> None:
    page = runpy.run_path(str(ROOT / "docs/make_measures.py"))
    assert page["PAGE"].read_text(encoding="utf-8") == page["text"](), "run: uv run python docs/make_measures.py"
