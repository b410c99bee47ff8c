"""Clips a second of training on this machine's CPU, against the loop of stable-audio-tools; what legs cost.

    uv run python benchmarks/training_throughput.py
    uv run python benchmarks/training_throughput.py --what legs

`--what throughput` runs in turn, `--rounds` times each, every run in a process of its own:

- stock: what stable-audio-tools' train.py does with raw audio: its model, its training wrapper, its SampleDataset in
  worker processes, the autoencoder in every step, activations recomputed, Lightning's Trainer in 32-true. Without
  logger, progress bar, checkpoints and demos.
- ours: scripts/train.py as the graph calls it, from latents.

Model, clips, window, batch, optimiser and schedule are the same. The clock runs from the start of the first step after
the warm-up to the start of the last: no start, no validation, no saving. CPU time is that of the process and its
workers; with `--threads 1` it hardly depends on what else the machine does. `--quiet CORES` waits until others use less
than that, and repeats a run that they disturbed.

`--what legs` takes the default run, of `--steps` steps, in one leg and in two.

The demo's latents and encoded captions have to be there: `uv run snakemake --cores all results/samples`. For a GPU there is benchmarks/gpu.py.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import made
import psutil
import stock
from made import ROOT

Job = dict[str, Any]


# What runs in a process of its own. A job is a JSON object; so is what comes back.


class Clock:
    """The time between the starts of two steps, counted from 0, and when each step began."""

    def __init__(self, first: int, last: int) -> None:
        self.ends, self.marks, self.starts = (first, last), [], []
        self.end = last + 1  # steps to take

    def tick(self) -> None:
        if len(self.starts) in self.ends:
            self.marks.append((time.monotonic(), *cpu_seconds()))
        self.starts.append(moment())

    def over(self, items: Iterable, *_: object, **__: object) -> Iterator:
        """In the place of a progress bar."""
        for item in items:
            self.tick()
            yield item
        self.starts.append(moment())

    def steps(self) -> list[list[float]]:
        return [elapsed(before, after) for before, after in zip(self.starts, self.starts[1:], strict=False)]

    def result(self, batch: int) -> Job:
        first, last = self.ends
        seconds, mine, others = (after - before for before, after in zip(*self.marks, strict=True))
        # Not `ru_maxrss`, which a process inherits.
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        peak = int(status["VmHWM"].split()[0]) * 1024
        clips = batch * (last - first)
        rates = {"steps_s": (last - first) / seconds, "clips_s": clips / seconds, "cpu_clip": mine / clips}
        return rates | {"peak": peak, "others": others / seconds}


def moment() -> list[float]:
    """On the clock of the machine, and in this process's CPU time; both in seconds."""
    return [time.monotonic(), time.process_time()]


def elapsed(before: list[float], after: list[float]) -> list[float]:
    return [b - a for a, b in zip(before, after, strict=True)]


def cpu_seconds() -> tuple[float, float]:
    """What the machine's cores have worked so far: for this process, its workers and children; and for others."""
    user, nice, system = map(int, Path("/proc/stat").read_text().split()[1:4])
    here, ended = psutil.Process(), os.times()
    mine = sum(sum(process.cpu_times()[:2]) for process in (here, *here.children(recursive=True)))
    mine += ended.children_user + ended.children_system
    return mine, (user + nice + system) / os.sysconf("SC_CLK_TCK") - mine


def theirs(job: Job) -> Job:
    """The loop of stable-audio-tools, driven through its library."""
    from sao.models.build import load_model

    config = trained_config(job)
    model = load_model(config, Path(job["model"], "hub"), Path(job["model"], "model.safetensors"))
    import torch

    torch.set_num_threads(job["threads"])
    data, clock = json.loads(Path(job["audio"]).read_text()), Clock(job["warmup"], job["warmup"] + job["steps"])
    clips = sum(len(list(Path(entry["path"]).glob("*.wav"))) for entry in data["datasets"])
    stock.train(model, config, data, job["batch"], job["frames"], job["stock_workers"], clock, clips)
    return clock.result(job["batch"])


