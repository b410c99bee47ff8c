"""Where a recording is cut: by length, at its silences, or as its metadata says. Frames are counted from the beginning."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any

from sao.base.command import InputError

import pandas as pd

from sao.base.tables import plain
from sao.config.resolve import Config
from sao.data.captions import DESCRIBED, like_caption

Span = tuple[int, int]  # first frame, and frame after the last
# Columns of a clip's row: the recording that it was cut from, where in it (s), and the hash of the recording's samples.
SOURCE = ("source_file", "source_start", "source_end", "source_sha256")
OURS = ("file_name", "caption_count", "source_path", *SOURCE, DESCRIBED)  # columns that rule cut writes itself
ROUNDING = 0.01  # s; a table may round the end of a recording up by so much
MOST_OVERLAP = 100  # clips that a hop may let overlap; while they are cut each is an open file (sao/sound/cutting.py)
LONGEST_STEM = 180  # bytes; with times and suffixes, a name has to stay within the 255 of all common file systems
# What each method looks at. Other keys of the section change nothing, so they are not handed to the script.
KEYS = {
    "length": ("seconds", "hop", "min_seconds"),
    "silences": ("seconds", "min_seconds", "silence_dbfs", "silence_seconds", "margin_seconds"),
    "columns": ("seconds", "min_seconds", "start", "end"),
}


def relevant(cut: Config) -> Config:
    """The entries of a corpus's `cut` that its method looks at."""
    return {key: cut[key] for key in ("method", *KEYS[cut["method"]])}


def columns_of(cut: Config) -> dict[str, str | None] | None:
    """The columns of `start` and `end` for method columns, else None."""
    return {key: cut[key] for key in ("start", "end")} if cut["method"] == "columns" else None


def by_length(frames: int, rate: int, seconds: float, hop: float) -> list[Span]:
    """Spans of `seconds`, one every `hop` seconds. The last one, which reaches the end, may be shorter."""
    spans: list[Span] = []
    while not spans or spans[-1][1] < frames:
        start = round(len(spans) * hop * rate)
        if start >= frames:  # the hop leaps over the end
            break
        spans.append((start, min(start + round(seconds * rate), frames)))
    return spans


def between_silences(
    sounding: Iterable[Span], frames: int, rate: int, margin: float, seconds: float | None
) -> list[Span]:
    """The parts that sound, with `margin` seconds of the silence around them, divided where they are longer than `seconds`."""
    extra = round(margin * rate)
    spans = [(max(start - extra, 0), min(end + extra, frames)) for start, end in sounding]
    if seconds is None:
        return spans
    return [part for start, end in spans for part in divided(start, end, round(seconds * rate))]


