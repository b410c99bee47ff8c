"""Words that tables have where nothing is known."""

from __future__ import annotations

import unicodedata

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


# Letters and symbols by Unicode's categories that show nothing: fillers, an empty pattern of Braille, signs that stand
# for what could not be shown.
SHOW_NOTHING = frozenset("\u115f\u1160\u2800\u3164\uffa0\ufffc\ufffd")


def is_blank(text: str) -> bool:
    """Whether a text says nothing: it has no letter, no digit and no picture, but white space, signs that have no width,
    accents or punctuation, in the wide sense that takes `=` and `|` in.
    """
    kinds = (unicodedata.category(sign) for sign in text if sign not in SHOW_NOTHING)
    return not any(kind[0] in "LN" or kind == "So" for kind in kinds)
