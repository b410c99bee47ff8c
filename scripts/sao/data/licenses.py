"""Licences of Creative Commons, under whatever name a table has them, by one short name each."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterable
from urllib.parse import unquote

from sao.base.placeholders import is_placeholder

NO_LICENSE = "unknown"  # the short name of none
MISSING, UNKNOWN = "missing", "unknown licence: "  # what a person is told of none, and of one that is not known here
ADDRESS = re.compile(r"(?<![\w.-])(?:https?:)?(?://)?(?:www\.)?creativecommons\.org/([\w%+./-]*)(?:[?#]\S*)?")
PAGE = re.compile(r"/(?:deed|legalcode)(?:[._-][\w-]+)*(?:\.\w+)?/?$|/rdf/?$")  # at the end of an address
# What is written in several words, or as one with its neighbours. What is left of a longer word is no word that is known.
PHRASES = (
    (r"creative ?commons", "cc"),
    (r"non ?commercial(?: use\b)?(?: only\b)?", "nc"),
    (r"(?:no|non) ?deriv(?:atives?(?: works?)?|ations?|s)?", "nd"),
    (r"share ?alike", "sa"),
    (r"attribution", "attribution"),
    (r"public ?domain", "pd"),
    (r"sampling ?(?:plus|\+)", "sampling+"),
    (r"zero", "0"),
)
LETTERS = re.compile(r"(cc)?((?:by|nc|nd|sa)*)")
ELEMENTS = ("by", "nc", "nd", "sa")  # in the order of the short name
SAMPLING = ("sampling", "sampling+")
# Words that change nothing.
NOISE = frozenset(
    """a deed generic int international intl legal legalcode licence licences license licensed licenses is of terms the
    this to under universal unported v ver version work""".split()
)
# Where a licence was ported to: after its version.
PLACES = frozenset(
    """ar at au az be bg br ca ch cl cn co cr cz de dk ec ee eg es fi fr ge gr gt hk hr hu ie igo il in it jp kr lu mk mt
    mx my ng nl no nz pe ph pl pr pt ro rs ru scotland se sg si th tw ua ug uk us ve vn za
    argentina australia austria belgium brazil canada chile china colombia croatia denmark england estonia finland france
    germany greece hungary ireland israel italy japan korea mexico netherlands norway poland portugal romania serbia
    singapore slovenia spain sweden switzerland taiwan thailand wales
    and czech hong kingdom kong new republic south states united zealand africa""".split()
)


@functools.lru_cache(1 << 12)  # a large corpus has few
def parse(text: str) -> tuple[str, str]:
    """`(kind, version)` of a licence: `("CC-BY-NC", "3.0")`.

    Text that is no licence of Creative Commons is its own kind; a word for nothing (`NA`) has none.
    """
    text = " ".join(text.split())
    return ("", "") if is_placeholder(text) else creative_commons(text) or (text, "")


@functools.lru_cache(1 << 12)
def creative_commons(text: str) -> tuple[str, str] | None:
    """The same, or None: where any word of a text is not understood, nothing is concluded from the others.

    A text may name a licence several times. What any of these names restricts is kept.
    """
    words = words_of(text)
    found: set[str] = set()
    versions: set[str] = set()
    for word in words:
        letters = LETTERS.fullmatch(word)
        if word in ("cc", "0", "pd", "pdm", "mark", "dedication", "attribution", *SAMPLING):
            found.add(word)
        elif letters:
            found |= {"cc"} if letters[1] else set()
            found |= set(re.findall("..", letters[2]))
        elif re.fullmatch(r"[1-9](\.\d)?", word):
            versions.add(word if "." in word else f"{word}.0")
        elif word not in NOISE and not (versions and word in PLACES):
            return None
    if "attribution" in found:
        found = found - {"attribution"} | {"by", "cc"}
    version = versions.pop() if len(versions) == 1 else ""
    kind = kind_of(found, bool(version))
    return (kind, version) if kind else None


def words_of(text: str) -> list[str]:
    """The words of a text in lower case, an address of Creative Commons among them, well-known phrases as one word."""
    text = unicodedata.normalize("NFKC", text).casefold()
    text = ADDRESS.sub(lambda match: f" cc {PAGE.sub('', unquote(match[1]))} ", text)
    # Question marks are a doubt, and letters of other alphabets words that are not known.
    words = re.findall(r"[a-z]+|[0-9]+(?:\.[0-9]+)*|[+?]|[^\W_]", text)
    text = " ".join(words)
    for phrase, word in PHRASES:
        text = re.sub(phrase, f" {word} ", text)
    return text.split()


def kind_of(found: set[str], has_version: bool) -> str:
    """The kind that these elements make, or nothing."""
    elements = [element for element in ELEMENTS if element in found]
    special = found - {"cc", *ELEMENTS}
    if special & set(SAMPLING):
        if set(elements) - {"nc"} or special - set(SAMPLING) or len(special) > 1:
            return ""
        (name,) = special
        return "-".join(["CC", *(["NC"] if elements else []), name.capitalize()])
    if special:
        if elements:
            return ""
        if "0" in special:
            return "CC0" if special <= {"0", "pd", "dedication"} and {"cc", "pd"} & found else ""
        if special <= {"pd", "dedication"}:
            return "Public-Domain" if "pd" in special else ""
        return "PDM" if "pdm" in special or special == {"pd", "mark"} else ""
    # `by` alone may be a word of a sentence.
    if elements and ("cc" in found or ("by" in elements and (len(elements) > 1 or has_version))):
        return "-".join(["CC", *(element.upper() for element in elements)])
    return ""


def short_name(text: str) -> str:
    """`http://creativecommons.org/licenses/by/3.0/` -> `CC-BY-3.0`; `unknown` for nothing, else the text itself."""
    return "-".join(part for part in parse(text) if part) or NO_LICENSE


def is_known(text: str) -> bool:
    """Whether a text is a licence of Creative Commons; the terms of any other are not known here."""
    return creative_commons(text) is not None


def label(text: str) -> str:
    """What a person is told of a licence: its short name, that it is not known here, or that there is none."""
    name = short_name(text)
    return MISSING if name == NO_LICENSE else name if is_known(text) else f"{UNKNOWN}{name}"


def is_non_commercial(text: str) -> bool:
    """Whether a known licence allows non-commercial use alone."""
    return is_known(text) and "NC" in parse(text)[0].split("-")


def forbids_derivatives(text: str) -> bool:
    """Whether a known licence forbids to share adapted material."""
    return is_known(text) and "ND" in parse(text)[0].split("-")


def allowed(text: str, allow: Iterable[str]) -> bool:
    """Whether one of `allow` names this licence, in this version or in all; one that is not known, word for word."""
    kind, version = parse(text)
    names = [parse(entry) for entry in allow]
    return any(k.lower() == kind.lower() and v in ("", version) for k, v in names) and bool(kind)
