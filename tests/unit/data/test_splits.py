from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sao.base.command import InputError
from sao.base.names import seed_for
from sao.config.resolve import ROLES
from sao.data.splits import assert_disjoint, assign, groups, names_recording

FRACTION = {"method": "fraction", "train": ["all"], "validation": [], "evaluation": []}
Clip = tuple[str, str, str]  # audio, sound_id, group


def fraction(validation: float = 0.1, evaluation: float = 0.1, seed: int = 42) -> dict[str, Any]:
    return FRACTION | {"seed": seed, "fractions": {"validation": validation, "evaluation": evaluation}}


def table(clips: list[Clip], split: str = "all") -> pd.DataFrame:
    rows = [
        {"clip_id": f"{n:05}", "published_split": split, "audio_sha256": a, "sound_id": s, "given_group": g}
        for n, (a, s, g) in enumerate(clips)
    ]
    return pd.DataFrame(rows, columns=["clip_id", "published_split", "audio_sha256", "sound_id", "given_group"])


def distinct(number: int) -> pd.DataFrame:
    return table([(f"{n:064x}", "", "") for n in range(number)])


CLIPS = st.lists(
    st.tuples(
        st.integers(0, 60).map(lambda n: f"{n:064x}"),
        st.sampled_from(["", "Not found", "NA", *map(str, range(1, 15))]),
        st.sampled_from(["", "", " ", "ann", "bob", "cy", "1", "2"]),
    ),
    max_size=40,
)
SPLITS = st.builds(fraction, st.floats(0, 0.5), st.floats(0, 0.4), st.integers(0, 5))


def components(clips: list[Clip]) -> list[set[int]]:
    """The sets of clips that must stay together, by a slow but certain method: clips that share anything are joined."""
    parts: list[set[int]] = []
    for here, (audio, sound, group) in enumerate(clips):
        part = {here}
        for other in list(parts):
            for there in other:
                a, s, g = clips[there]
                if a == audio or (names_recording(s) and s == sound) or (g.strip() and g == group):
                    part |= other
                    parts.remove(other)
                    break
        parts.append(part)
    return parts


@given(CLIPS, SPLITS)
def test_nothing_that_must_stay_together_straddles(clips: list[Clip], split: dict[str, Any]) -> None:
    roles = assign(table(clips), split).tolist()
    assert set(roles) <= set(ROLES)
    for part in components(clips):
        assert len({roles[n] for n in part}) == 1


@given(CLIPS)
def test_groups_are_no_larger_than_they_must_be(clips: list[Clip]) -> None:
    names = groups(table(clips)).tolist()
    assert len(set(names)) == len(components(clips))


def by_hash(clips: pd.DataFrame, split: dict[str, Any]) -> pd.Series:
    """The side that the hash of a group falls into, whether or not another side is empty."""
    shares = split["fractions"]
    points = groups(clips).map(lambda name: seed_for(split["seed"], "split", name) / 2**32)
    sides = ["evaluation", "validation", "train"]
    ends = [shares["evaluation"], shares["evaluation"] + shares["validation"], 1]
    return points.map(lambda point: next(side for side, end in zip(sides, ends, strict=True) if point < end))


@pytest.mark.parametrize("number", [3, 4, 12, 20, 30])
@pytest.mark.parametrize(("validation", "evaluation"), [(0.1, 0.1), (0.01, 0.01), (0.49, 0.49)])
def test_no_side_is_empty_while_there_are_enough_clips(number: int, validation: float, evaluation: float) -> None:
    for seed in range(20):
        clips, split = distinct(number), fraction(validation, evaluation, seed)
        roles, hashed = assign(clips, split), by_hash(clips, split)
        assert set(roles) == set(ROLES)
        if set(hashed) == set(ROLES):
            assert (roles == hashed).all()
        assert (roles != hashed).sum() <= 2


@pytest.mark.parametrize("number", [3, 5, 12])
def test_clip_that_is_added_moves_none_but_a_stand_in(number: int) -> None:
    for seed in range(40):
        split, more = fraction(seed=seed), distinct(number + 1)
        before, after = assign(more[:-1], split), assign(more, split)
        moved = before.index[before != after[:-1]]
        assert len(moved) <= 2
        hashed = by_hash(more, split)
        assert all(before[n] != hashed[n] or after[n] != hashed[n] for n in moved)
        if set(hashed[:-1]) == set(ROLES):
            assert not len(moved)


def test_groups_are_what_is_counted_and_too_few_stay_where_their_hash_falls() -> None:
    clips = table([("a", "", "x"), ("b", "", "x"), ("c", "", "y"), ("d", "", "y")])
    assert (assign(clips, fraction()) == by_hash(clips, fraction())).all()
    three = table([("a", "", "x"), ("b", "", "x"), ("c", "", "y"), ("d", "", "z")])
    roles = assign(three, fraction())
    assert set(roles) == set(ROLES) and roles[0] == roles[1]


