"""Do FAD and KAD grow with white noise, on embeddings that need no download?

uv run python benchmarks/embeddings.py FOLDER_OF_SOUNDS

Every sound gets white noise at a falling signal-to-noise ratio (of its own level); the noisy set is compared with the
clean one. And is the nearest other sound of the same kind? A kind is what file names have before their first `_`, where
four or more share it. Prints tables in Markdown.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
from scipy.spatial.distance import cdist

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
from sao.evaluation.distances import fad, kad
from sao.evaluation.embeddings import find
from sao.sound.spectra import read_sound, to_mono

SNR = (40, 30, 20, 10, 0)  # dB
NAMES = ("aisfx", "log-mel")


def noisy(signal: np.ndarray, snr: float, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal(len(signal))
    return signal + noise * np.sqrt(np.square(signal).mean()) * 10 ** (-snr / 20)


def same_kind(vectors: np.ndarray, files: list[Path]) -> str:
    """How many sounds have one of their own kind as the nearest other."""
    kinds = np.array([path.stem.split("_")[0] for path in files])
    chosen = np.array([(kinds == kind).sum() >= 4 for kind in kinds])
    if not chosen.any():
        return "no kinds"
    kinds, distances = kinds[chosen], cdist(vectors[chosen], vectors[chosen])
    np.fill_diagonal(distances, np.inf)
    return f"{(kinds[distances.argmin(axis=1)] == kinds).sum()} of {len(kinds)}"


def main() -> None:
    files = sorted(path for path in Path(sys.argv[1]).rglob("*") if path.suffix in (".wav", ".flac"))
    signals = [to_mono(*read_sound(path), 44100) for path in files]
    print(f"{len(files)} sounds, {sum(map(len, signals)) / 44100:.0f} s\n")
    print("| Embedding | Measure |", " | ".join(f"{snr} dB" for snr in SNR), "| Grows | s |")
    print("| --- | --- |", " | ".join(["---:"] * len(SNR)), "| --- | ---: |")
    kinds = {}
    for name in NAMES:
        start = time.process_time()
        embedding = find(name)
        embedding.load(None, threads=1)
        clean = np.stack([embedding.sound(signal) for signal in signals])
        seconds = time.process_time() - start
        kinds[name] = same_kind(clean, files)
        sets = [np.stack([embedding.sound(noisy(s, snr, i)) for i, s in enumerate(signals)]) for snr in SNR]
        for measure, values in {
            "FAD": [fad(x, clean) for x in sets],
            "KAD": [kad(x, clean, np.full(len(x), -1)).value for x in sets],
        }.items():
            grows = "yes" if all(np.diff(values) > 0) else "no"
            print(f"| {name} | {measure} |", " | ".join(f"{v:.3g}" for v in values), f"| {grows} | {seconds:.1f} |")
    print("\n| Embedding | Nearest is of the same kind |\n| --- | ---: |")
    for name, share in kinds.items():
        print(f"| {name} | {share} |")


if __name__ == "__main__":
    main()
