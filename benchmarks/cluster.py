"""What a job on SLURM costs beyond its work: the demo's graph through profiles/slurm, with its groups and without.

    uv run python benchmarks/cluster.py            (as root, with Debian's slurmctld, slurmd, slurm-client and munge)

Brings up `.ci/slurm`, two nodes on this machine, and runs the graph with two training steps. By kind of job it tells

- queued: from being handed in to its start on a node,
- job: from start to end on the node,
- unseen: from its end to Snakemake's noticing, when what comes next is handed in (not told of a group),

and of all jobs together the time on the nodes, less what the scripts took by Snakemake's benchmark files.
"""

from __future__ import annotations

import argparse
import csv
import math
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from datetime import datetime
from pathlib import Path
from statistics import mean

import yaml

ROOT = Path(__file__).resolve().parents[1]
COMMAND = [str(Path(sys.executable).with_name("snakemake")), "--profile", "profiles/slurm"]
COMMAND += ["--slurm-status-command", "squeue", "--max-threads", "2", "--configfile=small.yaml"]
CONFIG = {
    "base_models": {"demo": {"gpus": 1, "sampling": {"steps": 2}}},
    "runs": {"demo": {"steps": 2, "checkpoint_every": 2, "validate_every": 2, "threads": 1}},
    "render": {"clips": {"train": 2, "evaluation": 2}},
}


def seconds(job: dict[str, str], start: str, end: str) -> float:
    return (datetime.fromisoformat(job[end]) - datetime.fromisoformat(job[start])).total_seconds()


def kind(job: dict[str, str]) -> str:
    return re.sub("^rule_|^group_|_wildcards.*", "", job["Comment"])


def run(work: Path, more: list[str]) -> tuple[float, list[dict[str, str]], dict[str, float], dict[str, str]]:
    """Seconds in all; SLURM's jobs; seconds of work by rule; when Snakemake noticed the end of a job, by its number."""
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, files.split("\0")):
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, work / name)
    (work / "small.yaml").write_text(yaml.safe_dump(CONFIG))
    start = time.monotonic()
    done = subprocess.run([*COMMAND, *more, "--", "results/samples"], cwd=work, capture_output=True, text=True)
    took = time.monotonic() - start
    said = done.stdout + done.stderr
    if done.returncode:
        sys.exit(said[-4000:])
    told = subprocess.run(["scontrol", "show", "job", "--oneliner"], capture_output=True, text=True, check=True).stdout
    jobs = [dict(part.partition("=")[::2] for part in line.split(" ") if "=" in part) for line in told.splitlines()]
    worked: dict[str, float] = defaultdict(float)
    for path in (work / "results/benchmarks").rglob("*.tsv"):
        with path.open(newline="") as table:
            worked[path.relative_to(work / "results/benchmarks").parts[0]] += sum(
                float(row["s"]) for row in csv.DictReader(table, delimiter="\t")
            )
    return took, [job for job in jobs if job.get("WorkDir") == str(work)], worked, noticed(said)


def noticed(said: str) -> dict[str, str]:
    """When Snakemake said that a job of SLURM had ended, by the job's number."""
    numbers = dict(re.findall(r"^Job (\S+) has been submitted with SLURM jobid (\d+)", said, re.M))
    found, stamp = {}, ""
    for line in said.splitlines():
        if match := re.match(r"\[(\w{3} \w{3} +\d+ [\d:]+ \d{4})\]", line):
            stamp = datetime.strptime(match[1], "%a %b %d %H:%M:%S %Y").isoformat()
        elif (match := re.match(r"Finished jobid: (\S+)", line)) and match[1] in numbers:
            found[numbers[match[1]]] = stamp
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        slurm = Path(folder, "slurm")
        subprocess.run(["bash", str(ROOT / ".ci/slurm"), "start", str(slurm)], check=True)
        try:
            for name, more in {"grouped": [], "one by one": ["--groups", "collect=alone"]}.items():
                took, jobs, worked, seen = run(Path(folder, name.replace(" ", "-")).resolve(), more)
                rows = defaultdict(list)
                for job in jobs:
                    ends = job | {"Seen": seen.get(job["JobId"], "")}
                    unseen = seconds(ends, "EndTime", "Seen") if ends["Seen"] else math.nan  # of a group it is not told
                    queued, spent = (
                        seconds(job, *times) for times in (("SubmitTime", "StartTime"), ("StartTime", "EndTime"))
                    )
                    rows[kind(job)].append((queued, spent, unseen))
                print(f"\n{name}: {took:.0f} s, {len(jobs)} jobs\n{'':18}jobs queued    job unseen")
                for rule, times in rows.items():
                    print(
                        f"{rule:18}{len(times):4}" + "".join(f"{mean(part):7.1f}" for part in zip(*times, strict=True))
                    )
                spent = sum(seconds(job, "StartTime", "EndTime") for job in jobs)
                here = sum(
                    worked[rule]
                    for rule in worked
                    if rule not in ("download", "rehearse", "base_model", "embedding_model")
                )
                print(
                    f"in jobs {spent:.0f} s, of that work {here:.0f} s: {(spent - here) / len(jobs):.1f} s a job beyond it"
                )
        finally:
            subprocess.run(["bash", str(ROOT / ".ci/slurm"), "stop", str(slurm)], check=True)


if __name__ == "__main__":
    main()