@given(CLIPS, SPLITS, st.data())
def test_clips_that_come_or_go_move_no_other(clips: list[Clip], split: dict[str, Any], data: st.DataObject) -> None:
    """Only clips that are tied to them can move, because copies without a recording or group are named after the first.

    The group that stands in for a side into which no hash falls can move too.
    """
    gone = data.draw(st.sets(st.sampled_from(range(len(clips)))) if clips else st.just(set()))
    whole = table(clips)
    some = whole.drop(index=list(gone)).sample(frac=1, random_state=1)
    before, after = assign(whole, split), assign(some, split)
    for part in components(clips):
        named = any(names_recording(clips[n][1]) or clips[n][2].strip() for n in part)
        if not part & gone or (named and len({clips[n] for n in part}) == 1):
            hashed = [by_hash(clips, split).loc[list(part - gone)] for clips in (whole, some)]
            stands_in = any(
                (roles[side.index] != side).any() for roles, side in zip((before, after), hashed, strict=True)
            )
            assert stands_in or all(before[n] == after[n] for n in part - gone)


@given(CLIPS.filter(bool), SPLITS, st.integers(0, 2), st.sampled_from(["audio", "both", "recording"]))
def test_newcomer_follows_the_recording_or_the_audio(
    clips: list[Clip], split: dict[str, Any], which: int, known: str
) -> None:
    """A copy with less metadata goes to the side of its clip, and does not move the clip."""
    audio, sound, _ = clips[min(which, len(clips) - 1)]
    copy = ("f" * 64 if known == "recording" else audio, "" if known == "audio" else sound, "")
    before, after = assign(table(clips), split), assign(table([*clips, copy]), split)
    hashed = by_hash(table(clips), split)
    assert ((before == after[:-1]) | (before != hashed) | (after[:-1] != hashed)).all()


@given(st.integers(0, 1000), st.floats(0.05, 0.4), st.floats(0.05, 0.4))
def test_order_of_rows_does_not_matter(seed: int, validation: float, evaluation: float) -> None:
    clips, split = distinct(30), fraction(validation, evaluation, seed)
    assert assign(clips.iloc[::-1], split).sort_index().tolist() == assign(clips, split).tolist()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("validation", "evaluation"), [(0.1, 0.1), (0.1, 0.0), (0.3, 0.05), (0.5, 0.5)])
def test_shares_are_met(seed: int, validation: float, evaluation: float) -> None:
    roles = assign(distinct(2000), fraction(validation, evaluation, seed))
    assert (roles == "validation").mean() == pytest.approx(validation, abs=0.025)
    assert (roles == "evaluation").mean() == pytest.approx(evaluation, abs=0.025)
    assert (roles == "train").mean() == pytest.approx(1 - validation - evaluation, abs=0.025)


def test_seed_changes_the_draw_and_nothing_else_does() -> None:
    clips = distinct(500)
    first = assign(clips, fraction(seed=1))
    assert (first != assign(clips, fraction(seed=2))).mean() > 0.2
    another = clips.assign(audio_sha256="f" + clips.audio_sha256, path="elsewhere", caption_1="Other words.")
    assert (first == assign(another, fraction(seed=1))).all()


def test_side_of_a_lone_clip_follows_from_its_id_and_of_a_known_one_from_what_is_known() -> None:
    """A file that is encoded again keeps its side. A renamed file stays with its recording or group."""
    clips = distinct(300)
    assert set(groups(clips)) == {f"sound {clip}" for clip in clips.clip_id}
    recorded, grouped = (clips.assign(**{c: clips.clip_id}) for c in ("sound_id", "given_group"))
    for named in (recorded, grouped):
        renamed = named.assign(clip_id="x" + clips.clip_id, audio_sha256="f" + clips.audio_sha256)
        assert (assign(named, fraction()) == assign(renamed, fraction())).all()


def test_identical_audio_goes_by_the_first_of_its_names_and_no_audio_ties_nothing() -> None:
    clips = table([("a", "", ""), ("a", "", ""), ("b", "", ""), ("b", "7", ""), ("c", "8", ""), ("c", "9", "ann")])
    names = ["sound 00000", "sound 00000", "recording 7", "recording 7", "group ann", "group ann"]
    assert groups(clips).tolist() == names
    assert groups(table([("", "", ""), ("", "", "")])).tolist() == ["sound 00000", "sound 00001"]


def test_larger_share_keeps_what_was_drawn() -> None:
    clips = distinct(500)
    small, large = (assign(clips, fraction(0.0, share)) for share in (0.1, 0.2))
    assert set(clips.clip_id[small == "evaluation"]) < set(clips.clip_id[large == "evaluation"])


