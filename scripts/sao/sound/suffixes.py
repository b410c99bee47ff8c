"""Which files are sounds, by their names. Nothing is opened: the plan looks at a folder of a million names at every start."""

from __future__ import annotations

# What libsndfile opens by its header; `raw` has none. Listed: the plan is made without soundfile, and libsndfile knows
# its formats but not what their files are called.
SUFFIXES = frozenset(
    """.8svx .aif .aifc .aiff .amb .au .avr .bwf .caf .flac .htk .iff .ircam .mat .mp1 .mp2 .mp3 .mpc .nist .oga .ogg
    .opus .paf .pvf .rf64 .sd2 .sds .sf .snd .sph .svx .voc .w64 .wav .wave .wve .xi""".split()
)
# What may be called like a text and yet be no sound; beside anything else a text is taken for its caption.
NO_SOUNDS = frozenset(
    """.csv .doc .docx .gif .htm .html .jpeg .jpg .json .jsonl .lab .log .md .mid .midi .npy .npz .odt .pdf .png .py
    .rst .rtf .srt .svg .textgrid .toml .tsv .txt .vtt .webp .xml .yaml .yml .zip""".split()
)


def suffix(name: str) -> str:
    """As Path has it, in lower case; Path would take too long."""
    last = name.rpartition("/")[2]
    at = last.rfind(".")
    return last[at:].lower() if 0 < at < len(last) - 1 else ""


def is_sound(name: str) -> bool:
    return suffix(name) in SUFFIXES


def may_be_sound(name: str) -> bool:
    """Whether a file may be a sound in a format that libsndfile lacks."""
    end = suffix(name)
    return end != "" and end not in SUFFIXES and end not in NO_SOUNDS
