"""Tests of sao/base/ahead.py."""

from __future__ import annotations

import contextlib
import threading

import pytest
from sao.base.ahead import ahead


def test_results_come_in_order_and_are_worked_out_before_they_are_asked_for() -> None:
    begun, second = [], threading.Event()

    def square(number: int) -> int:
        begun.append(number)
        if number == 1:
            second.set()
        return number * number

    results = ahead(square, range(100), threads=2)
    assert next(results) == 0
    assert second.wait(10)
    assert max(begun) <= 3  # but not all at once
    assert list(results) == [n * n for n in range(1, 100)]


def test_an_error_comes_with_its_item() -> None:
    results = ahead(lambda number: 1 // (2 - number), range(4))
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_what_is_not_asked_for_is_not_begun() -> None:
    begun = []
    with contextlib.closing(ahead(begun.append, range(100), threads=2)) as results:
        next(results)
    assert len(begun) <= 4
    assert list(ahead(begun.append, [])) == []
