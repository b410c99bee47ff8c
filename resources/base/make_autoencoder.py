"""Make the autoencoder of the base model: any sound to 64 numbers 15.6 times a second, and back.

    uv run python resources/base/make_autoencoder.py --corpus /var/tmp/corpus --work /var/tmp/autoencoder

Reads `train/` as make_corpus.py writes it and writes `autoencoder/`: `model_config.json`, `model.safetensors` (half
precision). It counts steps and is seeded: the same machine, corpus and thread count give the same weights. It can be
stopped and started again: `--work` keeps a checkpoint.

Training from nothing takes days of two cores. So both halves start as signal processing, written into the weights:

- The latents are the principal components of the log-mel spectrum (four frames of 64 bands a latent frame).
- The encoder starts as a filter bank: three phases a band, rectified by ELU; the logarithm is a sum of exponentials
  that saturate at one level after the other (ELU again); a linear regression finds the latents from there.
- The decoder starts as a vocoder: a linear map gives every band's logarithmic amplitude, ELU is the exponential, and
  the last convolution holds a short wave for each band and phase. Silence stays silent: the waves cancel.

Training then tunes both together.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import random
import time
from pathlib import Path

import numpy as np
import soundfile
import torch
import torch.nn.functional as F
import torchaudio
from safetensors.torch import save_file
from stable_audio_tools.models.factory import create_model_from_config
from torch.nn.utils import remove_weight_norm

HERE = Path(__file__).resolve().parent
SAMPLE_RATE = 16000  # Hz
HOP = 1024  # samples a latent frame
LATENT_DIM = 64
PATCH = 128  # samples
FRAMES = HOP // PATCH  # of patches, a latent frame
MEL_FRAMES = 4  # of the log-mel, a latent frame
MELS = 64
FLOOR = 3e-5  # amplitude: -90 dB under a sine at full scale
TAPS = 7  # of the first and the last convolution, in patches
REACH = TAPS * PATCH  # samples: the longest filter and the longest wave
NOISE = 0.05  # standard deviation of the posterior
SPREAD = 0.8  # standard deviation of the latents
SHIFT = 8.0  # keeps latents on ELU's straight side
STEREO = 4  # latents that hold the stereo image

ENCODER_CHANNELS = 168
BANDS = 42  # of the encoder's filter bank: 3 phases and 1 logarithm each are 168 channels
MID_BANDS = 37  # the others hear the side signal, left, and right
GAIN = 10000.0  # of the filters: ELU rectifies what is larger than 1
LEVELS = (2.0, 1 / 8, 1 / 100, 1 / 1200)  # gains at which the exponentials saturate: 20 dB apart

DECODER_CHANNELS = 192
MID_WAVES = 56  # 3 phases each: a mel band, or at the top two
SIDE_WAVES = 4
CONTEXT = DECODER_CHANNELS - 3 * (MID_WAVES + SIDE_WAVES)  # channels that carry latents to the residual units
LOW_RHYTHM, RHYTHM = 0.8, 0.2  # how much phases repeat every 64 ms, below and above 1 kHz
MIX, STIR = 12.0, 0.8  # how much phases change with the latents
STEADY = 8  # latents that do not change phases: the coarse ones, which are large
PACE = 8.0  # how much faster the residual units and the waves may change than the rest
HEADROOM = 4.0  # amplitude up to which ELU is the exponential

AUTOENCODER = {
    "pretransform": {"type": "patched", "config": {"channels": 2, "patch_size": PATCH}},
    "encoder": {
        "type": "oobleck",
        "config": {
            "in_channels": 2 * PATCH,
            "channels": ENCODER_CHANNELS,
            "c_mults": [1, 1],
            "strides": [2, 4],
            "latent_dim": 2 * LATENT_DIM,
            "use_snake": False,
        },
    },
    "decoder": {
        "type": "oobleck",
        "config": {
            "out_channels": 2 * PATCH,
            "channels": DECODER_CHANNELS,
            "c_mults": [1],
            "strides": [FRAMES],
            "latent_dim": LATENT_DIM,
            "use_snake": False,
            "final_tanh": False,
        },
    },
    "bottleneck": {"type": "vae"},
    "latent_dim": LATENT_DIM,
    "downsampling_ratio": HOP,
    "io_channels": 2,
}
CONFIG = {
    "model_type": "autoencoder",
    "sample_rate": SAMPLE_RATE,
    "sample_size": 48 * HOP,
    "audio_channels": 2,
    "model": AUTOENCODER,
}


# --- sounds


class Sounds:
    """The corpus in memory, and endless batches of it: batch k depends on the seed and k alone."""

    def __init__(self, folder: Path, frames: int, batch_size: int, leave_out: tuple[str, ...] = ()) -> None:
        with folder.with_suffix(".csv").open(encoding="utf-8", newline="") as handle:
            rows = [row for row in csv.DictReader(handle) if row["package"] not in leave_out]
        self.clips = [soundfile.read(folder / row["file"], dtype="int16", always_2d=True)[0].T for row in rows]
        # Rendered notes are many and alike: recordings of the world come as often as they do.
        counts = {kind: sum((row["kind"] in ("note", "chord")) == kind for row in rows) for kind in (True, False)}
        self.weights = [1 / counts[row["kind"] in ("note", "chord")] for row in rows]
        self.length, self.batch_size = frames * HOP, batch_size

    def crop(self, rng: random.Random) -> torch.Tensor:
        clip = rng.choices(self.clips, self.weights)[0]
        speed = 2 ** rng.uniform(-0.5, 0.5) if rng.random() < 0.4 else 1.0
        needed = math.ceil(self.length * speed) + 1
        start = rng.randint(-needed // 3, max(0, clip.shape[1] - needed // 2))
        cut = np.zeros((2, needed), np.float32)
        a, b = max(0, start), min(clip.shape[1], start + needed)
        cut[:, a - start : b - start] = clip[:, a:b] / 32768
        audio = torch.from_numpy(cut)
        if speed != 1:
            audio = F.interpolate(audio[None], size=self.length, mode="linear", align_corners=False)[0]
        audio = audio[:, : self.length]
        if rng.random() < 0.5:
            audio = audio.flip(0)
        return audio * rng.choice((1.0, -1.0))

    def batch(self, number: int, seed: int = 0) -> torch.Tensor:
        rng = random.Random(f"{seed}/{number}")
        items = []
        for _ in range(self.batch_size):
            audio = self.crop(rng)
            if rng.random() < 0.25:  # two things at once
                audio = audio + self.crop(rng) * 10 ** rng.uniform(-1, 0)
            peak = float(audio.abs().max())
            # Half as recorded, half at another level.
            gain = 10 ** (rng.uniform(-26, -0.5) / 20) / max(peak, 1e-3) if rng.random() < 0.5 else 1.0
            items.append(audio * min(gain, 0.99 / max(peak, 1e-3)))
        return torch.stack(items)


# --- the latents that are taught


MEL_BANK = torchaudio.functional.melscale_fbanks(513, 0, SAMPLE_RATE / 2, MELS, SAMPLE_RATE)


def mel_points(count: int) -> torch.Tensor:
    """Centres in Hz of `count` bands that are equally spaced on the mel scale."""
    top = 2595 * math.log10(1 + SAMPLE_RATE / 2 / 700)
    points = torch.linspace(0, top, count + 2)[1:-1]
    return 700 * (10 ** (points / 2595) - 1)


def log_mel(audio: torch.Tensor) -> torch.Tensor:
    """Log-amplitudes `[batch, MELS, 4 a latent frame]` in nepers of `[batch, samples]`; a full-scale sine is near 0.

    The frames' centres lie symmetrically about the latent frame's.
    """
    window = torch.hann_window(1024)
    padded = F.pad(audio, (512 - 128, 1024))
    frames = MEL_FRAMES * audio.shape[-1] // HOP
    spectrum = torch.stft(padded, 1024, 256, window=window, center=False, return_complex=True)[..., :frames]
    power = (spectrum.abs() * 2 / window.sum()).square()
    return 0.5 * (torch.einsum("fm,bft->bmt", MEL_BANK, power) + FLOOR**2).log()


def features(audio: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Of `[batch, 2, samples]`: log-mel `[batch, latent frames, 4 x 64]` and stereo image `[batch, latent frames, 4]`."""
    mid, side = (audio[:, 0] + audio[:, 1]) / 2, (audio[:, 0] - audio[:, 1]) / 2
    mels = log_mel(mid)
    batch, _, frames = mels.shape
    framed = mels.view(batch, MELS, frames // MEL_FRAMES, MEL_FRAMES).permute(0, 2, 3, 1).flatten(2)
    stereo = [broad(side) - broad(mid), (broad(audio[:, 0]) - broad(audio[:, 1])).mean(1, keepdim=True)]
    image = torch.cat(stereo, dim=1).transpose(1, 2)
    # In nepers; from -4 (mono) to 0 (as much side as mid), and left against right.
    offset, scale = torch.tensor([2.0, 2.0, 2.0, 0.0]), torch.tensor([1.5, 1.5, 1.5, 1.0])
    return framed, SPREAD * (image.clamp(-4, 1.5) + offset) / scale


def broad(audio: torch.Tensor) -> torch.Tensor:
    """Log-amplitudes of three broad bands, a value a latent frame: `[batch, 3, latent frames]`."""
    mels = log_mel(audio).mul(2).exp()
    bands = torch.stack([part.sum(1) for part in mels.split((16, 20, 28), dim=1)], dim=1)
    return 0.5 * (F.avg_pool1d(bands, MEL_FRAMES) + 1e-7).log()


class Latents:
    """What the latents mean: principal components of the log-mel, and the stereo image."""

    def __init__(self, sounds: Sounds, batches: int, whiten: float) -> None:
        vectors = torch.cat([features(sounds.batch(k, seed=1))[0].flatten(0, 1) for k in range(batches)])
        self.mean = vectors.mean(0)
        # The same for the four frames: they are one band's.
        self.mean = self.mean.view(MEL_FRAMES, MELS).mean(0).repeat(MEL_FRAMES)
        centred = vectors - self.mean
        values, directions = torch.linalg.eigh(centred.T @ centred / len(centred))
        count = LATENT_DIM - STEREO
        values, directions = values.flip(0)[:count], directions.flip(1)[:, :count]
        deviations = values.sqrt()
        print("explained:", round(float(values.sum() / centred.square().sum(1).mean()), 4))
        lost = (centred - centred @ directions @ directions.T).abs().mean() * 8.686
        print(f"linear loss {float(lost):.2f} dB, deviations {[round(float(v), 2) for v in deviations[::6]]}")
        # Between principal components as they are (0) and all of one variance (1).
        scale = deviations.pow(-whiten)
        scale = scale * SPREAD / float((deviations * scale).square().mean().sqrt())
        self.analysis = directions * scale  # [256, 60]
        self.synthesis = (directions / scale).T  # [60, 256]

    def __call__(self, audio: torch.Tensor) -> torch.Tensor:
        mels, image = features(audio)
        return torch.cat([(mels - self.mean) @ self.analysis, image], dim=2).transpose(1, 2)


# --- the start: signal processing as weights


def plain(model: torch.nn.Module) -> torch.nn.Module:
    """Weight norm removed: faster to train, and weights can be set."""
    for module in model.modules():
        if hasattr(module, "weight_g"):
            remove_weight_norm(module)
    return model.eval()


def hann(length: int) -> torch.Tensor:
    """A window of `length` samples in the middle of REACH."""
    window = torch.zeros(REACH)
    first = (REACH - length) // 2
    window[first : first + length] = torch.hann_window(length + 1)[:length]
    return window


def waves(centres: torch.Tensor, widths: torch.Tensor, sweep: float) -> torch.Tensor:
    """`[bands, 3 phases, REACH]`: windowed cosines as long as a band is narrow; `sweep` spreads them over the band."""
    time_ = (torch.arange(REACH) - REACH / 2 + 0.5) / SAMPLE_RATE
    out = []
    for centre, width in zip(centres.tolist(), widths.tolist(), strict=True):
        length = 128 * round(min(max(2.2 * SAMPLE_RATE / width, 256), REACH) / 128)
        chirp = math.pi * sweep * width / (length / SAMPLE_RATE) * time_**2
        phases = [torch.cos(2 * math.pi * (centre * time_ + k / 3) + chirp) * hann(length) for k in range(3)]
        out.append(torch.stack(phases))
    return torch.stack(out)


def band_widths(centres: torch.Tensor) -> torch.Tensor:
    edges = torch.cat([torch.zeros(1), (centres[1:] + centres[:-1]) / 2, centres[-1:] * 2 - centres[-2:-1]])
    return edges.diff().clamp_min(27)


@torch.no_grad()
def start_encoder(encoder: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Write the filter bank and its logarithm; returns masks of what may change from there."""
    layers, filters = encoder.layers, 3 * BANDS
    logs = slice(filters, ENCODER_CHANNELS)
    for unit in [*layers[1].layers[:3], *layers[2].layers[:3]]:
        unit.layers[3].weight.zero_()
        unit.layers[3].bias.zero_()
    # 1. Filters, three phases each, of mid, side, left or right.
    centres = mel_points(MID_BANDS)
    bank = waves(centres, band_widths(centres), 0.0)
    coarse = torch.tensor([300.0, 1100.0, 3800.0, 1100.0, 1100.0])
    bank = torch.cat([bank, waves(coarse, torch.full((5,), 250.0), 0.0)])
    bank = bank / bank.abs().sum(-1, keepdim=True).mean(1, keepdim=True) / (math.pi / 4)
    left = torch.tensor([0.5] * MID_BANDS + [0.5] * 3 + [1.0, 0.0])
    right = torch.tensor([0.5] * MID_BANDS + [-0.5] * 3 + [0.0, 1.0])
    taps = bank.flatten(0, 1).view(filters, TAPS, PATCH).transpose(1, 2)  # filter, sample of the patch, tap
    layers[0].weight.zero_()
    layers[0].bias.zero_()
    layers[0].weight[:filters, :PATCH] = taps * left.repeat_interleave(3)[:, None, None] * GAIN
    layers[0].weight[:filters, PATCH:] = taps * right.repeat_interleave(3)[:, None, None] * GAIN
    # 2. Rectified by ELU, averaged over phases and time, saturated at four levels, summed: a logarithm.
    unit = layers[1].layers[0].layers
    unit[1].weight.zero_()
    unit[1].bias.zero_()
    smooth = torch.tensor([0.0, 0.1, 0.25, 0.3, 0.25, 0.1, 0.0])
    for band in range(BANDS):
        for k, level in enumerate(LEVELS):
            unit[1].weight[4 * band + k, 3 * band : 3 * band + 3] = -level * smooth / 3
            unit[3].weight[filters + band, 4 * band + k] = -1 / 0.42
    # 3. To 62.5 Hz: the logarithms, and how they change; the rest is as it was drawn.
    down = layers[1].layers[4]
    down.weight[:, :filters] = 0
    down.weight[: 2 * BANDS] = 0
    down.bias.zero_()
    for band in range(BANDS):
        down.weight[band, filters + band] = 0.25
        down.weight[BANDS + band, filters + band] = torch.tensor([-0.5, -0.5, 0.5, 0.5])
        down.bias[BANDS + band] = 4
    # The filters' outputs are large: what reads them stays as it is.
    masks = {"0.weight": 0, "0.bias": 0, "1.layers.0.layers.1.weight": 0, "1.layers.0.layers.1.bias": 0}
    masks = {f"layers.{name}": torch.tensor(float(mask)) for name, mask in masks.items()}
    for i in range(3):
        conv = layers[1].layers[i].layers
        if i:
            conv[1].weight[:, :filters] = 0
            masks[f"layers.1.layers.{i}.layers.1.weight"] = ones_where(conv[1].weight, 1, logs)
        masks[f"layers.1.layers.{i}.layers.3.weight"] = ones_where(conv[3].weight, 0, logs)
        masks[f"layers.1.layers.{i}.layers.3.bias"] = ones_where(conv[3].bias, 0, logs)
    masks["layers.1.layers.4.weight"] = ones_where(down.weight, 1, logs)
    return masks


def ones_where(weight: torch.Tensor, dimension: int, chosen: slice) -> torch.Tensor:
    mask = torch.zeros_like(weight)
    mask.movedim(dimension, 0)[chosen] = 1
    return mask


@torch.no_grad()
def regress_encoder(encoder: torch.nn.Module, sounds: Sounds, taught: Latents, batches: int) -> None:
    """Set the last two convolutions to the linear regression of the taught latents."""
    last, up = encoder.layers[2].layers[4], encoder.layers[4]
    kernel, channels = last.weight.shape[2], ENCODER_CHANNELS
    gram = torch.zeros(kernel * channels + 1, kernel * channels + 1, dtype=torch.float64)
    cross = torch.zeros(kernel * channels + 1, LATENT_DIM, dtype=torch.float64)
    for k in range(batches):
        audio = sounds.batch(k, seed=2)
        hidden = F.elu(encoder.layers[2].layers[:3](encoder.layers[1](encoder.layers[0](patched(audio)))))
        columns = F.pad(hidden, (2, 2)).unfold(2, kernel, 4).permute(0, 2, 1, 3).flatten(2).flatten(0, 1).double()
        columns = torch.cat([columns, torch.ones(len(columns), 1, dtype=torch.float64)], dim=1)
        gram += columns.T @ columns
        cross += columns.T @ taught(audio).transpose(1, 2).flatten(0, 1).double()
    gram += torch.eye(len(gram), dtype=torch.float64) * 1e-4 * gram.diagonal().mean()
    solution = torch.linalg.solve(gram, cross).float()
    last.weight[:LATENT_DIM] = solution[:-1].T.view(LATENT_DIM, channels, kernel)
    last.bias[:LATENT_DIM] = solution[-1] + SHIFT
    up.weight.zero_()
    up.bias.zero_()
    up.weight[:LATENT_DIM, :LATENT_DIM, 1] = torch.eye(LATENT_DIM)
    up.bias[:LATENT_DIM] = -SHIFT
    # The posterior's standard deviation is the same for every input: softplus(bias) = NOISE.
    up.bias[LATENT_DIM:] = math.log(math.expm1(NOISE))


def patched(audio: torch.Tensor) -> torch.Tensor:
    batch, channels, samples = audio.shape
    return audio.view(batch, channels, samples // PATCH, PATCH).permute(0, 1, 3, 2).flatten(1, 2)


def unpatched(patches: torch.Tensor) -> torch.Tensor:
    batch, _, frames = patches.shape
    return patches.view(batch, 2, PATCH, frames).transpose(2, 3).flatten(2)


@torch.no_grad()
def start_decoder(decoder: torch.nn.Module, taught: Latents) -> dict[str, torch.Tensor]:
    """Write the vocoder; returns masks of what may change from there."""
    torch.manual_seed(3)
    layers = decoder.layers
    first, up, last = layers[0], layers[1].layers[1], layers[3]
    for unit in layers[1].layers[2:]:
        unit.layers[3].weight.zero_()
        unit.layers[3].bias.zero_()
    # 1. The latents as they are, on ELU's straight side, and a channel that is always 1.
    first.weight[: LATENT_DIM + 1] = 0
    first.bias.zero_()
    first.weight[:LATENT_DIM, :, TAPS // 2] = torch.eye(LATENT_DIM)
    first.bias[:LATENT_DIM] = SHIFT
    first.bias[LATENT_DIM] = 1
    # 2. Every wave's log-amplitude, eight times a latent frame: interpolated between the log-mel's frames and bands.
    reading = merged_bands()  # [waves, MELS]
    centres, side_centres = reading @ mel_points(MELS), mel_points(SIDE_WAVES)
    reading = torch.cat([reading, between(SIDE_WAVES)])
    position = (torch.arange(2 * FRAMES) - FRAMES / 2 + 0.5) * PATCH  # of the kernel's taps, in samples
    frame_at = (torch.arange(MEL_FRAMES) + 0.5) * HOP / MEL_FRAMES
    weight_of = (1 - (position[:, None] - frame_at[None]).abs() / (HOP / MEL_FRAMES)).clamp_min(0)  # [taps, frames]
    synthesis = taught.synthesis.view(-1, MEL_FRAMES, MELS)
    amplitudes = torch.einsum("tf,kfm,wm->kwt", weight_of, synthesis, reading)
    mean = torch.einsum("tf,fm,wm->wt", weight_of, taught.mean.view(MEL_FRAMES, MELS), reading)
    amplitudes = torch.cat([amplitudes, torch.zeros(STEREO, *amplitudes.shape[1:])])
    for wave in range(SIDE_WAVES):  # side is mid and what the image says
        band = min(wave, 2)
        triangle = weight_of.sum(1)
        amplitudes[LATENT_DIM - STEREO + band, MID_WAVES + wave] = 1.5 / SPREAD * triangle
        mean[MID_WAVES + wave] -= 2.0 * triangle
    up.weight.zero_()
    up.bias.zero_()
    voices = 3 * (MID_WAVES + SIDE_WAVES)
    # Noise has latents that never stay; pairs of the other channels are switches (two ELUs, one 1 further, subtracted:
    # 0 or 1) that make phases of that, or 64 ms of it would come again and again. What is steady keeps its tone.
    switches = (DECODER_CHANNELS - LATENT_DIM - 1) // 2
    mix = torch.randn(switches, LATENT_DIM)
    mix[:, :STEADY] = 0
    mix[:, LATENT_DIM - STEREO :] = 0
    mix = MIX / SPREAD * mix / mix.norm(dim=1, keepdim=True)
    stir = torch.randn(switches, voices // 3, 3, 2 * FRAMES)
    stir = (stir - stir.mean(2, keepdim=True)).flatten(1, 2) * STIR / math.sqrt(switches / 4)
    threshold = MIX / 10 * torch.randn(switches)
    first.weight[LATENT_DIM + 1 :] = 0
    for k, sign in ((0, 1), (1, -1)):
        pair = slice(LATENT_DIM + 1 + k * switches, LATENT_DIM + 1 + (k + 1) * switches)
        first.weight[pair, :, TAPS // 2] = mix
        first.bias[pair] = threshold - k
        up.weight[pair, :voices] = sign * stir
    up.weight[LATENT_DIM, :voices] = -stir.sum(0) / 2
    spread = amplitudes.repeat_interleave(3, dim=1)
    up.weight[:LATENT_DIM, :voices] = spread
    rhythm = phases(torch.cat([centres, side_centres])).flatten(0, 1).repeat(1, 3)[:, FRAMES // 2 : -FRAMES // 2]
    constant = mean.repeat_interleave(3, dim=0) - SHIFT * spread.sum(0) - math.log(HEADROOM) / 2
    # Two latent frames overlap at every patch: each brings half the rhythm.
    up.weight[LATENT_DIM, :voices] += constant + rhythm / 2
    # The first latents once more, for the residual units: they say what is in the other bands.
    for k in range(CONTEXT):
        up.weight[k, voices + k] = weight_of.sum(1)
    # 3. A wave for each band and phase.
    mid = waves(quantised(centres), band_widths(centres), 0.8)
    side = waves(quantised(side_centres), band_widths(side_centres).clamp_max(900) / 2, 1.6)
    last.weight.zero_()
    for bank, start, signs in ((mid, 0, (1, 1)), (side, 3 * MID_WAVES, (1, -1))):
        bank = bank / bank.square().sum(-1, keepdim=True).mean(1, keepdim=True).sqrt() * HEADROOM
        taps = bank.flatten(0, 1).view(-1, TAPS, PATCH).permute(2, 0, 1).flip(2)  # sample, wave, tap
        last.weight[:PATCH, start : start + taps.shape[1]] = taps * signs[0]
        last.weight[PATCH:, start : start + taps.shape[1]] = taps * signs[1]
    return {"layers.3.weight": ones_where(last.weight, 1, slice(0, voices))}


def merged_bands() -> torch.Tensor:
    """`[MID_WAVES, MELS]`: the lower bands one by one, the upper ones in pairs."""
    pairs = MELS - MID_WAVES
    upper = torch.eye(pairs).repeat_interleave(2, dim=1) / 2
    return torch.block_diag(torch.eye(MELS - 2 * pairs), upper)


def between(count: int) -> torch.Tensor:
    """`[count, MELS]`: a linear interpolation of the 64 mel bands at `count` points of the same scale."""
    at = (torch.arange(count) + 1) * (MELS + 1) / (count + 1) - 1
    return (1 - (at.clamp(0, MELS - 1)[:, None] - torch.arange(MELS)[None]).abs()).clamp_min(0)


def quantised(centres: torch.Tensor) -> torch.Tensor:
    """Whole numbers of periods a latent frame: such a wave goes on without a jump."""
    return (centres * HOP / SAMPLE_RATE).round().clamp_min(1) * SAMPLE_RATE / HOP


def phases(centres: torch.Tensor) -> torch.Tensor:
    """`[waves, 3, FRAMES]`: the logarithm of what each of three phases adds, patch by patch.

    Low bands hold their tone; high bands are given random phases, as noise has them.
    """
    time_ = (torch.arange(FRAMES) + 0.5) * PATCH / SAMPLE_RATE
    angle = 2 * math.pi * quantised(centres)[:, None] * time_
    noise = 2 * math.pi * torch.rand(len(centres), FRAMES)
    angle = torch.where(centres[:, None] < 1000, angle + noise[:, :1], noise)
    each = angle[:, None] - 2 * math.pi * torch.arange(3)[None, :, None] / 3
    depth = torch.where(centres < 1000, LOW_RHYTHM, RHYTHM)[:, None, None]
    return depth * ((1 + each.cos()) * 2 / 3).clamp_min(0.03).log()


@torch.no_grad()
def calibrate(model: torch.nn.Module, sounds: Sounds) -> None:
    """Move each wave's level until what is loud (within 26 dB of the loudest) comes out as loud as it went in."""
    up = model.decoder.layers[1].layers[1]
    audio = torch.cat([sounds.batch(k, seed=4) for k in range(16)])
    latents = model.encoder(patched(audio))[:, :LATENT_DIM]
    for step in range(6):
        target = log_mel(audio.mean(1))
        error = target - log_mel(unpatched(model.decoder(latents)).mean(1))
        loud = target > target.amax((1, 2), keepdim=True) - 3
        print(f"calibration {step}: {float(error[loud].abs().mean() * 8.686):.2f} dB")
        mean = (error * loud).sum((0, 2)) / loud.sum((0, 2)).clamp_min(1)
        up.bias[: 3 * MID_WAVES] += 0.8 * (merged_bands() @ mean).repeat_interleave(3)


# --- training


# Window, and over how many bins and frames power is compared as a sum, and sorted: fine in pitch, in both, in time.
RESOLUTIONS = ((2048, (1, 4), (4, 8)), (512, (4, 2), (8, 4)), (256, (8, 1), (16, 2)))


def distance(estimate: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Between power spectra of `[batch, samples]`, without phase, in nepers.

    Where there is energy is compared block by block, and in each block how it is spread: its sorted levels. Bin by bin
    no noise is like another, and what is nearest to all of them is no noise but a hum.
    """
    loss = torch.zeros(())
    for n, pool, block in RESOLUTIONS:
        window = torch.hann_window(n)
        both = torch.stft(torch.cat([estimate, target]), n, n // 4, window=window, return_complex=True)[:, 1:]
        power = (both.real.square() + both.imag.square()) * (2 / window.sum()).square()
        floor = (power.chunk(2)[1].amax((1, 2), keepdim=True) * 1e-8).clamp_min(1e-10).repeat(2, 1, 1)
        a, b = (F.avg_pool2d(power[:, None], pool)[:, 0] + floor).log().chunk(2)
        c, d = spread_in_blocks((power + floor).log(), *block).chunk(2)
        loss = loss + 0.5 * (a - b).abs().mean() + 0.5 * (c - d).abs().mean() + 0.5 * where_loud(a, b, 4.6)
    return loss / len(RESOLUTIONS)


def where_loud(estimate: torch.Tensor, target: torch.Tensor, below: float) -> torch.Tensor:
    """The mean difference of levels where the target is no more than `below` under its peak.

    Of a tone that is few bins among many, and all that is heard.
    """
    loud = (target > target.amax((1, 2), keepdim=True) - below).float()
    return (((estimate - target).abs() * loud).sum((1, 2)) / loud.sum((1, 2))).mean()


def spread_in_blocks(levels: torch.Tensor, bins: int, frames: int) -> torch.Tensor:
    """`[batch, blocks, bins x frames]`: the levels of each block in ascending order."""
    height, width = levels.shape[1:]
    levels = levels[:, : height - height % bins, : width - width % frames]
    levels = levels.unflatten(2, (-1, frames)).unflatten(1, (-1, bins)).permute(0, 1, 3, 2, 4)
    return levels.flatten(3).flatten(1, 2).sort(dim=2).values


def mel_distance(estimate: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """As the judge measures, in nepers, 80 dB down; and the mean power of each part of the spectrum.

    The second keeps what is loud as loud as it was: the logarithm alone is content with the median.
    """
    a, b = log_mel(estimate), log_mel(target)
    power, truth = (m.mul(2).exp().unflatten(1, (8, 8)).sum(2).mean(2) for m in (a, b))
    floor = truth.amax(1, keepdim=True) * 1e-5 + 1e-8
    loudness = 0.5 * ((power + floor).log() - (truth + floor).log()).abs().mean()
    least = b.amax((1, 2), keepdim=True) - 9.2
    return (torch.logaddexp(a, least) - torch.logaddexp(b, least)).abs().mean() + loudness + where_loud(a, b, 2.3)


def looping(estimate: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """How much more than the target the estimate repeats itself after one latent frame, and after two."""
    loss = torch.zeros(())
    for lag in (HOP, 2 * HOP):
        a, b = (
            (s[:, lag:] * s[:, :-lag]).sum(1) / (s[:, lag:].norm(dim=1) * s[:, :-lag].norm(dim=1) + 1e-4)
            for s in (estimate.diff(dim=1), target.diff(dim=1))
        )
        loss = loss + (a - b.abs()).clamp_min(0).mean()
    return loss


def sound_loss(decoded: torch.Tensor, audio: torch.Tensor) -> torch.Tensor:
    mid, target = decoded.mean(1), audio.mean(1)
    loss = distance(mid, target) + mel_distance(mid, target) + looping(mid, target)
    side = (decoded[:, 0] - decoded[:, 1]) / 2, (audio[:, 0] - audio[:, 1]) / 2
    # Where there is hardly any side signal, only its absence counts: the floor comes from the mid signal.
    floor = target.square().mean(1).sqrt().clamp_min(1e-4)[:, None, None] * 0.05
    window = torch.hann_window(512)
    a, b = (torch.stft(s, 512, 256, window=window, return_complex=True).abs() * 2 / window.sum() for s in side)
    return loss + 0.3 * ((a + floor).log() - (b + floor).log()).abs().mean()


def train(args: argparse.Namespace, model: torch.nn.Module, taught: Latents, sounds: Sounds, masks: dict) -> None:
    """Both halves together, on the sound that comes back; a checkpoint every ten minutes."""
    checkpoint = args.work / "checkpoint.pt"
    parameters = [*model.encoder.parameters(), *model.decoder.parameters()]
    optimiser = torch.optim.Adam(groups(model), lr=args.lr, betas=(0.9, 0.98))
    centred = Centred(model, torch.cat([sounds.batch(k, seed=5) for k in range(8)]))
    first, spent = 0, 0.0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        centred.load(state["means"])
        first, spent = state["step"], state["cpu_minutes"]
    recent: list[list[float]] = []
    cpu, saved = time.process_time(), time.monotonic()
    for step in range(first, args.steps):
        torch.manual_seed(args.seed * 1_000_000 + step)
        for group in optimiser.param_groups:
            group["lr"] = args.lr * group["pace"] * schedule(step, args.steps)
        audio = sounds.batch(step, seed=10 + args.seed)
        latents = model.encoder(patched(audio))[:, :LATENT_DIM]
        decoded = unpatched(model.decoder(latents + NOISE * torch.randn_like(latents)))
        off = latents - taught(audio)
        loss = sound_loss(decoded, audio) + args.stay * off.square().mean()
        optimiser.zero_grad()
        loss.backward()
        centred.prepare()
        for name, mask in masks.items():
            model.get_parameter(name).grad.mul_(mask)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        centred.settle()
        keep_silent(model.decoder)
        recent.append([loss.item(), off.detach().abs().mean().item(), latents.detach().std().item()])
        minutes = spent + (time.process_time() - cpu) / 60
        if (step + 1) % 50 == 0 or step == 0:
            values = "  ".join(f"{v:.4f}" for v in np.mean(recent, axis=0))
            print(f"step {step + 1}  loss, latents off, their std: {values}  {minutes:.1f} CPU min", flush=True)
            recent = []
        if time.monotonic() - saved > 600:
            saved = time.monotonic()
            state = {"step": step + 1, "cpu_minutes": minutes, "means": centred.state()}
            torch.save(
                {**state, "model": model.state_dict(), "optimiser": optimiser.state_dict()},
                checkpoint.with_suffix(".part"),
            )
            checkpoint.with_suffix(".part").replace(checkpoint)


def schedule(step: int, steps: int) -> float:
    """A short warm-up, then a cosine."""
    return min(1, (step + 1) / 50) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))


def groups(model: torch.nn.Module) -> list[dict]:
    """Parameters by how fast they may change: what reads shifted streams turns small steps into large ones."""
    layers = model.decoder.layers
    quick = {id(p) for layer in (layers[1].layers[2:], layers[3]) for p in layer.parameters()}
    parameters = [*model.encoder.parameters(), *model.decoder.parameters()]
    return [
        {"params": [p for p in parameters if (id(p) in quick) == fast], "pace": PACE if fast else 1.0}
        for fast in (False, True)
    ]


class Centred:
    """Gradients as if every convolution's input had a mean of zero, and its bias took up the rest.

    ELU's straight side and the logarithms are all above zero. Without this a step along such weights is first of all a
    step of the bias, hundreds of times too large, and training has to creep.
    """

    @torch.no_grad()
    def __init__(self, model: torch.nn.Module, audio: torch.Tensor) -> None:
        self.means: dict[torch.nn.Module, torch.Tensor] = {}
        convs = [m for m in model.modules() if isinstance(m, torch.nn.Conv1d | torch.nn.ConvTranspose1d)]
        hooks = [conv.register_forward_pre_hook(self.note) for conv in convs if conv.bias is not None]
        model.decoder(model.encoder(patched(audio))[:, :LATENT_DIM])
        for hook in hooks:
            hook.remove()
        self.before: list[torch.Tensor] = []

    def note(self, conv: torch.nn.Module, inputs: tuple[torch.Tensor]) -> None:
        self.means[conv] = inputs[0].mean((0, 2))
        if isinstance(conv, torch.nn.ConvTranspose1d):
            self.means[conv][LATENT_DIM] = 0  # the channel that is always 1 takes the bias's place, tap by tap

    def state(self) -> list[torch.Tensor]:
        return [*self.means.values()]

    def load(self, means: list[torch.Tensor]) -> None:
        self.means = dict(zip(self.means, means, strict=True))

    @torch.no_grad()
    def prepare(self) -> None:
        for conv, mean in self.means.items():
            if isinstance(conv, torch.nn.ConvTranspose1d):
                conv.weight.grad -= mean[:, None, None] * conv.weight.grad[LATENT_DIM].clone()
            else:
                conv.weight.grad -= mean[None, :, None] * conv.bias.grad[:, None, None]
        self.before = [conv.weight.clone() for conv in self.means]

    @torch.no_grad()
    def settle(self) -> None:
        for (conv, mean), before in zip(self.means.items(), self.before, strict=True):
            change = conv.weight - before
            if isinstance(conv, torch.nn.ConvTranspose1d):
                conv.weight[LATENT_DIM] -= torch.einsum("i,iot->ot", mean, change)
            else:
                conv.bias -= torch.einsum("i,oit->o", mean, change)


@torch.no_grad()
def keep_silent(decoder: torch.nn.Module, each_tap: bool = False) -> None:
    """ELU is the exponential less 1: the waves have to cancel where all are silent, or that 1 would be heard.

    With `each_tap` they do so patch by patch: at both ends of a clip the convolution sees only some of them.
    """
    part = decoder.layers[3].weight[:, : 3 * (MID_WAVES + SIDE_WAVES)]
    part -= part.mean(1 if each_tap else (1, 2), keepdim=True)


# --- out


@torch.no_grad()
def export(model: torch.nn.Module, folder: Path) -> None:
    """`model.safetensors` in half precision with upstream's weight norm, and `model_config.json`."""
    fresh = create_model_from_config(CONFIG)
    weights = {}
    for name, _ in fresh.state_dict().items():
        if name.endswith("weight_g"):
            weight = model.get_parameter(name.removesuffix("_g"))
            norm = weight.flatten(1).norm(dim=1).clamp_min(1e-8).view(-1, *[1] * (weight.dim() - 1))
            # Rows of one size: what is small keeps its digits. A row of zeros has a gain of 0 and any direction.
            direction = torch.where(norm > 1e-7, weight / norm * 8, torch.ones_like(weight)).half()
            if name == "decoder.layers.3.weight_g":
                direction = cancelled(direction)
            weights[name] = torch.where(norm > 1e-7, norm, 0).half()
            weights[name.removesuffix("_g") + "_v"] = direction.contiguous()
        elif not name.endswith("weight_v"):
            weights[name] = model.state_dict()[name].half().contiguous()
    fresh.load_state_dict(weights, strict=True)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, folder / "model.safetensors")
    (folder / "model_config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")


def cancelled(weight: torch.Tensor) -> torch.Tensor:
    """Half-precision `[out, waves, taps]` whose sums over the waves are 0 (see `keep_silent`), to the last digit."""
    rows = weight.transpose(1, 2).flatten(0, 1).clone()
    for row in rows:
        left = -row.double().sum().item()
        # From the large to the small, whose digits are finer.
        for index in row.abs().argsort(descending=True)[24:].tolist():
            before = row[index].item()
            if abs(left) < 1e-6 or before == 0:
                break
            row[index] += max(min(left, abs(before) / 4), -abs(before) / 4)
            left -= row[index].item() - before
    return rows.view(weight.shape[0], weight.shape[2], -1).transpose(1, 2).contiguous()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True, help="folder that make_corpus.py wrote")
    parser.add_argument("--work", type=Path, required=True, help="for checkpoints")
    parser.add_argument("--out", type=Path, default=HERE / "autoencoder")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--lr", type=float, default=3e-5)
    parser.add_argument("--stay", type=float, default=0.05, help="how much latents are held to what they were taught")
    parser.add_argument("--whiten", type=float, default=0.7)
    parser.add_argument("--batch-size", type=int, default=6)
    parser.add_argument("--frames", type=int, default=16, help="latent frames of a crop")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.work.mkdir(parents=True, exist_ok=True)
    sounds = Sounds(args.corpus / "train", args.frames, args.batch_size)
    minutes = sum(c.shape[1] for c in sounds.clips) / SAMPLE_RATE / 60
    torch.manual_seed(args.seed)
    model = plain(create_model_from_config(CONFIG))
    parameters = sum(p.numel() for p in model.parameters())
    print(f"{len(sounds.clips)} clips, {minutes:.0f} min; {parameters / 1e6:.2f} M parameters", flush=True)
    taught = Latents(sounds, 300, args.whiten)
    masks = {f"encoder.{name}": mask for name, mask in start_encoder(model.encoder).items()}
    masks |= {f"decoder.{name}": mask for name, mask in start_decoder(model.decoder, taught).items()}
    if not (args.work / "checkpoint.pt").exists():
        regress_encoder(model.encoder, sounds, taught, 300)
        calibrate(model, sounds)
        keep_silent(model.decoder)
    train(args, model, taught, sounds, masks)
    keep_silent(model.decoder, each_tap=True)
    export(model, args.out)


if __name__ == "__main__":
    main()
