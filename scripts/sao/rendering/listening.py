"""Choose the few sounds that are rendered with each leg of a training, to listen to while it runs."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

from sao.base.takes import is_first_take
from sao.config.resolve import ROLES
from sao.config.settings import ListenSettings
from sao.rendering.clips import Clip
from sao.rendering.prompts import SPLIT

# Neither a clip of a corpus nor a prompt of a user's can have these in its id.
EMPTY = "_empty-prompt"
SCALED = "@cfg-"


def in_turn(clips: Sequence[Clip], count: int) -> list[Clip]:
    """`count` clips, in turn from each split: a user's own prompts first, held-out clips before those trained on.

    A user's prompts are taken in their order. Clips of a corpus are drawn by lot, by their seeds, so that other clips can come
    and go.
    """
    order = (SPLIT, *reversed(ROLES))
    firsts = [clip for clip in clips if is_first_take(clip.clip_id)]
    of_split = [sorted((c for c in firsts if c.split == split), key=_rank) for split in order]
    rounds = itertools.chain.from_iterable(itertools.zip_longest(*of_split))
    return list(itertools.islice((clip for clip in rounds if clip is not None), count))


def _rank(clip: Clip) -> int:
    return 0 if clip.split == SPLIT else clip.seed


def listened(clips: Sequence[Clip], settings: ListenSettings) -> list[Clip]:
    """The sounds to listen to: the chosen clips and an empty prompt, each with each scale of guidance.

    The empty prompt has seed and length of the first clip, so the caption is all that differs.
    """
    chosen = in_turn(clips, settings["clips"])
    if settings["empty_prompt"]:
        chosen.append(replace(chosen[0], clip_id=EMPTY, prompt="", reference=""))
    if settings["cfg_scales"] is None:
        return chosen
    return [
        replace(clip, clip_id=f"{clip.clip_id}{SCALED}{text_of(scale)}", cfg_scale=float(scale))
        for clip in chosen
        for scale in settings["cfg_scales"]
    ]


def chosen_clip(sound: str) -> str:
    """The id of the clip that a sound comes from, by the id of the sound: it has no scale of guidance."""
    return sound.partition(SCALED)[0]


def text_of(scale: float) -> str:
    """A scale as part of a name: `7` for 7.0."""
    return str(float(scale)).removesuffix(".0")
