"""The entries of `evaluation.embeddings`: a name, or a CLAP model at a commit. Which names there are, the registry says:
`sao.evaluation.embeddings`.
"""

from __future__ import annotations

Entry = str | dict[str, str]


def embedding_name(entry: Entry) -> str:
    """What figures are named with."""
    return entry["repo"] if isinstance(entry, dict) else entry


def embedding_folder(name: str) -> str:
    """The name as a folder's."""
    return name.replace("/", "--")
