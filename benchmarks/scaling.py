"""What the graph costs at 6 k, 100 k and 1 M clips: Snakemake's start, and the jobs that go through every clip's row.

    uv run python benchmarks/scaling.py --clips 6000 100000 1000000

Makes the finished state of a graph at N clips without training on them, and measures it:

- As large as in a real run: captions, metadata, facts, folders of audio and of latents (one name per clip, three per latent;
  the files are hard links to one short sound and one small latent). Archives, weights and training states are sparse
  files.
- Made by the real jobs: base model, manifests, validation, splits, dataset configs. Their time, processor time and peak
  memory are measured. They read only the hashes of the sounds: a real corpus adds the time to read the sounds.
- The rest is empty and declared as made with `snakemake --touch`, which records what a real job would.

Then, in turn and `--rounds` times: a Snakemake start on a workflow of one rule that has been made ("bare"), a dry run of
the graph where nothing has been made yet, and a start of the finished graph, which has to find nothing to do ("no-op").
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import numpy as np
import soundfile
import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

from sao.base.files import sha256, write_json  # noqa: E402
from sao.base.names import clip_id, shard_name, shard_of  # noqa: E402
from sao.data.listing import stamps_of, state_of, write_listing  # noqa: E402

# Not `python -m snakemake`: that looks for plugins in every folder of the working folder, a corpus's too.
SNAKEMAKE = [str(Path(sys.executable).parent / "snakemake")]
SHARES = {"development": 0.65, "validation": 0.175, "evaluation": 0.175}
SIDES = {"train": ["development"], "validation": ["validation"], "evaluation": ["evaluation"]}
CLIPS_A_SHARD = 16_000
LARGE = 100 << 20  # bytes: more than Snakemake compares by content
LINKS = 60_000  # ext4 allows 65,000 to a file
METADATA = ("file_name", "keywords", "sound_id", "sound_link", "start_end_samples", "manufacturer", "license")
WORDS = np.array("a rain wind car bird water metal crowd street bell paper glass steps".split())


def sparse(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as handle:
        handle.truncate(LARGE)
    return path


def link_many(source: Path, targets: Iterator[Path]) -> None:
    """Hard links to copies of `source`."""
    for number, target in enumerate(targets):
        if number % LINKS == 0:
            original = source.with_name(f"{source.name}.copy")
            original.unlink(missing_ok=True)
            shutil.copyfile(source, original)
        os.link(original, target)


def names(split: str, clips: int) -> list[str]:
    count = {name: round(clips * share) for name, share in SHARES.items()}
    count["development"] = clips - count["validation"] - count["evaluation"]
    return [f"{split} field recording {number:07d}.wav" for number in range(count[split])]


def captions(number: int) -> list[str]:
    """Five captions that differ from every other clip's in two words."""
    drawn = WORDS[np.random.default_rng(number).integers(len(WORDS), size=(5, 5))]
    return [f"{' '.join(row)} x{number:x} y{number}{i}" for i, row in enumerate(drawn)]


