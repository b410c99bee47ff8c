"""Make the corpus that the autoencoder is trained on, and the clips that it is judged by, from Debian packages.

    apt-get install fluidsynth flite
    uv run python resources/base/make_corpus.py --packages /var/tmp/packages --out /var/tmp/corpus

Downloads the packages of `SOURCES` and `JUDGES` to `--packages` (what is there already stays), renders the soundfonts,
and writes `train/`, `judge/` (FLAC, 16 kHz, stereo, at most 3 s) and a CSV beside each: what a clip is, which file of
which package it comes from, under which licence, by whom; `licences.csv` has a row a file. The same packages give the
same files.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import csv
import fnmatch
import io
import pickle
import random
import re
import struct
import subprocess
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import scipy.fft
import scipy.signal
import soundfile

# Of sonic-pi-samples: the recordings in unheard/, by which the tests judge the autoencoder.
UNHEARD = {
    "loop_tabla", "perc_bell", "drum_splash_hard", "tabla_tun1", "ambi_sauna", "vinyl_rewind", "guit_harmonics", "perc_bell2",
}  # fmt: skip
SAMPLE_RATE = 16000  # Hz
LONGEST = 3.0  # s
SHORTEST = 0.06  # s
FADE = 0.01  # s, where a clip is cut
SLOT = 3.4  # s between two notes of a rendering
RENDER_RATE = 44100  # Hz: fluidsynth has no low-pass filter of its own
QUIETEST = 10 ** (-50 / 20)  # of a clip's peak
PARTS = 8  # clips out of one long file
ALIKE = 0.7  # normalised cross-correlation from which two recordings count as one
COLUMNS = (
    "file", "package", "source", "kind", "instrument", "bank", "program", "keys", "velocity", "held_s", "seconds",
    "licence", "holder",
)  # fmt: skip
SUFFIXES = (".wav", ".ogg", ".oga", ".flac", ".mp3")

# What asks for nothing but to be named. GPL and what is non-commercial stay out; share-alike comes in by a flag.
FREE = re.compile(r"^(cc0|cc-0|public-domain|cc-by-[0-9.]+|expat|mit|bsd|zlib|freedoom-license|cmu|unlicense)", re.I)
SHARE_ALIKE = re.compile(r"^cc-by-sa", re.I)


@dataclass(frozen=True)
class Source:
    """A package: how its sounds are got at, and what its licences are where `debian/copyright` has no table of files."""

    package: str
    kind: str  # soundfont, files, doom, zip, speech
    installed: str  # folder or file inside the package
    upstream: str = ""  # what `installed` is called in debian/copyright
    licence: str = ""
    holder: str = ""
    chosen: str = ""  # a regular expression for the files to take


@dataclass(eq=False)
class Clip:
    audio: np.ndarray  # [2, samples] at SAMPLE_RATE
    row: dict[str, object] = field(default_factory=dict)


GM = "usr/share/sounds/sf2/"
GAMES = "usr/share/games/"
SOURCES = (
    Source("fluid-soundfont-gm", "soundfont", GM + "FluidR3_GM.sf2", licence="MIT", holder="Frank Wen and others"),
    Source(
        "musescore-general-soundfont-lossless",
        "soundfont",
        GM + "MuseScore_General_Full.sf2",
        licence="MIT, parts public domain or CC0",
        holder="S. Christian Collins, Michael Cowgill, Frank Wen, Sam Gossner and others",
    ),
    Source("sonic-pi-samples", "files", "usr/share/sonic-pi/samples", "etc/samples"),
    Source("supertuxkart-data", "files", GAMES + "supertuxkart", ""),
    Source("endless-sky-data", "files", GAMES + "endless-sky/sounds", "sounds"),
    Source("redeclipse-data", "files", GAMES + "redeclipse/data", "data"),
    Source(
        "freedoom",
        "doom",
        GAMES + "doom/freedoom2.wad",
        licence="BSD-3-Clause",
        holder="Contributors to the Freedoom project",
    ),
    Source("flite", "speech", "", licence="CMU", holder="Carnegie Mellon University"),
    Source("teeworlds-data", "files", "usr/share/games/teeworlds/data", "datasrc"),
    Source("flare-game", "files", "usr/share/games/flare", ""),
    Source("megaglest-data", "files", "usr/share/games/megaglest", ""),
    Source("freeorion-data", "files", "usr/share/games/freeorion/default", "default"),
    Source(
        "0ad-data",
        "zip",
        GAMES + "0ad/mods/public/public.zip",
        licence="CC-BY-SA-3.0",
        holder="Wildfire Games",
        chosen=r"^audio/",
    ),
    Source(
        "asterisk-core-sounds-en-wav",
        "files",
        "usr/share/asterisk/sounds",
        licence="CC-BY-SA-3.0",
        holder="Allison Smith",
    ),
)
# Never trained on.
JUDGES = (
    Source("openttd-opensfx", "cat", GAMES + "openttd/baseset/opensfx/opensfx.cat"),
    Source("scratch", "files", "usr/share/scratch"),
    Source("searchandrescue-data", "files", GAMES + "searchandrescue"),
    Source("tuxpaint-stamps-default", "files", "usr/share/tuxpaint", chosen=r"^(?!.*_desc)"),
    Source("gcompris-qt-data", "rcc", "usr/share/gcompris-qt/rcc", chosen=r"^(?!voices)"),
    Source("lomiri-sounds", "files", "usr/share/sounds"),
    Source("sound-theme-freedesktop", "files", "usr/share/sounds"),
    Source("unknown-horizons", "files", "usr/share/unknown-horizons"),
)

# Sentences for flite: every sound of English, and nothing that anyone owns.
SENTENCES = (
    "The old clock in the hall struck seven, and nobody came down.",
    "She sells fresh fish and chips beside the windy harbour wall.",
    "Please put the yellow box on top of the other three.",
    "A thin voice answered from behind the heavy wooden door.",
    "We measured the noise twice, then wrote the numbers down.",
    "Why would anyone choose to walk in weather like this?",
    "Five quick jumps, a long pause, and one enormous splash!",
    "His brother joined the choir because he loved the echo.",
    "Turn left at the bridge, then follow the stream for a mile.",
    "The judge usually thanks the youngest player first.",
    "Boys and girls were shouting numbers: one, two, nine, eleven.",
    "Somewhere above us a small engine coughed and started.",
    "Good morning. This is a recording of a perfectly ordinary voice.",
    "Rough thorns caught the edge of her other glove.",
    "Zebras, oxen and mules share the dusty road with cars.",
    "He whispered that the measure of pleasure is patience.",
)
VOICES = ("kal", "awb", "rms", "slt")


# --- packages and licences


def unpack(package: str, packages: Path) -> Path:
    """The folder that holds the files of `package`; downloads it where it is missing."""
    folder = packages / package
    if not folder.is_dir():
        with tempfile.TemporaryDirectory(dir=packages) as download:
            subprocess.run(["apt-get", "download", package], cwd=download, check=True, stdout=subprocess.DEVNULL)
            (archive,) = Path(download).glob("*.deb")
            subprocess.run(["dpkg", "-x", archive, Path(download, "root")], check=True)
            Path(download, "root").rename(folder)
    return folder


def licence_table(path: Path) -> list[tuple[list[str], str, str]]:
    """`(patterns, licence, holder)` of every paragraph of a machine-readable debian/copyright."""
    table = []
    for paragraph in re.split(r"\n\s*\n", path.read_text(encoding="utf-8", errors="replace")):
        fields = dict(re.findall(r"^([A-Za-z-]+):((?:.*)(?:\n[ \t].*)*)", paragraph, re.M))
        if "Files" in fields and "License" in fields:
            patterns = re.split(r"\s*\n\s*", fields["Files"].strip())
            if not any("\n" in fields["Files"].strip() or " " in p for p in patterns):
                patterns = fields["Files"].split()
            holder = " ".join(fields.get("Copyright", "").split())
            table.append((patterns, fields["License"].strip().split("\n")[0], holder))
    return table


def licence_of(name: str, table: list[tuple[list[str], str, str]]) -> tuple[str, str]:
    """Licence and holder of the file `name`: the last paragraph that matches decides, as Debian's policy has it."""
    found = ("", "")
    for patterns, licence, holder in table:
        for pattern in patterns:
            # A line may hold one name with spaces, or several names.
            if any(fnmatch.fnmatchcase(name, p) for p in (pattern, *pattern.split())):
                found = (licence, holder)
    return found


