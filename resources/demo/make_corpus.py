"""Pack the demo corpus in Clotho's own form from Debian's CC0 `sonic-pi-samples`.

    apt-get install sonic-pi-samples
    uv run python resources/demo/make_corpus.py --samples /usr/share/sonic-pi/samples

Reads `clips.csv` (which recording, where it is from, its five captions) and writes `corpus/`: an archive, a
captions CSV (UTF-8) and a metadata CSV (ISO-8859-1) a split, then prints the checksums for `config.yaml`.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import os
import re
import tempfile
from pathlib import Path

import numpy as np
import py7zr
import soundfile

HERE = Path(__file__).resolve().parent
LONGEST = 2.9  # s: fits the demo model's window of 48 latent frames, 3.07 s
FADE = 0.05  # s, at the end
TAIL = -40  # dB relative to the peak: what follows the last louder sample is cut off
PEAK = -1  # dBFS
SPLITS = ("development", "validation", "evaluation")
CC0 = "http://creativecommons.org/publicdomain/zero/1.0/"
EPOCH = 1_600_000_000  # s: a fixed file time, so that the archives are reproducible


def cut(path: Path, gain_db: float) -> tuple[np.ndarray, int, int]:
    """`(audio [samples, channels] int16, sample rate in Hz, samples kept)`.

    At most `LONGEST` seconds, less the tail that nobody hears. The gain brings clips to one level in the latents of the
    demo's autoencoder: a faint clip would be lost among loud ones in so small a model.
    """
    audio, rate = soundfile.read(path, dtype="float64", always_2d=True)
    audible = np.flatnonzero(np.abs(audio).max(axis=1) > np.abs(audio).max() * 10 ** (TAIL / 20))
    keep = min(audible[-1] + 1, int(LONGEST * rate))
    kept = audio[:keep].copy()
    fade = int(FADE * rate)
    kept[-fade:] *= np.linspace(1, 0, fade)[:, None]
    gain = min(10 ** (gain_db / 20), 10 ** (PEAK / 20) / np.abs(kept).max())
    return np.round(kept * gain * 32767).astype(np.int16), rate, keep


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=Path, required=True, help="folder of sonic-pi-samples' FLAC files")
    args = parser.parse_args()
    corpus = HERE / "corpus"
    corpus.mkdir(exist_ok=True)
    with (HERE / "clips.csv").open(encoding="utf-8", newline="") as handle:
        clips = list(csv.DictReader(handle))

    for split in SPLITS:
        rows = [clip for clip in clips if clip["split"] == split]
        captions = [["file_name", *(f"caption_{i}" for i in range(1, 6))]]
        metadata = [["file_name", "keywords", "sound_id", "sound_link", "start_end_samples", "manufacturer", "license"]]
        archive = corpus / f"clotho_audio_{split}.7z"
        archive.unlink(missing_ok=True)
        with tempfile.TemporaryDirectory() as folder, py7zr.SevenZipFile(archive, "w") as packed:
            for clip in rows:
                audio, rate, keep = cut(args.samples / f"{clip['sample']}.flac", float(clip["gain_db"]))
                wav = Path(folder) / clip["file_name"]
                soundfile.write(wav, audio, rate, subtype="PCM_16")
                os.utime(wav, (EPOCH, EPOCH))
                packed.write(wav, f"{split}/{clip['file_name']}")
                uploader, sound_id = re.search(r"/people/([^/]+)/sounds/(\d+)", clip["sound_link"]).groups()
                captions.append([clip["file_name"], *(clip[f"caption_{i}"] for i in range(1, 6))])
                metadata.append(
                    [clip["file_name"], clip["keywords"], sound_id, clip["sound_link"], f"[0, {keep}]", uploader, CC0]
                )
        for name, encoding, table in (("captions", "utf-8", captions), ("metadata", "iso-8859-1", metadata)):
            with (corpus / f"clotho_{name}_{split}.csv").open("w", encoding=encoding, newline="") as handle:
                csv.writer(handle, lineterminator="\n").writerows(table)

    for path in sorted(corpus.iterdir()):
        data = path.read_bytes()
        print(f"{hashlib.md5(data).hexdigest()}  {len(data):>9}  {path.name}")


if __name__ == "__main__":
    main()
