"""The page to listen to a training while it goes on. It shows what has landed in its folder so far."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NotRequired, TypedDict
from urllib.parse import quote

from sao.base.files import digest, read_json, writing
from sao.pages.templates import template
from sao.pages.words import leg_text
from sao.rendering.listening import chosen_clip, text_of

PAGE = "index.html"
NO_PROMPT = "(no prompt)"


class Sound(TypedDict):
    """A rendered sound. Paths count from the folder of the page."""

    clip_id: str
    split: str
    prompt: str
    negative_prompt: str
    cfg_scale: float
    seed: int
    seconds: float
    warning: str
    file: str
    sha256: str
    reference: str  # path of the recording, with the base model alone; empty if there is none
    source: str  # and of the sound that it started from
    loudness: NotRequired[float | None]  # LUFS; None if it has none; absent where an earlier version wrote the summary
    reference_loudness: NotRequired[float | None]
    source_loudness: NotRequired[float | None]


class Listened(TypedDict):
    """What is heard of a base model, or of a leg of a run (`results/listen/<name>.json`)."""

    name: str
    run: str  # of a leg; it and the next are empty for a base model
    leg: str
    steps: int  # of the training; 0 for the base model
    validation_loss: float | None
    training: str  # a digest of all that decides the weights, the number of steps apart; empty for a base model
    base: str  # name of the base model
    beside: str  # a digest of the base model's sounds, which differ with prompts and settings
    sounds: list[Sound]


def beside(sounds: Sequence[Sound]) -> str:
    """A digest of the sounds of a base model."""
    return digest([[sound["clip_id"], sound["sha256"]] for sound in sounds])[:16]


def landed(folder: Path, shown: Sequence[str]) -> list[Listened]:
    """What has landed in the folder of the page, of the names `shown` and in their order.

    A leg of an earlier training or of other prompts is left out: it waits to be made anew.
    """
    found: list[Listened] = []
    for name in shown:
        with contextlib.suppress(FileNotFoundError):  # it has not landed yet, or is being made anew
            found.append(read_json(folder / f"{name}.json"))
    bases = {entry["name"]: entry["beside"] for entry in found if not entry["run"]}
    current: list[Listened] = []
    trainings: dict[str, str] = {}
    for entry in found:
        # Legs land in order, so the first one is of the latest training.
        of_training = trainings.setdefault(entry["run"], entry["training"]) == entry["training"]
        if not entry["run"] or (of_training and bases.get(entry["base"]) == entry["beside"]):
            current.append(entry)
    return current


def write_page(folder: Path, shown: Sequence[str]) -> int:
    """Write the page in its folder; returns the number of legs on it. `shown` are the names of all that will land.

    Several jobs may write it at a time. Each looks again after it wrote: whoever writes last has seen all.
    """
    entries = landed(folder, shown)
    while True:
        _replace(folder / PAGE, render_page(entries, shown))
        written, entries = entries, landed(folder, shown)
        if entries == written:
            return sum(bool(entry["run"]) for entry in entries)


def _replace(page: Path, text: str) -> None:
    """Write the page whole or not at all. Unlike with `whole`, a job on another machine may write it at the same time."""
    temporary = page.with_name(f".{page.name}.{socket.gethostname()}.{os.getpid()}")
    try:
        with writing(page):
            temporary.write_text(text, encoding="utf-8")
        temporary.replace(page)
    finally:
        temporary.unlink(missing_ok=True)


def rows_of(base: Listened, legs: Sequence[Listened]) -> list[dict[str, Any]]:
    """One entry per prompt, the empty one last: a row of sounds for each scale of guidance, after what lies beside them."""
    sounds_of = {entry["name"]: {sound["clip_id"]: sound for sound in entry["sounds"]} for entry in (base, *legs)}
    prompts: dict[str, dict[str, Any]] = {}
    for sound in sorted(base["sounds"], key=lambda sound: (not sound["prompt"], sound["cfg_scale"])):
        prompt = prompts.setdefault(
            chosen_clip(sound["clip_id"]), {"prompt": sound["prompt"] or NO_PROMPT, "sound": sound, "scales": []}
        )
        told: dict[str, Any] = dict(sound)
        beside = [
            cell(name, told[kind], sound["seconds"], told.get(f"{kind}_loudness"), "")
            for name, kind in BESIDE.items()
            if told[kind]
        ]
        made = [(heading(entry), sounds_of[entry["name"]].get(sound["clip_id"])) for entry in (base, *legs)]
        cells = [
            cell(name, of["file"], of["seconds"], of.get("loudness"), of["warning"])
            for name, of in made
            if of is not None
        ]
        prompt["scales"].append({"scale": text_of(sound["cfg_scale"]), "cells": beside + cells})
    return list(prompts.values())


BESIDE = {"recording": "reference", "source": "source"}


def cell(name: str, file: str, seconds: float, loudness: float | None, warning: str) -> dict[str, Any]:
    """A sound on the page, in the form that player.js reads."""
    return {
        "name": name,
        "sound": {
            "sound": quote(file),
            "picture": quote(picture_of(file)),
            "seconds": seconds,
            "loudness": loudness,
            "take": 1,
            "leg": "",
            "figures": [],
            "warnings": [warning] if warning else [],
        },
    }


def picture_of(sound: str) -> str:
    """The path of a sound's spectrogram."""
    return f"{sound.rpartition('.')[0]}.webp"


def heading(entry: Listened) -> str:
    return "base" if not entry["run"] else f"{entry['run']}, {leg_text(entry['leg'])}"


def render_page(entries: Sequence[Listened], shown: Sequence[str]) -> str:
    """The page as HTML. `shown` are the names of all that will land; while some are missing, the page loads itself anew."""
    bases = [entry for entry in entries if not entry["run"]]
    legs = [entry for entry in entries if entry["run"]]
    expected: dict[str, int] = {}
    for name in shown:
        if "@" in name:
            run = name.split("@")[0]
            expected[run] = expected.get(run, 0) + 1
    runs = [
        {"name": run, "legs": [leg for leg in legs if leg["run"] == run], "expected": count}
        for run, count in expected.items()
    ]
    parts = [(base, rows_of(base, [leg for leg in legs if leg["base"] == base["name"]])) for base in bases]
    return template("listening.html.j2").render(runs=runs, parts=parts, complete=len(entries) == len(shown))