def ours(job: Job) -> Job:
    """scripts/train.py, its progress bar replaced by a clock."""
    import train

    made.use_hub(Path(job["model"], "hub"))
    from sao.training import trainer

    clock = Clock(job["warmup"], job["warmup"] + job["steps"])
    trainer.progress = clock.over
    sys.argv = command(job, f"step-{clock.end:08d}", {"validate_every": clock.end})  # the last step validates
    train.main()
    return clock.result(job["batch"])


def leg(job: Job) -> Job:
    """One leg of scripts/train.py; the moments between its phases."""
    shutil.rmtree(Path(job["output"], job["leg"]), ignore_errors=True)  # of a run that was disturbed
    made.use_hub(Path(job["model"], "hub"))
    import train

    # All that it imports on the way, so that imports are told from the rest.
    for name in (
        "lightning_fabric",
        "sao.training.trainer",
        "stable_audio_tools.models.factory",
    ):
        importlib.import_module(name)
    from sao.training import trainer
    from transformers import AutoTokenizer, T5EncoderModel  # noqa: F401

    marks, clock = {"imports": moment()}, Clock(-1, -1)
    find_state = trainer.find_state

    def found(*arguments: Any) -> Any:
        marks["model"] = moment()
        return find_state(*arguments)

    def over(*arguments: Any, **_: Any) -> Iterator:
        marks["resume"] = moment()
        yield from clock.over(*arguments)
        marks["steps"] = moment()

    trainer.find_state, trainer.progress = found, over
    sys.argv = command(job, job["leg"], {"validate_every": job["validate_every"]}, job["resume"])
    train.main()
    marks["saving"] = moment()
    return {"marks": marks, "steps": clock.steps()}


def trained_config(job: Job) -> Job:
    """The model's config, its `training` section as scripts/train.py makes it."""
    from sao.models.config import read_model_config, training_config

    config = read_model_config(Path(job["model"], "model_config.json"))
    config["training"] = training_config(config, job["settings"])
    return config


def command(job: Job, name: str, running: Job, resume: str | None = None) -> list[str]:
    run = {"settings": job["settings"], "running": job["running"] | running}
    return made.train_command(job, name, run, job["output"], resume)


# What measures.


def apart(function: Any, job: Job) -> Job:
    """Call one of the functions above in a process of its own; with `--quiet`, until nothing disturbed it.

    Added to what it gives: `start`; `wall` and `cpu`, the seconds that it took; and `others`, the cores that were busy
    with something else.
    """
    while True:
        while job["quiet"] is not None and busy_cores(3) > job["quiet"]:
            pass
        result = _apart(function, job)
        if job["quiet"] is None or result["others"] <= job["quiet"]:
            return result
        print(f"disturbed ({result['others']:.2f} cores busy with others): again", file=sys.stderr, flush=True)