def allowed(licence: str, share_alike: bool) -> str:
    """The alternative of `licence` that we take, or an empty string."""
    for choice in re.split(r"\s+or\s+", licence):
        if re.search(r"\sand\s", choice):
            continue
        if FREE.match(choice) or (share_alike and SHARE_ALIKE.match(choice)):
            return choice
    return ""


# --- soundfonts


def presets(soundfont: Path) -> list[tuple[int, int, str]]:
    """`(bank, program, name)` of every preset: the `phdr` chunk of the SoundFont 2 format."""
    data = soundfont.read_bytes()
    start = data.rindex(b"phdr")
    size = struct.unpack_from("<I", data, start + 4)[0]
    records = [struct.unpack_from("<20sHH", data, start + 8 + i) for i in range(0, size - 38, 38)]
    named = [(bank, program, name.split(b"\0")[0].decode("latin-1").strip()) for name, program, bank in records]
    # MuseScore's "Expr." presets are the same samples under another controller.
    return sorted(p for p in named if not p[2].endswith("Expr."))


def notes_of(bank: int, program: int, rng: random.Random) -> list[tuple[tuple[int, ...], int, float]]:
    """`(keys, velocity, seconds held)` to play: a preset over its range, soft and loud, short and long."""
    if bank == 128:
        # The eight standard and eight room kits share most samples.
        return (
            [((key,), rng.choice((60, 90, 115, 127)), 0.5) for key in range(27, 88)]
            if program % 8 == 0
            else [((key,), rng.choice((70, 110)), 0.5) for key in rng.sample(range(27, 88), 6)]
        )
    lengths, velocities = [0.12, 0.4, 0.8, 1.4, 2.0, 2.5], [25, 50, 70, 90, 110, 127]
    notes = [
        ((key + rng.randint(-3, 3),), rng.choice(velocities), rng.choice(lengths))
        for key in (31, 38, 45, 52, 59, 66, 73, 80, 88)
    ]
    root = rng.randint(45, 62)
    third = rng.choice((3, 4))
    notes.append(((root, root + third, root + 7), rng.choice(velocities), 2.0))
    notes.append(((root - 5, root + 2, root + 7, root + 10), rng.choice(velocities), 1.0))
    return notes


