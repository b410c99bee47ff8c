from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sao.data.templates import Source, columns_of, draw, drawn_tags, fields_of, pieces, spoken, tags_of, texts_of

TAGS = {"separator": None, "shuffle": True, "drop": 0.0, "join": ", "}


def prompts(*templates: str | tuple[str, float], variants: int = 4, **tags: dict) -> dict:
    entries = [(template, 1.0) if isinstance(template, str) else template for template in templates]
    return {
        "templates": [{"text": text, "weight": weight} for text, weight in entries],
        "tags": {name: TAGS | entry for name, entry in tags.items()},
        "columns": [],
        "variants": variants,
    }


def source(*captions: str, **fields: str) -> Source:
    return Source("clip-1", "animals/dog_bark-01.wav", captions or ("a dog barks", "barking"), fields)


@pytest.mark.parametrize(
    ("template", "fields"),
    [
        ("{caption}", ["caption"]),
        ("sks, {caption}, {key words}", ["caption", "key words"]),
        ("{{not one}}", []),
        ("{a.b} {c[0]}", ["a.b", "c[0]"]),
        ("", []),
    ],
)
def test_fields_of_a_template(template: str, fields: list[str]) -> None:
    assert fields_of(template) == fields


@pytest.mark.parametrize("template", ["{", "}", "{}", "{ }", "{a", "{a!r}", "{a:>9}", "{a{b}}"])
def test_a_text_that_is_no_template_is_refused(template: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        pieces(template)


def test_texts_come_in_the_order_of_templates_and_captions_and_share_the_weight() -> None:
    made = texts_of(source(mood="calm"), prompts(("{caption}, {mood}", 3), "{folder}: {file}"))
    assert made == [("a dog barks, calm", 0.375), ("barking, calm", 0.375), ("animals: dog bark 01", 0.25)]


def test_a_trigger_word_has_its_probability() -> None:
    made = dict(texts_of(source("rain"), prompts(("zxq, {caption}", 0.9), ("{caption}", 0.1))))
    assert made == {"zxq, rain": pytest.approx(0.9), "rain": pytest.approx(0.1)}


def test_a_template_with_a_blank_field_is_passed_over() -> None:
    assert texts_of(source(mood=""), prompts("{caption}, {mood}", "{caption}"))[0] == ("a dog barks", 0.5)
    assert texts_of(source(mood=""), prompts("{caption}, {mood}")) == []
    assert texts_of(Source("c", "top.wav", ["x"], {}), prompts("{folder}")) == []


def test_equal_texts_are_one_with_both_weights() -> None:
    assert texts_of(source("rain", "rain"), prompts("{caption}", ("rain", 3))) == [("rain", 1.0)]


def test_braces_in_a_cell_and_doubled_braces_stay() -> None:
    assert texts_of(source(mood="{file}"), prompts("{{x}} {mood}")) == [("{x} {file}", 1.0)]


@pytest.mark.parametrize(
    ("cell", "separator", "tags"),
    [
        ("rain;wind; rain", None, ["rain", "wind"]),
        ("rain, wind", None, ["rain", "wind"]),
        ("rain, heavy;wind", None, ["rain, heavy", "wind"]),
        ("rain|wind", "|", ["rain", "wind"]),
        ("['rain', 'wind, far']", None, ["rain", "wind, far"]),
        ('["rain", "unknown"]', None, ["rain"]),
        ("NA", None, []),
        ("", None, []),
    ],
)
def test_tags_of_a_cell(cell: str, separator: str | None, tags: list[str]) -> None:
    assert tags_of(cell, separator) == tags


def test_tags_are_shuffled_into_so_many_variants() -> None:
    made = texts_of(source(tags="a;b;c;d"), prompts("{tags}", variants=8, tags={}))
    assert 4 <= len(made) <= 8
    assert all(sorted(text.split(", ")) == list("abcd") for text, _ in made)
    assert made == texts_of(source(tags="a;b;c;d"), prompts("{tags}", variants=8, tags={}))
    still = prompts("{tags}", tags={"shuffle": False, "join": " and "})
    assert texts_of(source(tags="a;b"), still) == [("a and b", 1.0)]


@given(st.lists(st.text("abcdefgh", min_size=1), min_size=1, unique=True), st.floats(0, 0.99), st.integers())
def test_dropping_tags_leaves_one_and_invents_none(tags: list[str], drop: float, key: int) -> None:
    kept = drawn_tags(tags, TAGS | {"drop": drop}, key)
    assert kept and len(set(kept)) == len(kept) and set(kept) <= set(tags)
    assert drop or sorted(kept) == sorted(tags)


def test_tags_are_dropped_as_often_as_asked() -> None:
    tags = [f"t{number}" for number in range(50)]
    kept = sum(len(drawn_tags(tags, TAGS | {"drop": 0.3}, key)) for key in range(200))
    assert abs(kept / 10_000 - 0.7) < 0.02


def test_columns_are_those_that_templates_name() -> None:
    assert columns_of(prompts("{caption} {mood}", "{folder} {mood} {key}")) == ["mood", "key"]


@pytest.mark.parametrize(("name", "words"), [("dog_bark-01", "dog bark 01"), ("Rain", "Rain"), ("__", "")])
def test_names_are_spoken(name: str, words: str) -> None:
    assert spoken(name) == words


def test_each_epoch_draws_by_weight_and_always_the_same() -> None:
    drawn = [draw(3, [0.5, 0.3, 0.2], 7, epoch, "clip") for epoch in range(4000)]
    assert drawn == [draw(3, [0.5, 0.3, 0.2], 7, epoch, "clip") for epoch in range(4000)]
    counts = Counter(drawn)
    assert all(abs(counts[at] / 4000 - weight) < 0.03 for at, weight in enumerate([0.5, 0.3, 0.2]))


def test_even_weights_are_drawn_as_before_there_were_any() -> None:
    from sao.base.names import seed_for

    assert [draw(5, None, 1, e, "c") for e in range(9)] == [seed_for(1, "caption", e, "c") % 5 for e in range(9)]
