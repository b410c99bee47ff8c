"""Pack sounds in the form of Clotho: for each split an archive, a captions CSV and a metadata CSV."""

from __future__ import annotations

import csv
import hashlib
import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import py7zr
import soundfile

EPOCH = 1_600_000_000  # s: a fixed file time, so that the archives are reproducible


@dataclass(frozen=True)
class Clip:
    """A sound and what its tables say."""

    file_name: str
    audio: np.ndarray  # [samples, channels], int16
    sample_rate: int  # Hz
    captions: list[str]  # five
    keywords: list[str]
    sound_id: str
    link: str
    holder: str
    licence: str

    @classmethod
    def of(
        cls, row: dict[str, str], file_name: str, audio: np.ndarray, rate: int, captions: list[str], keywords: list[str]
    ) -> Clip:
        """The clip made from a sound in the table of make_corpus.py."""
        link = f"https://packages.debian.org/bookworm/{row['package']}"
        sound_id = Path(row["file"]).stem
        return cls(file_name, audio, rate, captions, keywords, sound_id, link, row["holder"], row["licence"])


def pack(split: str, clips: Iterable[Clip], out: Path, compressed: bool) -> None:
    """Write the three files of a split to `out`. The same clips give the same bytes. Captions are UTF-8, metadata ISO-8859-1."""
    captions = [["file_name", *(f"caption_{i}" for i in range(1, 6))]]
    metadata = [["file_name", "keywords", "sound_id", "sound_link", "start_end_samples", "manufacturer", "license"]]
    archive = out / f"clotho_audio_{split}.7z"
    archive.unlink(missing_ok=True)
    filters = None if compressed else [{"id": py7zr.FILTER_COPY}]
    with tempfile.TemporaryDirectory() as folder, py7zr.SevenZipFile(archive, "w", filters=filters) as packed:
        for clip in clips:
            wav = Path(folder) / clip.file_name
            soundfile.write(wav, clip.audio, clip.sample_rate, subtype="PCM_16")
            os.utime(wav, (EPOCH, EPOCH))
            packed.write(wav, f"{split}/{clip.file_name}")
            wav.unlink()
            captions.append([clip.file_name, *clip.captions])
            holder = clip.holder.encode("iso-8859-1", "replace").decode("iso-8859-1")
            whole = f"[0, {len(clip.audio)}]"
            metadata.append(
                [clip.file_name, ";".join(clip.keywords), clip.sound_id, clip.link, whole, holder, clip.licence]
            )
    for kind, encoding, table in (("captions", "utf-8", captions), ("metadata", "iso-8859-1", metadata)):
        with (out / f"clotho_{kind}_{split}.csv").open("w", encoding=encoding, newline="") as handle:
            csv.writer(handle, lineterminator="\n").writerows(table)


def print_checksums(out: Path) -> None:
    """Print MD5, size and name of the files in `out`, for a config."""
    for path in sorted(out.iterdir()):
        with path.open("rb") as handle:
            print(f"{hashlib.file_digest(handle, 'md5').hexdigest()}  {path.stat().st_size:>9}  {path.name}")