def variable_length(value: int) -> bytes:
    out = [value & 0x7F]
    while value := value >> 7:
        out.append(0x80 | value & 0x7F)
    return bytes(reversed(out))


def midi(plan: list[tuple[int, int, tuple[int, ...], int, float]]) -> bytes:
    """A MIDI file that plays one note or chord a slot; a tick is a millisecond."""
    events: list[tuple[int, bytes]] = []
    for slot, (bank, program, keys, velocity, held) in enumerate(plan):
        on = round(slot * SLOT * 1000)
        channel = 9 if bank == 128 else 0
        if bank != 128:
            events.append((on, bytes((0xB0, 0, bank))))
        events.append((on, bytes((0xC0 | channel, program))))
        events.extend((on + 20, bytes((0x90 | channel, key, velocity))) for key in keys)
        events.extend((on + 20 + round(held * 1000), bytes((0x80 | channel, key, 0))) for key in keys)
        # Whatever still sounds must not reach the next slot.
        events.append((on + round(SLOT * 1000) - 20, bytes((0xB0 | channel, 120, 0))))
    track, now = [b"\x00\xff\x51\x03" + (1_000_000).to_bytes(3, "big")], 0
    for tick, message in sorted(events, key=lambda event: event[0]):
        track.append(variable_length(tick - now) + message)
        now = tick
    body = b"".join(track) + variable_length(round(len(plan) * SLOT * 1000) - now) + b"\xff\x2f\x00"
    return struct.pack(">4sIHHH4sI", b"MThd", 6, 0, 1, 1000, b"MTrk", len(body)) + body


