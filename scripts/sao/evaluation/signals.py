"""Facts of a sound as a signal. Rule `signals` computes them once for each render and each recording.

A new fact is a function of the samples, and an entry in `FACTS`.
"""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import numpy as np

from sao.evaluation.clicks import clicks, dropouts
from sao.evaluation.measure import OfSound, Shown, Signal

FULL_SCALE = 1 - 2**-15  # the highest sample of 16 bits, where a clipped signal stays
EDGE_DB = -70.0  # a bandwidth ends at this level relative to the loudest part of the spectrum
BLOCK_S = 0.4  # s; BS.1770 measures blocks of this length, so a shorter clip has no loudness


def seconds(audio: np.ndarray, rate: int) -> float:
    return round(len(audio) / rate, 6)


def silent(audio: np.ndarray, rate: int) -> bool:
    from sao.sound.read import SILENT_DBFS, decibels

    return decibels(float(np.abs(audio).max(initial=0))) < SILENT_DBFS


def clipped(audio: np.ndarray, rate: int) -> float:
    """The share of samples at or over full scale."""
    return float((np.abs(audio) >= FULL_SCALE).mean()) if audio.size else 0.0


def dc_offset(audio: np.ndarray, rate: int) -> float:
    """The largest mean of a channel."""
    return float(np.abs(audio.mean(axis=0, dtype=np.float64)).max()) if audio.size else 0.0


def loudness(audio: np.ndarray, rate: int) -> float | None:
    """Integrated loudness in LUFS (ITU-R BS.1770-4). None if the clip is too short or silent."""
    import pyloudnorm

    if len(audio) < BLOCK_S * rate:
        return None
    with warnings.catch_warnings(), np.errstate(divide="ignore", invalid="ignore"):
        warnings.simplefilter("ignore")  # pyloudnorm warns if all blocks are below the gate
        value = float(pyloudnorm.Meter(rate).integrated_loudness(audio.astype(np.float64)))
    return value if math.isfinite(value) else None


def bandwidth(audio: np.ndarray, rate: int) -> float | None:
    """The highest frequency in Hz whose mean power is within EDGE_DB of the loudest one. None for silence."""
    from scipy.signal import welch

    signal = audio.mean(axis=1)
    if not signal.any():
        return None
    # The side lobes of this window lie below EDGE_DB. Those of a Hann window would not.
    frequency, power = welch(signal, rate, "blackmanharris", nperseg=min(2048, len(signal)))
    return float(frequency[power >= power.max() * 10 ** (EDGE_DB / 10)].max())


FACTS = (
    OfSound(key="seconds", name="Duration", unit="s", of=seconds, about="length of the sound"),
    OfSound(
        key="silent",
        name="Silent clips",
        unit="share",
        better="lower",
        lowest=0,
        of=silent,
        about="share of clips with a peak below -60 dBFS",
    ),
    OfSound(
        key="clipped",
        name="Clipped samples",
        unit="share",
        better="lower",
        lowest=0,
        of=clipped,
        about="share of samples at full scale",
    ),
    OfSound(
        key="dc_offset",
        name="DC offset",
        unit="full scale",
        better="lower",
        lowest=0,
        of=dc_offset,
        about="mean of the samples of a channel, for the channel where it is largest",
    ),
    OfSound(
        key="loudness_lufs",
        name="Loudness",
        unit="LUFS",
        of=loudness,
        shown=Shown("Loudness", "{:.1f} LUFS"),
        about="integrated loudness (ITU-R BS.1770-4, by pyloudnorm); clips under 0.4 s and silent ones have none",
    ),
    OfSound(
        key="bandwidth_hz",
        name="Bandwidth",
        unit="Hz",
        of=bandwidth,
        shown=Shown("Bandwidth", "{:.0f} Hz"),
        about="highest frequency within 70 dB of the loudest",
    ),
    OfSound(
        key="clicks",
        name="Clicks",
        unit="1/s",
        lowest=0,
        better="lower",
        of=clicks,
        drawn=True,
        shown=Shown("Clicks", "{:.2f}/s", sortable=True),
        about="samples per second that linear prediction misses by far more than all samples in the 15 ms before and after, in the "
        "channel that has most. The attack of a clap is none, because sound follows it; crackling fire has real ones. So compare "
        "with the recordings",
    ),
    OfSound(
        key="dropouts",
        name="Dropouts",
        unit="1/s",
        lowest=0,
        better="lower",
        of=dropouts,
        drawn=True,
        shown=Shown("Dropouts", "{:.2f}/s", sortable=True),
        about="stretches per second of digital silence (below -80 dBFS, 3 ms or more) with sound right before and after, in the channel "
        "that has most",
    ),
)


def signal_of(path: Path) -> Signal:
    """The signal of a sound, which is read once. Raises InputError if it cannot be read."""
    from sao.sound.spectra import RATE, log_mel, read_sound, thumbnail, to_mono

    audio, rate = read_sound(path)
    mono = to_mono(audio, rate, RATE)
    return Signal({fact.key: fact.of(audio, rate) for fact in FACTS}, log_mel(mono), thumbnail(mono))
