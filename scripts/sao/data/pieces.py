"""From long recordings to the clips that are cut out of them, with their captions and their table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from sao.base.command import InputError, log, progress

import pandas as pd

from sao.base.files import check_room, writing
from sao.base.placeholders import is_blank
from sao.base.vouched import Vouched
from sao.config.settings import CutSettings
from sao.data.captions import Captions, Part
from sao.data.cuts import (
    Span,
    between_silences,
    by_length,
    check_length,
    columns_of,
    cut_name,
    inherited,
    is_short,
    span_of,
    times_of,
)
from sao.data.origin import Row
from sao.sound.cutting import Form, cut, sounding
from sao.sound.read import Measured, Measuring

COLUMNS = ("file_name", *(field.name for field in fields(Measured)))
LEFT_OUT = ("source_file", "source_start", "source_end", "reason")


@dataclass
class Piece:
    """A clip to cut: its place in the recording, its captions and the other columns of its row."""

    span: Span
    captions: Captions
    row: Row
    where: str = ""


@dataclass
class Recording:
    """What becomes of a recording: its clips, what is left out, and the faults, each by the name that lists it."""

    key: str  # its name in the form of `same_name`
    fact: dict[str, Any]
    pieces: list[Piece] = field(default_factory=list)
    faults: dict[str, str] = field(default_factory=dict)
    left_out: list[tuple[Span, str]] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.fact["file_name"]

    @property
    def rate(self) -> int:
        return int(self.fact["sample_rate"])

    @property
    def frames(self) -> int:
        return int(self.fact["frames"])

    def clip(self, piece: Piece) -> str:
        """The name of a clip's file."""
        return cut_name(self.name, piece.span, self.rate)

    def size(self, path: Path) -> int:
        """Bytes that the clips will take."""
        form = Form.of(path)
        return sum(form.size(piece.span[1] - piece.span[0], int(self.fact["channels"])) for piece in self.pieces)

    def place(self, span: Span) -> dict[str, Any]:
        """The recording and the times of a span, as a row has them."""
        start, end = (round(frame / self.rate, 6) for frame in span)
        return {"source_file": self.name, "source_start": start, "source_end": end}


def described(recording: Recording, parts: list[Part], metadata: Row, cut: dict[str, Any]) -> None:
    """Find the pieces of a recording whose rows say where they are. Rows with the same times are captions of one clip."""
    columns, seen = columns_of(cut) or {}, dict[Span, Piece]()
    for number, part in enumerate(parts, start=1):
        row = metadata | part.row
        try:
            start, end = times_of(row, columns, part.where)
            if end is None:
                end = min(start + cut["seconds"], recording.frames / recording.rate)
            span = span_of(start, end, recording.frames, recording.rate, part.where)
            check_length(span, recording.rate, cut["min_seconds"], part.where)
            if not any(not is_blank(text) for text in part.captions):
                raise InputError(f"{part.where}: has no caption for {recording.name!r} from {start:g} s: write one")
            piece = Piece(span, part.captions, inherited(row, columns), part.where)
            other = seen.setdefault(span, piece)
            if other is not piece:
                add_captions(other, piece, recording.name)
        except InputError as error:
            recording.faults[f"{recording.name}#{number}"] = str(error)
    recording.pieces = sorted(seen.values(), key=lambda piece: piece.span)


def add_captions(first: Piece, second: Piece, name: str) -> None:
    """Add the captions of a row with the same times. Raises InputError if other columns differ."""
    if odd := next((key for key, value in second.row.items() if first.row.get(key) != value), None):
        raise InputError(
            f"{second.where}: {name!r} has another {odd!r} than in {first.where}, which has the same times: make them equal, or "
            "remove the column"
        )
    first.captions = [*first.captions, *second.captions]


def undescribed(
    recording: Recording, path: Path, parts: list[Part], metadata: Row, cut: dict[str, Any], silence_dbfs: float
) -> None:
    """Find the pieces of a recording by length or at silences. They inherit its captions. What is too short is left out."""
    if len(parts) > 1:
        raise InputError(
            f"{parts[1].where}: file_name {recording.name!r} is already in {parts[0].where}: keep one, or set the corpus's "
            "cut.method to columns"
        )
    frames, rate, seconds, least = recording.frames, recording.rate, cut["seconds"], cut["min_seconds"]
    if cut["method"] == "length":
        spans = by_length(frames, rate, seconds, cut["hop"] or seconds)
    else:
        heard = sounding(path, cut["silence_dbfs"], cut["silence_seconds"])
        spans = between_silences(heard, frames, rate, cut["margin_seconds"], seconds)
        silence_dbfs = max(silence_dbfs, cut["silence_dbfs"])
    if not spans or recording.fact["peak_dbfs"] < silence_dbfs:
        recording.faults[recording.name] = (
            f"{path}: is silent throughout: its peak is {recording.fact['peak_dbfs']} dBFS, below {silence_dbfs:g} dBFS: remove "
            "it, and its row in the captions, or lower silence_dbfs"
        )
        return
    (part,) = parts
    row = inherited(part.row | metadata, {})
    recording.pieces = [Piece(span, part.captions, row) for span in spans if not is_short(span, rate, least)]
    too_short = f"shorter than cut.min_seconds, {least:g} s"
    recording.left_out = [(span, too_short) for span in spans if is_short(span, rate, least)]


