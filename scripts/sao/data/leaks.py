"""Which clips would leak from one side of a corpus into another."""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass
from typing import Any

import pandas as pd

from sao.config.resolve import ROLES
from sao.data.splits import ties

JUDGES_FIRST = ROLES[::-1]  # evaluation, validation, train: a clip stays on the first side that it is tied to


@dataclass(frozen=True)
class Leak:
    """A clip that is tied to a side that judges more than its own: evaluation before validation before train."""

    row: Any  # of the table
    message: str


def find_leaks(table: pd.DataFrame) -> list[Leak]:
    """What has to be left out so that no two sides share a recording, audio or a group; in the order of the table.

    `table` has a `role`, one of the three, for each clip. Ties are followed from clip to clip: what shares audio with a
    validation clip whose recording is in evaluation too is tied to evaluation.
    """
    roles, paths = table.role.tolist(), table.path.tolist()
    members: dict[tuple[str, str], list[int]] = defaultdict(list)
    keys_of: dict[int, list[tuple[str, str]]] = defaultdict(list)  # of the few that share anything
    for what, keys in ties(table).items():
        shared = keys[(keys != "") & keys.duplicated(keep=False)]
        for at, key in zip(table.index.get_indexer(shared.index).tolist(), shared, strict=True):
            members[what, key].append(at)
            keys_of[at].append((what, key))
    tied = sorted(keys_of)

    side: dict[int, str] = {}  # of each clip, the side that it is tied to
    tie: dict[int, tuple[int, tuple[str, str]]] = {}  # to which clip, by what
    for role in JUDGES_FIRST:
        own = [at for at in tied if roles[at] == role and at not in side]
        side |= dict.fromkeys(own, role)
        queue = deque(own)
        while queue:
            here = queue.popleft()
            for key in keys_of[here]:
                for there in members.pop(key, []):  # once: all that share it are found at the first
                    if there not in side:
                        side[there], tie[there] = role, (here, key)
                        queue.append(there)

    def message(at: int) -> str:
        near, (what, key) = tie[at]
        label = what if what == "audio" else f"{what} {key}"
        told = f"({roles[at]}) has the same {label} as {paths[near]} ({roles[near]})"
        last = near
        while last in tie:
            last = tie[last][0]
        if last != near:
            told += f", which is tied to {paths[last]} ({side[at]})"
        return f"{told}: it would leak"

    found = [at for at in tied if roles[at] != side[at]]
    return [Leak(row, message(at)) for at, row in zip(found, table.iloc[found].itertuples(), strict=True)]