def write_rows(path: Path, rows: Iterator[list]) -> dict[str, str]:
    """A CSV; its entry for the config."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as handle:
        csv.writer(handle, lineterminator="\n").writerows(rows)
    with path.open("rb") as handle:
        return {"url": str(path), "md5": hashlib.file_digest(handle, "md5").hexdigest()}


def make_clotho(work: Path, clips: int) -> dict:
    """A corpus of published archives as rules download and extract leave it; its entry for the config."""
    sound = work / "made" / "sound.wav"
    sound.parent.mkdir(parents=True)
    soundfile.write(sound, 0.2 * np.random.default_rng(0).standard_normal(64).clip(-1, 1), 44100)
    digest = hashlib.sha256(sound.read_bytes()).hexdigest()
    data, splits = work / "results/data/bench", {}
    for split in SHARES:
        archives, first = data / "archives", 2_000_000 * list(SHARES).index(split)
        every = names(split, clips)
        entries = {
            "captions": write_rows(
                archives / f"captions_{split}.csv",
                ([name, *row] for name, row in _captions(every, first)),
            ),
            "metadata": write_rows(
                archives / f"metadata_{split}.csv",
                (_metadata(name, number) for number, name in enumerate(["", *every], first)),
            ),
            "archives": {"url": str(sparse(archives / f"audio_{split}.7z")), "md5": "0" * 32},
        }
        for entry in entries.values():
            listing = archives / "checksums" / f"{Path(entry['url']).name}.txt"
            listing.parent.mkdir(exist_ok=True)
            listing.write_text(f"{entry['md5']}\n")
        splits[split] = {kind: [entry] for kind, entry in entries.items()}
        (data / "audio" / split).mkdir(parents=True)
        link_many(sound, (data / "audio" / split / name for name in every))
        write_rows(data / "audio" / f"{split}.csv", _facts(split, every, digest))
    return {"format": "clotho", "splits": splits, **SIDES}


def _captions(every: list[str], first: int) -> Iterator[tuple[str, list[str]]]:
    yield "file_name", [f"caption_{i}" for i in range(1, 6)]
    for number, name in enumerate(every, first):
        yield name, captions(number)


def _metadata(name: str, number: int) -> list[str]:
    if not name:
        return list(METADATA)
    return [name, "noise;wind", str(number), f"https://freesound.org/s/{number}", "[0, 64]", "nobody", "CC0"]


def _facts(split: str, every: list[str], digest: str) -> Iterator[list]:
    yield [
        *("file_name", "sha256", "audio_sha256", "seconds", "sample_rate", "channels", "frames", "peak_dbfs"),
        *("rms_dbfs", "dc_offset", "clipped_run", "problem"),
    ]
    for name in every:
        own = hashlib.sha256(f"{split}/{name}".encode()).hexdigest()
        yield [name, digest, own, 2.5, 44100, 1, 110250, -8.12, -21.34, 0.0, 0, ""]


def make_folder(work: Path, clips: int) -> dict:
    """A folder of the user's own, a caption table at its top; its entry for the config."""
    make_clotho(work, clips)
    data, folder = work / "results/data/bench", work / "sounds"
    folder.mkdir()
    rows = [["file_name", *(f"caption_{i}" for i in range(1, 6))]]
    facts: list[list] = []
    for split in SHARES:
        first = 2_000_000 * list(SHARES).index(split)
        rows += [[name, *texts] for name, texts in _captions(names(split, clips), first)][1:]
        for path in (data / "audio" / split).iterdir():
            path.rename(folder / path.name)
        with (data / "audio" / f"{split}.csv").open(newline="") as handle:
            facts += list(csv.reader(handle))[bool(facts) :]
    write_rows(folder / "metadata.csv", iter(rows))
    shutil.rmtree(data)
    write_rows(data / "audio/all.csv", iter(facts))
    digests = {row[0]: row[1] for row in facts[1:]} | {"metadata.csv": sha256(folder / "metadata.csv")}
    (data / "audio/all.sha256").write_text("".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items())))
    files = stamps_of(folder, sorted(digests))
    write_listing(data / "folder/all.txt", state_of(files), files)
    counted = [[*rows[0], "caption_count"], *([*row, 5] for row in rows[1:])]
    write_rows(data / "captions/all.csv", iter(counted))
    return {"format": "audiofolder", "path": "sounds", "split": {"method": "fraction"}}


def make_latents(work: Path, shards: int, latents: bool) -> None:
    """The folders of latents that rule encode would have left, and their digests."""
    small = work / "made" / "latent.npy"
    np.save(small, np.zeros((4, 4), np.float32))
    folder = work / "results/latents/demo/bench"
    for facts in sorted((work / "results/data/bench/audio").glob("*.csv")):
        if facts.stem == "evaluation":
            continue
        with facts.open(newline="") as handle:
            clips = [clip_id(facts.stem, row["file_name"]) for row in csv.DictReader(handle)]
        for shard in range(shards):
            (folder / facts.stem / shard_name(shard, shards)).mkdir(parents=True)
            write_json(folder / facts.stem / f"{shard_name(shard, shards)}.json", {"clips": len(clips)})
        if latents:
            homes = [folder / facts.stem / shard_name(shard_of(clip, shards), shards) / clip for clip in clips]
            for end in (".npy", ".std", ".json"):
                link_many(small, (Path(f"{home}{end}") for home in homes))


