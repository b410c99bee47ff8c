"""VGGish (Hershey et al. 2017, ICASSP; arXiv:1609.09430), and the log-mel patches that it takes.

Architecture and front end are those of TensorFlow's models/research/audioset/vggish. Keys are those of torchvggish's
`vggish-10086976.pth`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers.audio_utils import mel_filter_bank

from sao.evaluation.networks.network import Network

RATE = 16000  # Hz
WINDOW, HOP, FFT = 400, 160, 512  # samples
BANDS, LOW, HIGH = 64, 125, 7500  # bands, Hz
PATCH = 96  # frames of an example, 0.96 s
OFFSET = 0.01  # is added before the logarithm
LEAST = (PATCH - 1) * HOP + WINDOW  # samples of one example


class Vggish(Network):
    def __init__(self, convolutions: tuple[int, ...], hidden: tuple[int, ...]) -> None:
        """`convolutions` are the widths of the six convolutions, `hidden` those of the three linear layers."""
        super().__init__()
        pools = (0, 1, 3, 5)  # convolutions with a pooling behind them
        layers: list[nn.Module] = []
        for number, (before, width) in enumerate(zip((1, *convolutions[:-1]), convolutions, strict=True)):
            layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU()]
            layers += [nn.MaxPool2d(2)] if number in pools else []
        self.features = nn.Sequential(*layers)
        flat = convolutions[-1] * (PATCH // 16) * (BANDS // 16)
        self.embeddings = nn.Sequential(
            nn.Linear(flat, hidden[0]),
            nn.ReLU(),
            nn.Linear(hidden[0], hidden[1]),
            nn.ReLU(),
            nn.Linear(hidden[1], hidden[2]),
        )

    @classmethod
    def arguments(cls, tensors: Mapping[str, torch.Tensor]) -> dict[str, Any]:
        convolutions = tuple(len(tensors[f"features.{at}.bias"]) for at in (0, 3, 6, 8, 11, 13))
        return {
            "convolutions": convolutions,
            "hidden": tuple(len(tensors[f"embeddings.{at}.bias"]) for at in (0, 2, 4)),
        }

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """`[patches, dim]` of log-mel patches `[patches, 96, 64]`.

        Without the last ReLU, PCA and quantisation, as FAD is measured (Kilgour et al. 2019).
        """
        maps = self.features(patches[:, None])
        # TensorFlow has channels last.
        return self.embeddings(maps.permute(0, 2, 3, 1).flatten(1))


@cache
def bands() -> np.ndarray:
    """Triangles on HTK's mel scale, straight in mel, `[257, 64]`. The first bin counts for none of them."""
    return mel_filter_bank(
        num_frequency_bins=FFT // 2 + 1,
        num_mel_filters=BANDS,
        min_frequency=LOW,
        max_frequency=HIGH,
        sampling_rate=RATE,
        norm=None,
        mel_scale="htk",
        triangularize_in_mel_space=True,
    )


def patches(signal: np.ndarray) -> np.ndarray:
    """Log-mel patches `[patches, 96, 64]` of a mono signal at 16 kHz, one each 0.96 s. What remains at the end is left out.

    A signal that is shorter than a patch is padded with zeros.
    """
    signal = np.pad(signal, (0, max(0, LEAST - len(signal)))).astype(np.float64)
    frames = np.lib.stride_tricks.sliding_window_view(signal, WINDOW)[::HOP]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
    log_mel = np.log(np.abs(np.fft.rfft(frames * hann, FFT)) @ bands() + OFFSET)
    count = len(log_mel) // PATCH
    return log_mel[: count * PATCH].reshape(count, PATCH, BANDS).astype(np.float32)