def test_draw_never_changes() -> None:
    """Every later version has to draw the same, because a finished training must find its validation clips again."""
    roles = assign(distinct(40), fraction())
    assert {role: roles.index[roles == role].tolist() for role in ("validation", "evaluation")} == DRAWN


DRAWN = {"validation": [12, 16, 28, 30], "evaluation": [2, 6, 7, 10, 22, 23, 25]}


def test_given_sides_are_kept_and_only_the_missing_ones_drawn() -> None:
    clips = pd.concat([distinct(300), distinct(20).assign(published_split="test")], ignore_index=True)
    clips["clip_id"] = [f"{n:05}" for n in range(len(clips))]
    clips.audio_sha256 = [f"{n:064x}" for n in range(len(clips))]
    roles = assign(clips, fraction(0.1, 0.5) | {"evaluation": ["test"]})
    assert (roles[clips.published_split == "test"] == "evaluation").all()
    drawn = roles[clips.published_split == "all"]
    assert set(drawn) == {"train", "validation"} and (drawn == "validation").mean() == pytest.approx(0.1, abs=0.06)


@pytest.mark.parametrize(("method", "column"), [("official", "published_split"), ("column", "given_split")])
def test_sides_are_those_that_are_named(method: str, column: str) -> None:
    names = ["a", "b", "c", "d", "e", "", "A"]
    clips = distinct(7).assign(**{column: names})
    split = {"method": method, "train": ["a", "b"], "validation": ["c"], "evaluation": ["d"]}
    assert assign(clips, split).tolist() == ["train", "train", "validation", "evaluation", "", "", ""]


@pytest.mark.parametrize("text", ["", " ", "-", "NA", "n/a", "Not found", "unknown", "NaN", "None", "0"])
def test_words_for_no_recording(text: str) -> None:
    assert not names_recording(text)


def test_word_for_no_group_is_none() -> None:
    clips = table([("a", "", "NA"), ("b", "", "NA"), ("c", "", "0"), ("d", "", "0")])
    assert groups(clips).tolist() == ["sound 00000", "sound 00001", "group 0", "group 0"]


def test_numbers_that_pandas_wrote_as_floats_are_the_same() -> None:
    clips = table([("a", "1.0", ""), ("b", "1", ""), ("c", " 1 ", "2.0"), ("d", "3", "2"), ("e", "1.5", "v1.0")])
    names = groups(clips)
    assert names.nunique() == 2 and names[0] == names[1] == names[2] == names[3]
    assert not names_recording("0.0")


@pytest.mark.parametrize("text", ["1", "00", "207809", "not a word for nothing"])
def test_recordings(text: str) -> None:
    assert names_recording(text)


def cut_table(clips: list[tuple[str, str, str, str]]) -> pd.DataFrame:
    """Clips of `(published split, recording, hash of the recording, group)`, each with audio of its own."""
    rows = table([(f"{n:064x}", "", group) for n, (*_, group) in enumerate(clips)])
    split, file, key, _ = zip(*clips, strict=True)
    return rows.assign(published_split=split, source_file=file, source_sha256=key)


CUT = st.lists(
    st.tuples(
        st.sampled_from(["a", "b"]),
        st.sampled_from(["x.wav", "y.wav", "z.wav"]),
        st.sampled_from(["k", "l", "m", "n", "o"]),
        st.sampled_from(["", "ann", "bob"]),
    ),
    min_size=1,
    max_size=40,
)


@given(CUT, SPLITS)
def test_all_clips_of_a_recording_are_on_one_side(
    clips: list[tuple[str, str, str, str]], split: dict[str, Any]
) -> None:
    """Even if their groups differ, or the recording is there under two names."""
    rows = cut_table(clips)
    sides = assign(rows, split | {"train": ["a", "b"]})
    assert (sides.groupby(rows.source_sha256).nunique() == 1).all()
    assert_disjoint({role: rows[sides == role] for role in ROLES})


def test_another_cut_moves_no_recording() -> None:
    few, many = (cut_table([("all", f"{n}.wav", f"{n:064x}", "") for n in range(60) for _ in range(k)]) for k in (1, 3))
    many["clip_id"] = "other " + many.clip_id
    sides = [assign(rows, fraction()).groupby(rows.source_file).first().to_dict() for rows in (few, many)]
    assert sides[0] == sides[1] and set(sides[0].values()) == set(ROLES)


def test_clips_of_one_recording_on_two_sides_are_refused() -> None:
    rows = cut_table([("a", "x.wav", "k", ""), ("b", "x.wav", "k", "")])
    with pytest.raises(InputError, match="source k is both in train and in validation: it would leak"):
        assert_disjoint({"train": rows[:1], "validation": rows[1:]})
