"""Where recordings are cut: by length, at silences, by the columns of a table."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
from conftest import ODD_NAMES
from hypothesis import given
from hypothesis import strategies as st
from sao.base.command import InputError
from sao.data.cuts import (
    between_silences,
    by_length,
    check_cut,
    cut_name,
    divided,
    inherited,
    relevant,
    seconds_text,
    span_of,
    times_of,
)

COLUMNS = {"start": "start", "end": "end"}


@given(
    frames=st.integers(1, 100_000),
    rate=st.sampled_from([100, 8000, 44_100]),
    seconds=st.floats(0.1, 100),
    overlap=st.floats(0.05, 2),
)
def test_clips_of_one_length_cover_the_recording(frames: int, rate: int, seconds: float, overlap: float) -> None:
    hop = seconds * overlap
    spans, length = by_length(frames, rate, seconds, hop), round(seconds * rate)
    assert [start for start, _ in spans] == [round(n * hop * rate) for n in range(len(spans))]
    *firsts, last = spans
    assert all(end - start == length and end < frames for start, end in firsts)
    assert last[1] == min(last[0] + length, frames) and last[0] < frames
    # No clip is missing: the last one reaches the end, or the next would start after it.
    assert last[1] == frames or round(len(spans) * hop * rate) >= frames


def test_a_recording_of_25_s_in_clips_of_10_s() -> None:
    assert by_length(250, 10, 10, 10) == [(0, 100), (100, 200), (200, 250)]
    assert by_length(250, 10, 10, 7.5) == [(0, 100), (75, 175), (150, 250)]
    assert by_length(250, 10, 10, 20) == [(0, 100), (200, 250)]
    assert by_length(50, 10, 10, 10) == [(0, 50)]


@given(start=st.integers(0, 1000), length=st.integers(1, 100_000), most=st.integers(1, 5000))
def test_a_long_part_is_divided_equally(start: int, length: int, most: int) -> None:
    parts = divided(start, start + length, most)
    assert parts[0][0] == start and parts[-1][1] == start + length
    assert all(a[1] == b[0] for a, b in itertools.pairwise(parts))
    sizes = [end - begin for begin, end in parts]
    assert max(sizes) <= most and max(sizes) - min(sizes) <= 1 and len(parts) == math.ceil(length / most)


def test_margins_stay_within_the_recording() -> None:
    assert between_silences([(0, 50), (150, 196)], 200, 10, 0.5, None) == [(0, 55), (145, 200)]
    assert between_silences([(100, 200)], 1000, 10, 0, 4) == [(100, 133), (133, 166), (166, 200)]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"start": "", "end": "2"}, "'start' is empty: write a number of seconds"),
        ({"start": "1", "end": " "}, "'end' is empty"),
        ({"start": "nan", "end": "2"}, "'start' is 'nan': write a number"),
        ({"start": "0", "end": "inf"}, "'end' is 'inf'"),
        ({"start": "0:12", "end": "2"}, "'start' is '0:12'"),
        ({"start": "1,5", "end": "2"}, "'start' is '1,5'"),
        ({"start": "-1", "end": "2"}, "starts at -1 s, before the recording: correct 'start'"),
        ({"start": "2", "end": "2"}, "ends at 2 s, not after its start at 2 s: correct 'start' or 'end'"),
        ({"start": "2", "end": "1"}, "ends at 1 s, not after its start at 2 s"),
        ({"start": "2"}, "has no column 'end', which the corpus's cut.end names; found start"),
        ({}, "has no column 'start', which the corpus's cut.start names; found none"),
    ],
)
def test_times_that_are_wrong(row: dict[str, str], message: str) -> None:
    with pytest.raises(InputError) as error:
        times_of(row, COLUMNS, "t.csv, row 3")
    assert str(error.value).startswith("t.csv, row 3: ") and message in str(error.value)


def test_times_are_read_and_placed() -> None:
    assert times_of({"start": " 1.5", "end": "2e0"}, COLUMNS, "") == (1.5, 2)
    assert times_of({"begin": "1"}, {"start": "begin", "end": None}, "") == (1, None)
    assert span_of(0.5, 1.004, 100, 100, "") == (50, 100)  # the end was rounded up
    for start, end, fault in ((0.5, 1.02, "ends at 1.02 s"), (1, 1.005, "starts at 1 s")):
        with pytest.raises(InputError, match=f"t.csv, row 3: {fault}, but the recording ends at 1 s"):
            span_of(start, end, 100, 100, "t.csv, row 3")


@given(st.sets(st.integers(0, 500_000 * 3600 * 9), min_size=2, max_size=2), st.sampled_from([8000, 44_100, 500_000]))
def test_places_sort_in_time_and_none_are_alike(frames: set[int], rate: int) -> None:
    first, second = sorted(frames)
    a, b = seconds_text(first, rate), seconds_text(second, rate)
    assert float(a) < float(b)
    if second / rate < 100_000:
        assert a < b


def test_names_of_clips() -> None:
    assert cut_name("a/rain.wav", (0, 80_000), 8000) == "a/rain_00000-00010.wav"
    assert cut_name("rain.flac", (100_001, 180_000), 8000) == "rain_00012.500125-00022.5.flac.wav"
    names = {cut_name(name, span, 8000) for name in (*ODD_NAMES, "two words.WAV") for span in ((0, 1), (0, 2))}
    assert len(names) == 2 * len(ODD_NAMES) + 2
    long = [cut_name(f"{'雨' * 80}{end}.flac", (0, 1), 500_000) for end in "ab"]
    assert long[0] != long[1] and all(len(name.encode()) < 255 for name in long)


def test_what_a_clip_inherits() -> None:
    row = {"file_name": "a", "caption_1": "b", "Caption Count": "1", "artist": "c", "start": "0", "source_file": "mine"}
    assert inherited(row, {}) == {"artist": "c", "start": "0"}
    assert inherited(row, {"start": "start", "end": None}) == {"artist": "c"}


DEFAULTS = {
    "seconds": None, "hop": None, "min_seconds": 0.5, "silence_dbfs": -50, "silence_seconds": 0.5, "margin_seconds": 0.1,
    "start": "start", "end": "end",
}  # fmt: skip


@pytest.mark.parametrize(
    ("cut", "more", "problem"),
    [
        ({"method": "length"}, {}, ("seconds", "missing; method length needs it")),
        ({"method": "columns", "end": None}, {}, ("seconds", "a start without an end needs it")),
        ({"method": "columns", "seconds": 3}, {}, ("seconds", "remove it, or set cut.end to null")),
        ({"method": "silences", "hop": 3}, {}, ("hop", "method silences does not use it")),
        ({"method": "length", "seconds": 0.3}, {}, ("min_seconds", "0.5 is more than cut.seconds, 0.3")),
        ({"method": "length", "seconds": 10, "hop": 0.05}, {}, ("hop", "set it to 0.1 or more")),
        (
            {"method": "silences", "margin_seconds": 0.3},
            {},
            ("margin_seconds", "at most half of silence_seconds, 0.25"),
        ),
        ({"method": "length", "seconds": 9}, {"train_seconds": 5}, ("seconds", "9 is more than train_seconds, 5")),
        ({"method": "length", "seconds": 9}, {"train_seconds": 5, "random_crop": True}, None),
        ({"method": "length", "seconds": 9}, {"train_seconds": "auto"}, None),
        ({"method": "length", "seconds": 10, "hop": 2.5}, {}, None),
        ({"method": "columns", "end": None, "seconds": 10}, {}, None),
        ({"method": "silences"}, {}, None),
        (None, {}, None),
    ],
)
def test_settings_that_exclude_each_other(cut: Any, more: dict[str, Any], problem: tuple[str, str] | None) -> None:
    entry = {"cut": cut and DEFAULTS | cut, "train_seconds": None, "random_crop": False} | more
    found = [(key[-1], text) for key, text in check_cut(entry)]
    assert [key for key, _ in found] == ([problem[0]] if problem else [])
    assert not problem or problem[1] in found[0][1]


def test_only_what_the_method_looks_at_reruns_it() -> None:
    keys = {method: set(relevant(DEFAULTS | {"method": method})) for method in ("length", "silences", "columns")}
    assert keys["length"] == {"method", "seconds", "hop", "min_seconds"}
    assert keys["columns"] == {"method", "seconds", "min_seconds", "start", "end"}
    assert set.union(*keys.values()) == {"method", *DEFAULTS}
