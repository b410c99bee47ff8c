"""The numbers that conditioners take from columns of the metadata."""

from __future__ import annotations

import contextlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_configs import changed
from sao.base.command import InputError
from sao.models.numbers import Number, check_columns, column_of, numbers_of

BPM = Number("bpm", True, 20, 280)
SWING = Number("swing", False, 0, 1)


def test_a_model_says_which_numbers_it_takes() -> None:
    assert numbers_of(changed()) == []
    bpm = {"id": "bpm", "type": "int", "config": {"min_val": 20, "max_val": 300}}
    swing = {"id": "groove", "type": "number", "config": {}}
    own = changed()["model"]["conditioning"]["configs"]
    config = changed(
        ("model.conditioning.configs", [*own, bpm, swing]), ("model.conditioning.default_keys", {"groove": "swing"})
    )
    assert numbers_of(config) == [BPM, SWING]


@pytest.mark.parametrize(("low", "high"), [(0, 9), (3, 9), (-4, 9)])
def test_every_whole_number_that_is_read_has_a_row(low: int, high: int) -> None:
    import sao.models.upstream  # noqa: F401
    import torch
    from stable_audio_tools.models.conditioners import IntConditioner

    entry = {"id": "bpm", "type": "int", "config": {"min_val": low, "max_val": high}}
    (number,) = numbers_of(changed(("model.conditioning.configs", [entry])))
    conditioner = IntConditioner(4, low, high)
    read = []
    for value in range(low - 2, high + 3):
        with contextlib.suppress(ValueError):
            read.append(number.read(str(value)))
    rows = torch.cat([conditioner([value])[0][0] for value in read])
    assert len(read) > 3 and len(rows.unique(dim=0)) == len(read)


@given(st.floats(0, 1))
def test_a_number_is_read_exactly(value: float) -> None:
    assert SWING.read(repr(value)) == value


@pytest.mark.parametrize(
    ("number", "text", "words"),
    [
        (BPM, "", "is '', not a whole number"),
        (BPM, "fast", "is 'fast', not a whole number"),
        (BPM, "99.5", "is '99.5', not a whole number"),
        (BPM, "nan", "not a whole number"),
        (BPM, "1e999", "not a whole number"),
        (BPM, "281", "is '281'; the model knows 20 to 280"),
        (SWING, "-0.1", "is '-0.1'; the model knows 0 to 1"),
        (SWING, "0,5", "is '0,5', not a number"),
    ],
)
def test_what_is_no_number_for_the_model_is_refused(number: Number, text: str, words: str) -> None:
    with pytest.raises(ValueError) as error:
        number.read(text)
    assert words in str(error.value)


def test_whole_numbers_may_be_written_with_a_point() -> None:
    assert BPM.read("120.0") == 120 and isinstance(BPM.read("120.0"), int)
    assert math.isclose(SWING.read("5e-1"), 0.5)


def test_a_missing_column_is_named() -> None:
    check_columns([BPM], [column_of(BPM)], "train.csv")
    with pytest.raises(InputError, match=r"train\.csv: the model has a conditioner 'swing'.*`columns`"):
        check_columns([BPM, SWING], [column_of(BPM)], "train.csv")
