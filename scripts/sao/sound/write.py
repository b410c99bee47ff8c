"""Write a sound file, to its end. numpy and soundfile only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from sao.base.files import writing


def write_sound(
    path: Path, audio: np.ndarray, rate: int, subtype: str, title: str = "", comment: Mapping[str, Any] | None = None
) -> None:
    """Write `audio [samples, channels]`, with title and comment (as JSON) in the file's own metadata if there are any."""
    with writing(path, 4 * audio.size):
        with soundfile.SoundFile(path, "w", rate, audio.shape[1], subtype) as sound:
            if title:
                sound.title = title
            if comment is not None:
                sound.comment = json.dumps(comment)
            sound.write(audio)
        # Closing the file writes the rest of a buffer, and libsndfile does not report if that fails.
        if soundfile.info(path).frames != len(audio):
            raise OSError(f"{path}: was not written to its end")
