"""Make a corpus of instruments that are played backwards, in Clotho's form, from notes that make_corpus.py rendered.

    uv run python resources/base/make_backwards.py --corpus /var/tmp/corpus --out /var/tmp/backwards

The base model knows each instrument, but has heard none backwards. One note or chord per instrument: sounds that last too
evenly to be told from their mirror image are left out. Training clips are those that differ most from each other; the
clips for validation and evaluation are drawn from the other instruments. Prints checksums for a config. The same corpus
gives the same files.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.signal
import soundfile
from clotho import Clip, pack, print_checksums
from words import words_of

PROGRAMS = 120  # of General MIDI; those that follow are noises
SHORTEST = 1.2  # s, without the tail that nobody hears
TAIL = -45  # dB relative to the peak
FADE = 0.005  # s, at both ends
PEAK = 10 ** (-6 / 20)
CENTRE = 0.25  # where the energy of a sound should lie, from 0 (beginning) to 1, before it is turned round
LATEST = 0.4  # a later one sounds much the same in both directions
SIDES = {"validation": 8, "evaluation": 24}


@dataclass
class Note:
    row: dict[str, str]
    audio: np.ndarray  # [samples, channels], float, as rendered
    rate: int  # Hz

    @property
    def centre(self) -> float:
        energy = (self.audio**2).sum(axis=1)
        return float((energy * np.linspace(0, 1, len(energy))).sum() / energy.sum())

    def backwards(self) -> np.ndarray:
        audio = self.audio[::-1] * (PEAK / np.abs(self.audio).max())
        ramp = np.linspace(0, 1, int(FADE * self.rate))[:, None]
        audio[: len(ramp)] *= ramp
        audio[-len(ramp) :] *= ramp[::-1]
        return audio


def read(path: Path, row: dict[str, str]) -> Note:
    audio, rate = soundfile.read(path, always_2d=True)
    loud = np.flatnonzero(np.abs(audio).max(axis=1) > np.abs(audio).max() * 10 ** (TAIL / 20))
    return Note(row, audio[loud[0] : loud[-1] + 1], rate)


def best_notes(corpus: Path) -> dict[int, Note]:
    """The note or chord of each instrument that shows its direction best, by program."""
    with (corpus / "train.csv").open(encoding="utf-8", newline="") as handle:
        rows = [row for row in csv.DictReader(handle) if row["kind"] in ("note", "chord") and row["bank"] == "0"]
    best: dict[int, Note] = {}
    for row in rows:
        program = int(row["program"])
        if program >= PROGRAMS:
            continue
        note = read(corpus / "train" / row["file"], row)
        if len(note.audio) < SHORTEST * note.rate or note.centre > LATEST:
            continue
        if program not in best or abs(note.centre - CENTRE) < abs(best[program].centre - CENTRE):
            best[program] = note
    return best


def colour(note: Note) -> np.ndarray:
    """Mean and spread in dB of 24 bands of equal ratio, with the level taken out."""
    frequencies, _, spectrum = scipy.signal.stft(note.backwards().mean(axis=1), note.rate, nperseg=1024)
    edges = np.geomspace(60, note.rate / 2, 25)
    bands = [
        (np.abs(spectrum[(frequencies >= low) & (frequencies <= high)]) ** 2).sum(axis=0)
        for low, high in itertools.pairwise(edges)
    ]
    levels = 10 * np.log10(np.array(bands) + 1e-12)
    levels = np.maximum(levels, levels.max() - 60)
    mean = levels.mean(axis=1)
    return np.concatenate([mean - mean.mean(), levels.std(axis=1)])


def farthest(points: np.ndarray, count: int) -> list[int]:
    """Points that lie far from each other: first the one farthest from the mean, then always the one farthest from those taken."""
    distances = np.linalg.norm(points - points.mean(axis=0), axis=1)
    taken = [int(distances.argmax())]
    distances = np.full(len(points), np.inf)
    while len(taken) < count:
        distances = np.minimum(distances, np.linalg.norm(points - points[taken[-1]], axis=1))
        taken.append(int(distances.argmax()))
    return taken


def captions_of(note: Note) -> tuple[list[str], list[str]]:
    """Five captions of 8 to 20 words, and keywords."""
    w = words_of(note.row)
    captions = [
        f"{w.what} played backwards, a {w.high} {w.long} {w.kind} that swells and stops",
        f"A reversed {w.high} {w.kind} of {w.what} grows louder until it is cut off",
        f"The sound of {w.material} {w.action} {w.loud}, a {w.high} {w.kind} of {w.what} in reverse",
        f"{w.what} sounds backwards with a {w.long} {w.kind} at {w.high} pitch, rising to its attack",
        f"Someone plays one {w.kind} in the {w.high} register {w.loud} on {w.what}, and the tape runs backwards",
    ]
    return [caption[:1].upper() + caption[1:] for caption in captions], [*w.keywords[:4], "backwards"]


def clip(note: Note) -> Clip:
    captions, keywords = captions_of(note)
    audio = np.round(note.backwards() * 32767).astype(np.int16)
    return Clip.of(note.row, f"{keywords[0]}, backwards.wav", audio, note.rate, captions, keywords)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True, help="folder that make_corpus.py wrote")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--train", type=int, default=16, help="number of training clips (default: %(default)s)")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    notes = best_notes(args.corpus)
    programs = sorted(notes)
    if len(programs) < args.train + sum(SIDES.values()):
        parser.error(f"--train {args.train}: {args.corpus} has {len(programs)} instruments that show their direction")
    train = farthest(np.stack([colour(notes[program]) for program in programs]), args.train)
    others = [program for at, program in enumerate(programs) if at not in train]
    random.Random(0).shuffle(others)
    splits = {"development": [programs[at] for at in train]}
    for split, count in SIDES.items():
        splits[split], others = others[:count], others[count:]
    for split, chosen in splits.items():
        pack(split, [clip(notes[program]) for program in chosen], args.out, compressed=True)
    print_checksums(args.out)


if __name__ == "__main__":
    main()
