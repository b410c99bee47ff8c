"""Pack the training clips of make_corpus.py in Clotho's form, with five captions each that say what is heard.

    uv run python resources/base/make_captions.py --corpus /var/tmp/corpus --out /var/tmp/pretraining

Captions follow from the metadata and the file's name alone: instrument, register, dynamics, how it is played, what
sounds and what is done to it. Writes for each split an archive, a captions CSV (UTF-8) and a metadata CSV
(ISO-8859-1), and prints checksums for a config. The same corpus gives the same files.
"""

from __future__ import annotations

import argparse
import csv
import random
import re
from collections.abc import Iterator
from pathlib import Path

import soundfile
from clotho import Clip, pack, print_checksums
from words import DRUM_NAMES, article, dynamics, words_of

SPLITS = (("development", 0.94), ("validation", 0.03), ("evaluation", 0.03))
WORDS = (8, 20)  # of a caption, as in Clotho


def note_captions(row: dict[str, str]) -> tuple[list[str], list[str]]:
    w = words_of(row)
    captions = [
        f"{w.what} plays a {'single ' if w.kind == 'note' else ''}{w.long} {w.kind} {w.loud} in the {w.high} register",
        f"A {w.high} {w.long} {w.kind} is {w.action} {w.loud} on {w.what}",
        f"The sound of {w.material} {w.action} {w.loud}, a {w.high} {w.long} {w.kind} of {w.what}",
        f"{w.what} sounds {w.loud} with a {w.long} {w.kind} at {w.high} pitch and fades",
        f"Someone plays one {w.long} {w.kind} {w.loud} on {w.what}, its pitch is {w.high}",
    ]
    return captions, w.keywords


def drum_captions(row: dict[str, str]) -> tuple[list[str], list[str]]:
    key = int(row["keys"])
    name = DRUM_NAMES[min(max(key - 27, 0), len(DRUM_NAMES) - 1)]
    kit = re.sub(r"\s*\d+$", "", row["instrument"]).lower().removesuffix(" kit")
    what, loud = article(name), dynamics(int(row["velocity"]))
    rest = "rings out" if float(row["seconds"]) > 1.2 else "stops quickly"
    captions = [
        f"{what} of the {kit} drum kit is hit once {loud} and {rest}",
        f"One {loud} played stroke on {what} from the {kit} kit, which {rest}",
        f"Somebody strikes {what} {loud} one time and the sound {rest}",
        f"A single hit of percussion, {what}, is played {loud} and {rest}",
        f"The {name} of the {kit} drums sounds once {loud}, then it {rest}",
    ]
    return captions, ["drum", name, kit, loud]


def recording_captions(row: dict[str, str]) -> tuple[list[str], list[str]]:
    """Of what a file is called; numbers and marks say nothing."""
    path = re.sub(r"\.\w+$", "", row["source"])
    parts = [" ".join(re.findall(r"[a-z]+", part.lower())) for part in path.split("/")]
    parts = [part for part in parts if part not in ("data", "sfx", "sounds", "tracks", "")]
    name, place = parts[-1], parts[-2] if len(parts) > 1 else row["package"].split("-")[0]
    long_ = "short" if float(row["seconds"]) < 0.8 else "long" if float(row["seconds"]) > 2 else "medium"
    captions = [
        f"A {long_} recording in which the sound called {name} is heard clearly",
        f"The sound of {name}, a {long_} sound effect recorded for {place}",
        f"A {long_} sound effect named {name} is played back one time",
        f"One can hear {name} for a {long_} while in this {place} recording",
        f"This is a {long_} sound of {name} that belongs to {place}",
    ]
    return captions, [*name.split(), long_]


def speech_captions(row: dict[str, str]) -> tuple[list[str], list[str]]:
    woman = row["source"].startswith("slt")
    who, voice = ("woman", "female") if woman else ("man", "male")
    captions = [
        f"A {who} speaks a sentence in English with an artificial voice",
        f"The synthetic voice of a {who} reads out one English sentence",
        f"A {who} is talking in English in a dry room without echo",
        f"Clear {voice} speech from a computer, several English words in a row",
        f"One {voice} speaker says a few words in English, sounding like a machine",
    ]
    return captions, ["speech", voice, "voice"]


MAKERS = {"note": note_captions, "chord": note_captions, "drum": drum_captions}
MAKERS |= {"recording": recording_captions, "speech": speech_captions}


def captions_of(row: dict[str, str]) -> tuple[list[str], list[str]]:
    """Five captions of 8 to 20 words, and keywords."""
    captions, keywords = MAKERS[row["kind"]](row)
    out = []
    for caption in captions:
        words = caption[:1].upper() + caption[1:]
        if len(words.split()) < WORDS[0]:
            words += " and nothing else is heard"
        out.append(" ".join(words.split()[: WORDS[1]]).rstrip(","))
    return out, keywords


def split_rows(rows: list[dict[str, str]]) -> dict[str, list[dict[str, str]]]:
    """All parts of a recording lie on one side; a rendered note is a recording of its own."""
    groups = sorted({(row["package"], row["source"], row["keys"] and row["file"]) for row in rows})
    random.Random(0).shuffle(groups)
    side, first = {}, 0
    for name, share in SPLITS:
        last = len(groups) if name == SPLITS[-1][0] else first + round(share * len(groups))
        side |= dict.fromkeys(groups[first:last], name)
        first = last
    out: dict[str, list[dict[str, str]]] = {name: [] for name, _ in SPLITS}
    for row in rows:
        out[side[row["package"], row["source"], row["keys"] and row["file"]]].append(row)
    return out


def clips(rows: list[dict[str, str]], corpus: Path) -> Iterator[Clip]:
    for row in rows:
        audio, rate = soundfile.read(corpus / "train" / row["file"], dtype="int16")
        yield Clip.of(row, f"{Path(row['file']).stem}.wav", audio, rate, *captions_of(row))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True, help="folder that make_corpus.py wrote")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    with (args.corpus / "train.csv").open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    for split, chosen in split_rows(rows).items():
        pack(split, clips(chosen, args.corpus), args.out, compressed=False)
    print_checksums(args.out)


if __name__ == "__main__":
    main()
