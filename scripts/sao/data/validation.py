"""What would corrupt a training, or should be looked at, in the table of a corpus: the checks of rule `validate`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from sao.base.command import progress

import numpy as np
import pandas as pd

from sao.base.files import sha256
from sao.base.placeholders import is_blank, is_placeholder
from sao.base.tables import caption_columns, each
from sao.data.findings import Findings
from sao.data.licenses import NO_LICENSE, allowed, is_known, short_name
from sao.data.splits import names_recording

ODD_DC_OFFSET = 0.05  # of full scale
OUTLIER = 3.0  # interquartile ranges beyond the quartiles (Tukey's "far out")


def check_licenses(table: pd.DataFrame, allow: list[str] | None, findings: Findings) -> None:
    """Leave out clips whose licence is not allowed. Warn of an entry of `allow` that is no clip's licence."""
    if allow is None:
        return
    for row in each(table[~table.license.map(lambda text: allowed(text, allow))]):
        is_under = f"is under {short_name(row.license)}" if short_name(row.license) != NO_LICENSE else "has no licence"
        findings.leave_out("license", row, f"{is_under}, which `licenses.allow` does not name")
    for entry in allow:
        if not any(allowed(text, [entry]) for text in table.license):
            findings.remark("license", f"no clip is under {entry}, which `licenses.allow` names")


def warn_of_licenses(table: pd.DataFrame, allow: list[str] | None, findings: Findings) -> None:
    """Warn once of each unknown licence, and of clips without a licence if others have one.

    A licence that `allow` names word for word gets no warning, because a person has read it.
    """
    kinds = Counter(table.license.map(short_name))
    for name, number in sorted(kinds.items()):
        if name != NO_LICENSE and not is_known(name) and not allowed(name, allow or []):
            findings.remark("license", f"{number} clips have an unknown licence, {name!r}: read what it allows")
    if len(kinds) > 1 and kinds[NO_LICENSE]:
        findings.remark("license", f"{kinds[NO_LICENSE]} clips have no licence")


def check_clips(table: pd.DataFrame, silence_dbfs: float, train_seconds: float | None, findings: Findings) -> None:
    """Checks that need only the clip's own row."""
    columns = caption_columns(table)
    has_ids = table.sound_id.map(names_recording).any()
    if not has_ids:
        findings.remark("sound_id", "no clip has a sound_id: leaks by recording cannot be seen")
    for row in each(table):
        if row.problem:
            findings.error("audio", row, row.problem)
            continue
        if row.peak_dbfs < silence_dbfs:
            findings.error("silent", row, f"is silent: its peak is {row.peak_dbfs} dBFS, below {silence_dbfs} dBFS")
        if train_seconds is not None and row.seconds > train_seconds:
            findings.error("duration", row, f"lasts {row.seconds:.2f} s, longer than train_seconds = {train_seconds} s")
        for column in columns[: row.caption_count]:
            if is_blank(text := getattr(row, column)):
                findings.error("caption", row, f"{column} is empty" + (f" ({text!r})" if text else ""))
            elif is_placeholder(text):
                findings.error("caption", row, f"{column} is {text!r}, a word for nothing: no caption")
        if row.clipped_run:
            findings.warning("clipping", row, f"has {row.clipped_run} samples in a row at full scale: probably clipped")
        if row.dc_offset > ODD_DC_OFFSET:
            findings.warning("dc_offset", row, f"has a DC offset of {row.dc_offset}")
        if has_ids and not names_recording(row.sound_id):
            findings.warning("sound_id", row, f"has no sound_id ({row.sound_id!r}): leaks by recording cannot be seen")


def check_files(table: pd.DataFrame, threads: int, findings: Findings) -> None:
    """Check that the audio has not changed since it was measured."""

    def digest(path: str) -> str:
        return sha256(Path(path)) if Path(path).is_file() else ""

    with ThreadPoolExecutor(threads) as pool:
        digests = progress(pool.map(digest, table.path), "checksums", total=len(table), unit="files")
        for row, now in zip(each(table), digests, strict=True):
            if not now:
                findings.error("checksum", row, "is missing")
            elif now != row.sha256:
                findings.error("checksum", row, "changed after it was measured (its SHA-256 differs)")


def check_ids(table: pd.DataFrame, findings: Findings) -> None:
    """Check that no two clips have the same clip_id."""
    for row in each(table[table.clip_id.duplicated(keep=False)]):
        findings.error("clip_id", row, f"shares its clip_id {row.clip_id}")


def check_corpus(table: pd.DataFrame, findings: Findings) -> None:
    """Warn of clips that differ much from the others, and of captions that hardly do."""
    low, middle, high = table.seconds.quantile([0.25, 0.5, 0.75])
    reach = max(OUTLIER * (high - low), middle / 10)  # most clips may be of one length
    # The last clip that is cut from a recording is short, and captions are those of the whole recording.
    whole = pd.Series("", index=table.index) if "source_file" not in table else table.source_file
    for row in each(table[((table.seconds < low - reach) | (table.seconds > high + reach)) & (whole == "")]):
        findings.warning(
            "duration", row, f"lasts {row.seconds:.2f} s, far from the other clips ({low:.1f} to {high:.1f} s)"
        )
    usual = table.sample_rate.mode().iloc[0]
    for row in each(table[table.sample_rate != usual]):
        findings.warning("sample_rate", row, f"is at {row.sample_rate} Hz; most clips are at {usual} Hz")
    # Only keys that occur twice are kept, because a million clips have forty million keys.
    keys, counts = np.unique(
        np.fromiter((hash(key) for _, _, text in captions(table) for key in near_keys(text)), np.int64),
        return_counts=True,
    )
    shared = set(keys[counts > 1].tolist())
    seen: dict[str, tuple[str, str, str]] = {}
    for row, column, text in captions(table):
        recording = getattr(row, "source_sha256", "") or row.path
        near = [seen.setdefault(key, (text, row.path, recording)) for key in near_keys(text) if hash(key) in shared]
        if other := next((entry for entry in near if entry[2] != recording), None):
            findings.warning("caption", row, f"{column} ({text!r}) is nearly that of {other[1]} ({other[0]!r})")


def captions(table: pd.DataFrame) -> Iterator[tuple[Any, str, str]]:
    """`(row, column, text)` of every caption."""
    columns = caption_columns(table)
    for row in each(table):
        for column in columns[: row.caption_count]:
            yield row, column, getattr(row, column)


def near_keys(caption: str) -> list[str]:
    """Keys of a caption. Near-duplicate captions share one: the sorted words, all of them or all but one.

    So two captions share a key if they differ only in case, punctuation, word order, or one word of six or more.
    """
    words = sorted("".join(c if c.isalnum() else " " for c in caption.lower()).split())
    less = [words[:i] + words[i + 1 :] for i in range(len(words))] if len(words) > 5 else []
    return list(dict.fromkeys(" ".join(kept) for kept in [words, *less]))


def advice(findings: Findings) -> str:
    """What to do about the errors. This text follows the first error."""
    texts = {
        "leak": "remove one of the two, with its row in the captions; if the archives have to stay as published, set the "
        "corpus's on_leak to drop, which keeps the clip of evaluation before validation before train",
        "other": "mend or remove it, and its row in the captions, or set the corpus's on_invalid to drop",
    }
    kinds = dict.fromkeys("leak" if entry["check"] == "leak" else "other" for entry in findings.errors)
    first, *more = kinds
    return f": {texts[first]}" + "".join(f"; for the {kind} errors: {texts[kind]}" for kind in more)
