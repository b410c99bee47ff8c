"""What was found about a corpus, clip by clip."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, ClassVar

from sao.base.command import InputError, log

Finding = dict[str, str]


@dataclass
class Findings:
    """Errors would corrupt a training, warnings are for a person, what is left out is not used."""

    COLUMNS: ClassVar = ("clip_id", "published_split", "path", "check", "message")

    errors: list[Finding] = field(default_factory=list)
    warnings: list[Finding] = field(default_factory=list)
    left_out: list[Finding] = field(default_factory=list)

    def error(self, check: str, row: Any, message: str) -> None:
        self.errors.append(finding(check, row, message))

    def warning(self, check: str, row: Any, message: str) -> None:
        self.warnings.append(finding(check, row, message))

    def leave_out(self, check: str, row: Any, message: str) -> None:
        self.left_out.append(finding(check, row, message))

    def remark(self, check: str, message: str) -> None:
        """A warning that is about no single clip."""
        self.warnings.append({"check": check, "clip_id": "", "published_split": "", "path": "", "message": message})

    def drop_errors(self) -> None:
        """Leave out every clip with an error, for the first reason found."""
        reasons: dict[str, Finding] = {}
        for error in self.errors:
            reasons.setdefault(error["path"], error)
        self.left_out += reasons.values()
        self.errors = []

    def failure(self, advice: str) -> InputError:
        """Log all errors but the first; the exception that tells that one, and what to do."""
        for error in self.errors[1:]:
            log.error("error: %s %s", error["path"], error["message"])
        first, more = self.errors[0], len(self.errors) - 1
        others = f" (and {more} more, listed above)" if more else ""
        return InputError(f"{first['path']} {first['message']}{others}{advice}")

    @staticmethod
    def first(findings: list[Finding], number: int) -> list[str]:
        """The first findings of each check as text, and how many more there are."""
        kinds = defaultdict(list)
        for entry in findings:
            kinds[entry["check"]].append(f"{entry['path']} {entry['message']}".strip())
        lines = []
        for check, texts in kinds.items():
            lines += texts[:number]
            if len(texts) > number:
                lines.append(f"{check}: {len(texts) - number} more, in the report")
        return lines

    @staticmethod
    def paths(findings: list[Finding]) -> set[str]:
        return {entry["path"] for entry in findings}


def finding(check: str, row: Any, message: str) -> Finding:
    """`row` has a clip's `clip_id`, `published_split` and `path`."""
    named = {"check": check, "clip_id": row.clip_id, "published_split": row.published_split}
    return named | {"path": row.path, "message": message}
