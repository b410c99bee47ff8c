"""PaSST (Koutini et al. 2022, Interspeech; arXiv:2110.05069), a transformer over patches of a spectrogram; AudioSet's 527 classes.

Front end and architecture are those of kkoutini/passt_hear21 (`passt_s_swa_p16_128_ap476`). Keys are those of
`passt-s-f128-p16-s10-ap.476-swa.pt` of PaSST's release v0.0.1-audioset.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torchaudio
from torch import nn
from torch.nn import functional as F

from sao.evaluation.networks.network import Network

RATE = 32000  # Hz
FFT, WINDOW, HOP, BANDS, HIGH = 1024, 800, 320, 128, 15000  # samples, bands, Hz
EMPHASIS = 0.97
STRIDE = 10  # bands and frames from patch to patch
HEAD = 64  # numbers of a head of attention


class Attention(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, -1, HEAD)).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.attn, self.mlp = Attention(dim), Mlp(dim, hidden)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Passt(Network):
    # The second head is for distillation; the model that is published answers with the first.
    DROPPED = ("head_dist.",)

    def __init__(self, dim: int, depth: int, hidden: int, classes: int, grid: tuple[int, int], patch: int) -> None:
        """`grid` are the patches of the longest input, in frequency and time."""
        super().__init__()
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(1, dim, patch, STRIDE)})
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.dist_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.new_pos_embed = nn.Parameter(torch.zeros(1, 2, dim))
        self.freq_new_pos_embed = nn.Parameter(torch.zeros(1, dim, grid[0], 1))
        self.time_new_pos_embed = nn.Parameter(torch.zeros(1, dim, 1, grid[1]))
        self.blocks = nn.Sequential(*(Block(dim, hidden) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, classes))

    @classmethod
    def arguments(cls, tensors: Mapping[str, torch.Tensor]) -> dict[str, Any]:
        return {
            "dim": tensors["cls_token"].shape[2],
            "depth": 1 + max(int(key.split(".")[1]) for key in tensors if key.startswith("blocks.")),
            "hidden": len(tensors["blocks.0.mlp.fc1.bias"]),
            "classes": len(tensors["head.1.bias"]),
            "grid": (tensors["freq_new_pos_embed"].shape[2], tensors["time_new_pos_embed"].shape[3]),
            "patch": tensors["patch_embed.proj.weight"].shape[2],
        }

    def forward(self, log_mel: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """`(vectors [clips, 768], logits [clips, 527])` of log-mel spectrograms `[clips, 128, frames]` of up to ten seconds."""
        x = self.patch_embed["proj"](log_mel[:, None])
        x = x + self.time_new_pos_embed[..., : x.shape[3]] + self.freq_new_pos_embed
        tokens = torch.cat([self.cls_token, self.dist_token], dim=1) + self.new_pos_embed
        x = torch.cat([tokens.expand(len(x), -1, -1), x.flatten(2).transpose(1, 2)], dim=1)
        vectors = self.norm(self.blocks(x))[:, :2].mean(dim=1)
        return vectors, self.head(vectors)


def log_mel(signals: torch.Tensor) -> torch.Tensor:
    """`[clips, 128, frames]`, normalised, of mono signals `[clips, samples]` at 32 kHz, 100 frames per second."""
    emphasised = signals[:, 1:] - EMPHASIS * signals[:, :-1]
    window = torch.hann_window(WINDOW, periodic=False, device=signals.device)
    spectrum = torch.stft(emphasised, FFT, HOP, WINDOW, window, return_complex=True)
    bands, _ = torchaudio.compliance.kaldi.get_mel_banks(BANDS, FFT, RATE, 0.0, HIGH, 100.0, -500.0, 1.0)
    power = F.pad(bands, (0, 1)).to(signals.device) @ spectrum.abs().square()
    return ((power + 1e-5).log() + 4.5) / 5
