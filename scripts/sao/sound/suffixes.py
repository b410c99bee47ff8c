"""Recognise sound files by their names. No file is opened, because the plan sees a million names at every start."""

from __future__ import annotations

from pathlib import Path

# The suffixes of all formats that libsndfile recognises by a header (`raw` has none). They are listed here because the plan
# does not import soundfile, and because libsndfile knows its formats but not their suffixes.
SUFFIXES = frozenset(
    """.8svx .aif .aifc .aiff .amb .au .avr .bwf .caf .flac .htk .iff .ircam .mat .mp1 .mp2 .mp3 .mpc .nist .oga .ogg
    .opus .paf .pvf .rf64 .sd2 .sds .sf .snd .sph .svx .voc .w64 .wav .wave .wve .xi""".split()
)
# Further ones, which FFmpeg reads (`sao.sound.media`). A new one is a word here, and its demuxer in `ffmpeg.py`.
MEDIA = frozenset(".3gp .aac .ac3 .amr .eac3 .m4a .m4b .mka .tta .weba .wma .wv".split())
# Those of files that may be films. Their sound is read, but only a film with a caption belongs to a corpus.
FILMS = frozenset(".m4v .mkv .mov .mp4 .webm".split())
# Those of the two that browsers do not play, or not all of them.
UNPLAYED = frozenset(".3gp .ac3 .amr .eac3 .mka .mkv .mov .tta .wma .wv".split())
READ = SUFFIXES | MEDIA | FILMS
# The suffixes of files that are no sounds although a text may have the same name. A text with the name of any other file is
# taken for the caption of that file.
NO_SOUNDS = frozenset(
    """.csv .doc .docx .gif .htm .html .jpeg .jpg .json .jsonl .lab .log .md .mid .midi .npy .npz .odt .pdf .png .py
    .rst .rtf .srt .svg .textgrid .toml .tsv .txt .vtt .webp .xml .yaml .yml .zip""".split()
)


def suffix(name: str) -> str:
    """The suffix of a name in lower case, the same as Path's. Path itself would take too long."""
    last = name.rpartition("/")[2]
    at = last.rfind(".")
    return last[at:].lower() if 0 < at < len(last) - 1 else ""


def is_sound(name: str) -> bool:
    return suffix(name) in READ


def is_film(name: str) -> bool:
    return suffix(name) in FILMS


def is_media(name: str) -> bool:
    """Whether FFmpeg reads a sound, and not libsndfile."""
    return suffix(name) in MEDIA or suffix(name) in FILMS


def page_suffix(name: str) -> str:
    """The suffix of a sound on a page: its own, or that of a copy that browsers play."""
    return ".flac" if suffix(name) in UNPLAYED else Path(name).suffix


def may_be_sound(name: str) -> bool:
    """Whether a file may be a sound in a format that is not read."""
    end = suffix(name)
    return end != "" and end not in READ and end not in NO_SOUNDS
