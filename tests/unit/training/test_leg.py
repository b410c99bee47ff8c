"""The end of a leg, and the provenance that identifies its training."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from legs import RUNNING, SETTINGS, make_leg
from sao.training.leg import Leg, end_step, provenance


@pytest.mark.parametrize(
    ("leg", "items", "batch", "expected"),
    [
        ("step-00000500", 7, 3, 500),
        ("epoch-00000002", 16, 5, 7),
        ("epoch-00000002", 16, 8, 4),
        ("epoch-00000003", 1, 1, 3),
        ("epoch-00000001", 17, 16, 2),
    ],
)
def test_end_of_a_leg(leg: str, items: int, batch: int, expected: int) -> None:
    assert end_step(leg, items, batch) == expected


def test_a_step_takes_the_batches_of_all_processes(tmp_path: Path) -> None:
    leg = make_leg(tmp_path, leg="epoch-00000002")
    assert (leg.processes, leg.items_per_step) == (10, 120)
    assert leg.end(240) == leg.last_end(240) == 4
    assert make_leg(tmp_path, leg="epoch-00000002", last="epoch-00000005").last_end(240) == 10


def test_provenance_is_of_what_moves_weights(tmp_path: Path) -> None:
    leg = make_leg(tmp_path)
    for path in (leg.model_digest, leg.sound_digest[0], leg.datasets_digest):
        path.write_text("{}")
    leg.captions_digest.write_text('{"sha256": "a"}')
    before = provenance(leg)
    assert before["settings"] == SETTINGS and before["code"] == "x" and before["torch"]
    assert list(before) == [
        "settings",
        "corpus",
        "sounds",
        "captions",
        "base_model",
        "code",
        "torch",
        "stable-audio-tools",
    ]

    def changed(leg: Leg = leg) -> list[str]:
        now = provenance(leg)
        return [key for key in before if now[key] != before[key]]

    # Reasons for dropping clips, warnings, the end of the leg, and loggers do not count.
    leg.dataset_configs.mkdir()
    for name in ("dropped.csv", "warnings.csv", "metadata.pyc"):
        (leg.dataset_configs / name).write_text("x")
    running = RUNNING | {"workers": 2}
    assert changed(dataclasses.replace(leg, leg="step-00000009", running=running)) == []
    for path, key in (
        (leg.datasets_digest, "corpus"),
        (leg.sound_digest[0], "sounds"),
        (leg.model_digest, "base_model"),
    ):
        path.write_text("[]")
        assert changed() == [key]
        path.write_text("{}")
    leg.captions_digest.write_text('{"sha256": "b"}')
    assert changed() == ["captions"]
    leg.captions_digest.write_text('{"sha256": "a"}')
    assert changed(dataclasses.replace(leg, code="y", settings=SETTINGS | {"seed": 4})) == ["settings", "code"]
