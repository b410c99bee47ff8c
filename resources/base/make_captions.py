"""Pack the training clips of make_corpus.py in Clotho's form, with five captions each that say what is heard.

    uv run python resources/base/make_captions.py --corpus /var/tmp/corpus --out /var/tmp/pretraining

Captions follow from the metadata and the file's name alone: instrument, register, dynamics, how it is played, what
sounds and what is done to it. Writes for each split an archive, a captions CSV (UTF-8) and a metadata CSV
(ISO-8859-1), and prints checksums for a config. The same corpus gives the same files.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import os
import random
import re
import tempfile
from pathlib import Path

import py7zr
import soundfile

SPLITS = (("development", 0.94), ("validation", 0.03), ("evaluation", 0.03))
EPOCH = 1_600_000_000  # s: a fixed file time, so that the archives are reproducible
WORDS = (8, 20)  # of a caption, as in Clotho

INSTRUMENTS = """grand piano|bright piano|electric grand piano|honky-tonk piano|electric piano|chorused electric piano|
harpsichord|clavinet|celesta|glockenspiel|music box|vibraphone|marimba|xylophone|tubular bells|dulcimer|drawbar organ|
percussive organ|rock organ|church organ|reed organ|accordion|harmonica|bandoneon|nylon-string guitar|steel-string
guitar|jazz guitar|clean electric guitar|muted electric guitar|overdriven guitar|distorted guitar|guitar harmonics|
double bass|fingered electric bass|picked electric bass|fretless bass|slapped bass|popped bass|synthesizer bass|deep
synthesizer bass|violin|viola|cello|bowed double bass|tremolo strings|pizzicato strings|harp|timpani|string ensemble|
slow string ensemble|synthesizer strings|soft synthesizer strings|choir singing aah|choir singing ooh|synthetic choir|
orchestra hit|trumpet|trombone|tuba|muted trumpet|french horn|brass section|synthesizer brass|soft synthesizer brass|
soprano saxophone|alto saxophone|tenor saxophone|baritone saxophone|oboe|english horn|bassoon|clarinet|piccolo|flute|
recorder|pan flute|blown bottle|shakuhachi|whistle|ocarina|square-wave lead|sawtooth lead|calliope lead|chiffy lead|
charang lead|voice lead|lead in fifths|bass and lead|new age pad|warm pad|polysynth pad|choir pad|bowed glass pad|
metallic pad|halo pad|sweeping pad|ice rain texture|soundtrack texture|crystal texture|atmosphere texture|brightness
texture|goblin texture|echo drops texture|star theme texture|sitar|banjo|shamisen|koto|kalimba|bagpipe|fiddle|shanai|
tinkle bell|agogo|steel drum|woodblock|taiko drum|melodic tom|synthesizer drum|reversed cymbal|guitar fret noise|
breath noise|seashore|bird tweet|telephone ring|helicopter|applause|gunshot"""
NAMES = [" ".join(name.split()) for name in INSTRUMENTS.split("|")]
# What sounds and what is done to it, by the families of eight programs of General MIDI.
FAMILIES = (
    ("felt hammers on strings", "struck"), ("metal or wooden bars", "struck with mallets"),
    ("air in pipes and reeds", "played"), ("guitar strings", "plucked"), ("thick bass strings", "plucked"),
    ("strings", "played"), ("an ensemble", "played"), ("a brass mouthpiece", "blown"),
    ("a vibrating reed", "blown"), ("air across an edge", "blown"), ("an electronic oscillator", "played"),
    ("layered electronic oscillators", "played"), ("electronic textures", "played"),
    ("a folk instrument", "played"), ("skin, wood or metal", "struck"), ("a sound effect", "played"),
)  # fmt: skip
DRUMS = """high synthesizer blip|slapped hand|scratch push|scratch pull|drumsticks|metronome click|metronome bell|
acoustic bass drum|bass drum|side stick|snare drum|hand clap|electric snare drum|low floor tom|closed hi-hat|high floor
tom|pedal hi-hat|low tom|open hi-hat|low-mid tom|high-mid tom|crash cymbal|high tom|ride cymbal|chinese cymbal|ride
bell|tambourine|splash cymbal|cowbell|second crash cymbal|vibraslap|second ride cymbal|high bongo|low bongo|muted high
conga|open high conga|low conga|high timbale|low timbale|high agogo|low agogo|cabasa|maracas|short whistle|long
whistle|short guiro|long guiro|claves|high woodblock|low woodblock|muted cuica|open cuica|muted triangle|open
triangle|shaker|jingle bells|bell tree|castanets|muted surdo|open surdo|drum"""
DRUM_NAMES = [" ".join(name.split()) for name in DRUMS.split("|")]  # from key 27


def article(phrase: str) -> str:
    plural = phrase.endswith(("strings", "drumsticks", "bells", "maracas", "claves", "castanets", "harmonics"))
    uncounted = phrase in ("timpani", "applause") or phrase.startswith(("synthesizer strings", "soft synthesizer"))
    return phrase if plural or uncounted else f"{'an' if phrase[0] in 'aeio' else 'a'} {phrase}"


def step(value: float, levels: tuple[tuple[float, str], ...]) -> str:
    return next(word for limit, word in levels if value <= limit)


def register(key: float) -> str:
    return step(key, ((35, "very low"), (51, "low"), (66, "middle"), (81, "high"), (127, "very high")))


def dynamics(velocity: int) -> str:
    return step(
        velocity, ((30, "very softly"), (55, "softly"), (80, "moderately"), (105, "loudly"), (127, "very loudly"))
    )


def length(seconds: float) -> str:
    return step(seconds, ((0.3, "very short"), (0.7, "short"), (1.6, "held"), (9.0, "long sustained")))


def note_captions(row: dict[str, str]) -> tuple[list[str], list[str]]:
    keys = [int(key) for key in row["keys"].split()]
    program = int(row["program"])
    what = article(NAMES[program])
    material, action = FAMILIES[program // 8]
    high, loud, long_ = register(sum(keys) / len(keys)), dynamics(int(row["velocity"])), length(float(row["held_s"]))
    kind = "note" if len(keys) == 1 else f"{('three', 'four')[len(keys) - 3]}-note chord"
    captions = [
        f"{what} plays a single {long_} {kind} {loud} in the {high} register"
        if len(keys) == 1
        else f"{what} plays a {long_} {kind} {loud} in the {high} register",
        f"A {high} {long_} {kind} is {action} {loud} on {what}",
        f"The sound of {material} {action} {loud}, a {high} {long_} {kind} of {what}",
        f"{what} sounds {loud} with a {long_} {kind} at {high} pitch and fades",
        f"Someone plays one {long_} {kind} {loud} on {what}, its pitch is {high}",
    ]
    return captions, [NAMES[program], kind.split()[-1], high, loud, long_]


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


def pack(rows: list[dict[str, str]], corpus: Path, split: str, out: Path) -> None:
    captions = [["file_name", *(f"caption_{i}" for i in range(1, 6))]]
    metadata = [["file_name", "keywords", "sound_id", "sound_link", "start_end_samples", "manufacturer", "license"]]
    archive = out / f"clotho_audio_{split}.7z"
    archive.unlink(missing_ok=True)
    copy = [{"id": py7zr.FILTER_COPY}]
    with tempfile.TemporaryDirectory() as folder, py7zr.SevenZipFile(archive, "w", filters=copy) as packed:
        for row in rows:
            name = f"{Path(row['file']).stem}.wav"
            audio, rate = soundfile.read(corpus / "train" / row["file"], dtype="int16")
            wav = Path(folder) / name
            soundfile.write(wav, audio, rate, subtype="PCM_16")
            os.utime(wav, (EPOCH, EPOCH))
            packed.write(wav, f"{split}/{name}")
            wav.unlink()
            five, keywords = captions_of(row)
            captions.append([name, *five])
            holder = row["holder"].encode("iso-8859-1", "replace").decode("iso-8859-1")
            link = f"https://packages.debian.org/bookworm/{row['package']}"
            metadata.append(
                [name, ";".join(keywords), Path(name).stem, link, f"[0, {len(audio)}]", holder, row["licence"]]
            )
    for kind, encoding, table in (("captions", "utf-8", captions), ("metadata", "iso-8859-1", metadata)):
        with (out / f"clotho_{kind}_{split}.csv").open("w", encoding=encoding, newline="") as handle:
            csv.writer(handle, lineterminator="\n").writerows(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True, help="folder that make_corpus.py wrote")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    with (args.corpus / "train.csv").open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    for split, chosen in split_rows(rows).items():
        pack(chosen, args.corpus, split, args.out)
    for path in sorted(args.out.iterdir()):
        with path.open("rb") as handle:
            print(f"{hashlib.file_digest(handle, 'md5').hexdigest()}  {path.stat().st_size:>9}  {path.name}")


if __name__ == "__main__":
    main()
