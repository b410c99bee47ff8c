"""Tests of sao/pages/samples.py that need no browser."""

from __future__ import annotations

from typing import Any

import pandas as pd
from hypothesis import given
from hypothesis import strategies as st
from sao.base.takes import take_id
from sao.pages.samples import SPLITS, Trained, clip_entries, for_player, legs_of, place_of, trained

CLIPS = st.lists(st.tuples(st.sampled_from(SPLITS), st.from_regex(r"[a-z]{1,8}", fullmatch=True)), unique=True)


@given(CLIPS, st.integers(0, 10))
def test_other_clips_come_and_go_without_changing_the_order(clips: list[tuple[str, str]], left_out: int) -> None:
    ordered = sorted(clips, key=lambda clip: place_of(*clip))
    rest = sorted(clips[left_out:], key=lambda clip: place_of(*clip))
    assert rest == [clip for clip in ordered if clip in clips[left_out:]]
    splits = [split for split, _ in ordered]
    assert splits == sorted(splits, key=["prompts", "evaluation", "validation", "train"].index)


def test_order_is_neither_that_of_names_nor_of_difficulty() -> None:
    names = [f"clip-{number:02d}" for number in range(20)]
    assert sorted(names, key=lambda name: place_of("evaluation", name)) != names
    assert sorted(names, key=lambda name: place_of("prompts", name)) == names  # a user's own stay in order


def run(name: str, method: str = "full", clips: int = 3839, base_model: str = "sao") -> Trained:
    settings = {"base_model": base_model, "corpus": "clotho", "method": method}
    return Trained({"run": name, "settings": settings, "training_clips": clips, "batch": 8}, [])


def test_first_sentence_says_what_was_trained_on_what() -> None:
    summary = {"runs": {name: {"leg": f"step-{number:08d}"} for name, number in {"a": 1000, "b": 1, "c": 7}.items()}}
    assert trained({"a": run("a")}, summary) == (
        "a is the base model sao, fine-tuned on 3,839 clips of the corpus clotho (all weights, 1,000 steps of 8 clips)."
    )
    both = trained({"a": run("a"), "b": run("b", "lora"), "c": run("c", clips=5)}, summary)
    assert both == (
        "a (all weights, 1,000 steps of 8 clips), b (adapter lora, 1 step of 8 clips) are the base model sao, fine-tuned on 3,839 "
        "clips of the corpus clotho; c is the base model sao, fine-tuned on 5 clips of the corpus clotho (all weights, 7 steps of "
        "8 clips)."
    )
    many = {f"r{number}": run(f"r{number}") for number in range(7)}
    told = trained(many, {"runs": {name: {"leg": "epoch-00000002"} for name in many}})
    assert "r4 (all weights, 2 epochs of 8 clips) and 2 more are the base model" in told and "r5" not in told


def sounds(runs: dict[str, tuple[str | None, int]], takes: int) -> tuple[pd.DataFrame, dict[str, Any]]:
    """samples.csv and the summary of one clip, from the leg and step of each model."""
    told, rows = {}, []
    for name, (leg, step) in runs.items():
        clips = {take_id("x", take): {"loudness_lufs": -20.0 - take} for take in range(1, takes + 1)}
        told[name] = {"leg": leg, "step": step, "clips": clips}
        rows += [
            {"clip_id": clip, "split": "evaluation", "run": name, "take": take, "file": f"{clip}.wav", "prompt": "Rain.",
             "negative_prompt": "", "seconds": 1.0, "seed": take, "reference": "", "source": "", "warning": "",
             "corpus": "mine", "sha256": f"{name} {take}"}
            for take, clip in enumerate(clips, start=1)
        ]  # fmt: skip
    return pd.DataFrame(rows), {"runs": told}


def test_cell_has_all_takes_of_all_legs_and_opens_with_the_model_itself() -> None:
    runs = {"base": (None, 0), "r@step-00000002": ("step-00000002", 2), "r": ("step-00000010", 10)}
    (entry,) = clip_entries(*sounds(runs, 2), {})
    base, model = entry["cells"]
    assert [(sound["leg"], sound["take"]) for sound in base["sounds"]] == [("", 1), ("", 2)]
    assert [(sound["leg"], sound["take"], sound["sha256"]) for sound in model["sounds"]] == [
        ("step 2", 1, "r@step-00000002 1"), ("step 2", 2, "r@step-00000002 2"), ("step 10", 1, "r 1"), ("step 10", 2, "r 2")
    ]  # fmt: skip
    assert model["sounds"][model["opens"]]["sound"] == "r/x.wav" and base["opens"] == 0
    assert legs_of([entry]) == {"r": {"all": ["step 2", "step 10"], "opens": "step 10"}}
    assert entry["seed"] == 1


def test_leg_that_the_run_exports_as_its_best_is_there_once() -> None:
    legs = {f"r@step-{step:08d}": (f"step-{step:08d}", step) for step in (2, 4, 6)}
    (entry,) = clip_entries(*sounds({"base": (None, 0), **legs, "r": ("step-00000004", 4)}, 1), {})
    model = entry["cells"][1]
    assert [sound["sound"] for sound in model["sounds"]] == [
        "r@step-00000002/x.wav",
        "r/x.wav",
        "r@step-00000006/x.wav",
    ]
    assert model["opens"] == 1


def test_page_repeats_no_figures_of_a_sound_that_stays() -> None:
    sound = {"sound": "a b.wav", "picture": "a#.webp", "figures": [("x", "1")], "warnings": []}
    assert for_player([sound]) == [{"sound": "a%20b.wav", "picture": "a%23.webp"}]
    assert all("figures" in told for told in for_player([sound, sound]))
