"""Takes of a prompt: each is a function of the prompt's seed and of its own number."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from sao.base.takes import clip_and_take, is_first_take, take_id, take_seed
from sao.rendering.clips import Clip, with_takes
from sao.rendering.listening import listened

SEEDS = st.integers(0, 2**63 - 1)
COUNTS = st.integers(1, 100)


def clip(name: str, seed: int) -> Clip:
    return Clip(name, "evaluation", "Rain.", 1.0, seed, 1.0, None, f"{name}.wav")


@given(st.lists(SEEDS, min_size=1, max_size=5), COUNTS, COUNTS)
def test_more_takes_change_none_that_was_there(seeds: list[int], few: int, many: int) -> None:
    clips = [clip(f"c{number}-0a1b2c", seed) for number, seed in enumerate(seeds)]
    few, many = sorted((few, many))
    assert with_takes(clips, many)[: few * len(clips)] == with_takes(clips, few)
    assert with_takes(clips, 1) == clips  # the first take is what one render would be


@given(SEEDS, COUNTS)
def test_take_has_its_own_id_and_seed(seed: int, take: int) -> None:
    sound = take_id("a--b.c-0a1b2c", take)
    assert clip_and_take(sound) == ("a--b.c-0a1b2c", take) and is_first_take(sound) == (take == 1)
    assert take == 1 or take_seed(seed, take) != take_seed(seed, take - 1)


def test_seeds_never_change() -> None:
    assert [take_seed(7, take) for take in (1, 2, 3)] == [7, 2808469823, 1675957383]


def test_while_it_trains_one_take_of_each_prompt_is_heard() -> None:
    sounds = with_takes([clip("a", 3), clip("b", 4)], 3)
    heard = listened(sounds, {"clips": 4, "cfg_scales": None, "empty_prompt": True})
    assert [sound.clip_id for sound in heard] == ["a", "b", "_empty-prompt"]
