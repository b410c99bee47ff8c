"""What votes of a blind test say, and which files are none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sao.base.command import InputError
from sao.base.takes import take_id
from sao.evaluation.votes import FORMAT, Heard, Pair, Vote, count, latest, read_votes, sentence

MODELS = ["base", "one", "two"]
A, B, C = (Heard(model, f"{number}" * 64) for number, model in enumerate(MODELS))
ENTRY: dict[str, Any] = {
    "clip_id": "a",
    "a": {"run": "base", "sha256": A.sha256},
    "b": {"run": "two", "sha256": C.sha256},
    "better": "b",
}
FILE: dict[str, Any] = {"format": FORMAT, "session": "x", "saved": "2026-01-01T00:00:00Z", "votes": [ENTRY]}


def vote(clip: str, better: Heard | None, *, a: Heard = A, b: Heard = C, session: str = "x", saved: str = "1") -> Vote:
    return Vote(session, saved, clip, a, b, better)


def test_a_file_of_the_page_is_read(tmp_path: Path) -> None:
    path = tmp_path / "votes.json"
    more = ENTRY | {"clip_id": "b@take-2", "better": None, "prompt": "Rain."}
    path.write_text("\ufeff" + json.dumps(FILE | {"votes": [ENTRY, more]}), encoding="utf-8")
    first, second = read_votes(path)
    assert first == Vote("x", "2026-01-01T00:00:00Z", "a", A, C, C)
    assert (second.sound, second.better) == ("b@take-2", None)
    path.write_text(json.dumps(FILE | {"votes": []}))
    assert read_votes(path) == []


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "is not JSON"),
        ("[1", "is not JSON"),
        ("\xff", "is not JSON"),
        ("[]", "is not a file of votes"),
        (json.dumps(FILE | {"format": "2"}), "is not a file of votes"),
        (json.dumps(FILE | {"session": 3}), "session is 3, not a text"),
        (json.dumps(FILE | {"saved": ""}), "saved is '', not a text"),
        (json.dumps(FILE | {"votes": {}}), "votes is not a list"),
        (json.dumps(FILE | {"votes": [ENTRY, 1]}), "vote 2: is not an object"),
        (json.dumps(FILE | {"votes": [ENTRY | {"b": None}]}), "vote 1: b is not an object"),
        (json.dumps(FILE | {"votes": [ENTRY | {"b": {"run": "two", "sha256": "1"}}]}), "sha256 of b is '1'"),
        (json.dumps(FILE | {"votes": [ENTRY | {"b": ENTRY["a"]}]}), "compares 'base' with itself"),
        (json.dumps(FILE | {"votes": [ENTRY | {"better": "two"}]}), "better is 'two', not 'a', 'b' or null"),
        (json.dumps(FILE | {"votes": [ENTRY | {"better": ["a"]}]}), "better is ['a']"),
        (json.dumps(FILE | {"votes": [{"clip_id": "a"}]}), "vote 1: a is not an object"),
        ("[" * 100_000, "is not JSON"),
    ],
)
def test_any_other_file_is_one_line(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "votes.json"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(InputError) as error:
        read_votes(path)
    assert str(error.value).startswith(f"{path}: ") and words in str(error.value) and "\n" not in str(error.value)
    assert str(error.value).endswith("save the votes from the page again, or take the file away")


def test_a_test_that_is_saved_again_replaces_itself() -> None:
    early, late, other = vote("a", A, saved="1"), vote("a", C, saved="2"), vote("a", A, session="y")
    swapped = vote("a", None, a=C, b=A, saved="3")
    assert latest([late, other, early]) == [late, other] or latest([late, other, early]) == [other, late]
    assert latest([early, swapped, late]) == [swapped]
    assert len(latest([early, vote("b", A), vote("a", A, b=B)])) == 3


def test_each_prompt_counts_once_however_many_listen_to_it() -> None:
    splits = {"a": "evaluation", "b": "evaluation", "c": "evaluation", "d": "evaluation", "t": "train"}
    votes = [vote("a", C, session=session) for session in "xyz"] + [vote("a", A, session="w")]
    votes += [vote(take_id("b", 2), C), vote("b", A), vote("c", None), vote("d", A, a=C, b=A), vote("t", C)]
    votes += [vote("a", B, b=B)]
    pairs = count(votes, splits, MODELS, 0.95)
    assert [(pair["split"], pair["first"], pair["second"]) for pair in pairs] == [
        ("evaluation", "base", "one"),
        ("evaluation", "base", "two"),
        ("train", "base", "two"),
    ]
    pair = pairs[1]
    assert (pair["first_better"], pair["second_better"], pair["neither"]) == (1, 1, 2)
    assert (pair["share"], pair["votes"], pair["listeners"]) == (0.5, 8, 4)
    assert sentence(pair).startswith(
        "In a blind test of 4 prompts (evaluation), two was better on 1, base on 1, neither on 2:"
    )
    assert "which does not tell the better one" in sentence(pair)


def test_interval_is_wilsons_and_nobody_is_sure_of_few_votes() -> None:
    """The interval of 10 of 10 by Wilson's formula (Wilson 1927): [n / (n + z²), 1]."""
    clips = [f"c{number}" for number in range(10)]
    (pair,) = count([vote(clip, C) for clip in clips], dict.fromkeys(clips, "evaluation"), MODELS, 0.95)
    assert pair["share"] == 1 and pair["high"] == 1
    assert pair["low"] == pytest.approx(10 / (10 + 1.959964**2), abs=1e-6)
    assert sentence(pair).endswith("100 % [72 %, 100 %] for two.")
    (none,) = count([vote("c0", None)], {"c0": "evaluation"}, MODELS, 0.95)
    assert none["share"] is None and sentence(none).endswith("neither on 1.")


CHOICES = st.lists(
    st.tuples(st.sampled_from("abcd"), st.sampled_from([A, C, None]), st.sampled_from("xyz")), min_size=1
)


@given(CHOICES)
def test_sides_are_alike_and_prompts_add_up(cast: list[tuple[str, Heard | None, str]]) -> None:
    def pair_of(*, swap: bool) -> Pair:
        other = {A: C, C: A, None: None}
        votes = [vote(clip, other[better] if swap else better, session=session) for clip, better, session in cast]
        (pair,) = count(votes, dict.fromkeys("abcd", "evaluation"), MODELS, 0.9)
        return pair

    pair, mirrored = pair_of(swap=False), pair_of(swap=True)
    assert pair["first_better"] == mirrored["second_better"] and pair["neither"] == mirrored["neither"]
    assert pair["first_better"] + pair["second_better"] + pair["neither"] == len({clip for clip, _, _ in cast})
    if pair["share"] is not None and pair["low"] is not None and pair["high"] is not None:
        assert 0 <= pair["low"] <= pair["share"] <= pair["high"] <= 1
