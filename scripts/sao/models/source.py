"""Where a base model is from, as rules rehearse and base_model are told: a folder, or pinned commits on the Hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sao.config.settings import ModelSource


@dataclass(frozen=True)
class Source:
    """Either `path`, or `repo` and what follows it."""

    path: Path | None
    repo: str | None
    revision: str | None
    model_config: str  # name of that file
    weights: str
    text_encoder_repo: str | None
    text_encoder_revision: str | None
    clap_path: Path | None  # checkpoint of a clap_text conditioner
    clap_repo: str | None
    clap_revision: str | None
    clap_file: str | None

    @classmethod
    def of(cls, settings: ModelSource) -> Source:
        encoder, clap = settings.get("text_encoder") or {}, settings.get("clap") or {}
        return cls(
            path=Path(settings["path"]) if "path" in settings else None,
            repo=settings.get("repo"),
            revision=settings.get("revision"),
            model_config=settings["model_config"],
            weights=settings["weights"],
            text_encoder_repo=encoder.get("repo"),
            text_encoder_revision=encoder.get("revision"),
            clap_path=Path(clap["path"]) if "path" in clap else None,
            clap_repo=clap.get("repo"),
            clap_revision=clap.get("revision"),
            clap_file=clap.get("file"),
        )

    def name(self, file: str) -> str:
        """A file of it as messages name it."""
        return f"{self.path}/{file}" if self.path else f"{self.repo}: {file}"
