"""What the built-in base model learns from sounds that it was not made for: three corpora, each trained by the README's config.

    apt-get install espeak-ng && apt-get download scratch tuxpaint-stamps-default
    uv run python benchmarks/own_sounds.py --packages . --out own_sounds words scratch stamps

Makes the corpora, runs the graph in a copy of the checkout, and prints: losses, and the log-mel distance of each render of a training
caption to its recording, of the base model and of the run, with the paired difference and its bootstrap interval of 95 %.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
WORDS = ("rain", "thunder", "river", "garden", "morning", "window", "silver", "mountain", "paper", "yellow")
VOICES = {"en-gb": "A man", "en-us+f3": "A woman", "en+m7": "An old man", "en+f5": "A girl"}
KINDS = ("Animal", "Effects", "Human", "Instruments", "Percussion", "Vocals")
STAMPS = ("animals", "vehicles", "tools", "household", "food", "clothes", "sports", "hobbies", "nature", "people")
TRAINED = 24  # captions of training clips that are rendered
Captioned = Iterator[tuple[Path, str]]


def words(folder: Path, packages: Path) -> Captioned:
    """Ten words in four voices of espeak-ng."""
    for word in WORDS:
        for number, (voice, who) in enumerate(VOICES.items()):
            path = folder / f"{word}-{number}.wav"
            subprocess.run(["espeak-ng", "-v", voice, "-w", path, word], check=True)
            yield path, f'{who} says "{word}".'


def unpacked(packages: Path, name: str) -> Path:
    (package,) = packages.glob(f"{name}_*.deb")
    folder = packages / name
    if not folder.is_dir():
        subprocess.run(["dpkg-deb", "-x", package, folder], check=True)
    return folder


def scratch(folder: Path, packages: Path) -> Captioned:
    """Animals, people, effects and instruments of Scratch 1.4, called by the names of their files."""
    sounds = unpacked(packages, "scratch") / "usr/share/scratch/Media/Sounds"
    for kind in KINDS:
        for path in sorted((sounds / kind).iterdir()):
            name = re.sub(r"(?<=[a-z])(?=[A-Z0-9])", " ", path.stem).lower()
            yield Path(shutil.copy(path, folder / f"{kind}-{path.name}")), f"{name}, {kind.lower()}."


def stamps(folder: Path, packages: Path) -> Captioned:
    """Animals, vehicles, tools and other things of Tux Paint's stamps, called by the first line of their descriptions."""
    root = unpacked(packages, "tuxpaint-stamps-default") / "usr/share/tuxpaint/stamps"
    for kind in STAMPS:
        for path in sorted((root / kind).rglob("*.ogg")):
            about = path.with_suffix(".txt")
            if "_desc" not in path.name and about.is_file():
                caption = about.read_text(encoding="utf-8").splitlines()[0].strip()
                yield Path(shutil.copy(path, folder / f"{kind}-{path.name}")), caption


CORPORA: dict[str, Callable[[Path, Path], Captioned]] = {"words": words, "scratch": scratch, "stamps": stamps}


def make(name: str, folder: Path, packages: Path) -> int:
    """Write a corpus; returns the number of its clips."""
    folder.mkdir(parents=True)
    rows = [(path.name, caption) for path, caption in CORPORA[name](folder, packages)]
    with (folder / "metadata.csv").open("w", newline="", encoding="utf-8") as handle:
        csv.writer(handle).writerows([("file_name", "caption"), *rows])
    return len(rows)


def train(checkout: Path, folder: Path) -> None:
    """Run the README's config on a folder of sounds."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(r"```yaml\n# configs/sounds.yaml\n(.*?)```", text, re.S)
    assert found, "README.md has no configs/sounds.yaml"
    config = found[1].replace(
        "path: my_sounds", f"path: {folder}\n    on_invalid: drop\n    on_leak: drop\n    random_crop: true"
    )
    config = config.replace("steps: 600", "steps: 600\n    validate_every: 50")
    config += f"render: {{clips: {{train: {TRAINED}, evaluation: all}}}}\n"
    (checkout / "sounds.yaml").write_text(config, encoding="utf-8")
    command = ["snakemake", "--cores", "all", "--configfile=sounds.yaml", "results/samples"]
    subprocess.run(command, check=True, cwd=checkout, stdout=sys.stderr)


def interval(differences: np.ndarray, draws: int = 10_000) -> tuple[float, float]:
    """The bootstrap interval of a mean, 95 %."""
    picks = np.random.default_rng(0).integers(0, len(differences), (draws, len(differences)))
    low, high = np.quantile(differences[picks].mean(axis=1), [0.025, 0.975])
    return float(low), float(high)


def report(checkout: Path, name: str, clips: int) -> None:
    runs = json.loads((checkout / "results/evaluation/summary.json").read_text(encoding="utf-8"))["runs"]
    metrics = pd.read_csv(checkout / "results/checkpoints/sounds/metrics.csv")
    print(f"{name}: {clips} clips, training loss {metrics.train_loss.iloc[0]:.2f} -> {metrics.train_loss.iloc[-1]:.2f}")
    losses = metrics.validation_loss.dropna()
    print(f"  validation loss {losses.iloc[0]:.3f} (first) -> {losses.iloc[-1]:.3f}, lowest {losses.min():.3f}")
    samples = pd.read_csv(checkout / "results/samples/samples.csv")
    for split in ("train", "evaluation"):
        ids = samples.clip_id[(samples.split == split) & (samples.run == "sounds")]
        base, tuned = (
            np.array([runs[run]["clips"][clip]["log_mel_distance"] for clip in ids]) for run in ("base", "sounds")
        )
        low, high = interval(tuned - base)
        means = f"base {base.mean():.1f} dB, fine-tuned {tuned.mean():.1f} dB"
        better = f"{int((tuned < base).sum())} of {len(ids)} better"
        print(
            f"  {split}: {means}, difference {(tuned - base).mean():.1f} [{low:.1f}, {high:.1f}], {better}", flush=True
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpora", nargs="+", choices=list(CORPORA))
    parser.add_argument("--packages", type=Path, required=True, help="folder of the two Debian packages")
    parser.add_argument("--out", type=Path, required=True, help="folder for corpora and checkouts; it must not exist")
    args = parser.parse_args()
    args.out.mkdir(parents=True)
    for name in args.corpora:
        folder, checkout = (args.out / name).resolve(), (args.out / f"{name}-checkout").resolve()
        clips = make(name, folder, args.packages)
        checkout.mkdir()
        for part in (
            "Snakefile",
            "config.yaml",
            "rules",
            "envs",
            "profiles",
            "report",
            "resources",
            "scripts",
            "schemas",
        ):
            (checkout / part).symlink_to(ROOT / part)
        train(checkout, folder)
        report(checkout, name, clips)


if __name__ == "__main__":
    main()