class Graph:
    """The workflow in a working folder."""

    def __init__(self, work: Path, corpus: dict, shards: int, legs: int) -> None:
        self.work = work
        run = {"base_model": "demo", "corpus": "bench", "steps": 500 * legs, "checkpoint_every": 500, "batch_size": 16}
        config = {
            "corpora": {"demo": None, "bench": corpus},
            "runs": {"demo": None, "bench": run},
            "latents": {"shards": shards},
            "render": {"clips": {"train": 32, "evaluation": 1000}, "shards": min(shards, 16)},
        }
        work.mkdir(exist_ok=True)
        (work / "bench.yaml").write_text(yaml.safe_dump(config))
        for name in ("config.yaml", "profiles", "resources"):
            if not (work / name).exists():
                (work / name).symlink_to(ROOT / name)

    def command(self, *arguments: str) -> list[str]:
        start = [*SNAKEMAKE, "--snakefile", str(ROOT / "Snakefile"), "--cores", "2"]
        return [*start, "--directory", str(self.work), "--configfile", str(self.work / "bench.yaml"), *arguments]

    def run(self, *arguments: str, path: Path | None = None) -> str:
        bin_folders = [str(path)] if path else []
        bin_folders += [str(Path(sys.executable).parent), os.environ["PATH"]]
        env = os.environ | {"PATH": ":".join(bin_folders)}
        done = subprocess.run(self.command(*arguments), cwd=self.work, env=env, capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stdout[-2000:] + done.stderr[-4000:])
        return done.stdout + done.stderr


def finish(graph: Graph) -> None:
    """Make a placeholder of every output that is not there, and have Snakemake take all for made."""
    summary = graph.run("--summary")
    lines = [line.split("\t") for line in summary.splitlines() if line.startswith("results/")]
    for path in (graph.work / line[0] for line in lines):
        if path.exists():
            continue
        if path.suffix in (".safetensors", ".ckpt"):
            sparse(path)
        elif path.suffix:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("made\n")
        else:
            path.mkdir(parents=True)
    graph.run("--touch", "--forceall")
    if "Nothing to be done" not in (said := graph.run("-n")):
        sys.exit(f"not taken for made:\n{said[-3000:]}")


TIMER = """#!{python}
import json, os, subprocess, sys, time
start, process = time.monotonic(), subprocess.Popen([{python!r}, *sys.argv[1:]])
_, status, used = os.wait4(process.pid, 0)
figures = dict(s=time.monotonic() - start, cpu=used.ru_utime + used.ru_stime, mb=used.ru_maxrss / 1024)
with open({log!r}, "a") as handle:
    handle.write(json.dumps(dict(script=os.path.basename(sys.argv[1])) | figures) + "\\n")
sys.exit(os.waitstatus_to_exitcode(status))
"""


def time_scripts(graph: Graph, *targets: str) -> dict[str, dict[str, float]]:
    """Run jobs for real; `s`, `cpu` (both summed over the jobs of a rule) and `mb` (of the largest) by rule."""
    log, folder = graph.work / "made" / "times.jsonl", graph.work / "made" / "bin"
    folder.mkdir()
    (folder / "python").write_text(TIMER.format(python=sys.executable, log=str(log)))
    (folder / "python").chmod(0o755)
    graph.run("--cores", "1", *targets, path=folder)
    rules: dict[str, dict[str, float]] = {}
    for line in log.read_text().splitlines():
        figures = json.loads(line)
        rule = rules.setdefault(figures["script"].removesuffix(".py"), {"s": 0.0, "cpu": 0.0, "mb": 0.0})
        rule |= {
            "s": rule["s"] + figures["s"],
            "cpu": rule["cpu"] + figures["cpu"],
            "mb": max(rule["mb"], figures["mb"]),
        }
    return rules


def timed(command: list[str], cwd: Path, expect: str) -> dict[str, float]:
    """`s` and `cpu` of a command that has to say `expect`. (Its memory would be this process's, before it is forked.)"""
    with tempfile.TemporaryFile() as said:
        start = time.monotonic()
        process = subprocess.Popen(command, cwd=cwd, stdout=said, stderr=said)
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.monotonic() - start
        said.seek(0)
        text = said.read().decode()
    if status or not re.search(expect, text):
        sys.exit(f"{' '.join(command)}: {text[-3000:]}")
    return {"s": seconds, "cpu": used.ru_utime + used.ru_stime}


def bare(folder: Path) -> list[str]:
    """The command of a workflow of one rule that has been made."""
    folder.mkdir()
    (folder / "Snakefile").write_text(
        'rule all:\n    output:\n        "made.txt",\n    shell:\n        "touch {output}"\n'
    )
    command = [*SNAKEMAKE, "--cores", "2", "--directory", str(folder)]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return command


