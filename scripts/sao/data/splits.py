"""Which clip is trained on, validated on, rendered: a function of the clip and the config alone."""

from __future__ import annotations

import itertools
from typing import Any

from sao.base.command import InputError

import pandas as pd

from sao.base.names import plain_id, seed_for
from sao.base.placeholders import is_placeholder
from sao.config.resolve import ROLES


def known(sound_id: str) -> bool:
    """Whether a `sound_id` names a recording; Clotho writes words where it knows none."""
    return not is_placeholder(sound_id) and plain_id(sound_id) != "0"


def assign(table: pd.DataFrame, split: dict[str, Any]) -> pd.Series:
    """The role of each clip of the manifests, `""` for one that none of the three sides names.

    `split` is the corpus's `split` with its `train`, `validation` and `evaluation` lists.
    """
    if split["method"] == "fraction":
        return draw(table, split)
    key = "published_split" if split["method"] == "official" else "given_split"
    return table[key].map({name: role for role in ROLES for name in split[role]}).fillna("")


def draw(table: pd.DataFrame, split: dict[str, Any]) -> pd.Series:
    """Draw sides by a hash of (seed, group): clips that come or go move no other, and no group straddles.

    The hash is a point in [0, 1), of which each side has a part as long as its share. Where no group falls into the part
    of a side, the group nearest to it stands in, while there are as many groups as sides: that group alone moves when a
    clip takes its place. A rule that moved none at all would have to leave sides empty.
    """
    given = {name: role for role in ("validation", "evaluation") for name in split[role]}
    roles = table.published_split.map(given).fillna("")
    shares = {role: split["fractions"][role] for role in ("evaluation", "validation") if not split[role]}
    ends = dict(zip(shares, itertools.accumulate(shares.values()), strict=True)) | {"train": 1.0}
    begins = dict(zip(ends, [0.0, *ends.values()], strict=False))
    sides = [role for role in ends if begins[role] < ends[role]]
    names = groups(table[roles == ""])
    members = names.groupby(names).groups
    points = {name: seed_for(split["seed"], "split", name) / 2**32 for name in members}
    ranked = sorted(members, key=lambda name: (points[name], name))
    cut = 0
    for n, role in enumerate(sides, 1):
        first, cut = cut, sum(point < ends[role] for point in points.values())
        if len(ranked) >= len(sides):
            cut = min(max(cut, first + 1), len(ranked) - len(sides) + n)
        for name in ranked[first:cut]:
            roles[members[name]] = role
    return roles


def ties(table: pd.DataFrame) -> dict[str, pd.Series]:
    """What clips must not share across two sides, by name: for each clip a key, or nothing where it has none."""
    sound_id = table.sound_id.map(plain_id)
    keys = {"audio": table.audio_sha256, "sound_id": sound_id.where(sound_id.map(known), "")}
    if "given_group" in table:
        group = table.given_group.map(plain_id)
        keys["group"] = group.mask(group.map(is_placeholder), "")
    return keys


def assert_disjoint(splits: dict[str, pd.DataFrame]) -> None:
    """Raise InputError if two splits share a clip, audio, a recording or a group."""
    owner: dict[tuple[str, str], str] = {}
    for role, table in splits.items():
        for what, keys in ({"clip": table.clip_id} | ties(table)).items():
            for key in filter(None, keys.unique()):
                if owner.setdefault((what, key), role) != role:
                    raise InputError(f"{what} {key} is both in {owner[what, key]} and in {role}: it would leak")


def groups(table: pd.DataFrame) -> pd.Series:
    """What must stay together, by name: the given group, else the recording (`sound_id`), else the clip itself.

    Clips of identical audio stay together too when these differ; they go by the first of these names.
    """
    # What is the surer name comes first in the alphabet: a clip that joins a group brings no other name to it.
    # A lone clip goes by its id and not its audio, so that a file that is encoded anew stays on its side.
    keys = ties(table)
    names = ("sound " + table.clip_id).where(keys["sound_id"] == "", "recording " + keys["sound_id"])
    if "group" in keys:
        names = names.where(keys["group"] == "", "group " + keys["group"])
    parent = {name: name for name in names}

    def root(name: str) -> str:
        while parent[name] != name:
            name = parent[name]
        return name

    for what in ("audio", "sound_id"):
        for key, together in names.groupby(keys[what]):
            first, *others = sorted({root(name) for name in together}) if key else [""]
            for other in others:
                parent[other] = first
    return names.map(root)
