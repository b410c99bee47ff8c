"""Votes of a blind test: the files that the page of samples saves, and what they say about each two models."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from sao.base.command import InputError

from sao.base.takes import clip_and_take

FORMAT = "stable-audio-snakemake votes 1"  # of the page's files
CHOICES = ("a", "b", None)  # which sound is better; None is for neither
HASH = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Heard:
    """One of the two sounds of a vote."""

    run: str  # name of the model in samples.csv
    sha256: str


@dataclass(frozen=True)
class Vote:
    """What a listener said about two sounds of one prompt, whose names were hidden."""

    session: str  # a listener's test; one that is saved twice is the same
    saved: str  # when the file was saved, as ISO 8601 in UTC; later ones replace earlier ones
    sound: str  # clip_id of both
    a: Heard
    b: Heard
    better: Heard | None  # None if neither


class Pair(TypedDict):
    """What the votes say about two models on the prompts of a split. Each prompt counts once, however many votes it has."""

    split: str
    first: str  # name of a model
    second: str
    first_better: int  # prompts on which more votes were for the first
    second_better: int
    neither: int
    share: float | None  # of the decided prompts, those on which the second was better; None if none is decided
    low: float | None  # Wilson interval of the share
    high: float | None
    votes: int
    listeners: int


class Tally(TypedDict):
    """`results/evaluation/votes.json`."""

    level: float  # of the intervals
    left_out: int  # votes whose sounds are no longer there
    pairs: list[Pair]


def read_votes(path: Path) -> list[Vote]:
    """The votes of a file that the page saved. Raises InputError if it is not one."""
    cure = "save the votes from the page again, or take the file away"
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, OSError, RecursionError) as error:
        raise InputError(f"{path}: is not JSON ({error}): {cure}") from None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise InputError(f"{path}: is not a file of votes (its format is not {FORMAT!r}): {cure}")
    try:
        session, saved = _text(found, "session"), _text(found, "saved")
        if not isinstance(found.get("votes"), list):
            raise ValueError("votes is not a list")
    except ValueError as error:
        raise InputError(f"{path}: {error}: {cure}") from None
    votes = []
    for number, entry in enumerate(found["votes"], start=1):
        try:
            votes.append(_vote(entry, session, saved))
        except ValueError as error:
            raise InputError(f"{path}: vote {number}: {error}: {cure}") from None
    return votes


def _vote(entry: Any, session: str, saved: str) -> Vote:
    """A vote from its entry in a file. Raises ValueError, which says what is wrong."""
    if not isinstance(entry, dict):
        raise ValueError("is not an object")
    a, b = _heard(entry, "a"), _heard(entry, "b")
    if a.run == b.run:
        raise ValueError(f"compares {a.run!r} with itself")
    if "better" not in entry or entry["better"] not in CHOICES:
        raise ValueError(f"better is {entry.get('better')!r}, not 'a', 'b' or null")
    return Vote(session, saved, _text(entry, "clip_id"), a, b, {"a": a, "b": b, None: None}[entry["better"]])


def _heard(entry: dict[str, Any], side: str) -> Heard:
    sound = entry.get(side)
    if not isinstance(sound, dict):
        raise ValueError(f"{side} is not an object")
    if not HASH.fullmatch(digest := _text(sound, "sha256")):
        raise ValueError(f"sha256 of {side} is {digest[:70]!r}, not 64 hex digits")
    return Heard(_text(sound, "run"), digest)


def _text(entry: dict[str, Any], key: str) -> str:
    if not isinstance(text := entry.get(key), str) or not text:
        raise ValueError(f"{key} is {text!r:.70}, not a text")
    return text


def latest(votes: Iterable[Vote]) -> list[Vote]:
    """One vote for each test, sound and two models: the one that was saved last."""
    kept = {(vote.session, vote.sound, frozenset((vote.a.run, vote.b.run))): vote for vote in sorted(votes, key=_saved)}
    return list(kept.values())


def _saved(vote: Vote) -> str:
    return vote.saved


def count(votes: Sequence[Vote], splits: Mapping[str, str], models: Sequence[str], level: float) -> list[Pair]:
    """What votes say about each two models in each split. `splits` has the split of each prompt by its id.

    Votes of several listeners on a prompt, and on several takes of it, are no independent ones. So each prompt is
    summed up first: the model with more votes is better there. `models` gives the order of the two.
    """
    from scipy.stats import binomtest

    sums: dict[tuple[str, str, str], dict[str, int]] = {}
    cast: dict[tuple[str, str, str], list[Vote]] = {}
    for vote in votes:
        clip = clip_and_take(vote.sound)[0]
        first, second = sorted((vote.a.run, vote.b.run), key=models.index)
        key = splits[clip], first, second
        by_clip = sums.setdefault(key, {})
        by_clip[clip] = by_clip.get(clip, 0) + (vote.better is not None) * (
            1 if vote.better and vote.better.run == second else -1
        )
        cast.setdefault(key, []).append(vote)
    pairs: list[Pair] = []
    for (split, first, second), by_clip in sorted(sums.items(), key=lambda item: _order(item[0], models)):
        won, lost = (sum(sign * total > 0 for total in by_clip.values()) for sign in (1, -1))
        decided = won + lost
        found = binomtest(won, decided).proportion_ci(level, method="wilson") if decided else None
        pairs.append(
            Pair(
                split=split,
                first=first,
                second=second,
                first_better=lost,
                second_better=won,
                neither=len(by_clip) - decided,
                share=won / decided if decided else None,
                low=float(found.low) if found else None,
                high=float(found.high) if found else None,
                votes=len(cast[split, first, second]),
                listeners=len({vote.session for vote in cast[split, first, second]}),
            )
        )
    return pairs


def _order(key: tuple[str, str, str], models: Sequence[str]) -> tuple[bool, str, int, int]:
    """`evaluation` first, because models are compared by it."""
    split, first, second = key
    return split != "evaluation", split, models.index(first), models.index(second)


def sentence(pair: Pair) -> str:
    """What the votes say about two models, in one sentence."""
    prompts = pair["first_better"] + pair["second_better"] + pair["neither"]
    told = (
        f"In a blind test of {prompts} prompt{'' if prompts == 1 else 's'} ({pair['split']}), {pair['second']} was better on {pair['second_better']}, "
        f"{pair['first']} on {pair['first_better']}, neither on {pair['neither']}"
    )
    if pair["share"] is None or pair["low"] is None or pair["high"] is None:
        return f"{told}."
    share, low, high = (f"{100 * value:.0f} %" for value in (pair["share"], pair["low"], pair["high"]))
    unsure = ", which does not tell the better one" if pair["low"] <= 0.5 <= pair["high"] else ""
    return f"{told}: {share} [{low}, {high}] for {pair['second']}{unsure}."
