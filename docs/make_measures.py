"""Write docs/reference/measures.md from the registries of measures and embeddings.

uv run python docs/make_measures.py
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
from sao.evaluation.embeddings import EMBEDDINGS, THUMBNAIL, Embedding
from sao.evaluation.measure import BesideRecording, BetweenSets, BetweenWindows, InEmbedding, Measure, OfSound
from sao.evaluation.measures import MEASURES

PAGE = Path(__file__).parent / "reference/measures.md"
INTRO = """\
# Measures and embeddings

This page is generated from `measures.py`, `papers.py`, `signals.py` and `embeddings/` in `scripts/sao/evaluation/`. Edit those files, then run
`uv run just measures`. Rule `evaluate` in [stages.md](stages.md) describes how measures are taken.
"""
KINDS = {
    BetweenSets: ("Of sets", "The distance between the renders of a split and its recordings, in each embedding."),
    BetweenWindows: (
        "Of all windows of sets",
        "The distance between all windows of the renders of a split and of its recordings, in embeddings in which papers compare "
        "windows. There it is taken instead of FAD.",
    ),
    InEmbedding: ("Of clips in an embedding", "Each render has a figure. The measure is their mean over a split."),
    BesideRecording: (
        "Of clips and their recordings",
        "The distance between each render and its recording. The measure is the mean over a split.",
    ),
    OfSound: (
        "Of sounds",
        "Properties of each sound. If one direction is better, their mean over a split is a measure.",
    ),
}
EMBEDDED = """\
## Embeddings

Measures of sets, and of clips in an embedding, are taken in each embedding that `evaluation.embeddings` lists. A figure is named
with its embedding, `FAD (aiSFX)`, and is comparable only with figures of the same name. Weights that are «declared» are files that
the config names with their hash: [results.md](../guides/results.md#figures-to-compare-with-papers). The link is where their authors
publish them.

| Embedding | Weights | GPU | What it is |
| --- | --- | --- | --- |
"""
NEW = """\
## A new one

- **A measure** is a function and an entry in `MEASURES` in `scripts/sao/evaluation/measures.py`. If it needs the samples
  themselves, its entry goes into `FACTS` in `signals.py`. The entry has the measure's name, the direction that is better, and
  whether the measure is drawn by step, shown beside sounds and used for sorting. Tables, pictures, the page and the model card
  follow the entry.
- **An embedding** is a class in its own file in `scripts/sao/evaluation/embeddings/`, and an entry in `EMBEDDINGS` in
  `__init__.py` there. Add its name to the list in the schema too, so that editors can complete it. If its weights are declared, it
  is derived from `Pretrained`, and its network is a module in `scripts/sao/evaluation/networks/`.
- **A measure of a paper** goes into `PAPERS` in `papers.py`.

Then run `uv run just measures`, which writes this page. `tests/graph/test_registries.py` adds one of each as an example.
"""


def measure_row(measure: Measure) -> str:
    shown = [word for word, holds in (("drawn by step", measure.drawn), ("beside sounds", measure.shown)) if holds]
    return f"| `{measure.key}` | {measure.unit} | {measure.better or '–'} | {measure.about} | {', '.join(shown)} |\n"


def embedding_row(embedding: Embedding) -> str:
    weights = (
        f"[declared]({embedding.published.url}), [{embedding.license}]({embedding.published.page})"
        if embedding.published
        else "from the Hub"
        if embedding.fetched
        else f"with its package, {embedding.license}"
        if embedding.license
        else "none"
    )
    return f"| `{embedding.name}` | {weights} | {'yes' if embedding.gpu else 'no'} | {embedding.about} |\n"


def text() -> str:
    """The whole page."""
    parts = [INTRO]
    for kind, (title, meaning) in KINDS.items():
        rows = "".join(measure_row(measure) for measure in MEASURES if isinstance(measure, kind))
        header = "| Measure | Unit | Better | What it is | On the page |\n| --- | --- | --- | --- | --- |\n"
        parts.append(f"## {title}\n\n{meaning}\n\n{header}{rows}")
    parts.append(EMBEDDED + "".join(map(embedding_row, (*EMBEDDINGS, THUMBNAIL))))
    return "\n".join([*parts, NEW])


if __name__ == "__main__":
    PAGE.write_text(text(), encoding="utf-8")