def _apart(function: Any, job: Job) -> Job:
    with tempfile.TemporaryDirectory(dir=job["folder"]) as folder:
        given, told = Path(folder, "job.json"), Path(folder, "result.json")
        given.write_text(json.dumps({"output": folder} | job))
        words = [sys.executable, __file__, "--process", function.__name__, str(given), str(told)]
        env = os.environ | {"OMP_NUM_THREADS": str(job["threads"])}
        start, used, ended = time.monotonic(), cpu_seconds()[1], os.times()
        done = subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True)
        wall, in_all = time.monotonic() - start, cpu_seconds()[1]
        if done.returncode:
            sys.exit(f"{function.__name__} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
        cpu = sum(os.times()[2:4]) - sum(ended[2:4])
        found = {"start": start, "wall": wall, "cpu": cpu, "others": (in_all - used) / wall}
        return found | json.loads(told.read_text())


def busy_cores(seconds: float) -> float:
    """How many cores others keep busy now."""
    used = cpu_seconds()[1]
    time.sleep(seconds)
    return (cpu_seconds()[1] - used) / seconds


def demo_job(args: argparse.Namespace, folder: Path) -> Job:
    """The default run, and the same clips as audio for the stock loop."""
    from sao.base.tables import read_table
    from sao.training.dataset_configs import audio_datasets

    changes = {"batch_size": args.batch, "threads": args.threads}
    job = made.run_settings({key: value for key, value in changes.items() if value})
    job |= {key: job["settings"][name] for key, name in (("batch", "batch_size"), ("threads", "threads"))}
    datasets, model = "results/data/demo/dataset_configs/demo", "results/models/demo"
    sounds = [f"results/latents/demo/demo/{split}/0001-of-0001.json" for split in ("development", "validation")]
    if missing := [
        path
        for path in (f"{datasets}/train.json", *sounds, "results/encoded_captions/demo/demo.safetensors")
        if not (ROOT / path).exists()
    ]:
        sys.exit(f"missing: {missing[0]}: run `snakemake --cores all {' '.join(sounds)}` first")
    table = read_table(ROOT / "results/data/demo/splits/train.csv")
    hooks = folder / "hooks"
    texts = {row.clip_id: [(row.caption_1, 1.0)] for row in table.itertuples()}
    entries = audio_datasets(hooks, hooks, table, texts, [], {"development": "results/data/demo/audio/development"})
    (folder / "audio.json").write_text(
        json.dumps({"dataset_type": "audio_dir", "datasets": entries, "random_crop": False})
    )
    frames = json.loads((ROOT / datasets / "train.json").read_text())["latent_crop_length"]
    files = {"model": model, "model_digest": f"{model}/checksums.sha256", "datasets": datasets, "sounds": sounds}
    files["captions"] = "results/encoded_captions/demo/demo.safetensors"
    return job | files | {"audio": f"{folder}/audio.json", "frames": frames}


def alternate(rounds: int, runs: dict[str, tuple[Any, Job]]) -> dict[str, list[Job]]:
    """Results of runs that take turns; one line each on stderr."""
    results: dict[str, list[Job]] = {name: [] for name in runs}
    for number in range(rounds):
        for name, (function, job) in runs.items():
            result = apart(function, job)
            results[name].append(result)
            print(
                f"round {number + 1} {name}: {result['steps_s']:.2f} steps/s, {result['clips_s']:.2f} clips/s, "
                f"{1e3 * result['cpu_clip']:.2f} CPU ms/clip, peak {result['peak'] / 1e6:.0f} MB; "
                f"{result['others']:.2f} cores busy with others",
                file=sys.stderr,
                flush=True,
            )
    return results


def median(results: list[Job], key: str) -> float:
    return statistics.median(result[key] for result in results)


def throughput(job: Job, rounds: int) -> None:
    results = alternate(rounds, {"stock": (theirs, job), "ours": (ours, job)})
    print("         clips/s  CPU ms/clip  peak MB")
    clips, cpu, peak = (
        {n: median(found, key) for n, found in results.items()} for key in ("clips_s", "cpu_clip", "peak")
    )
    for name in results:
        print(f"{name:7}  {clips[name]:7.2f}  {1e3 * cpu[name]:11.2f}  {peak[name] / 1e6:7.0f}")
    print(f"ratio    {clips['ours'] / clips['stock']:7.2f}  {cpu['stock'] / cpu['ours']:11.2f}")


def in_legs(job: Job, rounds: int, steps: int) -> None:
    """A run of `steps` in one leg and in two; what a leg costs, whatever its length. In seconds and CPU seconds."""
    # As often as in the default run: four validations, the last of each leg at its end.
    job |= {"validate_every": max(1, steps // 4), "resume": None}
    totals: dict[int, list[list[float]]] = {1: [], 2: []}
    seconds: list[dict[str, list[float]]] = []
    usual, validations = [], []
    for number in range(rounds):
        for legs in totals:
            with tempfile.TemporaryDirectory(dir=job["folder"]) as folder:
                total, state = [0.0, 0.0], None
                for part in range(legs):
                    name = f"step-{steps * (part + 1) // legs:08d}"
                    result = apart(leg, job | {"leg": name, "resume": state, "output": folder})
                    total, state = [total[0] + result["wall"], total[1] + result["cpu"]], f"{folder}/{name}/state.ckpt"
                    usual.append(medians(result["steps"]))
                    validations.append(elapsed(usual[-1], result["steps"][-1]))  # follows the last step
                totals[legs].append(total)
                if legs == 2:
                    seconds.append(phases(result))
                print(f"round {number + 1}, legs: {legs}: {told(total)}", file=sys.stderr, flush=True)
    once, twice = (medians(found) for found in totals.values())
    print(f"{steps} steps in 1 leg: {told(once)}, in 2 legs: {told(twice)}\nthe second leg, apart from its steps:")
    cost = {name: medians([found[name] for found in seconds]) for name in seconds[0]}
    fixed = [sum(found) for found in zip(*cost.values(), strict=True)]
    for name, found in (cost | {"together": fixed}).items():
        print(f"  {name:20} {told(found)}")
    step, validation = medians(usual), medians(validations)
    print(f"a step: {told(step)}, a validation: {told(validation)}")
    for unit, at in (("time", 0), ("CPU time", 1)):
        long = fixed[at] - cost["resume"][at] + 1000 * step[at] + 4 * validation[at]
        print(
            f"1000 steps with 4 validations in 1 leg: {long:.0f} s of {unit}; a second leg adds {fixed[at] / long:.1%}"
        )


def medians(pairs: list[list[float]]) -> list[float]:
    return [statistics.median(found) for found in zip(*pairs, strict=True)]


def told(pair: list[float]) -> str:
    return f"{pair[0]:.3f} s ({pair[1]:.3f} s CPU)"


def phases(result: Job) -> dict[str, list[float]]:
    """Seconds, and CPU seconds, of a leg's phases but its steps."""
    marks, end = result["marks"], [result["start"] + result["wall"], result["cpu"]]
    return {
        "start and imports": elapsed([result["start"], 0], marks["imports"]),
        "model, weights, data": elapsed(marks["imports"], marks["model"]),
        "resume": elapsed(marks["model"], marks["resume"]),
        "saving": elapsed(marks["steps"], marks["saving"]),
        "exit": elapsed(marks["saving"], end),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--what", choices=["throughput", "legs"], default="throughput")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=60, help="steps measured; with `legs`, those of the run")
    parser.add_argument("--warmup", type=int, default=10, help="steps before the clock starts")
    parser.add_argument("--batch", type=int, help="default: that of config.yaml's run")
    parser.add_argument("--threads", type=int, help="of each process; default: that of config.yaml's run")
    parser.add_argument("--workers", type=int, default=0, help="worker processes that load data for ours")
    parser.add_argument("--stock-workers", type=int, default=1, help="those for stock, which needs one")
    parser.add_argument("--quiet", type=float, metavar="CORES", help="repeat what others disturbed by more than this")
    parser.add_argument("--folder", type=Path, help="where to work")
    parser.add_argument("--process", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.process:
        name, given, target = args.process
        Path(target).write_text(json.dumps(globals()[name](json.loads(Path(given).read_text()))))
        return

    sys.stdout.reconfigure(line_buffering=True)  # each part is shown when it is measured
    os.chdir(ROOT)
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        job = demo_job(args, Path(folder))
        job |= {"folder": folder, "steps": args.steps, "warmup": args.warmup, "quiet": args.quiet}
        job["stock_workers"] = args.stock_workers
        job["running"] |= {"workers": args.workers}
        if args.what == "legs":
            in_legs(job, args.rounds, args.steps)
        else:
            throughput(job, args.rounds)


if __name__ == "__main__":
    main()
