"""Where a base model comes from: a folder, or pinned commits on the Hub. Rules `rehearse` and `base_model` read this."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sao.config.settings import ModelSource


@dataclass(frozen=True)
class Source:
    """A folder (`path`), or a repository (`repo` and the fields after it)."""

    path: Path | None
    repo: str  # empty with `path`
    revision: str
    model_config: str  # file name
    weights: str  # file name
    text_encoder_repo: str
    text_encoder_revision: str
    clap_path: Path | None  # checkpoint of a clap_text conditioner
    clap_repo: str  # empty with `clap_path`, and without such a conditioner
    clap_revision: str
    clap_file: str

    @classmethod
    def of(cls, settings: ModelSource) -> Source:
        encoder, clap = settings.get("text_encoder") or {}, settings.get("clap") or {}
        return cls(
            path=Path(settings["path"]) if "path" in settings else None,
            repo=settings.get("repo", ""),
            revision=settings.get("revision", ""),
            model_config=settings["model_config"],
            weights=settings["weights"],
            text_encoder_repo=encoder.get("repo", ""),
            text_encoder_revision=encoder.get("revision", ""),
            clap_path=Path(clap["path"]) if "path" in clap else None,
            clap_repo=clap.get("repo", ""),
            clap_revision=clap.get("revision", ""),
            clap_file=clap.get("file", ""),
        )

    def name(self, file: str) -> str:
        """The name of one of its files in messages."""
        return f"{self.path}/{file}" if self.path else f"{self.repo}: {file}"
