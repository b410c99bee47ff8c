"""Whether two revisions of the project give the same results, byte for byte, on this machine.

    uv run python benchmarks/equal_results.py make FOLDER --revision v1.0     # three graphs of a revision
    uv run python benchmarks/equal_results.py make OTHER                      # the same of the working tree
    uv run python benchmarks/equal_results.py compare FOLDER OTHER

For changes that are to move no result. Three graphs cover the ways a training can go: the built-in default; LoRA with
accumulated batches and worker processes, in two legs; and a folder of sounds, longer than the window, trained on from the
audio itself. Models and sounds are compared byte by byte, tables and JSON value by value; hashes of code, times and paths
are left out.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd

ROOT = Path(__file__).parents[1]
CASES = ("demo", "lora", "folder")
SETTINGS: dict[str, dict[str, Any]] = {
    "demo": {},
    "lora": {
        "runs": {
            "demo": None,
            "lora": {
                "base_model": "demo",
                "corpus": "demo",
                "method": "lora",
                "steps": 60,
                "checkpoint_every": 30,
                "validate_every": 10,
                "batch_size": 4,
                "accumulate": 2,
                "workers": 2,
                "recompute_activations": False,
                "learning_rate": 1e-3,
            },
        },
        "render": {"clips": {"evaluation": "all", "train": 4}},
        "evaluation": {"legs": True},
    },
    "folder": {
        "corpora": {
            "demo": None,
            "mine": {
                "format": "audiofolder",
                "path": "sounds",
                "random_crop": True,
                "train_seconds": 1.5,
                "split": {"method": "fraction", "validation": 0.1, "evaluation": 0.2},
            },
        },
        "latents": {"enabled": False},
        "runs": {
            "demo": None,
            "mine": {
                "base_model": "demo",
                "corpus": "mine",
                "steps": 40,
                "checkpoint_every": 40,
                "validate_every": 20,
                "batch_size": 4,
                "phase_flip": True,
                "learning_rate": 1e-3,
            },
        },
        "render": {"clips": {"evaluation": "all", "train": 4}},
    },
}
# Beside the results themselves: what tells when and where, or of which code.
ASIDE = re.compile(
    r"code|time|date|seconds_per|per_second|waiting|peak_memory|speed|version|digest|sha256|path|file$|reference|provenance|settings"
)
BYTES = ("**/*.safetensors", "**/*.wav", "**/*.npz", "evaluation/*.svg", "checkpoints/*/loss.svg")
TABLES = ("checkpoints/*/metrics.csv", "renders/*.csv", "samples/samples.csv", "evaluation/*.csv", "**/dropped.csv")
VALUES = ("evaluation/*.json",)


def checkout(revision: str | None, folder: Path) -> Path:
    """The project as it is in a revision, or in the working tree, as far as git knows its files."""
    folder.mkdir(parents=True)
    names = ["ls-files", "-z"] if revision is None else ["ls-tree", "-r", "-z", "--name-only", revision]
    files = subprocess.run(["git", *names], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    if revision is None:
        for name in filter(None, files.split("\0")):
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target)
        return folder
    packed = subprocess.run(["git", "archive", revision], cwd=ROOT, check=True, capture_output=True).stdout
    subprocess.run(["tar", "-x"], cwd=folder, input=packed, check=True)
    return folder


def own_sounds(project: Path) -> None:
    """The default corpus's training recordings, as a folder with a table."""
    data = project / "results/data/demo"
    table = pd.read_csv(project / "resources/demo/corpus/clotho_captions_development.csv")
    sounds = project / "sounds"
    sounds.mkdir()
    for number, row in enumerate(table.itertuples()):
        shutil.copy(data / "audio/development" / row.file_name, sounds / f"{number:02d}.wav")
    names = [f"{number:02d}.wav" for number in range(len(table))]
    pd.DataFrame({"file_name": names, "caption": table.caption_1}).to_csv(sounds / "metadata.csv", index=False)


def make(folder: Path, revision: str | None, cases: list[str]) -> None:
    project = checkout(revision, folder / "project")
    for case in cases:
        config = project / f"{case}.yaml"
        config.write_text(json.dumps(SETTINGS[case]), encoding="utf-8")
        if case == "folder":
            target = "results/data/demo/audio/development"
            subprocess.run([*snakemake(), target], cwd=project, check=True)
            own_sounds(project)
        print(f"{case}: …", flush=True)
        given = [f"--configfile={config.name}"] if SETTINGS[case] else []
        subprocess.run([*snakemake(), *given, "results/samples"], cwd=project, check=True)
        kept = folder / case
        keep(project / "results", kept)
        # Each graph from its beginning: nothing made by one is taken over by the next.
        shutil.rmtree(project / "results")


def snakemake() -> list[str]:
    return [sys.executable, "-m", "snakemake", "--cores", "2", "--quiet=rules"]


def keep(results: Path, kept: Path) -> None:
    """Copy what is compared."""
    for path in {p for pattern in (*BYTES, *TABLES, *VALUES) for p in results.glob(pattern) if p.is_file()}:
        target = kept / path.relative_to(results)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)


def kept_files(folder: Path, patterns: tuple[str, ...]) -> dict[str, Path]:
    found = {p for pattern in patterns for p in folder.glob(pattern) if p.is_file()}
    return {path.relative_to(folder).as_posix(): path for path in sorted(found)}


def same_bytes(one: Path, other: Path) -> bool:
    digests = [hashlib.sha256(path.read_bytes()).digest() for path in (one, other)]
    return digests[0] == digests[1]


def values(entry: Any) -> Any:
    """A JSON value without what is left out."""
    if isinstance(entry, dict):
        return {key: values(value) for key, value in entry.items() if not ASIDE.search(key)}
    return [values(value) for value in entry] if isinstance(entry, list) else entry


def same_tables(one: Path, other: Path) -> bool:
    """Cell by cell, in the columns that both have; a column more is told, since it may be meant."""
    tables = [pd.read_csv(path, dtype=str, keep_default_na=False) for path in (one, other)]
    if odd := set(tables[0].columns) ^ set(tables[1].columns):
        print(f"  {one.name}: only one of them has {', '.join(sorted(odd))}")
    shared = [c for c in tables[0].columns if c in tables[1].columns and not ASIDE.search(c)]
    return tables[0][shared].equals(tables[1][shared])


def compare(one: Path, other: Path) -> int:
    """Print what differs; returns how many files do."""
    wrong = total = 0
    for case in CASES:
        for patterns, same in (
            (BYTES, same_bytes),
            (TABLES, same_tables),
            (VALUES, lambda a, b: values(json.loads(a.read_text())) == values(json.loads(b.read_text()))),
        ):
            here, there = (kept_files(folder / case, patterns) for folder in (one, other))
            for name in sorted(set(here) | set(there)):
                total += 1
                if name not in here or name not in there:
                    print(f"{case}/{name}: only in {one if name in here else other}")
                    wrong += 1
                elif not same(here[name], there[name]):
                    print(f"{case}/{name}: differs")
                    wrong += 1
    print(f"{total} files, {wrong} differ")
    return wrong if total else 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("make")
    making.add_argument("folder", type=Path)
    making.add_argument("--revision", help="the working tree where none is given")
    making.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    comparing = commands.add_parser("compare")
    comparing.add_argument("one", type=Path)
    comparing.add_argument("other", type=Path)
    args = parser.parse_args()
    if args.command == "make":
        make(args.folder, args.revision, args.cases)
    else:
        sys.exit(compare(args.one, args.other) > 0)


if __name__ == "__main__":
    main()
