"""Short names of the licences that Freesound and Clotho write as URLs of Creative Commons."""

from __future__ import annotations

import re
from collections.abc import Iterable

URL = re.compile(r"creativecommons\.org/(licenses|publicdomain)/([a-z+-]+)(?:/(\d+(?:\.\d+)?))?", re.IGNORECASE)
NAME = re.compile(r"cc[ -]?(0|zero|(?:by|sampling|nc-sampling)[a-z+ -]*?)(?:[ -]v?(\d+(?:\.\d+)?))?", re.IGNORECASE)
PUBLIC = {"zero": "CC0", "mark": "PDM"}


def parse(text: str) -> tuple[str, str]:
    """`(kind, version)` of a licence: `("CC-BY-NC", "3.0")`; text that is no such licence is its own kind."""
    text = " ".join(text.split())
    if match := URL.search(text):
        area, kind, version = match.groups()
        return PUBLIC.get(kind.lower(), kind) if area.lower() == "publicdomain" else cc(kind), version or ""
    if match := NAME.fullmatch(text):
        return "CC0" if match[1].lower() in ("0", "zero") else cc(match[1]), match[2] or ""
    return text, ""


def cc(kind: str) -> str:
    """`by-nc` -> `CC-BY-NC`, `sampling+` -> `CC-Sampling+`."""
    words = re.split("[ -]+", kind.strip(" -").lower())
    return "-".join(["CC", *(w.capitalize() if w.startswith("sampling") else w.upper() for w in words)])


def short_name(text: str) -> str:
    """`http://creativecommons.org/licenses/by/3.0/` -> `CC-BY-3.0`; `unknown` for nothing."""
    return "-".join(part for part in parse(text) if part) or "unknown"


def allowed(text: str, allow: Iterable[str]) -> bool:
    """Whether one of `allow` names this licence, in this version or in all."""
    kind, version = parse(text)
    names = [parse(entry) for entry in allow]
    return any(k.lower() == kind.lower() and v in ("", version) for k, v in names) and bool(kind)
