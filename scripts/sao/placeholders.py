"""Words that tables have where nothing is known."""

from __future__ import annotations

# fmt: off
WORDS = frozenset((
    "", "-", "--", "---", "\u2013", "\u2014", "?", "??", "???", "n/a", "#n/a", "n.a", "n.a.", "na", "nan", "none", "null",
    "missing", "not available", "not found", "not given", "not known", "not specified", "none given", "no author",
    "no licence", "no license", "no link", "no url", "tba", "tbd", "undefined", "unknown", "unknown author",
    "unknown licence", "unknown license", "unspecified",
))
# fmt: on


def is_placeholder(text: str) -> bool:
    """Whether a cell says that there is nothing: it is empty, or holds a word for it, in brackets or quotes maybe."""
    return " ".join(text.split()).strip("<>()[]{}\"' ").lower() in WORDS