def divided(start: int, end: int, most: int) -> list[Span]:
    """A span in as few equal parts as have at most `most` frames each."""
    count = math.ceil((end - start) / most)
    bounds = [start + (end - start) * n // count for n in range(count + 1)]
    return list(itertools.pairwise(bounds))


def times_of(row: Mapping[str, str], columns: Mapping[str, str | None], where: str) -> tuple[float, float | None]:
    """Start and end of a part in seconds, from the cells of its row; the end is None if no column has it.

    Raises InputError with `where`, the file and row, if a cell is no number, or if the part ends before it starts.
    """
    found: dict[str, float] = {}
    for key, column in columns.items():
        if column is None:
            continue
        if column not in row:
            raise InputError(
                f"{where}: has no column {column!r}, which the corpus's cut.{key} names; found {', '.join(row) or 'none'}"
            )
        cell = row[column].strip()
        try:
            value = float(cell)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            fault = f"is {cell!r}" if cell else "is empty"
            raise InputError(f"{where}: {column!r} {fault}: write a number of seconds, such as 12.5")
        found[key] = value
    start, end = found["start"], found.get("end")
    if start < 0:
        raise InputError(f"{where}: starts at {start:g} s, before the recording: correct {columns['start']!r}")
    if end is not None and end <= start:
        raise InputError(
            f"{where}: ends at {end:g} s, not after its start at {start:g} s: correct {columns['start']!r} or "
            f"{columns['end']!r}"
        )
    return start, end


def span_of(start: float, end: float, frames: int, rate: int, where: str) -> Span:
    """The span of a part from `start` to `end` in seconds. Raises InputError if it does not lie within the recording."""
    seconds = frames / rate
    if round(start * rate) >= frames or end > seconds + ROUNDING:
        fault = f"starts at {start:g} s" if round(start * rate) >= frames else f"ends at {end:g} s"
        raise InputError(f"{where}: {fault}, but the recording ends at {seconds:g} s: correct the row")
    return round(start * rate), min(round(end * rate), frames)


def check_length(span: Span, rate: int, min_seconds: float, where: str) -> None:
    """Raise InputError on a part of a row that is too short for a clip."""
    if is_short(span, rate, min_seconds):
        raise InputError(
            f"{where}: lasts {(span[1] - span[0]) / rate:.3g} s, less than cut.min_seconds, {min_seconds:g} s: remove the "
            "row, or lower min_seconds"
        )


def is_short(span: Span, rate: int, min_seconds: float) -> bool:
    return span[1] - span[0] < round(min_seconds * rate)


def seconds_text(frame: int, rate: int) -> str:
    """A place in a recording for names: `00012.5`. Names sort in the order of time; no two frames up to 500 kHz are alike."""
    return f"{frame / rate:012.6f}".rstrip("0").rstrip(".")


def cut_name(recording: str, span: Span, rate: int) -> str:
    """The name of a clip, which depends only on its recording's name and its place: `rain.flac`: `rain_00010-00020.flac.wav`."""
    path = PurePosixPath(recording)
    stem, end = path.stem, path.suffix if path.suffix.lower() == ".wav" else f"{path.suffix}.wav"
    if len(stem.encode()) > LONGEST_STEM:
        key = hashlib.sha256(stem.encode()).hexdigest()[:8]
        stem = f"{stem.encode()[:LONGEST_STEM].decode(errors='ignore')}-{key}"
    return str(path.with_name(f"{stem}_{'-'.join(seconds_text(frame, rate) for frame in span)}{end}"))


def inherited(row: Mapping[str, str], columns: Mapping[str, str | None] | None) -> dict[str, str]:
    """What a clip inherits from a row about its recording: all but captions, the columns of times, and names of our own."""
    times = set((columns or {}).values())
    return {
        key: value
        for key, value in row.items()
        if plain(key) not in OURS and not like_caption(key) and key not in times
    }


def in_times(table: pd.DataFrame) -> pd.Series:
    """Where each clip lies in its recording, for people: `rain.flac, 10 to 20 s`. Empty for a clip that was not cut."""
    if "source_file" not in table:
        return pd.Series("", index=table.index)
    texts = [
        f"{file}, {float(start):g} to {float(end):g} s" if file else ""
        for file, start, end in zip(table.source_file, table.source_start, table.source_end, strict=True)
    ]
    return pd.Series(texts, index=table.index)


def check_cut(corpus: Config) -> Iterable[tuple[list[Any], str]]:
    """`(key, problem)` of each fault in a corpus's `cut` that the schema cannot express."""
    if (cut := corpus["cut"]) is None:
        return
    method, seconds, hop = cut["method"], cut["seconds"], cut["hop"]
    if seconds is None and (method == "length" or (method == "columns" and cut["end"] is None)):
        why = "method length" if method == "length" else "a start without an end"
        yield ["cut", "seconds"], f"missing; {why} needs it"
    if seconds is not None and method == "columns" and cut["end"] is not None:
        yield ["cut", "seconds"], "the column of `end` decides the length; remove it, or set cut.end to null"
    if hop is not None and method != "length":
        yield ["cut", "hop"], f"method {method} does not use it; remove it"
    if seconds is not None and seconds < cut["min_seconds"]:
        yield ["cut", "min_seconds"], f"{cut['min_seconds']:g} is more than cut.seconds, {seconds:g}; lower it"
    if hop is not None and seconds is not None and seconds > hop * MOST_OVERLAP:
        yield (
            ["cut", "hop"],
            f"more than {MOST_OVERLAP} clips would overlap; set it to {seconds / MOST_OVERLAP:g} or more",
        )
    if method == "silences" and 2 * cut["margin_seconds"] > cut["silence_seconds"]:
        yield (
            ["cut", "margin_seconds"],
            f"clips would overlap; set it to at most half of silence_seconds, {cut['silence_seconds'] / 2:g}",
        )
    window = corpus["train_seconds"]
    if isinstance(window, int | float) and seconds is not None and seconds > window and not corpus["random_crop"]:
        yield ["cut", "seconds"], f"{seconds:g} is more than train_seconds, {window:g}; lower it, or set random_crop"
