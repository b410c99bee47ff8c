from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sao.data.licenses import allowed, forbids_derivatives, is_known, is_non_commercial, label, parse, short_name

CC = "creativecommons.org"
NAMES = {
    f"{CC}/publicdomain/zero/1.0": "CC0-1.0",
    f"{CC}/licenses/by/3.0": "CC-BY-3.0",
    f"{CC}/licenses/by/4.0": "CC-BY-4.0",
    f"{CC}/licenses/by-nc/3.0": "CC-BY-NC-3.0",
    f"{CC}/licenses/by-nc/4.0": "CC-BY-NC-4.0",
    f"{CC}/licenses/by-sa/4.0": "CC-BY-SA-4.0",
    f"{CC}/licenses/by-nc-sa/4.0": "CC-BY-NC-SA-4.0",
    f"{CC}/licenses/by-nd/2.5": "CC-BY-ND-2.5",
    f"{CC}/licenses/sampling+/1.0": "CC-Sampling+-1.0",
    f"{CC}/publicdomain/mark/1.0": "PDM-1.0",
}


@pytest.mark.parametrize(("address", "name"), NAMES.items())
@pytest.mark.parametrize(
    "form",
    [
        "http://{}/",
        "https://{}",
        "HTTPS://www.{}/deed.en",
        " http://{}/legalcode ",
        "//{}/",
        "{}/",
        "https://{}/legalcode.zh-hans",
        "https://{}/deed.pt_BR",
        "https://{}/?ref=chooser-v1",
        "http://{}/us/",
        "http://{}/de/deed.de",
    ],
)
def test_address_becomes_a_short_name(address: str, name: str, form: str) -> None:
    assert short_name(form.format(address)) == name


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("CC0", "CC0"),
        ("cc0 1.0", "CC0-1.0"),
        ("CC-BY-4.0", "CC-BY-4.0"),
        ("cc by 4.0", "CC-BY-4.0"),
        ("CC BY-NC", "CC-BY-NC"),
        ("CC-Sampling+", "CC-Sampling+"),
        ("cc sampling+ 1.0", "CC-Sampling+-1.0"),
        # Freesound: its pages, its API, and data made from these.
        ("Attribution", "CC-BY"),
        ("Attribution 3.0", "CC-BY-3.0"),
        ("Attribution NonCommercial", "CC-BY-NC"),
        ("Attribution Noncommercial", "CC-BY-NC"),
        ("Attribution NonCommercial 4.0", "CC-BY-NC-4.0"),
        ("Creative Commons 0", "CC0"),
        ("Sampling+", "CC-Sampling+"),
        ("Sampling Plus 1.0", "CC-Sampling+-1.0"),
        ("CC_BY_NC", "CC-BY-NC"),
        ("AttributionNonCommercial", "CC-BY-NC"),
        # Creative Commons itself, old and new.
        ("Creative Commons Zero v1.0 Universal", "CC0-1.0"),
        ("CC0 1.0 Universal (CC0 1.0) Public Domain Dedication", "CC0-1.0"),
        ("Attribution-NonCommercial-ShareAlike 3.0 Unported", "CC-BY-NC-SA-3.0"),
        ("Attribution-NonCommercial-NoDerivs 2.5 Generic", "CC-BY-NC-ND-2.5"),
        ("CC Attribution Non-Commercial, No Derivative Works 3.0", "CC-BY-NC-ND-3.0"),
        ("Creative Commons Attribution-NoDerivatives 4.0 International (CC BY-ND 4.0)", "CC-BY-ND-4.0"),
        ("Creative Commons Attribution 3.0 United States", "CC-BY-3.0"),
        ("CC BY-NC-SA 4.0 International", "CC-BY-NC-SA-4.0"),
        ("CC BY-NC-SA 4.0 Deed", "CC-BY-NC-SA-4.0"),
        ("This work is licensed under a Creative Commons Attribution-NonCommercial 4.0 License.", "CC-BY-NC-4.0"),
        ("NonCommercial Sampling Plus 1.0", "CC-NC-Sampling+-1.0"),
        # Hugging Face, Zenodo, SPDX.
        ("cc-by-4.0", "CC-BY-4.0"),
        ("cc-by-nc-sa-4.0", "CC-BY-NC-SA-4.0"),
        ("cc0-1.0", "CC0-1.0"),
        ("cc-zero", "CC0"),
        ("CC-BY-NC-4.0", "CC-BY-NC-4.0"),
        ("CC-BY-NC-SA-2.0-UK", "CC-BY-NC-SA-2.0"),
        # Names that people write.
        ("Public Domain", "Public-Domain"),
        ("Public Domain Mark 1.0", "PDM-1.0"),
        ("CCBYNCND", "CC-BY-NC-ND"),
        ("CC BY 4", "CC-BY-4.0"),
        ("CC-BY v3.0", "CC-BY-3.0"),
        ("CC BY\u2011NC\u20114.0", "CC-BY-NC-4.0"),
        ("by-nc/3.0", "CC-BY-NC-3.0"),
        ("CC BY-SA-NC", "CC-BY-NC-SA"),
        # Several names of one licence. The restrictions of all of them apply.
        (f"CC BY-NC 4.0 (https://{CC}/licenses/by-nc/4.0/)", "CC-BY-NC-4.0"),
        (f"CC BY 4.0 (https://{CC}/licenses/by-nc/4.0/)", "CC-BY-NC-4.0"),
        # Words for nothing.
        ("NA", "unknown"),
        ("not found", "unknown"),
        ("-", "unknown"),
        # Other licences, and texts that are not understood: the text stays as it is.
        ("CC", "CC"),
        ("by", "by"),
        ("MIT", "MIT"),
        ("not CC0", "not CC0"),
        ("CC0?", "CC0?"),
        ("CC BY 4.0 but ask me", "CC BY 4.0 but ask me"),
        ("CC0 or CC BY", "CC0 or CC BY"),
        ("All rights reserved", "All rights reserved"),
        ("free", "free"),
        (f"https://not{CC}/licenses/by/4.0/", f"https://not{CC}/licenses/by/4.0/"),
        ("", "unknown"),
        (" ", "unknown"),
        ("My own  licence 2", "My own licence 2"),
        ("CC Music Ltd.", "CC Music Ltd."),
        ("https://example.org/licenses/by/4.0/", "https://example.org/licenses/by/4.0/"),
    ],
)
def test_name_becomes_the_short_name_and_other_text_stays(text: str, name: str) -> None:
    assert short_name(text) == name


