"""Where a base model comes from: a folder, or pinned commits on the Hub. Rules `rehearse` and `base_model` read this."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sao.base.command import log

from sao.config.settings import ModelSource

BRANCH = "main"  # a revision that is no commit


@dataclass(frozen=True)
class Source:
    """A folder (`path`), or a repository (`repo` and the fields after it)."""

    path: Path | None
    repo: str  # empty with `path`
    revision: str
    model_config: str  # file name
    weights: str  # file name
    text_encoder_path: Path | None  # of a model in a folder; None for its folder text_encoder/, or the repository
    text_encoder_repo: str
    text_encoder_revision: str
    text_encoder_folder: str  # in its repository; empty for the repository itself
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
            text_encoder_path=Path(encoder["path"]) if "path" in encoder else None,
            text_encoder_repo=encoder.get("repo", ""),
            text_encoder_revision=encoder.get("revision", ""),
            text_encoder_folder=encoder.get("subfolder", ""),
            clap_path=Path(clap["path"]) if "path" in clap else None,
            clap_repo=clap.get("repo", ""),
            clap_revision=clap.get("revision", ""),
            clap_file=clap.get("file", ""),
        )

    def resolved(self) -> Source:
        """The same with commits in place of branches, as the Hub has them now. Logs the lines that pin them."""
        found: dict[str, Any] = {}
        for field, repo, file in (
            ("revision", self.repo, self.model_config),
            ("text_encoder_revision", self.text_encoder_repo, self.in_text_encoder("config.json")),
            ("clap_revision", self.clap_repo, self.clap_file),
        ):
            if repo and (branch := getattr(self, field)) == BRANCH:
                from sao.hub.fetch import commit_of  # imported here: a pinned or local model does not need it

                found[field] = commit_of(repo, branch, file)
                key = field.replace("_revision", ".revision")
                log.info("%s: %s stands at a commit now; to pin it, set `%s: %s`", repo, branch, key, found[field])
        return replace(self, **found)

    def described(self) -> dict[str, Any]:
        """The content of source.json: the keys of the config that say where the model comes from, with commits."""
        clap = {"repo": self.clap_repo, "revision": self.clap_revision, "file": self.clap_file}
        found: dict[str, Any] = {} if self.path else {"repo": self.repo, "revision": self.revision}
        if self.text_encoder_repo:
            found["text_encoder"] = {"repo": self.text_encoder_repo, "revision": self.text_encoder_revision}
            found["text_encoder"] |= {"subfolder": self.text_encoder_folder} if self.text_encoder_folder else {}
        return found | ({"clap": clap} if self.clap_repo else {})

    def encoder_folder(self) -> Path | None:
        """The folder of the text encoder of a model in a folder; None if it comes from a repository."""
        return None if not self.path or self.text_encoder_repo else self.text_encoder_path or self.path / "text_encoder"

    def in_text_encoder(self, file: str) -> str:
        """The path of one of the text encoder's files in its repository."""
        return Path(self.text_encoder_folder, file).as_posix()

    def name(self, file: str) -> str:
        """The name of one of its files in messages."""
        return f"{self.path}/{file}" if self.path else f"{self.repo}: {file}"
