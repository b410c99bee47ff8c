"""The sounds that a user's prompts start from: checked, and copied to where the page plays them."""

from __future__ import annotations

from pathlib import Path

from sao.base.command import InputError

import numpy as np

from sao.rendering.clips import Clip
from sao.rendering.named import check_sound
from sao.sound.read import BLOCK, SILENT_DBFS, Measured, measure, open_sound
from sao.sound.write import write_sound


def facts_of(path: Path, origin: str) -> Measured:
    """The facts about a source. Raises InputError, which begins with `origin`, if it cannot be used."""
    check_sound(path, origin)
    facts = measure(path)
    if facts.problem:
        raise InputError(f"{origin}: the init_audio {path.as_posix()!r} {facts.problem}")
    if facts.peak_dbfs < SILENT_DBFS:
        raise InputError(f"{origin}: the init_audio {path.as_posix()!r} is silent (its peak is {facts.peak_dbfs} dBFS)")
    return facts


def copy_source(clip: Clip, path: Path) -> None:
    """Write the part of a clip's source that the clip starts from as a WAV of 24 bits, which every browser plays."""
    parts = []
    with open_sound(Path(clip.source)) as sound:
        rate, missing = sound.samplerate, max(round(clip.seconds * sound.samplerate), 1)
        for block in sound.blocks_of(BLOCK):
            parts.append(block[:missing])
            missing -= len(parts[-1])
            if not missing:
                break
    write_sound(path, np.concatenate(parts), rate, "PCM_24")
