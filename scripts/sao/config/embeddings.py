"""The embeddings that a config may name. This module needs no library, so the plan can use it."""

from __future__ import annotations

from dataclasses import dataclass

# Commits that are known to work. Both have their weights only as `pytorch_model.bin`.
CLAP_REVISIONS = {
    "laion/clap-htsat-unfused": "8fa0f1c6d0433df6e97c127f64b2a1d6c0dcda8a",
    "laion/larger_clap_general": "ada0c23a36c4e8582805bb38fec3905903f18b41",
}
THUMBNAIL = "spectrogram"  # the memorisation check uses it besides the embeddings


@dataclass(frozen=True)
class Choice:
    """An entry of `evaluation.embeddings`: a name, or a CLAP model at a commit."""

    name: str
    revision: str = ""

    @property
    def is_clap(self) -> bool:
        return bool(self.revision)

    @property
    def folder(self) -> str:
        """The name of its folder."""
        return self.name.replace("/", "--")

    @property
    def label(self) -> str:
        """Its name in the name of a measure: `FAD (aiSFX)`."""
        return {"aisfx": "aiSFX"}.get(self.name, self.name)


def choice(entry: str | dict[str, str]) -> Choice:
    """The choice that an entry of a checked config stands for."""
    if isinstance(entry, dict):
        return Choice(entry["repo"], entry["revision"])
    return Choice(entry, CLAP_REVISIONS.get(entry, ""))
