"""CNN14 of PANNs (Kong et al. 2020, IEEE/ACM TASLP 28; arXiv:1912.10211), trained on AudioSet's 527 classes.

Front end and architecture are those of qiuqiangkong/audioset_tagging_cnn. Keys are those of `Cnn14_mAP=0.431.pth` (32 kHz) and
`Cnn14_16k_mAP=0.438.pth` in Zenodo's record 3987831.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torchaudio
from torch import nn
from torch.nn import functional as F

from sao.evaluation.networks.network import Network

BANDS, LOW = 64, 50  # bands, Hz
HIGH = {32000: 14000, 16000: 8000}  # Hz, by rate
LEAST = 1e-10  # power
SHRUNK = 32  # frames that five poolings leave one of


class Block(nn.Module):
    def __init__(self, before: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, width, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(width), nn.BatchNorm2d(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))


class Cnn14(Network):
    DROPPED = ("spectrogram_extractor.", "logmel_extractor.")

    def __init__(self, widths: tuple[int, ...], dim: int, classes: int) -> None:
        """`widths` are those of the six blocks."""
        super().__init__()
        self.bn0 = nn.BatchNorm2d(BANDS)
        for number, (before, width) in enumerate(zip((1, *widths[:-1]), widths, strict=True), start=1):
            self.add_module(f"conv_block{number}", Block(before, width))
        self.fc1 = nn.Linear(widths[-1], dim)
        self.fc_audioset = nn.Linear(dim, classes)

    @classmethod
    def arguments(cls, tensors: Mapping[str, torch.Tensor]) -> dict[str, Any]:
        return {
            "widths": tuple(len(tensors[f"conv_block{number}.bn1.bias"]) for number in range(1, 7)),
            "dim": len(tensors["fc1.bias"]),
            "classes": len(tensors["fc_audioset.bias"]),
        }

    def forward(self, log_mel: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """`(vectors [clips, 2048], logits [clips, 527])` of log-mel spectrograms `[clips, frames, 64]`."""
        x = self.bn0(log_mel[:, None].transpose(1, 3)).transpose(1, 3)
        for number in range(1, 7):
            x = self.get_submodule(f"conv_block{number}")(x)
            x = F.avg_pool2d(x, 2) if number < 6 else x
        x = x.mean(dim=3)
        vectors = F.relu(self.fc1(x.amax(dim=2) + x.mean(dim=2)))
        return vectors, self.fc_audioset(vectors)


def log_mel(signals: torch.Tensor, rate: int) -> torch.Tensor:
    """`[clips, frames, 64]` in dB of mono signals `[clips, samples]` at 32 or 16 kHz, 100 frames per second.

    A signal that is shorter than the network's poolings is padded with zeros.
    """
    fft, hop = (1024, 320) if rate == 32000 else (512, 160)
    signals = F.pad(signals, (0, max(0, SHRUNK * hop - signals.shape[1])))
    window = torch.hann_window(fft, device=signals.device)
    spectrum = torch.stft(signals, fft, hop, window=window, pad_mode="reflect", return_complex=True)
    bands = torchaudio.functional.melscale_fbanks(
        fft // 2 + 1, LOW, HIGH[rate], BANDS, rate, norm="slaney", mel_scale="slaney"
    )
    power = spectrum.abs().square().transpose(1, 2) @ bands.to(signals.device)
    return 10 * torch.log10(power.clamp(min=LEAST))
