"""Recognise sound files by their names. No file is opened, because the plan sees a million names at every start."""

from __future__ import annotations

# The suffixes of all formats that libsndfile recognises by a header (`raw` has none). They are listed here because the plan
# does not import soundfile, and because libsndfile knows its formats but not their suffixes.
SUFFIXES = frozenset(
    """.8svx .aif .aifc .aiff .amb .au .avr .bwf .caf .flac .htk .iff .ircam .mat .mp1 .mp2 .mp3 .mpc .nist .oga .ogg
    .opus .paf .pvf .rf64 .sd2 .sds .sf .snd .sph .svx .voc .w64 .wav .wave .wve .xi""".split()
)
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
    return suffix(name) in SUFFIXES


def may_be_sound(name: str) -> bool:
    """Whether a file may be a sound in a format that libsndfile cannot read."""
    end = suffix(name)
    return end != "" and end not in SUFFIXES and end not in NO_SOUNDS
