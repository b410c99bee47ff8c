"""Which clips would leak from one side of a corpus into another."""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass
from typing import Any

import pandas as pd

from .config import ROLES
from .splits import ties

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
    rows = list(table.itertuples())
    members: dict[tuple[str, str], list[int]] = defaultdict(list)
    keys_of: list[list[tuple[str, str]]] = [[] for _ in rows]
    for what, keys in ties(table).items():
        shared = keys[(keys != "") & keys.duplicated(keep=False)]
        for at, key in zip(table.index.get_indexer(shared.index), shared, strict=True):
            members[what, key].append(at)
            keys_of[at].append((what, key))

    side: dict[int, str] = {}  # of each clip, the side that it is tied to
    tie: dict[int, tuple[int, tuple[str, str]]] = {}  # to which clip, by what
    for role in JUDGES_FIRST:
        own = [at for at, row in enumerate(rows) if row.role == role and at not in side and keys_of[at]]
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
        told = f"({rows[at].role}) has the same {label} as {rows[near].path} ({rows[near].role})"
        last = near
        while last in tie:
            last = tie[last][0]
        if last != near:
            told += f", which is tied to {rows[last].path} ({side[at]})"
        return f"{told}: it would leak"

    return [Leak(row, message(at)) for at, row in enumerate(rows) if row.role != side.get(at, row.role)]
