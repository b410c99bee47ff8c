from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sao.licenses import allowed, parse, short_name

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
@pytest.mark.parametrize("form", ["http://{}/", "https://{}", "HTTPS://www.{}/deed.en", " http://{}/legalcode "])
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


@given(st.text(max_size=40))
def test_any_text_allows_itself_and_its_short_name_is_stable(text: str) -> None:
    name = short_name(text)
    assert short_name(name) == name and len(name.splitlines()) == 1
    assert allowed(text, [text]) == bool(text.strip())
    assert allowed(text, ["CC0"]) == (parse(text)[0].lower() == "cc0")


KINDS = st.sampled_from(["by", "by-nc", "by-sa", "by-nd", "by-nc-sa", "sampling", "sampling+", "nc-sampling+"])


@given(KINDS, st.sampled_from(["1.0", "2.5", "3.0", "4.0"]), KINDS)
def test_address_and_short_name_are_one_licence_and_no_other(kind: str, version: str, other: str) -> None:
    address = f"http://{CC}/licenses/{kind}/{version}/"
    assert parse(address) == parse(short_name(address))
    whole = parse(address)[0]
    assert allowed(address, [whole]) and allowed(address, [f"{whole}-{version}"])
    assert allowed(f"http://{CC}/licenses/{other}/{version}/", [whole]) == (kind == other)
