"""Names and folders of the entries of `evaluation.embeddings`: a name, a name with its weights, or a CLAP model at a commit.

`sao.evaluation.embeddings` is the registry of all names.
"""

from __future__ import annotations

from typing import Any

Entry = str | dict[str, Any]


def embedding_name(entry: Entry) -> str:
    """The name of an embedding, as in the names of figures."""
    return str(entry.get("name") or entry["repo"]) if isinstance(entry, dict) else entry


def embedding_folder(name: str) -> str:
    """The name of an embedding's folder."""
    return name.replace("/", "--")
