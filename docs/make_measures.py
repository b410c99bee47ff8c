"""Write docs/reference/measures.md from the registries of measures and embeddings.

uv run python docs/make_measures.py
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
from sao.evaluation.embeddings import EMBEDDINGS, THUMBNAIL, Embedding
from sao.evaluation.measure import BesideRecording, BetweenSets, InEmbedding, Measure, OfSound
from sao.evaluation.measures import MEASURES

PAGE = Path(__file__).parent / "reference/measures.md"
INTRO = """\
# Measures and embeddings

Made from `scripts/sao/evaluation/measures.py`, `signals.py` and `embeddings/` by `uv run python docs/make_measures.py`: edit
those, not this page. How measures are taken: rule `evaluate` in [stages.md](stages.md).
"""
KINDS = {
    BetweenSets: ("Of sets", "How far the renders of a split are from its recordings, in each embedding."),
    InEmbedding: ("Of clips in an embedding", "A figure of each render, whose mean over a split is the measure."),
    BesideRecording: (
        "Of clips and their recordings",
        "How far each render is from its recording; the mean over a split.",
    ),
    OfSound: ("Of sounds", "What each sound is like as a signal; the mean over a split where one direction is better."),
}
EMBEDDED = """\
## Embeddings

Measures of sets, and of clips in an embedding, are taken in each embedding that `evaluation.embeddings` names. A figure is named
with it, `FAD (aiSFX)`, and is comparable only with figures of the same name.

| Embedding | Weights | GPU | What it is |
| --- | --- | --- | --- |
"""
NEW = """\
## A new one

- **A measure** is a function and an entry of `MEASURES` in `scripts/sao/evaluation/measures.py`; one that needs the samples
  themselves, of `FACTS` in `signals.py`. The entry says how it is called, which direction is better, and whether it is drawn by
  step, shown beside sounds and sorted by. Tables, pictures, the page and the model card ask the entry.
- **An embedding** is a class in a file of its own in `scripts/sao/evaluation/embeddings/`, and an entry of `EMBEDDINGS` in
  `__init__.py` there. Its name goes into the list of the schema too, for editors that complete it.

`tests/graph/test_registries.py` adds one of each kind. Then run `uv run just measures`, which writes this page.
"""


def measure_row(measure: Measure) -> str:
    shown = [word for word, holds in (("drawn by step", measure.drawn), ("beside sounds", measure.shown)) if holds]
    return f"| `{measure.key}` | {measure.unit} | {measure.better or '–'} | {measure.about} | {', '.join(shown)} |\n"


def embedding_row(embedding: Embedding) -> str:
    weights = (
        "from the Hub"
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
