"""Several renders of one prompt: its takes. They differ in nothing but their seeds, and each has an id of its own."""

from __future__ import annotations

from sao.base.names import seed_for

TAKE = "@take-"  # no id of a clip or of a prompt can hold it


def take_id(clip: str, take: int) -> str:
    """The id of a take, counted from 1, of a clip. The first has the id of the clip, as if there were no others."""
    return clip if take == 1 else f"{clip}{TAKE}{take}"


def clip_and_take(sound: str) -> tuple[str, int]:
    """The clip of a rendered sound, and which take it is, counted from 1."""
    clip, found, take = sound.partition(TAKE)
    return clip, int(take) if found else 1


def is_first_take(sound: str) -> bool:
    return TAKE not in sound


def take_seed(seed: int, take: int) -> int:
    """The seed of a take, from that of the first take alone. So a larger number of takes changes none that was there."""
    return seed if take == 1 else seed_for(seed, "take", take)
