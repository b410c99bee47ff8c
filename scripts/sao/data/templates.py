"""Prompts from templates such as `{caption}, {keywords}`: every text that a clip may be trained with, and its weight.

The texts of a clip are a function of its row and the config alone. So they are known before a training: all are checked, all
are encoded once, and an epoch draws one of them.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import PurePosixPath
from typing import Any

from sao.base.names import seed_for
from sao.base.placeholders import is_placeholder
from sao.data.captions import listed
from sao.data.origin import one_line

CAPTION, FILE, FOLDER = "caption", "file", "folder"
OWN = (CAPTION, FILE, FOLDER)  # fields that are no columns of the metadata
FIELD = "field_"  # a column of the metadata, in the manifest
Prompts = Mapping[str, Any]  # a corpus's entry `prompts` in the config
Weighted = tuple[str, float]  # a text and its weight


def pieces(template: str) -> list[tuple[str, str | None]]:
    """The pieces of a template: literal text, and the field after it. Raises ValueError, with the reason, if it is none."""
    parts = []
    for literal, name, form, conversion in string.Formatter().parse(template):
        if name is not None and (not name.strip() or form or conversion):
            raise ValueError("a field is a name in braces, such as {caption}; for a brace itself, write two")
        parts.append((literal, name))
    return parts


def fields_of(template: str) -> list[str]:
    """The fields of a template, in order."""
    return [name for _, name in pieces(template) if name is not None]


def columns_of(prompts: Prompts) -> list[str]:
    """The columns of the metadata that the prompts need."""
    named = [name for entry in prompts["templates"] for name in fields_of(entry["text"]) if name not in OWN]
    return list(dict.fromkeys([*named, *prompts["columns"]]))


def tags_of(cell: str, separator: str | None) -> list[str]:
    """The tags of a cell, a list as Python or JSON writes it, or parts between separators. None is there twice."""
    if (cell := cell.strip())[:1] == "[":
        parts = listed(cell, "tags")
    else:
        parts = cell.split(separator or (";" if ";" in cell else ","))
    return list(dict.fromkeys(text for part in parts if (text := one_line(part)) and not is_placeholder(text)))


def drawn_tags(tags: Sequence[str], entry: Mapping[str, Any], *key: object) -> list[str]:
    """The tags of one variant: shuffled, and some of them dropped, as the entry says. One stays."""
    order = sorted(tags, key=lambda tag: seed_for("order", *key, tag)) if entry["shuffle"] else list(tags)
    kept = [tag for tag in order if seed_for("drop", *key, tag) >= entry["drop"] * 2**32]
    return kept or order[:1]


@dataclass(frozen=True)
class Source:
    """What a clip's prompts are made from."""

    clip_id: str
    file_name: str  # path in the folder of its split
    captions: Sequence[str]
    fields: Mapping[str, str]  # cells by column; blank if a word for nothing

    @classmethod
    def of(cls, row: Mapping[str, Any], captions: Sequence[str]) -> Source:
        """The source of a clip from its row of the manifest."""
        cells = {
            column.removeprefix(FIELD): "" if is_placeholder(str(cell)) else str(cell)
            for column, cell in row.items()
            if str(column).startswith(FIELD)
        }
        return cls(str(row["clip_id"]), str(row["file_name"]), captions, cells)

    def own(self, caption: str) -> dict[str, str]:
        path = PurePosixPath(self.file_name)
        return {CAPTION: caption, FILE: spoken(path.stem), FOLDER: spoken(path.parent.name)}


def spoken(name: str) -> str:
    """A name of a file or folder as words: `dog_bark-01` is `dog bark 01`."""
    return one_line(re.sub(r"[_-]+", " ", name))


def texts_of(source: Source, prompts: Prompts) -> list[Weighted]:
    """The texts of a clip in the order of the templates, each once. The weights sum up to 1.

    A template with a field that is blank for this clip is passed over. There may be none left.
    """
    weights: dict[str, float] = {}
    for number, entry in enumerate(prompts["templates"]):
        texts = list(_filled(source, number, entry["text"], prompts))
        for text in texts:
            weights[text] = weights.get(text, 0.0) + entry["weight"] / len(texts)
    total = sum(weights.values())
    return [(text, weight / total) for text, weight in weights.items()]


def _filled(source: Source, number: int, template: str, prompts: Prompts) -> Iterator[str]:
    """The texts of one template: one for each caption that it names, and for each variant of the tags that it names."""
    names = fields_of(template)
    drawn = [name for name in names if (entry := prompts["tags"].get(name)) and (entry["shuffle"] or entry["drop"])]
    for at, caption in enumerate(source.captions if CAPTION in names else [""]):
        values = dict(source.fields) | source.own(caption)
        for variant in range(prompts["variants"] if drawn else 1):
            for name in names:
                if entry := prompts["tags"].get(name):
                    key = (source.clip_id, number, at, variant, name)
                    tags = tags_of(source.fields[name], entry["separator"])
                    values[name] = entry["join"].join(drawn_tags(tags, entry, *key))
            if all(values[name].strip() for name in names):
                yield one_line("".join(text + (values[name] if name else "") for text, name in pieces(template)))


def draw(count: int, weights: Sequence[float] | None, seed: int, epoch: int, clip_id: str) -> int:
    """Which of its texts an epoch trains a clip with, a pure function of seed, epoch and clip."""
    drawn = seed_for(seed, "caption", epoch, clip_id)
    if weights is None:
        return drawn % count
    at = drawn / 2**32 * sum(weights)
    return next((number for number, end in enumerate(accumulate(weights)) if at < end), count - 1)
