"""Find the clips that would leak from one side of a corpus into another."""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass
from typing import Any

import pandas as pd

from sao.base.tables import each
from sao.config.resolve import ROLES
from sao.data.findings import Findings
from sao.data.splits import ties

JUDGES_FIRST = ROLES[::-1]  # evaluation, validation, train: a clip stays on the first side that it is tied to


@dataclass(frozen=True)
class Leak:
    """A clip that is tied to a more important side than its own: evaluation comes before validation, and that before train."""

    row: Any  # of the table
    message: str


def find_leaks(table: pd.DataFrame) -> list[Leak]:
    """The clips to leave out so that no two sides share a recording, audio or a group, in the order of the table.

    `table` has the side of each clip in the column `role`. Ties are followed from clip to clip: a clip that shares its audio
    with a validation clip, whose recording is also in evaluation, is tied to evaluation.
    """
    roles, paths = table.role.tolist(), table.path.tolist()
    members: dict[tuple[str, str], list[int]] = defaultdict(list)
    keys_of: dict[int, list[tuple[str, str]]] = defaultdict(list)  # only for the few clips that share anything
    for kind, keys in ties(table).items():
        shared = keys[(keys != "") & keys.duplicated(keep=False)]
        for at, key in zip(table.index.get_indexer(shared.index).tolist(), shared, strict=True):
            members[kind, key].append(at)
            keys_of[at].append((kind, key))
    tied = sorted(keys_of)

    side: dict[int, str] = {}  # by clip, the side that it is tied to
    tie: dict[
        int, tuple[int, tuple[str, str]]
    ] = {}  # by clip, the clip that it is tied to, and the key that they share
    for role in JUDGES_FIRST:
        own = [at for at in tied if roles[at] == role and at not in side]
        side |= dict.fromkeys(own, role)
        queue = deque(own)
        while queue:
            clip = queue.popleft()
            for key in keys_of[clip]:
                for other in members.pop(key, []):  # the first clip with a key finds all others, so the key can go
                    if other not in side:
                        side[other], tie[other] = role, (clip, key)
                        queue.append(other)

    def message(at: int) -> str:
        near, (kind, key) = tie[at]
        label = kind if kind in ("audio", "source") else f"{kind} {key}"
        text = f"({roles[at]}) has the same {label} as {paths[near]} ({roles[near]})"
        last = near
        while last in tie:
            last = tie[last][0]
        if last != near:
            text += f", which is tied to {paths[last]} ({side[at]})"
        return f"{text}: it would leak"

    leaking = [at for at in tied if roles[at] != side[at]]
    return [Leak(row, message(at)) for at, row in zip(leaking, table.iloc[leaking].itertuples(), strict=True)]


def check_leaks(table: pd.DataFrame, on_leak: str, findings: Findings) -> None:
    """Report leaks from one side into another as errors, or leave the clips out."""
    report = findings.leave_out if on_leak == "drop" else findings.error
    for leak in find_leaks(table):
        report("leak", leak.row, leak.message)


def check_duplicates(table: pd.DataFrame, findings: Findings) -> None:
    """Warn of identical audio within a side."""
    for _, group in table[table.audio_sha256.duplicated(keep=False)].groupby("audio_sha256", sort=True):
        first, *others = each(group.sort_values("clip_id"))
        for row in others:
            findings.warning("duplicate", row, f"has the same audio as {first.path}")
