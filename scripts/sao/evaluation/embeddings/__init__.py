"""The embeddings that a config may name. A new one is a class in its own file, and an entry in `EMBEDDINGS`."""

from __future__ import annotations

from sao.base.command import InputError

from sao.config.embeddings import Entry, embedding_name
from sao.evaluation.embeddings.aisfx import Aisfx
from sao.evaluation.embeddings.audioseal import AudioSeal
from sao.evaluation.embeddings.clap import Clap
from sao.evaluation.embeddings.embedding import Embedding
from sao.evaluation.embeddings.logmel import LogMel
from sao.evaluation.embeddings.openl3 import OpenL3
from sao.evaluation.embeddings.panns import Panns
from sao.evaluation.embeddings.passt import Passt
from sao.evaluation.embeddings.thumbnail import Thumbnail
from sao.evaluation.embeddings.vggish import Vggish

__all__ = ["EMBEDDINGS", "THUMBNAIL", "Embedding", "find"]

# The order is that of the documentation. The commits of CLAP are tested.
EMBEDDINGS: tuple[Embedding, ...] = (
    Aisfx(),
    LogMel(),
    Clap("laion/clap-htsat-unfused", "8fa0f1c6d0433df6e97c127f64b2a1d6c0dcda8a"),
    Clap("laion/larger_clap_general", "ada0c23a36c4e8582805bb38fec3905903f18b41"),
    OpenL3("env"),
    OpenL3("env", stereo=True),
    OpenL3("music"),
    OpenL3("music", stereo=True),
    Passt(),
    Vggish(),
    Panns(32000, "Cnn14_mAP%3D0.431.pth"),
    Panns(16000, "Cnn14_16k_mAP%3D0.438.pth"),
    AudioSeal(),
)
THUMBNAIL = Thumbnail()  # always computed, for the search for copies


def find(entry: Entry) -> Embedding:
    """The embedding of an entry of `evaluation.embeddings`, without its weights."""
    if isinstance(entry, dict) and "repo" in entry:
        return Clap(entry["repo"], entry["revision"])
    name = embedding_name(entry)
    for embedding in (*EMBEDDINGS, THUMBNAIL):
        if embedding.name == name:
            return embedding
    names = ", ".join(embedding.name for embedding in EMBEDDINGS)
    raise InputError(f"found {name!r}, which is no embedding; allowed: {names}, or a repo with a revision")