def megabytes(pattern: str, work: Path) -> float:
    return sum(path.stat().st_size for path in work.glob(pattern)) / 1e6


def measure(clips: int, folder: Path, args: argparse.Namespace) -> dict:
    work, shards = folder / "work", math.ceil(clips / CLIPS_A_SHARD)
    work.mkdir()
    corpus = make_clotho(work, clips) if args.format == "clotho" else make_folder(work, clips)
    graph = Graph(work, corpus, shards, args.legs)
    data = "results/data/bench"
    # The first jobs' outputs are there: have them taken for made, then run the next for real.
    first = [f"{data}/audio/{path.name}" for path in sorted((work / data / "audio").glob("*.csv"))]
    first += [entry["url"] for split in corpus.get("splits", {}).values() for kind in split.values() for entry in kind]
    first = [path.removeprefix(f"{work}/") for path in first]
    graph.run("--touch", "--forceall", *first)
    scripts = {} if args.starts else time_scripts(graph, f"{data}/dataset_configs/demo.sha256")
    make_latents(work, shards, args.latents)
    finish(graph)
    new = Graph(folder / "new", corpus, shards, args.legs)
    if args.format == "audiofolder":
        (new.work / "sounds").symlink_to(work / "sounds")
    # What was made keeps the disk busy for a while.
    os.sync()
    commands = {
        "bare": (bare(folder / "bare"), folder / "bare", "Nothing to be done"),
        "dry run": (new.command("-n", "--quiet"), new.work, "total|job"),
        "no-op": (graph.command(), work, "Nothing to be done"),
    }
    rounds = {name: [] for name in commands}
    for number in range(args.rounds + 1):
        for name, command in commands.items():
            taken = timed(*command)
            rounds[name] += [taken] if number else []  # the first one fills the caches
    starts = {name: {key: median(one[key] for one in taken) for key in ("s", "cpu")} for name, taken in rounds.items()}
    jobs = int(re.search(r"^total\s+(\d+)", new.run("-n"), re.M)[1])
    sizes = {
        "captions": megabytes(f"{data}/archives/captions_*.csv", work) or megabytes(f"{data}/captions/*.csv", work),
        "facts": megabytes(f"{data}/audio/*.csv", work),
        "manifests": megabytes(f"{data}/manifests/*.csv", work),
        "splits": megabytes(f"{data}/splits/*.csv", work),
        "dataset_configs": megabytes(f"{data}/dataset_configs/**/*.*", work),
        "metadata of Snakemake": megabytes(".snakemake/metadata/**/*", work),
    }
    return {"clips": clips, "shards": shards, "jobs": jobs, "starts": starts, "scripts": scripts, "MB": sizes}


def show(result: dict) -> None:
    print(f"\n{result['clips']} clips, {result['shards']} shards, {result['jobs']} jobs")
    base = result["starts"]["bare"]
    for name, figures in {**result["starts"], **result["scripts"]}.items():
        ratio = f"  {figures['s'] / base['s']:.2f} x bare, CPU {figures['cpu'] / base['cpu']:.2f} x"
        shown = ratio if name in result["starts"] else f"{figures['mb']:7.0f} MB"
        print(f"{name:16} {figures['s']:8.2f} s {figures['cpu']:8.2f} s CPU {shown}")
    print(", ".join(f"{name} {size:.1f} MB" for name, size in result["MB"].items()), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, nargs="+", default=[6000, 100_000, 1_000_000])
    parser.add_argument("--format", choices=["clotho", "audiofolder"], default="clotho")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--legs", type=int, default=20, help="legs of the training")
    parser.add_argument("--no-latents", dest="latents", action="store_false", help="leave the latents' folders empty")
    parser.add_argument("--starts", action="store_true", help="run no job: what they would make is empty, too")
    parser.add_argument("--folder", type=Path, help="where to work")
    parser.add_argument("--keep", action="store_true", help="leave what was made there")
    parser.add_argument("--output", type=Path, help="also write the figures to this JSON")
    args = parser.parse_args()
    results = []
    for clips in args.clips:
        folder = Path(tempfile.mkdtemp(dir=args.folder))
        try:
            results.append(measure(clips, folder, args))
        finally:
            if args.keep:
                print(folder)
            else:
                shutil.rmtree(folder)
        show(results[-1])
        if args.output:
            write_json(args.output, results)


if __name__ == "__main__":
    main()
