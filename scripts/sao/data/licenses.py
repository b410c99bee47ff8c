"""Recognise Creative Commons licences in all their spellings, and give each one short name."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterable
from urllib.parse import unquote

from sao.base.placeholders import is_placeholder

NO_LICENSE = "unknown"  # the short name of a missing licence
MISSING, UNKNOWN = "missing", "unknown licence: "  # labels of a missing licence, and of one that is not recognised
ADDRESS = re.compile(r"(?<![\w.-])(?:https?:)?(?://)?(?:www\.)?creativecommons\.org/([\w%+./-]*)(?:[?#]\S*)?")
PAGE = re.compile(r"/(?:deed|legalcode)(?:[._-][\w-]+)*(?:\.\w+)?/?$|/rdf/?$")  # at the end of an address
# Phrases of several words, or written as one with their neighbours. The rest of a longer word is an unknown word.
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
# Words that do not change the licence.
NOISE = frozenset(
    """a deed generic int international intl legal legalcode licence licences license licensed licenses is of terms the
    this to under universal unported v ver version work""".split()
)
# Places that a licence was ported to. They follow its version.
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

    A text that is no Creative Commons licence is its own kind. The kind of a word for nothing (`NA`) is empty.
    """
    text = " ".join(text.split())
    return ("", "") if is_placeholder(text) else creative_commons(text) or (text, "")


@functools.lru_cache(1 << 12)
def creative_commons(text: str) -> tuple[str, str] | None:
    """`(kind, version)` of a Creative Commons licence. None if any word of the text is not understood.

    A text may name a licence several times. Then the restrictions of all these names add up.
    """
    words = words_of(text)
    elements: set[str] = set()
    versions: set[str] = set()
    for word in words:
        letters = LETTERS.fullmatch(word)
        if word in ("cc", "0", "pd", "pdm", "mark", "dedication", "attribution", *SAMPLING):
            elements.add(word)
        elif letters:
            elements |= {"cc"} if letters[1] else set()
            elements |= set(re.findall("..", letters[2]))
        elif re.fullmatch(r"[1-9](\.\d)?", word):
            versions.add(word if "." in word else f"{word}.0")
        elif word not in NOISE and not (versions and word in PLACES):
            return None
    if "attribution" in elements:
        elements = elements - {"attribution"} | {"by", "cc"}
    version = versions.pop() if len(versions) == 1 else ""
    kind = kind_of(elements, bool(version))
    return (kind, version) if kind else None


def words_of(text: str) -> list[str]:
    """The words of a text in lower case. Well-known phrases, and the parts of Creative Commons addresses, become words."""
    text = unicodedata.normalize("NFKC", text).casefold()
    text = ADDRESS.sub(lambda match: f" cc {PAGE.sub('', unquote(match[1]))} ", text)
    # A question mark is a doubt, so it stays. Letters of other alphabets become unknown words.
    words = re.findall(r"[a-z]+|[0-9]+(?:\.[0-9]+)*|[+?]|[^\W_]", text)
    text = " ".join(words)
    for phrase, word in PHRASES:
        text = re.sub(phrase, f" {word} ", text)
    return text.split()


def kind_of(elements: set[str], has_version: bool) -> str:
    """The kind of licence that these elements make, or an empty text."""
    conditions = [element for element in ELEMENTS if element in elements]
    special = elements - {"cc", *ELEMENTS}
    if special & set(SAMPLING):
        if set(conditions) - {"nc"} or special - set(SAMPLING) or len(special) > 1:
            return ""
        (name,) = special
        return "-".join(["CC", *(["NC"] if conditions else []), name.capitalize()])
    if special:
        if conditions:
            return ""
        if "0" in special:
            return "CC0" if special <= {"0", "pd", "dedication"} and {"cc", "pd"} & elements else ""
        if special <= {"pd", "dedication"}:
            return "Public-Domain" if "pd" in special else ""
        return "PDM" if "pdm" in special or special == {"pd", "mark"} else ""
    # `by` alone may be a word of a sentence.
    if conditions and ("cc" in elements or ("by" in conditions and (len(conditions) > 1 or has_version))):
        return "-".join(["CC", *(condition.upper() for condition in conditions)])
    return ""


def short_name(text: str) -> str:
    """`http://creativecommons.org/licenses/by/3.0/` -> `CC-BY-3.0`; `unknown` if it is missing, else the text itself."""
    return "-".join(part for part in parse(text) if part) or NO_LICENSE


def is_known(text: str) -> bool:
    """Whether a text is a Creative Commons licence. No other licence is recognised."""
    return creative_commons(text) is not None


def label(text: str) -> str:
    """A licence as reports and cards print it: its short name, `unknown licence: …` or `missing`."""
    name = short_name(text)
    return MISSING if name == NO_LICENSE else name if is_known(text) else f"{UNKNOWN}{name}"


def is_non_commercial(text: str) -> bool:
    """Whether a known licence allows only non-commercial use."""
    return is_known(text) and "NC" in parse(text)[0].split("-")


def forbids_derivatives(text: str) -> bool:
    """Whether a known licence forbids sharing adapted material."""
    return is_known(text) and "ND" in parse(text)[0].split("-")


def allowed(text: str, allow: Iterable[str]) -> bool:
    """Whether one of `allow` names this licence, with its version or without one. An unknown licence has to match exactly."""
    kind, version = parse(text)
    names = [parse(entry) for entry in allow]
    return any(k.lower() == kind.lower() and v in ("", version) for k, v in names) and bool(kind)
