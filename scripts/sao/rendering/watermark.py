"""Mark rendered sounds with a watermark that nobody hears and a detector finds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.signal import resample_poly

from sao.models.audioseal import RATE, load, mark
from sao.sound.spectra import to_mono


class Marker:
    """AudioSeal's generator, with the settings of `render.watermark`."""

    def __init__(self, weights: Path, settings: Mapping[str, Any], device: str) -> None:
        self.generator, self.device = load("generator", weights).to(device), device
        self.message, self.strength = settings["message"], settings["strength"]

    def marked(self, audio: np.ndarray, rate: int) -> np.ndarray:
        """A sound `[samples, channels]` at `rate` Hz with its mark.

        AudioSeal takes mono sounds at 16 kHz. So the mark is made for the mean of the channels at that rate, as in AudioSeal before
        its release 0.2; the mark alone is brought back to `rate` and added to each channel. Above 8 kHz the sound stays as it is.
        """
        mono = torch.from_numpy(to_mono(audio, rate, RATE).astype(np.float32)).to(self.device)
        own = mark(self.generator, mono, self.message).float().cpu().numpy()
        common = int(np.gcd(rate, RATE))
        back = resample_poly(own, rate // common, RATE // common)[: len(audio)]
        return audio + (self.strength * np.pad(back, (0, len(audio) - len(back)))).astype(audio.dtype)[:, None]
