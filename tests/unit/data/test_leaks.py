"""The clips that would leak are found, and one side keeps each."""

from __future__ import annotations

import time

import pandas as pd
from hypothesis import given
from hypothesis import strategies as st
from sao.config.resolve import ROLES
from sao.data.leaks import find_leaks

Clip = tuple[str, str, str, str]  # role, audio, sound_id, group


def table(clips: list[Clip]) -> pd.DataFrame:
    """A table whose rows are in no order, and whose index is not 0, 1, 2, …."""
    rows = [
        {"path": f"{n}.wav", "role": role, "audio_sha256": audio or f"own {n}", "sound_id": sound, "given_group": group}
        for n, (role, audio, sound, group) in enumerate(clips)
    ]
    found = pd.DataFrame(rows, columns=["path", "role", "audio_sha256", "sound_id", "given_group"])
    found.index = [7 * n + 3 for n in range(len(found))]
    return found


def leaking(clips: list[Clip]) -> dict[str, str]:
    return {leak.row.path: leak.message for leak in find_leaks(table(clips))}


def test_clip_stays_on_the_side_that_judges() -> None:
    pairs = [("train", "evaluation"), ("validation", "train"), ("evaluation", "validation")]
    clips = [(role, "", str(number), "") for number, pair in enumerate(pairs, 1) for role in pair]
    assert leaking(clips) == {
        "0.wav": "(train) has the same sound_id 1 as 1.wav (evaluation): it would leak",
        "3.wav": "(train) has the same sound_id 2 as 2.wav (validation): it would leak",
        "5.wav": "(validation) has the same sound_id 3 as 4.wav (evaluation): it would leak",
    }


def test_ties_are_by_recording_audio_or_group_and_go_on_from_clip_to_clip() -> None:
    clips = [
        ("train", "b", "", ""),
        ("validation", "b", "9", ""),
        ("evaluation", "", "9", ""),
        ("train", "", "", "ann"),
        ("validation", "", "", "ann"),
        ("train", "same", "", ""),
        ("train", "same", "", ""),
    ]
    assert leaking(clips) == {
        "0.wav": "(train) has the same audio as 1.wav (validation), which is tied to 2.wav (evaluation): it would leak",
        "1.wav": "(validation) has the same sound_id 9 as 2.wav (evaluation): it would leak",
        "3.wav": "(train) has the same group ann as 4.wav (validation): it would leak",
    }


def test_words_for_nothing_tie_nothing() -> None:
    assert leaking([(role, "", "Not found", "NA") for role in ROLES] + [(role, "", "0", " ") for role in ROLES]) == {}


CLIPS = st.lists(
    st.tuples(
        st.sampled_from(ROLES),
        st.sampled_from(["", "", "a", "b", "c"]),
        st.sampled_from(["", "NA", "1", "2", "3"]),
        st.sampled_from(["", "", "unknown", "ann", "bob"]),
    ),
    max_size=14,
)


@given(CLIPS)
def test_what_is_tied_to_a_side_that_judges_more_leaks_and_nothing_else(clips: list[Clip]) -> None:
    """The leaks are those of a slow but certain method: ranks spread over shared keys until nothing changes."""
    words = {"", "NA", "unknown"}
    keys = [{(n, key) for n, key in enumerate(clip[1:]) if key not in words} for clip in clips]
    rank = [ROLES.index(clip[0]) for clip in clips]
    for _ in clips:
        rank = [
            max([mine, *(r for r, k in zip(rank, keys, strict=True) if k & own)])
            for mine, own in zip(rank, keys, strict=True)
        ]
    wanted = {f"{n}.wav" for n, clip in enumerate(clips) if rank[n] > ROLES.index(clip[0])}
    assert set(leaking(clips)) == wanted
    kept = [clip for n, clip in enumerate(clips) if f"{n}.wav" not in wanted]
    assert leaking(kept) == {}


def test_clotho_as_published_keeps_3836_1043_and_1045_clips() -> None:
    """Clotho has five recordings on two sides, one twice on one side, and 19 whose sound_id is `Not found`."""
    published = {
        "train": (3839, ["137692", "86163", "130603", "130597", "130597"]),
        "validation": (1045, ["86163", "130603", "66304", "86161"]),
        "evaluation": (1045, ["137692", "66304", "86161"]),
    }
    clips: list[Clip] = []
    for role, (number, shared) in published.items():
        ids = [*shared, *["Not found"] * (7 if role == "train" else 6)]
        ids += [f"{role} {n}" for n in range(number - len(ids))]
        clips += [(role, "", sound_id, "") for sound_id in ids]
    assert len(clips) == 5929
    start = time.monotonic()
    out = leaking(clips)
    assert time.monotonic() - start < 5
    left = pd.Series([clip[0] for n, clip in enumerate(clips) if f"{n}.wav" not in out]).value_counts()
    assert left.to_dict() == {"train": 3836, "validation": 1043, "evaluation": 1045}
    assert sorted(clips[int(path.removesuffix(".wav"))][2] for path in out) == sorted(
        ["137692", "86163", "130603", "66304", "86161"]
    )
