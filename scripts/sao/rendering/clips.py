"""Choose the sounds to render from the clips of a corpus, check them, and write the table that every render reads."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

from sao.base.command import InputError, log

import pandas as pd

from sao.base.names import corpus_of, seed_for
from sao.base.tables import read_rows, records, write_table
from sao.base.takes import take_id, take_seed
from sao.config.settings import PromptSettings
from sao.models.config import ModelConfig, text_max_length
from sao.models.numbers import Number, Numbers, as_text, column_of
from sao.models.tokens import Reader


@dataclass(frozen=True)
class Clip:
    """A sound to render. Its audio depends only on what is here, `split`, `reference` and `origin` apart, model and sampler.

    A sound may start from another one, its source: noised to `init_noise_level`, or kept outside of the mask, or both.
    """

    clip_id: str
    split: str
    prompt: str
    seconds: float
    seed: int
    cfg_scale: float
    negative_prompt: str | None
    reference: str = ""  # path of the recording
    origin: str = ""  # file and row, for messages
    numbers: Numbers = field(default_factory=dict)  # for the model's other conditioners
    source: str = ""  # path of the sound to start from
    source_sha256: str = ""  # of that file as the user gave it
    init_noise_level: float | None = None  # the noise that is added to the source; None starts from noise alone
    mask_start: float | None = None  # s; from here to mask_end the sound is generated, and the rest is the source
    mask_end: float | None = None


def render_seed(seed: int, clip: str) -> int:
    """The seed of a clip without its own seed."""
    return seed_for(seed, "render", clip)


def masked(start: float, end: float, seconds: float, rate: int, ratio: int) -> range:
    """The latent frames that are generated for a mask from `start` to `end` (s) in a sound of `seconds`.

    They lie wholly within the mask, so that nothing outside of it changes. Only at the end of the sound, its last frame may
    go on after it. `rate` is in Hz, a frame has `ratio` samples.
    """
    first, stop = math.ceil(round(start * rate) / ratio), round(end * rate) / ratio
    return range(first, math.ceil(stop) if end >= seconds else math.floor(stop))


def choose(table: pd.DataFrame, count: str | int, seed: int) -> pd.DataFrame:
    """`count` clips of a split, or all. They are the first by a hash of (seed, clip_id), so a larger count keeps them."""
    if count == "all":
        return table
    ranked = sorted(table.clip_id, key=lambda clip: seed_for(seed, "choose", clip))
    return table[table.clip_id.isin(ranked[: int(count)])]


def corpus_clips(kept: pd.DataFrame, settings: PromptSettings, numbers: Sequence[Number] = ()) -> list[Clip]:
    """The clips that the config's `render` asks for, with captions as prompts. `kept` is the table of a corpus's clips.

    `numbers` are those that the model takes beside the prompt.
    """
    clips = []
    for split, count in settings["clips"].items():
        table = kept[kept.role == split]
        of_corpus = table.clip_id.map(corpus_of)  # the number is that of each corpus of a mixture
        table = pd.concat(
            [choose(table[of_corpus == corpus], count, settings["seed"]) for corpus in of_corpus.unique()]
        )
        few = table[table.caption_count < settings["caption"]]
        if len(few):
            raise InputError(
                f"render.caption is {settings['caption']}, but clip {few.clip_id.iloc[0]} has only "
                f"{few.caption_count.iloc[0]} captions: lower it"
            )
        clips += [
            Clip(
                clip_id=row["clip_id"],
                split=split,
                prompt=row["prompt" if settings.get("templates") else f"caption_{settings['caption']}"],
                seconds=row["seconds"],
                seed=render_seed(settings["seed"], row["clip_id"]),
                cfg_scale=float(settings["sampling"]["cfg_scale"]),
                negative_prompt=settings["sampling"]["negative_prompt"],
                numbers={number.name: number.read(row[column_of(number)]) for number in numbers},
                reference=row["path"],
                origin=f"clip {row['clip_id']}",
            )
            for row in records(table)
        ]
    return clips


def with_takes(clips: Sequence[Clip], count: int) -> list[Clip]:
    """The first takes of all clips, then the second ones, and so on, up to `count`."""
    return [
        replace(clip, clip_id=take_id(clip.clip_id, take), seed=take_seed(clip.seed, take))
        for take in range(1, count + 1)
        for clip in clips
    ]


def check_ids(clips: Sequence[Clip]) -> None:
    """Raise InputError if two clips' files would have the same name."""
    seen: dict[str, Clip] = {}
    for clip in clips:
        other = seen.setdefault(clip.clip_id.casefold(), clip)
        if other is not clip:
            raise InputError(f"{clip.origin}: the id {clip.clip_id!r} is that of {other.origin} too: choose another")


def check_tokens(clips: Sequence[Clip], config: ModelConfig, hub: Path) -> None:
    """Raise InputError on a prompt that is too long, or that the text encoder does not understand. Warn if it half does."""
    limit = text_max_length(config)
    texts = [
        (clip, kind, text)
        for clip in clips
        for kind, text in (("prompt", clip.prompt), ("negative prompt", clip.negative_prompt))
        if text
    ]
    caveats = []
    for (clip, kind, text), reading in zip(texts, Reader(config, hub).read([text for *_, text in texts]), strict=True):
        if reading.tokens > limit:
            raise InputError(
                f"{clip.origin}: the {kind} has {reading.tokens} tokens, the text encoder cuts it after {limit}: shorten it"
            )
        if problem := reading.problem():
            raise InputError(f"{clip.origin}: the {kind} ({text[:60]!r}) {problem}")
        if caveat := reading.caveat():
            caveats.append(f"{clip.origin}: the {kind} ({text[:60]!r}) {caveat}")
    if caveats:
        log.warning("warning: %s (%d such)", caveats[0], len(caveats))


OF_SOURCE = ("init_noise_level", "mask_start", "mask_end")
COLUMNS = [field.name for field in fields(Clip) if field.name != "origin"]


def write_clips(path: Path, clips: Sequence[Clip]) -> None:
    """Write one row per clip."""
    rows = [asdict(clip) | {"numbers": as_text(clip.numbers)} for clip in clips]
    write_table(path, pd.DataFrame(rows, columns=COLUMNS))


def _number(cell: str) -> float | None:
    return float(cell) if cell else None


def read_clips(path: Path) -> list[Clip]:
    """Read the clips of a table that `write_clips` wrote, with exact numbers (pandas may change the last digit)."""
    return [
        Clip(
            clip_id=row["clip_id"],
            split=row["split"],
            prompt=row["prompt"],
            seconds=float(row["seconds"]),
            seed=int(row["seed"]),
            cfg_scale=float(row["cfg_scale"]),
            negative_prompt=row["negative_prompt"] or None,
            numbers=json.loads(row["numbers"] or "{}"),
            reference=row["reference"],
            source=row["source"],
            source_sha256=row["source_sha256"],
            init_noise_level=_number(row["init_noise_level"]),
            mask_start=_number(row["mask_start"]),
            mask_end=_number(row["mask_end"]),
        )
        for _, row in read_rows(path, COLUMNS)
    ]