def in_threads(
    threads: int, work: Callable[[Recording], Any], recordings: list[Recording], label: str
) -> Iterator[Any]:
    """The result of `work` for each recording, in order, with progress. The first error ends it."""
    pool = ThreadPoolExecutor(threads)
    try:
        yield from progress(pool.map(work, recordings), label, total=len(recordings), unit="recordings")
    finally:
        pool.shutdown(cancel_futures=True)


def plan(
    recordings: list[Recording],
    parts: dict[str, list[Part]],
    metadata: dict[str, Row],
    settings: CutSettings,
    vouched: dict[Path, Vouched],
    threads: int,
) -> dict[str, str]:
    """Find the pieces of all recordings. Returns their faults. Raises InputError on a recording that has changed."""
    source, chosen = Path(settings["source"]), settings["cut"]

    def find(recording: Recording) -> None:
        path, rows, about = source / recording.name, parts[recording.key], metadata.get(recording.key, {})
        if wrong := vouched[path].wrong():
            raise InputError(wrong)
        if problem := recording.fact["problem"]:
            cure = "mend or remove it, with its rows in the captions"
            recording.faults[recording.name] = f"{path}: {problem}: {cure}"
        elif chosen["method"] == "columns":
            described(recording, rows, about, chosen)
        else:
            undescribed(recording, path, rows, about, chosen, settings["silence_dbfs"])

    for _ in in_threads(threads, find, recordings, "finding the clips"):
        pass
    return {name: text for recording in recordings for name, text in recording.faults.items()}


def cut_all(recordings: list[Recording], source: Path, folder: Path, threads: int) -> pd.DataFrame:
    """Write all clips to `folder`, and measure them. Returns their facts."""
    recordings = [recording for recording in recordings if recording.pieces]
    room = sum(recording.size(source / recording.name) for recording in recordings)
    check_room(folder, room, f"the clips of {len(recordings)} recordings")
    measuring = Measuring(threads)

    def write(recording: Recording) -> None:
        pieces = [(*piece.span, folder / recording.clip(piece)) for piece in recording.pieces]
        with writing(folder):
            cut(source / recording.name, pieces)
        for piece in recording.pieces:
            measuring.add(recording.clip(piece), folder / recording.clip(piece))

    for _ in in_threads(threads, write, recordings, "cutting"):
        pass
    return measuring.finish("measuring the clips") if recordings else pd.DataFrame(columns=COLUMNS)


def leave_silent_out(recordings: list[Recording], clips: pd.DataFrame, folder: Path, silence_dbfs: float) -> None:
    """Leave the clips out whose peak lies below `silence_dbfs`: the quiet stretches of a long recording."""
    silent = set(clips.file_name[clips.peak_dbfs < silence_dbfs])
    reason = f"silent: its peak lies below silence_dbfs, {silence_dbfs:g} dBFS"
    for recording in recordings:
        quiet = [piece for piece in recording.pieces if recording.clip(piece) in silent]
        recording.pieces = [piece for piece in recording.pieces if recording.clip(piece) not in silent]
        recording.left_out += [(piece.span, reason) for piece in quiet]
        for piece in quiet:
            (folder / recording.clip(piece)).unlink()


def cut_table(recordings: list[Recording], source: Path) -> pd.DataFrame:
    """One row per clip: the recording and the times, captions in Clotho's form, and what it inherits."""
    pieces = [(recording, piece) for recording in recordings for piece in recording.pieces]
    most = max(len(piece.captions) for _, piece in pieces)
    rows = []
    for recording, piece in pieces:
        texts = [*piece.captions, *[""] * (most - len(piece.captions))]
        row: dict[str, Any] = {"file_name": recording.clip(piece)} | recording.place(piece.span)
        row |= {"source_sha256": recording.fact["audio_sha256"]}
        row |= {"source_path": (source / recording.name).as_posix(), "caption_count": len(piece.captions)}
        row |= {f"caption_{n}": text for n, text in enumerate(texts, start=1)}
        rows.append(row | piece.row)
    return pd.DataFrame(rows).fillna("").sort_values("file_name")


def left_out_table(recordings: list[Recording]) -> pd.DataFrame:
    """One row per part that is no clip, with the reason."""
    parts = [(recording, *part) for recording in recordings for part in recording.left_out]
    return pd.DataFrame([r.place(span) | {"reason": reason} for r, span, reason in parts], columns=LEFT_OUT)


def tell(recordings: list[Recording], left_out: pd.DataFrame, table: Path, source: Path) -> None:
    """Log what became of the recordings."""
    pieces = [(recording, piece) for recording in recordings for piece in recording.pieces]
    seconds = sum((piece.span[1] - piece.span[0]) / recording.rate for recording, piece in pieces)
    whole = sum(recording.frames / recording.rate for recording in recordings if recording.frames)
    log.info("%s: %d recordings, %.1f s: %d clips, %.1f s", source, len(recordings), whole, len(pieces), seconds)
    for reason, parts in left_out.groupby("reason"):
        lost = (parts.source_end - parts.source_start).sum()
        log.warning("warning: %d parts, %.1f s, are left out: %s; %s lists them", len(parts), lost, reason, table)
