"""Find the recording that a rendered clip sounds like: the reference with the nearest log-mel spectrogram."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import soundfile
import torch
import torchaudio

RATE, MELS, WINDOW, HOP = 16000, 64, 1024, 256  # Hz, bands, samples, samples
FLOOR_DB = -60.0  # relative to the loudest cell; a lower level is hardly audible


def log_mel(path: Path, frames: int) -> np.ndarray:
    """The log-mel spectrogram `[mels, frames]` in dB relative to its loudest cell, padded with the floor."""
    audio, rate = soundfile.read(path, dtype="float32", always_2d=True)
    mono = torchaudio.functional.resample(torch.from_numpy(audio.mean(1)), rate, RATE)
    mel = torchaudio.transforms.MelSpectrogram(RATE, WINDOW, hop_length=HOP, n_mels=MELS)(mono)
    decibels = 10 * torch.log10(mel.clamp_min(1e-12))
    decibels = (decibels - decibels.max()).clamp_min(FLOOR_DB)[:, :frames]
    return torch.nn.functional.pad(decibels, (0, frames - decibels.shape[1]), value=FLOOR_DB).numpy()


def top1(samples: pd.DataFrame, root: Path, run: str, split: str) -> tuple[float, int]:
    """`(share of a run's clips whose nearest reference is their own, number of references)` within a split."""
    rows = samples[(samples.run == run) & (samples.split == split)].sort_values("clip_id")
    frames = int(np.ceil(rows.seconds.max() * RATE / HOP)) + 1
    references = np.stack([log_mel(root / path, frames) for path in rows.reference])
    rendered = np.stack([log_mel(root / "results/samples" / run / f"{clip}.wav", frames) for clip in rows.clip_id])
    distance = np.abs(rendered[:, None] - references[None]).mean(axis=(2, 3))
    return float((distance.argmin(axis=1) == np.arange(len(rows))).mean()), len(rows)


def louder_when_quiet(samples: pd.DataFrame, root: Path, run: str, split: str) -> float:
    """How much louder a run's renders are than their recordings in the recordings' quietest fifth, in dB; the median clip.

    Both relative to their own loudest cell, so that this is rumble or hiss, not level.
    """
    found = []
    for row in samples[(samples.run == run) & (samples.split == split)].itertuples():
        frames = int(row.seconds * RATE / HOP)
        recording, render = (
            log_mel(path, frames).mean(axis=0)
            for path in (root / row.reference, root / "results/samples" / run / f"{row.clip_id}.wav")
        )
        quiet = recording <= np.quantile(recording, 0.2)
        found.append(float(np.median(render[quiet] - recording[quiet])))
    return float(np.median(found))
