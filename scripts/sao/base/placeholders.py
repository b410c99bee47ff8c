"""Recognise table cells and captions that say nothing: words such as `unknown`, and texts without letters."""

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
    """Whether a cell is empty or holds a word for nothing, with or without brackets or quotes."""
    return " ".join(text.split()).strip("<>()[]{}\"' ").lower() in WORDS


# Invisible signs that Unicode counts as letters or symbols: fillers, an empty Braille pattern, replacement signs.
SHOW_NOTHING = frozenset("\u115f\u1160\u2800\u3164\uffa0\ufffc\ufffd")


def is_blank(text: str) -> bool:
    """Whether a text has no letter, digit or picture, but only white space, invisible signs, accents or punctuation.

    Signs such as `=` and `|` count as punctuation.
    """
    kinds = (unicodedata.category(sign) for sign in text if sign not in SHOW_NOTHING)
    return not any(kind[0] in "LN" or kind == "So" for kind in kinds)
