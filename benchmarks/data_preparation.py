"""Time from archives to validated manifests and splits, against the script that people run by hand today.

    uv run python benchmarks/data_preparation.py --clips 150 300 600

Makes a Clotho-shaped corpus of N clips (15 to 30 s, 44.1 kHz, mono, 16 bit; three archives, 65 : 17.5 : 17.5 %), then
runs in turn, `--rounds` times each:

- by hand: `7z x` of each archive, then one serial loop that copies each WAV of the development split into train/ or
  val/ (10 %, seed 42), those of the others into their folders, and writes a CSV each. Nothing is checked.
- graph: this workflow's rules from the archives to splits/*.csv, Snakemake's own start included. Every sample is read
  and hashed, every clip checked.

Both start from the downloaded archives. Needs `7z` (Debian: p7zip-full).
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
import yaml

ROOT = Path(__file__).resolve().parents[1]
RATE = 44100  # Hz
SHARES = {"development": 0.65, "validation": 0.175, "evaluation": 0.175}
WORDS = "rain wind door car bird water metal wood crowd engine street bell paper glass steps".split()


def sound(rng: np.random.Generator) -> np.ndarray:
    """15 to 30 s `[samples]` of coloured noise with a slow swell: about as compressible as a field recording."""
    samples = int(rng.uniform(15, 30) * RATE)
    noise = rng.standard_normal(samples)
    kernel = np.exp(-np.arange(64) / rng.uniform(2, 12))
    coloured = np.convolve(noise, kernel / kernel.sum(), mode="same")
    swell = 0.6 + 0.4 * np.sin(np.linspace(0, rng.uniform(3, 20), samples))
    return 0.3 * coloured * swell / np.abs(coloured).max()


def make_corpus(folder: Path, clips: int) -> dict:
    """Write the corpus; its entry for the config."""
    rng = np.random.default_rng(clips)
    splits = {}
    counts = {split: round(clips * share) for split, share in SHARES.items()}
    counts["development"] = clips - counts["validation"] - counts["evaluation"]
    for split, count in counts.items():
        wavs = folder / "made" / split
        wavs.mkdir(parents=True)
        captions, metadata = [], []
        for number in range(count):
            name = f"{split} clip {number}.wav"
            soundfile.write(wavs / name, sound(rng), RATE, subtype="PCM_16")
            texts = [" ".join([*rng.choice(WORDS, 9), f"{split} {number} {i}"]) for i in range(5)]
            captions.append([name, *texts])
            identity = f"{list(SHARES).index(split) + 1}{number:05d}"
            metadata.append([name, "noise", identity, f"https://example.org/{identity}", "[0, 1]", "nobody", "CC0"])
        archive = folder / f"clotho_audio_{split}.7z"
        subprocess.run(["7z", "a", "-bd", "-mx=5", archive, wavs], check=True, stdout=subprocess.DEVNULL)
        files = {"archives": archive}
        for kind, header, rows in (
            ("captions", ["file_name", *(f"caption_{i}" for i in range(1, 6))], captions),
            (
                "metadata",
                "file_name,keywords,sound_id,sound_link,start_end_samples,manufacturer,license".split(","),
                metadata,
            ),
        ):
            files[kind] = folder / f"clotho_{kind}_{split}.csv"
            with files[kind].open("w", newline="") as handle:
                csv.writer(handle, lineterminator="\n").writerows([header, *rows])
        splits[split] = {
            kind: [{"url": str(path), "md5": hashlib.md5(path.read_bytes()).hexdigest()}]
            for kind, path in files.items()
        }
    shutil.rmtree(folder / "made")
    sides = {"train": ["development"], "validation": ["validation"], "evaluation": ["evaluation"]}
    return {"format": "clotho", "splits": splits, **sides}


def by_hand(corpus: Path, work: Path) -> None:
    """What is done today: unpack, then a serial loop that copies and writes CSVs."""
    for split in SHARES:
        archive = corpus / f"clotho_audio_{split}.7z"
        subprocess.run(["7z", "x", "-y", f"-o{work / 'raw'}", archive], check=True, stdout=subprocess.DEVNULL)
        with (corpus / f"clotho_captions_{split}.csv").open(newline="") as handle:
            rows = list(csv.DictReader(handle))
        sides = {split: rows}
        if split == "development":
            random.seed(42)
            random.shuffle(rows)
            cut = len(rows) // 10
            sides = {"train": rows[cut:], "val": rows[:cut]}
        for side, chosen in sides.items():
            target = work / side
            target.mkdir(parents=True)
            with (work / f"{side}.csv").open("w", newline="") as handle:
                writer = csv.writer(handle)
                writer.writerow(["file_name", "caption"])
                for row in chosen:
                    shutil.copy(work / "raw" / split / row["file_name"], target / row["file_name"])
                    writer.writerow([row["file_name"], row["caption_1"]])


def graph(work: Path, cores: int, *targets: str) -> None:
    command = [sys.executable, "-m", "snakemake", "--cores", str(cores), "--quiet", "all", "--snakefile"]
    command += [ROOT / "Snakefile", "--directory", work, *targets, "--configfile", work / "bench.yaml"]
    env = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=work, env=env, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)


def timed(function, *arguments) -> float:
    start = time.monotonic()
    function(*arguments)
    return time.monotonic() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, nargs="+", default=[150, 300, 600])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where to work; needs about 8 MB a clip")
    args = parser.parse_args()
    if not shutil.which("7z"):
        sys.exit("7z is not installed (Debian: apt-get install p7zip-full)")

    print("clips  by hand s  graph s  ratio  peak MB of a job")
    for clips in args.clips:
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            corpus, work = Path(folder, "corpus"), Path(folder, "work")
            corpus.mkdir()
            config = {"corpora": {"bench": make_corpus(corpus, clips)}}
            run = {"base_model": "demo", "corpus": "bench", "steps": 1}
            hand, ours = [], []
            for _ in range(args.rounds):
                (work / "hand").mkdir(parents=True)
                hand.append(timed(by_hand, corpus, work / "hand"))
                shutil.rmtree(work)
                work.mkdir()
                # The config that is laid over config.yaml, which Snakemake reads from the working folder.
                for name in ("config.yaml", "profiles"):
                    (work / name).symlink_to(ROOT / name)
                (work / "bench.yaml").write_text(yaml.safe_dump(config | {"runs": {"demo": None, "bench": run}}))
                graph(work, args.cores, *archives(config))
                sides = [f"results/data/bench/splits/{side}.csv" for side in ("train", "validation", "evaluation")]
                ours.append(timed(graph, work, args.cores, *sides))
                summary = json.loads((work / "results/data/bench/validation.json").read_text())
                assert sum(summary["clips"].values()) == clips, summary["clips"]
                peak = peak_memory(work)
                shutil.rmtree(work)
            a, b = sorted(hand)[len(hand) // 2], sorted(ours)[len(ours) // 2]
            print(f"{clips:5}  {a:9.1f}  {b:7.1f}  {b / a:5.2f}  {peak:6.0f}", flush=True)


def archives(config: dict) -> list[str]:
    entries = [e for split in config["corpora"]["bench"]["splits"].values() for kind in split.values() for e in kind]
    return [f"results/data/bench/archives/{Path(entry['url']).name}" for entry in entries]


def peak_memory(work: Path) -> float:
    """Largest resident set of a job, in MB, as Snakemake's benchmarks have it."""
    peaks = []
    for path in (work / "results/benchmarks").rglob("*.tsv"):
        with path.open() as handle:
            peaks += [float(row["max_rss"]) for row in csv.DictReader(handle, delimiter="\t") if row["max_rss"] != "-"]
    return max(peaks)


if __name__ == "__main__":
    main()
