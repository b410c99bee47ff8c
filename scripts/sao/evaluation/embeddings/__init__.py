"""The embeddings that a config may name. A new one is a class in its own file, and an entry in `EMBEDDINGS`."""

from __future__ import annotations

from sao.base.command import InputError

from sao.config.embeddings import Entry
from sao.evaluation.embeddings.aisfx import Aisfx
from sao.evaluation.embeddings.clap import Clap
from sao.evaluation.embeddings.embedding import Embedding
from sao.evaluation.embeddings.logmel import LogMel
from sao.evaluation.embeddings.thumbnail import Thumbnail

__all__ = ["EMBEDDINGS", "THUMBNAIL", "Embedding", "find"]

# The order is that of the documentation. The commits of CLAP are tested.
EMBEDDINGS: tuple[Embedding, ...] = (
    Aisfx(),
    LogMel(),
    Clap("laion/clap-htsat-unfused", "8fa0f1c6d0433df6e97c127f64b2a1d6c0dcda8a"),
    Clap("laion/larger_clap_general", "ada0c23a36c4e8582805bb38fec3905903f18b41"),
)
THUMBNAIL = Thumbnail()  # always computed, for the search for copies


def find(entry: Entry) -> Embedding:
    """The embedding of an entry of `evaluation.embeddings`, without its weights."""
    if isinstance(entry, dict):
        return Clap(entry["repo"], entry["revision"])
    for embedding in (*EMBEDDINGS, THUMBNAIL):
        if embedding.name == entry:
            return embedding
    names = ", ".join(embedding.name for embedding in EMBEDDINGS)
    raise InputError(f"found {entry!r}, which is no embedding; allowed: {names}, or a repo with a revision")