@pytest.mark.parametrize(
    ("entry", "texts"),
    [
        ("CC0", [f"http://{CC}/publicdomain/zero/1.0/", "CC0", "CC0-1.0", "cc0"]),
        ("CC0-1.0", [f"https://{CC}/publicdomain/zero/1.0", "CC0 1.0"]),
        ("CC-BY", [f"http://{CC}/licenses/by/3.0/", f"https://{CC}/licenses/by/4.0/", "CC-BY"]),
        ("cc-by-3.0", [f"http://{CC}/licenses/by/3.0/", "CC BY 3.0"]),
        ("CC-BY-NC", [f"https://{CC}/licenses/by-nc/3.0/", f"http://{CC}/licenses/by-nc/4.0"]),
        ("CC-Sampling+", [f"http://{CC}/licenses/sampling+/1.0/"]),
        (f"https://{CC}/licenses/by/4.0/", [f"http://{CC}/licenses/by/4.0", "CC-BY-4.0"]),
        ("My own licence", ["my own  licence"]),
    ],
)
def test_entry_allows_these(entry: str, texts: list[str]) -> None:
    assert all(allowed(text, ["PDM", entry]) for text in texts)


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        ("CC-BY", f"http://{CC}/licenses/by-nc/3.0/"),
        ("CC-BY", f"http://{CC}/licenses/by-sa/3.0/"),
        ("CC-BY-3.0", f"http://{CC}/licenses/by/4.0/"),
        ("CC-BY-3.0", "CC-BY"),
        ("CC-BY-NC", f"http://{CC}/licenses/by/3.0/"),
        ("CC-BY-NC", f"http://{CC}/licenses/by-nc-sa/3.0/"),
        ("CC0", f"http://{CC}/licenses/sampling+/1.0/"),
        ("CC0", f"http://{CC}/publicdomain/mark/1.0/"),
        ("CC-Sampling", f"http://{CC}/licenses/sampling+/1.0/"),
        ("CC0", ""),
        ("unknown", "My own licence"),
        ("My own", "My own licence"),
        ("", ""),
    ],
)
def test_entry_does_not_allow_that(entry: str, text: str) -> None:
    assert not allowed(text, [entry])


WRITTEN = {
    "by": ["by", "Attribution"],
    "nc": ["nc", "NonCommercial", "Non-Commercial", "noncommercial"],
    "nd": ["nd", "NoDerivs", "No Derivatives", "NoDerivatives"],
    "sa": ["sa", "ShareAlike", "Share Alike", "share-alike"],
}
OPENINGS = ["", "cc", "CC ", "creative commons ", "Creative Commons: ", f"https://{CC}/licenses/"]
CLOSINGS = ["", " 4.0", "-3.0", "/2.0/", " v4.0", " 4.0 International", " License", "-3.0-DE"]


