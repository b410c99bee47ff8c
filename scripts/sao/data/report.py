"""The report on a corpus: what it holds, and what the checks found."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pandas as pd

from sao.config.resolve import ROLES
from sao.data.findings import Findings
from sao.data.licenses import label


def summary_of(
    corpus: str, kept: pd.DataFrame, findings: Findings, on_invalid: str | None, on_leak: str
) -> dict[str, Any]:
    """The content of `validation.json`. `kept` are the clips that are not left out, with their side as `role`."""
    counts = Counter(kept.role)
    return {
        "corpus": corpus,
        "on_invalid": on_invalid,
        "on_leak": on_leak,
        "clips": {role: counts[role] for role in ROLES},
        "seconds": round(float(kept.seconds.sum()), 3),
        "captions": int(kept.caption_count.sum()),
        "sample_rates": {str(k): int(v) for k, v in sorted(Counter(kept.sample_rate).items())},
        "licenses": dict(sorted(Counter(map(label, kept.license)).items())),
        "errors": findings.errors,
        "warnings": findings.warnings,
        "left_out": findings.left_out,
    }
