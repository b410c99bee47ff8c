"""How many planted copies of training clips does the evaluation find, and how often is it wrong?

uv run python benchmarks/copies.py FOLDER_OF_SOUNDS

Of the sounds of SHORTEST seconds or more, a part is the training set, a part is held out and gives the threshold, and the rest is new. Copies of training sounds
are planted among the renders. Held-out and new sounds whose waveform correlates with a training sound by SAME or more are
near-duplicates, and take no part. Prints a table in Markdown.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
from scipy.fft import irfft, next_fast_len, rfft

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
from sao.evaluation.embedded import stack
from sao.evaluation.embeddings import find
from sao.evaluation.memorisation import threshold
from sao.sound.spectra import RATE, read_sound, to_mono

TRAIN, HELD_OUT, NEW, PLANTED = 1000, 300, 400, 200  # sounds
SHORTEST, SAME = 1.0, 0.5
SPACES = ("spectrogram", "log-mel")


def later(sound: np.ndarray, seconds: float) -> np.ndarray:
    return np.concatenate([np.zeros(round(seconds * RATE)), sound])


def as_mp3(sound: np.ndarray) -> np.ndarray:
    """Through MP3 at a constant rate, which at 16 kHz is 112 kbit/s."""
    file = io.BytesIO()
    soundfile.write(file, sound, RATE, format="MP3", bitrate_mode="CONSTANT", compression_level=0.3)
    file.seek(0)
    return soundfile.read(file)[0]


def noisy(sound: np.ndarray) -> np.ndarray:
    return sound + 0.1 * np.sqrt(np.square(sound).mean()) * np.random.default_rng(0).standard_normal(len(sound))


COPIES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "as it is": lambda sound: sound,
    "12 dB softer": lambda sound: sound / 4,
    "50 ms later": lambda sound: later(sound, 0.05),
    "200 ms later": lambda sound: later(sound, 0.2),
    "337 ms later": lambda sound: later(sound, 0.337),
    "200 ms later, cut to its length": lambda sound: later(sound, 0.2)[: len(sound)],
    "without its first 200 ms": lambda sound: sound[min(round(0.2 * RATE), len(sound) // 4) :],
    "MP3": as_mp3,
    "MP3, 200 ms later, 6 dB softer": lambda sound: as_mp3(later(sound, 0.2) / 2),
    "with white noise at 20 dB": noisy,
}


def correlation(sound: np.ndarray, others: list[np.ndarray]) -> float:
    """The highest correlation of a waveform with any of the others, at any shift."""
    size = next_fast_len(len(sound) + max(map(len, others)))
    norms = np.sqrt(np.square(sound).sum() * np.array([np.square(other).sum() for other in others])).clip(1e-9)
    products = [irfft(np.conj(rfft(sound, size)) * rfft(other, size), size) for other in others]
    return float(max(np.abs(product).max() / norm for product, norm in zip(products, norms, strict=True)))


def main() -> None:
    files = sorted(path for path in Path(sys.argv[1]).rglob("*") if path.suffix in (".wav", ".flac", ".ogg"))
    files = [path for path in files if soundfile.info(path).duration >= SHORTEST]
    order = np.random.default_rng(0).permutation(len(files))[: TRAIN + HELD_OUT + NEW]
    if len(order) < TRAIN + HELD_OUT + NEW:
        sys.exit(f"{sys.argv[1]}: {len(order)} sounds are fewer than {TRAIN + HELD_OUT + NEW}")
    sounds = [to_mono(*read_sound(files[row]), RATE).astype(np.float64) for row in order]
    train, others = sounds[:TRAIN], sounds[TRAIN:]
    spectra = find("log-mel")

    def vectors(name: str, sounds: list[np.ndarray]) -> np.ndarray:
        embedding = find(name)
        return stack([embedding.sound(to_mono(sound[:, None], RATE, embedding.rate)) for sound in sounds])

    trained = {name: vectors(name, train) for name in SPACES}
    alike = np.square(vectors(spectra.name, others)[:, None] - trained[spectra.name][None]).sum(axis=2).argsort(axis=1)
    kept = [correlation(sound, [train[k] for k in rows[:25]]) < SAME for sound, rows in zip(others, alike, strict=True)]
    held_out = [sound for sound, keep in zip(others[:HELD_OUT], kept[:HELD_OUT], strict=True) if keep]
    new = [sound for sound, keep in zip(others[HELD_OUT:], kept[HELD_OUT:], strict=True) if keep]
    planted = [train[row] for row in range(PLANTED)]
    print(f"{TRAIN} training sounds, {len(held_out)} held out, {len(new)} new, {PLANTED} planted copies of each kind\n")
    limits = {
        name: threshold(find(name).nearest(vectors(name, held_out), trained[name]).distance).value or 0.0
        for name in SPACES
    }

    def share(name: str, sounds: list[np.ndarray]) -> float:
        return float((find(name).nearest(vectors(name, sounds), trained[name]).distance < limits[name]).mean())

    print(
        "| Sound |", " | ".join(f"called a copy by `{name}`" for name in SPACES), "|\n| --- |", " ---: |" * len(SPACES)
    )
    rows = {f"a copy, {kind}": [copy(sound) for sound in planted] for kind, copy in COPIES.items()} | {"new": new}
    for kind, found in rows.items():
        print(f"| {kind} |", " | ".join(f"{100 * share(name, found):.1f} %" for name in SPACES), "|", flush=True)


if __name__ == "__main__":
    main()