@given(
    st.sampled_from(["by", "by-nc", "by-sa", "by-nd", "by-nc-sa", "by-nc-nd"]),
    st.sampled_from(OPENINGS),
    st.sampled_from(["-", " ", "_", "", "/"]),
    st.sampled_from(CLOSINGS),
    st.data(),
)
def test_no_spelling_loses_a_restriction(
    kind: str, opening: str, between: str, closing: str, data: st.DataObject
) -> None:
    parts = [data.draw(st.sampled_from(WRITTEN[part])) for part in kind.split("-")]
    text = opening + between.join(data.draw(st.permutations(parts))) + closing
    text = data.draw(st.sampled_from([text, text.upper(), text.lower(), f" {text}\n"]))
    if is_known(text):
        assert parse(text)[0] == f"CC-{kind.upper()}"
        assert is_non_commercial(text) == ("nc" in kind) and forbids_derivatives(text) == ("nd" in kind)
        assert parse(short_name(text)) == parse(text) and label(text) == short_name(text)
    else:  # a sentence may end in `by`
        assert (kind, opening) == ("by", "") or (opening in ("", "cc") and between == "" and kind != "by"), text


WORDS = ["cc", "by", "nc", "nd", "sa", "0", "4.0", "3.0", "zero", "attribution", "noncommercial", "noderivs", "share",
         "alike", "sampling", "+", "public", "domain", "mark", "license", "us", "free", "not", "https://", f"{CC}/"]  # fmt: skip


@given(st.lists(st.sampled_from(WORDS), min_size=1, max_size=6), st.sampled_from([" ", "-", "_", "/"]))
def test_whatever_is_known_keeps_its_restrictions_and_its_name_is_stable(words: list[str], between: str) -> None:
    text = between.join(words)
    assert short_name(short_name(text)) == short_name(text)
    if is_known(text):
        assert not {"free", "not"} & set(words)
        assert parse(short_name(text)) == parse(text)
        assert is_non_commercial(text) == bool({"nc", "noncommercial"} & set(words))
        assert forbids_derivatives(text) == bool({"nd", "noderivs"} & set(words))
        assert ("SA" in parse(text)[0].split("-")) == ("sa" in words or ("share", "alike") in itertools.pairwise(words))
    else:
        assert not is_non_commercial(text) and not forbids_derivatives(text)
        free = ["CC0", "CC-BY", "CC-BY-NC", "Public-Domain", "PDM", "CC-Sampling+"]
        assert not allowed(text, [name for name in free if name != text])


@given(st.text(max_size=40))
def test_any_text_allows_itself_and_its_short_name_is_stable(text: str) -> None:
    name = short_name(text)
    assert short_name(name) == name and len(name.splitlines()) == 1
    assert allowed(text, [text]) == (name != "unknown")
    assert allowed(text, ["CC0"]) == (parse(text)[0].lower() == "cc0")


KINDS = st.sampled_from(["by", "by-nc", "by-sa", "by-nd", "by-nc-sa", "sampling", "sampling+", "nc-sampling+"])


@given(KINDS, st.sampled_from(["1.0", "2.5", "3.0", "4.0"]), KINDS)
def test_address_and_short_name_are_one_licence_and_no_other(kind: str, version: str, other: str) -> None:
    address = f"http://{CC}/licenses/{kind}/{version}/"
    assert parse(address) == parse(short_name(address))
    whole = parse(address)[0]
    assert allowed(address, [whole]) and allowed(address, [f"{whole}-{version}"])
    assert allowed(f"http://{CC}/licenses/{other}/{version}/", [whole]) == (kind == other)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (f"http://{CC}/licenses/by-nc/3.0/", "CC-BY-NC-3.0"),
        ("Attribution", "CC-BY"),
        ("Ask  me", "unknown licence: Ask me"),
        ("", "missing"),
        ("N/A", "missing"),
        ("Unknown", "missing"),
    ],
)
def test_what_a_person_is_told(text: str, told: str) -> None:
    assert label(text) == told


def test_unknown_licence_is_allowed_word_for_word_alone() -> None:
    assert allowed("Free for all", ["CC0", "free  for all"])
    assert not allowed("Free for all", ["free"]) and not allowed("Free", ["CC0", "CC-BY", "Public Domain"])