def render(soundfont: Path, plan: list[tuple[int, int, tuple[int, ...], int, float]], reverb: bool) -> np.ndarray:
    with tempfile.TemporaryDirectory() as folder:
        song, wav = Path(folder, "song.mid"), Path(folder, "song.wav")
        song.write_bytes(midi(plan))
        command = [
            "fluidsynth",
            "-ni",
            "-q",
            "-g",
            "0.6",
            "-C",
            "0",
            "-R",
            str(int(reverb)),
            "-T",
            "wav",
            "-O",
            "float",
        ]
        command += ["-r", str(RENDER_RATE), "-F", str(wav), str(soundfont), str(song)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        audio, _ = soundfile.read(wav, dtype="float32", always_2d=True)
    return audio


def soundfont_clips(source: Source, root: Path) -> Iterator[Clip]:
    soundfont = root / source.installed
    rng = random.Random(source.package)
    plan = [
        (bank, program, name, *note)
        for bank, program, name in presets(soundfont)
        for note in notes_of(bank, program, rng)
    ]
    batch = 300  # notes a run of fluidsynth
    for start in range(0, len(plan), batch):
        chosen = plan[start : start + batch]
        audio = render(soundfont, [(b, p, *note) for b, p, _, *note in chosen], reverb=start // batch % 2 == 0)
        for slot, (bank, program, name, keys, velocity, held) in enumerate(chosen):
            first = round(slot * SLOT * RENDER_RATE)
            cut = audio[first : first + round((SLOT - 0.02) * RENDER_RATE)]
            row = {
                "source": source.installed.split("/")[-1],
                "kind": "drum" if bank == 128 else "note" if len(keys) == 1 else "chord",
                "instrument": name, "bank": bank, "program": program, "keys": " ".join(map(str, keys)),
                "velocity": velocity, "held_s": held, "licence": source.licence, "holder": source.holder,
            }  # fmt: skip
            yield Clip(at_rate(cut, RENDER_RATE), row)


# --- recordings


def at_rate(audio: np.ndarray, rate: int) -> np.ndarray:
    """`[samples, channels]` at `rate` to stereo `[2, samples]` at SAMPLE_RATE."""
    audio = audio[:, :2].T
    audio = np.repeat(audio, 2 // audio.shape[0], axis=0)
    if rate != SAMPLE_RATE and audio.shape[1]:
        divisor = np.gcd(rate, SAMPLE_RATE)
        audio = scipy.signal.resample_poly(audio, SAMPLE_RATE // divisor, rate // divisor, axis=1)
    return audio.astype(np.float32)


def decoded(data: bytes | Path) -> np.ndarray | None:
    """Stereo at SAMPLE_RATE; None for what libsndfile does not read or where nothing is in it."""
    try:
        audio, rate = soundfile.read(io.BytesIO(data) if isinstance(data, bytes) else data, always_2d=True)
    except soundfile.LibsndfileError:
        return None
    return at_rate(audio, rate) if len(audio) else None


def doom_sounds(wad: Path) -> Iterator[tuple[str, np.ndarray]]:
    """The `DS*` lumps of a WAD: 8 bits, mono, their own rate, 16 bytes of padding at both ends."""
    data = wad.read_bytes()
    count, directory = struct.unpack_from("<II", data, 4)
    for i in range(count):
        offset, size, name = struct.unpack_from("<II8s", data, directory + 16 * i)
        lump = data[offset : offset + size]
        if name.startswith(b"DS") and size > 40:
            if struct.unpack_from("<H", lump)[0] == 3:
                _, rate, length = struct.unpack_from("<HHI", lump)
                samples = np.frombuffer(lump[24 : 8 + length - 16], np.uint8).astype(np.float32)
                audio = ((samples - 128) / 128)[:, None]
                yield name.rstrip(b"\0").decode(), at_rate(audio, rate)
            elif (audio := decoded(lump)) is not None:
                yield name.rstrip(b"\0").decode(), audio


def cat_sounds(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """The WAVs inside a `.cat` file of OpenTTD."""
    data = path.read_bytes()
    for i, match in enumerate(re.finditer(rb"RIFF(....)WAVE", data, re.S)):
        size = struct.unpack("<I", match[1])[0]
        if (audio := decoded(data[match.start() : match.start() + 8 + size])) is not None:
            yield f"{i:03}.wav", audio


def rcc_sounds(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """The Ogg files inside a Qt resource file; they lie there as they are, each after its length in big-endian."""
    data = path.read_bytes()
    for i, match in enumerate(re.finditer(rb"(....)OggS\x00\x02", data, re.S)):
        size = struct.unpack(">I", match[1])[0]
        if (audio := decoded(data[match.start() + 4 : match.start() + 4 + size])) is not None:
            yield f"{path.name}/{i:03}.ogg", audio


def zip_sounds(path: Path, chosen: str) -> Iterator[tuple[str, np.ndarray]]:
    with zipfile.ZipFile(path) as archive:
        for name in sorted(archive.namelist()):
            if not re.search(chosen, name) or not name.lower().endswith(SUFFIXES):
                continue
            if (audio := decoded(archive.read(name))) is not None:
                yield name, audio


def speech() -> Iterator[tuple[str, np.ndarray]]:
    for voice in VOICES:
        for i, sentence in enumerate(SENTENCES):
            with tempfile.NamedTemporaryFile(suffix=".wav") as wav:
                subprocess.run(["flite", "-voice", voice, "-t", sentence, "-o", wav.name], check=True)
                if (audio := decoded(Path(wav.name))) is not None:
                    yield f"{voice} {i:02}", audio


def sounds(source: Source, root: Path) -> Iterator[tuple[str, np.ndarray]]:
    """`(name, stereo at SAMPLE_RATE)` of every sound of a package that is not a soundfont."""
    path = root / source.installed
    if source.kind == "doom":
        yield from doom_sounds(path)
    elif source.kind == "cat":
        yield from cat_sounds(path)
    elif source.kind == "zip":
        yield from zip_sounds(path, source.chosen)
    elif source.kind == "speech":
        yield from speech()
    else:
        pattern = "*.rcc" if source.kind == "rcc" else "*"
        for file in sorted(path.rglob(pattern)):
            name = file.relative_to(path).as_posix()
            if not re.search(source.chosen, name):
                continue
            if source.kind == "rcc":
                yield from rcc_sounds(file)
            elif file.suffix.lower() in SUFFIXES and (audio := decoded(file)) is not None:
                yield name, audio


def file_clips(source: Source, root: Path, share_alike: bool, judging: bool = False) -> Iterator[Clip]:
    """Clips of a package's recordings that we may use."""
    table = []
    if source.licence and not judging and not allowed(source.licence, share_alike):
        return
    if not source.licence and not judging:
        table = licence_table(root / "usr/share/doc" / source.package / "copyright")
    for name, audio in sounds(source, root):
        licence, holder = source.licence, source.holder
        if table:
            licence, holder = licence_of("/".join(filter(None, (source.upstream, name))), table)
        licence = licence if judging else allowed(licence, share_alike)
        if licence or judging:
            if source.package == "sonic-pi-samples" and Path(name).stem in UNHEARD:
                continue
            row = {"source": name, "kind": "speech" if source.kind == "speech" else "recording"}
            for part in parts(audio):
                yield Clip(part, {**row, "licence": licence, "holder": holder})


def parts(audio: np.ndarray) -> list[np.ndarray]:
    """A short sound as it is; of a long one, parts of LONGEST spread over it."""
    length = round(LONGEST * SAMPLE_RATE)
    if audio.shape[1] <= length:
        return [audio]
    count = min(PARTS, -(-audio.shape[1] // length))
    starts = np.linspace(0, audio.shape[1] - length, count).round().astype(int)
    return [audio[:, start : start + length] for start in starts]


def trimmed(audio: np.ndarray) -> np.ndarray | None:
    """Without the silence at both ends, cut to LONGEST, faded where it is cut; None for what nobody hears."""
    level = np.abs(audio).max(axis=0)
    peak = level.max(initial=0)
    if not np.isfinite(peak) or peak < QUIETEST:
        return None
    audible = np.flatnonzero(level > peak * 10 ** (-60 / 20))
    first, last = max(0, audible[0] - 80), min(audio.shape[1], audible[-1] + 800)
    audio = audio[:, first : min(last, first + round(LONGEST * SAMPLE_RATE))].copy()
    if audio.shape[1] < SHORTEST * SAMPLE_RATE:
        return None
    fade = round(FADE * SAMPLE_RATE)
    audio[:, -fade:] *= np.linspace(1, 0, fade)
    return audio / max(1.0, peak)


# --- what is recorded twice


def low(audio: np.ndarray) -> np.ndarray:
    """Mono at 4 kHz."""
    return scipy.signal.resample_poly(audio.mean(axis=0), 1, 4).astype(np.float32)


def recurring(clips: list[Clip], others: list[np.ndarray]) -> dict[int, float]:
    """Indexes of `clips` whose loudest half second is anywhere in `others`, and how much alike they are.

    Normalised cross-correlation at 4 kHz: another level, another cut, another rate, another codec do not matter.
    """
    size, half = 1 << 14, 2000
    length = size - half
    heard = np.zeros((len(others), size), np.float32)
    for row, audio in zip(heard, others, strict=True):
        mono = low(audio)[:length]
        row[: len(mono)] = mono
    sums = np.concatenate([np.zeros((len(others), 1)), np.cumsum(heard.astype(np.float64) ** 2, axis=1)], axis=1)
    energy = sums[:, half : half + length] - sums[:, :length]
    scale = 1 / np.sqrt(np.maximum(energy, 1e-3 * energy.max(axis=1, keepdims=True) + 1e-9)).astype(np.float32)
    spectra = scipy.fft.rfft(heard, axis=1)
    found = {}
    for index, clip in enumerate(clips):
        mono = low(clip.audio)
        loudest = int(np.argmax(np.convolve(mono**2, np.ones(half), mode="valid"))) if len(mono) > half else 0
        template = mono[loudest : loudest + half]
        if len(template) < 400:  # too little to tell one recording from another
            continue
        spectrum = np.conj(scipy.fft.rfft(template / (np.linalg.norm(template) + 1e-9), size))
        alike = np.abs(scipy.fft.irfft(spectra * spectrum, axis=1)[:, :length] * scale).max()
        if alike > ALIKE:
            found[index] = float(alike)
    return found


# --- all of it


def clips_of(source: Source, packages: Path, share_alike: bool, judging: bool, kept_at: Path) -> list[Clip]:
    """The clips of a package; rendering takes minutes, so they are kept at `kept_at` for the next call."""
    if kept_at.exists():
        return pickle.loads(kept_at.read_bytes())
    root = packages if source.kind == "speech" else unpack(source.package, packages)
    made = (
        soundfont_clips(source, root) if source.kind == "soundfont" else file_clips(source, root, share_alike, judging)
    )
    kept, seen = [], set()
    for clip in made:
        audio = trimmed(clip.audio)
        if audio is None:
            continue
        mark = zlib.crc32(np.round(audio * 2000).astype(np.int16).tobytes())
        if mark not in seen:  # kits that share samples
            seen.add(mark)
            clip.audio, clip.row["package"] = audio, source.package
            kept.append(clip)
    kept_at.parent.mkdir(parents=True, exist_ok=True)
    kept_at.with_suffix(".part").write_bytes(pickle.dumps(kept))
    kept_at.with_suffix(".part").replace(kept_at)
    return kept


def write(clips: list[Clip], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".csv").open("w", encoding="utf-8", newline="") as handle:
        table = csv.DictWriter(handle, COLUMNS, lineterminator="\n", restval="")
        table.writeheader()
        for i, clip in enumerate(clips):
            name = f"{i:05}.flac"
            soundfile.write(folder / name, clip.audio.T, SAMPLE_RATE, subtype="PCM_16")
            table.writerow({**clip.row, "file": name, "seconds": round(clip.audio.shape[1] / SAMPLE_RATE, 3)})


def write_licences(clips: list[Clip], path: Path) -> None:
    """A row for every file that was used: whose it is, and under which licence."""
    used: dict[tuple[str, str], tuple[str, str, float]] = {}
    for clip in clips:
        row = clip.row
        key = (str(row["package"]), str(row["source"]))
        seconds = used.get(key, ("", "", 0.0))[2] + clip.audio.shape[1] / SAMPLE_RATE
        used[key] = (str(row["licence"]), str(row["holder"]), seconds)
    with path.open("w", encoding="utf-8", newline="") as handle:
        table = csv.writer(handle, lineterminator="\n")
        table.writerow(["package", "source", "licence", "holder", "seconds"])
        for key, (licence, holder, seconds) in sorted(used.items()):
            table.writerow([*key, licence, holder, round(seconds, 1)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", type=Path, required=True, help="folder of unpacked packages; filled where empty")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--share-alike", action="store_true", help="with CC-BY-SA: the weights are then CC-BY-SA too")
    parser.add_argument("--per-judge", type=int, default=40, help="clips of each kept-aside package")
    parser.add_argument("--jobs", type=int, default=2)
    args = parser.parse_args()
    args.packages.mkdir(parents=True, exist_ok=True)
    with concurrent.futures.ProcessPoolExecutor(args.jobs) as pool:
        work = [(source, False) for source in SOURCES] + [(source, True) for source in JUDGES]
        made_at = args.out / ("made-share-alike" if args.share_alike else "made")
        futures = [
            pool.submit(
                clips_of, source, args.packages, args.share_alike, judging, made_at / f"{source.package}.pickle"
            )
            for source, judging in work
        ]
        made = [future.result() for future in futures]
    judged, train = [], []
    for (source, judging), clips in zip(work, made, strict=True):
        print(
            f"{source.package}: {len(clips)} clips, {sum(c.audio.shape[1] for c in clips) / SAMPLE_RATE / 60:.1f} min"
        )
        (judged if judging else train).append(clips)
    recorded = [clip for clips in train for clip in clips if clip.row["kind"] in ("recording", "drum")]
    everything = [clip.audio for clips in judged for clip in clips]
    twice = {id(recorded[i]): alike for i, alike in recurring(recorded, everything).items()}
    for clips in train:
        for clip in clips:
            if id(clip) in twice:
                print(f"left out, also in a judging package ({twice[id(clip)]:.2f}): {clip.row['source']}")
    rng = random.Random(0)
    chosen = [
        clip for clips in judged for clip in sorted(rng.sample(clips, min(args.per_judge, len(clips))), key=clips.index)
    ]
    kept = [clip for clips in train for clip in clips if id(clip) not in twice]
    write(kept, args.out / "train")
    write_licences(kept, args.out / "licences.csv")
    write(chosen, args.out / "judge")
    minutes = sum(c.audio.shape[1] for c in kept) / SAMPLE_RATE / 60
    print(f"train: {len(kept)} clips, {minutes:.1f} min; judge: {len(chosen)} clips")


if __name__ == "__main__":
    main()
