"""Assign clips to train, validation and evaluation. The side of a clip depends only on the clip and the config."""

from __future__ import annotations

import itertools
from typing import Any

from sao.base.command import InputError

import pandas as pd

from sao.base.names import plain_id, seed_for
from sao.base.placeholders import is_placeholder
from sao.config.resolve import ROLES


def names_recording(sound_id: str) -> bool:
    """Whether a `sound_id` names a recording. Clotho writes a word such as `Not found` if it has none."""
    return not is_placeholder(sound_id) and plain_id(sound_id) != "0"


def assign(table: pd.DataFrame, split: dict[str, Any]) -> pd.Series:
    """The side of each clip of the manifests; `""` if no side names the clip's split.

    `split` is the corpus's `split` with its `train`, `validation` and `evaluation` lists.
    """
    if split["method"] == "fraction":
        return draw(table, split)
    key = "published_split" if split["method"] == "official" else "given_split"
    return table[key].map({name: role for role in ROLES for name in split[role]}).fillna("")


def draw(table: pd.DataFrame, split: dict[str, Any]) -> pd.Series:
    """Draw sides by a hash of (seed, group). A new or removed clip moves no other clip, and a group is never divided.

    The hash is a point in [0, 1). Each side has a part of this interval that is as long as its share. If no group falls into
    the part of a side, the nearest group stands in, provided that there are at least as many groups as sides. Only this group
    moves when another clip takes its place. A rule that moved no group at all would have to leave sides empty.
    """
    published = {name: role for role in ("validation", "evaluation") for name in split[role]}
    roles = table.published_split.map(published).fillna("")
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
    """Keys that clips of different sides must not share, by kind: one for each clip, empty if it has none."""
    sound_id = table.sound_id.map(plain_id)
    keys = {"audio": table.audio_sha256, "sound_id": sound_id.where(sound_id.map(names_recording), "")}
    if "given_group" in table:
        group = table.given_group.map(plain_id)
        keys["group"] = group.mask(group.map(is_placeholder), "")
    if "source_sha256" in table:
        keys["source"] = table.source_sha256
    return keys


def assert_disjoint(splits: dict[str, pd.DataFrame]) -> None:
    """Raise InputError if two splits share a clip, audio, a recording or a group, or clips that were cut from one sound."""
    owner: dict[tuple[str, str], str] = {}
    for role, table in splits.items():
        for kind, keys in ({"clip": table.clip_id} | ties(table)).items():
            for key in filter(None, keys.unique()):
                if owner.setdefault((kind, key), role) != role:
                    raise InputError(f"{kind} {key} is both in {owner[kind, key]} and in {role}: it would leak")


def groups(table: pd.DataFrame) -> pd.Series:
    """The name of each clip's group: the group in its metadata, else its recording (`sound_id`), else the clip itself.

    Clips that were cut from one file have the name of this file instead of their own, so another cut moves none of them. Clips
    of identical audio, and all that were cut from identical audio, stay together even if these names differ. They take the
    first of them.
    """
    # The more reliable name comes first in the alphabet, so a clip that joins a group does not change its name. A lone clip
    # is named by its id and not by its audio, so a file that is encoded anew stays on its side.
    keys = ties(table)
    own = "sound " + table.clip_id
    if "source" in keys:
        own = own.where(keys["source"] == "", "source " + table.published_split + "/" + table.source_file)
    names = own.where(keys["sound_id"] == "", "recording " + keys["sound_id"])
    if "group" in keys:
        names = names.where(keys["group"] == "", "group " + keys["group"])
    parent = {name: name for name in names}

    def root(name: str) -> str:
        while parent[name] != name:
            name = parent[name]
        return name

    for kind in ("audio", "sound_id", "source"):
        for key, together in names.groupby(keys[kind]) if kind in keys else ():
            first, *others = sorted({root(name) for name in together}) if key else [""]
            for other in others:
                parent[other] = first
    return names.map(root)
