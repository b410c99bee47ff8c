"""The findings of the checks on a corpus: errors, warnings, and clips that are left out."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, ClassVar

from sao.base.command import InputError, log

Finding = dict[str, str]
SHOWN = 5  # findings of each kind that are logged; reports and tables have all


@dataclass
class Findings:
    """Errors would corrupt a training. Warnings are for a person. Clips that are left out are not used."""

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
        """Add a warning that concerns no single clip."""
        self.warnings.append({"check": check, "clip_id": "", "published_split": "", "path": "", "message": message})

    def drop_errors(self) -> None:
        """Leave out every clip with an error. Its reason is its first error."""
        reasons: dict[str, Finding] = {}
        for error in self.errors:
            reasons.setdefault(error["path"], error)
        self.left_out += reasons.values()
        self.errors = []

    def failure(self, advice: str) -> InputError:
        """Log all errors but the first, and return an exception with the first and the advice."""
        for error in self.errors[1:]:
            log.error("error: %s %s", error["path"], error["message"])
        first, more = self.errors[0], len(self.errors) - 1
        others = f" (and {more} more, listed above)" if more else ""
        return InputError(f"{first['path']} {first['message']}{others}{advice}")

    def log_first(self) -> None:
        """Log the first of what is left out, and the first warnings."""
        for line in self.first(self.left_out):
            log.info("left out: %s", line)
        for line in self.first(self.warnings):
            log.warning("warning: %s", line)

    @staticmethod
    def first(findings: list[Finding], number: int = SHOWN) -> list[str]:
        """The first findings of each check as lines of text, with the number of further ones."""
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
    """Make a finding about a clip. `row` has its `clip_id`, `published_split` and `path`."""
    named = {"check": check, "clip_id": row.clip_id, "published_split": row.published_split}
    return named | {"path": row.path, "message": message}
