"""OpenL3's audio network with 512 numbers (Cramer et al. 2019, ICASSP, "Look, Listen, and Learn More"), and its front end.

Input is `mel256`. Front end and architecture are those of marl/openl3, whose spectrograms are kapre 0.1.4's. Keys are those of
torchopenl3's `torchopenl3_mel256_{env,music}_512.pth.tar`, into which the original weights were converted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torchaudio
from torch import nn
from torch.nn import functional as F

from sao.evaluation.networks.network import Network

RATE = 48000  # Hz; a window has one second
FFT, HOP, BANDS = 2048, 242, 256
LEAST, RANGE = 1e-10, 80.0  # lowest amplitude; dB below the loudest cell of a window
POOL = (32, 24)  # the whole map that is left of a window


class OpenL3(Network):
    DROPPED = ("speclayer.",)
    window: torch.Tensor
    bands: torch.Tensor

    def __init__(self, widths: tuple[int, ...]) -> None:
        """`widths` are those of the seven convolutions and of the embedding."""
        super().__init__()
        self.register_buffer("window", torch.hann_window(FFT), persistent=False)
        self.register_buffer("bands", mel_bands(), persistent=False)
        for number, (before, width) in enumerate(zip((1, *widths[:-2]), widths[:-1], strict=True), start=1):
            self.add_module(f"batch_normalization_{number}", nn.BatchNorm2d(before, eps=1e-3))
            self.add_module(f"conv2d_{number}", nn.Conv2d(before, width, 3, padding=1))
        self.batch_normalization_8 = nn.BatchNorm2d(widths[-2], eps=1e-3)
        self.audio_embedding_layer = nn.Conv2d(widths[-2], widths[-1], 3, padding=1)

    @classmethod
    def arguments(cls, tensors: Mapping[str, torch.Tensor]) -> dict[str, Any]:
        names = [*(f"conv2d_{number}" for number in range(1, 8)), "audio_embedding_layer"]
        return {"widths": tuple(len(tensors[f"{name}.bias"]) for name in names)}

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """`[windows, 512]` of windows of one second, `[windows, 48000]`."""
        x = self.get_submodule("batch_normalization_1")(self.spectrogram(windows)[:, None])
        for number in range(1, 8):
            x = self.get_submodule(f"conv2d_{number}")(x)
            x = F.relu(self.get_submodule(f"batch_normalization_{number + 1}")(x))
            x = F.max_pool2d(x, 2) if number in (2, 4, 6) else x
        return F.max_pool2d(self.audio_embedding_layer(x), POOL).flatten(1)

    def spectrogram(self, windows: torch.Tensor) -> torch.Tensor:
        """`[windows, 256, 199]` in dB relative to the loudest cell of each window, at least -80.

        The root of the power in each band is taken as an amplitude `a`, and `10 log10 a` as its decibels.
        """
        overhang = FFT - windows.shape[1] % HOP  # Keras' padding `same`
        padded = F.pad(windows, (overhang // 2, overhang - overhang // 2))
        spectrum = torch.stft(padded, FFT, HOP, window=self.window, center=False, return_complex=True)
        amplitude = (self.bands @ spectrum.abs().square()).sqrt()
        decibels = 10 * torch.log10(amplitude.clamp(min=LEAST))
        return (decibels - decibels.amax(dim=(1, 2), keepdim=True)).clamp(min=-RANGE)


def mel_bands() -> torch.Tensor:
    """Triangles on HTK's mel scale, each of the same area, `[256, 1025]`."""
    return torchaudio.functional.melscale_fbanks(
        FFT // 2 + 1, 0.0, RATE / 2, BANDS, RATE, norm="slaney", mel_scale="htk"
    ).T.contiguous()


def windows(signal: np.ndarray, hop: float) -> np.ndarray:
    """Windows of one second `[windows, 48000]` of a mono signal at 48 kHz, one each `hop` s, padded as in marl/openl3.

    The first is centred on the first sample (`center=True`), and zeros at the end fill the last.
    """
    step = int(hop * RATE)
    centred = np.pad(signal, (RATE // 2, 0))
    more = -(-max(len(centred) - RATE, 0) // step) * step + RATE - len(centred)
    return np.lib.stride_tricks.sliding_window_view(np.pad(centred, (0, more)), RATE)[::step].astype(np.float32)
