"""The sounds to listen to are few, from every split, and the same whatever else is rendered."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import assert_fails, assert_succeeds, run_script
from hypothesis import given
from hypothesis import strategies as st
from sao.rendering.clips import Clip, read_clips, render_seed, write_clips
from sao.rendering.listening import EMPTY, chosen_clip, in_turn, listened

SETTINGS = {"clips": 4, "cfg_scales": None, "empty_prompt": True}
SPLITS = ("train", "validation", "evaluation", "prompts")


def clip(name: str, split: str) -> Clip:
    reference = "" if split == "prompts" else f"{name}.wav"
    return Clip(name, split, f"Sound {name}.", 1.5, render_seed(0, name), 7.0, "Hiss.", reference)


def clips(*counts: int) -> list[Clip]:
    """So many clips of each split."""
    pairs = zip(SPLITS, counts, strict=True)
    return [clip(f"{split}{number}", split) for split, count in pairs for number in range(count)]


COUNTS = st.lists(st.integers(0, 6), min_size=4, max_size=4)


@given(COUNTS, st.integers(1, 12))
def test_splits_take_turns(counts: list[int], wanted: int) -> None:
    found = in_turn(clips(*counts), wanted)
    assert len(found) == len({one.clip_id for one in found}) == min(wanted, sum(counts))
    taken = [sum(one.split == split for one in found) for split in SPLITS]
    for taken_here, there in zip(taken, counts, strict=True):
        assert taken_here == there or taken_here >= max(taken) - 1
    if counts[3]:
        assert found[0].clip_id == "prompts0"


@given(COUNTS, st.integers(1, 6), st.randoms())
def test_neither_order_nor_more_clips_change_the_choice(counts: list[int], wanted: int, random) -> None:
    corpus = clips(*counts[:3], 0)
    found = in_turn(corpus, wanted)
    random.shuffle(corpus)
    assert in_turn(corpus, wanted) == found and in_turn(corpus, wanted + 3)[:wanted] == found


def test_each_prompt_has_each_scale_and_its_own_seed() -> None:
    sounds = listened(clips(2, 0, 2, 0), SETTINGS | {"clips": 2, "cfg_scales": [1, 4.5, 10]})
    assert len(sounds) == 9 and len({sound.clip_id for sound in sounds}) == 9
    assert [sound.cfg_scale for sound in sounds[:3]] == [1.0, 4.5, 10.0]
    assert [sound.clip_id.partition("@")[2] for sound in sounds[:3]] == ["cfg-1", "cfg-4.5", "cfg-10"]
    first = next(one for one in clips(2, 0, 2, 0) if one.clip_id == chosen_clip(sounds[0].clip_id))
    assert all(replace(sound, clip_id=first.clip_id, cfg_scale=7.0) == first for sound in sounds[:3])
    assert {chosen_clip(sound.clip_id) for sound in sounds[6:]} == {EMPTY}


def test_empty_prompt_differs_from_the_first_in_its_caption_alone() -> None:
    first, *_, control = listened(clips(1, 1, 1, 1), SETTINGS)
    assert control == replace(first, clip_id=EMPTY, prompt="", reference="")
    assert len(listened(clips(1, 1, 1, 1), SETTINGS | {"empty_prompt": False})) == 4


def test_script_writes_the_table_that_renders_read(tmp_path: Path) -> None:
    write_clips(tmp_path / "all.csv", clips(5, 0, 5, 1))
    given = ["--clips", tmp_path / "all.csv", "--output", tmp_path / "few.csv"]
    assert_succeeds(run_script("listen_prompts", *given, "--settings", json.dumps(SETTINGS)))
    assert read_clips(tmp_path / "few.csv") == listened(clips(5, 0, 5, 1), SETTINGS)


@pytest.mark.parametrize("exists", [False, True])
def test_missing_table_or_one_of_another_kind_is_refused(tmp_path: Path, exists: bool) -> None:
    table = tmp_path / "all.csv"
    if exists:
        table.write_text("clip_id,split,prompt\na,train,A.\n")
    result = run_script(
        "listen_prompts", "--clips", table, "--settings", json.dumps(SETTINGS), "--output", tmp_path / "few.csv"
    )
    assert_fails(result, table)
    assert not (tmp_path / "few.csv").exists()
