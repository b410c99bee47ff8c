"""Which clip is trained on, validated on, rendered: a function of the clip and the config alone."""

from __future__ import annotations

from typing import Any

import pandas as pd

from .clips import seed_for
from .config import ROLES

UNKNOWN = frozenset(("", "-", "?", "0", "n/a", "na", "nan", "none", "null", "not found", "unknown"))


def known(value: str) -> bool:
    """Whether a `sound_id` names a recording; Clotho writes words where it knows none."""
    return value.strip().lower() not in UNKNOWN


def assign(table: pd.DataFrame, split: dict[str, Any]) -> pd.Series:
    """The role of each clip of the manifests, `""` for one that none of the three sides names.

    `split` is the corpus's `split` with its `train`, `validation` and `evaluation` lists.
    """
    if split["method"] == "fraction":
        return draw(table, split)
    key = "published_split" if split["method"] == "official" else "given_split"
    return table[key].map({name: role for role in ROLES for name in split[role]}).fillna("")


def draw(table: pd.DataFrame, split: dict[str, Any]) -> pd.Series:
    """Draw sides by a hash of (seed, group): clips that come or go move no other, and no group straddles."""
    given = {name: role for role in ("validation", "evaluation") for name in split[role]}
    roles = table.published_split.map(given).fillna("")
    shares = {role: split["fractions"][role] for role in ("evaluation", "validation") if not split[role]}
    pool = table[roles == ""]
    for index, group in groups(pool).items():
        point, role = seed_for(split["seed"], "split", group) / 2**32, "train"
        for side, share in shares.items():
            if 0 <= point < share:
                role = side
            point -= share
        roles[index] = role
    return roles


def groups(table: pd.DataFrame) -> pd.Series:
    """What must stay together, by name: the given group, else the recording (`sound_id`), else the clip itself.

    Clips of identical audio stay together too when these differ; they go by the first of these names.
    """
    # What is the surer name comes first in the alphabet: a clip that joins a group brings no other name to it.
    # A lone clip goes by its id and not its audio, so that a file that is encoded anew stays on its side.
    names = ("sound " + table.clip_id).where(~table.sound_id.map(known), "recording " + table.sound_id)
    if "given_group" in table:
        names = names.where(table.given_group.str.strip() == "", "group " + table.given_group)
    parent = {name: name for name in names}

    def root(name: str) -> str:
        while parent[name] != name:
            name = parent[name]
        return name

    for keys in (table.audio_sha256, table.sound_id.where(table.sound_id.map(known), "")):
        for key, together in names.groupby(keys):
            first, *others = sorted({root(name) for name in together}) if key else [""]
            for other in others:
                parent[other] = first
    return names.map(root)
