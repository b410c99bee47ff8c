"""Bring sounds to the folder of a page."""

from __future__ import annotations

from pathlib import Path

from sao.base.files import copy_file, link_or_copy
from sao.sound.spectra import read_sound
from sao.sound.suffixes import page_suffix
from sao.sound.write import write_sound


def bring(sound: Path, target: Path, data: Path) -> None:
    """Link a sound that a rule wrote below `data`. Copy a user's own, because a program may write to a file of the page.

    A sound of a kind that browsers do not play is written as FLAC.
    """
    target = target.with_suffix(page_suffix(sound.name))
    if target.suffix != sound.suffix:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_sound(target, *read_sound(sound), "PCM_24")
    else:
        (link_or_copy if sound.resolve().is_relative_to(data.resolve()) else copy_file)(sound, target)
