"""What a GPU makes of a fine-tune: speed and memory of training, encoding and rendering, beside stable-audio-tools' own.

    uv run python benchmarks/gpu.py                          # all of it, on this machine's GPU
    uv run python benchmarks/gpu.py --only train encode      # parts of it
    uv run python benchmarks/gpu.py --device cpu --size micro  # the same code with narrow layers, to see that it runs

Each part is a process of its own, and its lines are printed, and written to `--output`, as soon as it has ended. What a
part that fails has to say stands in its line, and the next one begins. The model has the architecture of Stable Audio Open 1.0
and random weights; clips are noise. Everything is made in `--folder` (12 GB) and deleted at the end.

- card: its name, its driver, and the rates of a large matmul in bfloat16 and of a large copy.
- train: scripts/train.py as the graph calls it, from latents, and stable-audio-tools' loop. Clips a second, from the
  start of the first step after the warm-up to the start of the last; MFU, the share of the measured matmul rate that the
  model's forward and backward passes use, without recomputation and text encoder; kernels, and times that the CPU waits for
  the GPU, for each step; the most memory that was allocated, beside the estimate.
- encode, render: scripts/encode.py and scripts/render.py, and stable-audio-tools' own. Renders are timed with all that the
  first batch waits for, and from the second batch on; those in 16 bits are compared with those in float32.
- memory: the most memory that was allocated, beside the estimate, for other settings.
- precision: losses of the first steps in each precision.

On a card of 78 GB or more, the rows of memory run at the same time, and those of precision too: they time nothing.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import multiprocessing
import os
import re
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import made
import stock

ROOT = Path(__file__).resolve().parents[1]
Row = dict[str, Any]
Function = Callable[[Row], Row]
MATMUL, COPY = 8192, 1 << 30  # rows and columns; bytes
TOGETHER = 78e9  # bytes of a GPU that holds all rows of the parts memory or precision at once
SAMPLING = {"steps": 100, "cfg_scale": 7, "sigma_min": 0.3, "sigma_max": 500}  # as published for Stable Audio Open 1.0


class Watch:
    """Marks the start of every step: times the steps between the warm-up and the last, and profiles a few after them."""

    PROFILED = 2

    def __init__(self, job: Row) -> None:
        self.first, self.last = job["warmup"], job["warmup"] + job["steps"]
        self.end = self.last + 1 + self.PROFILED
        self.steps = self.end + 1  # the last step of a leg validates
        self.step, self.times, self.profile, self.trace = 0, {}, None, job.get("trace")

    def tick(self) -> None:
        import torch

        if self.step in (self.first, self.last, self.last + 1, self.end):
            synchronize()
            self.times[self.step] = time.monotonic()
        if self.step == self.first and torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        if self.step == self.last + 1:
            self.peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
            activities = [torch.profiler.ProfilerActivity.CPU]
            activities += [torch.profiler.ProfilerActivity.CUDA] if torch.cuda.is_available() else []
            self.profile = torch.profiler.profile(activities=activities)
            self.profile.__enter__()
        if self.step == self.end:
            self.profile.__exit__(None, None, None)
        self.step += 1

    def over(self, items: Iterable, *_: object, **__: object) -> Iterator:
        """In the place of a progress bar."""
        for item in items:
            self.tick()
            yield item
        self.tick()

    def result(self, batch: int) -> Row:
        seconds = (self.times[self.last] - self.times[self.first]) / (self.last - self.first)
        return {"clips_s": batch / seconds, "step_s": seconds, "peak": self.peak} | self.counted()

    def counted(self) -> Row:
        """Kernels, waits for the GPU and numbers read back, for each of the profiled steps."""
        kernels, waits, reads, spent = 0, 0, 0, collections.Counter()
        # torch's own summary of 10,000 events takes many seconds.
        for event in self.profile.profiler.kineto_results.events():
            name, on_gpu = event.name(), event.device_type().name == "CUDA"
            kernels += on_gpu and not name.startswith(("Memcpy", "Memset"))
            waits += name in ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")
            reads += name == "aten::_local_scalar_dense"
            spent[on_gpu, name] += event.duration_ns()
        if self.trace:
            lines = (
                f"{ns / 1e6:9.3f} ms {'GPU' if gpu else 'CPU'} {name}" for (gpu, name), ns in spent.most_common(120)
            )
            Path(self.trace).write_text("\n".join(lines))
        return {key: value / self.PROFILED for key, value in (("kernels", kernels), ("syncs", waits), ("reads", reads))}


def synchronize() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


# The parts. Each takes a job and returns what it measured.


def card(job: Row) -> Row:
    import torch

    name, driver, memory = "CPU", None, None
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        properties = torch.cuda.get_device_properties(0)
        memory = properties.total_memory
        name = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
        with contextlib.suppress(OSError, TypeError):
            driver = re.search(r"\d{3}\.[\d.]+", Path("/proc/driver/nvidia/version").read_text())[0]
    device, size, length = ("cuda", MATMUL, COPY) if on_gpu else ("cpu", MATMUL // 32, COPY // 16)
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    source, target = (torch.randn(length // 4, device=device) for _ in range(2))
    rates = {}
    for what, work, amount in (
        ("matmul", lambda: a @ b, 2 * size**3),
        ("copy", lambda: target.copy_(source), 2 * length),
    ):
        for _ in range(3):
            work()
        synchronize()
        start = time.perf_counter()
        for _ in range(10):
            work()
        synchronize()
        rates[what] = 10 * amount / (time.perf_counter() - start)
    return {"name": name, "driver": driver, "torch": torch.__version__, "memory": memory} | rates


def material(job: Row) -> Row:
    """Make the model, and for each window clips."""
    folder = Path(job["folder"])
    start = time.monotonic()
    made.make_model(folder, job["config"], job["encoder_layers"])
    took = {"model_s": time.monotonic() - start}
    for seconds in job["windows"]:
        made.make_clips(folder / f"{seconds:g}s", job["config"], job["number"], seconds)
        made.vouch(folder / f"{seconds:g}s", folder / "model", folder / "model.sha256")
    return {"sounds_s": time.monotonic() - start - took["model_s"]} | took


def flops(job: Row) -> Row:
    """FLOPs of a clip's forward and backward pass, without the frozen text encoder, by counting a shallow model twice."""
    import torch
    from sao.models.build import create
    from sao.models.text import without_text_encoder
    from sao.training.prepare import prepare
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    counts, device = [], "cuda" if torch.cuda.is_available() else "cpu"
    for depth in (1, 2):
        config = json.loads(json.dumps(job["config"]))
        config["model"]["diffusion"]["config"]["depth"] = depth
        with without_text_encoder():
            model = create(config, "the model").to(device)
        prepare(model, recompute_activations=False, compile_blocks=False)
        width, globe = (config["model"]["diffusion"]["config"][key] for key in ("cond_token_dim", "global_cond_dim"))
        shapes = {"cross_attn_cond": (1, job["tokens"], width), "global_embed": (1, globe)}
        inputs = {name: torch.randn(shape, device=device) for name, shape in shapes.items()}
        x, t = torch.randn(1, 64, job["frames"], device=device), torch.rand(1, device=device)
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:  # other kernels recompute
            model.model.model(x, t, **inputs).mean().backward()
        counts.append(counter.get_total_flops())
    block = counts[1] - counts[0]
    return {"flops": counts[0] + (job["config"]["model"]["diffusion"]["config"]["depth"] - 1) * block}


def ours(job: Row) -> Row:
    """scripts/train.py, its progress bar replaced by a clock."""
    import train
    from sao.training import trainer

    watch, found = Watch(job), {}
    trainer.progress = watch.over
    check_fit = trainer.Trainer.check_fit

    def noted(self: Any) -> None:
        original = trainer.total
        trainer.total = lambda parts: found.setdefault("estimate", original(parts))
        check_fit(self)
        trainer.total = original

    trainer.Trainer.check_fit = noted
    if not job.get("save"):
        trainer.Trainer.finish = lambda self: None  # which writes up to 17 GB
    leg, run = f"step-{watch.steps:08d}", made.run_settings(job["changes"])
    run["running"] |= {"validate_every": watch.steps, "workers": job["workers"]}
    spent = {name: timed(trainer, name) for name in ("finish_checking", "load_trainable", "write_state")}
    spent |= {
        name: timed(trainer.Trainer, name) for name in ("load_model", "start_devices", "validate", "save", "finish")
    }
    began = time.monotonic()
    sys.argv = made.train_command(job["files"], leg, run, Path(job["output"]))
    train.main()
    took = time.monotonic() - began
    found["around_s"] = took - (watch.times[watch.end] - watch.times[watch.first])
    found["phases"] = {name: round(sum(seconds), 2) for name, seconds in spent.items() if seconds}
    shutil.rmtree(Path(job["output"]))
    return watch.result(run["settings"]["batch_size"]) | found


def losses(job: Row) -> Row:
    """The means of the losses of every 50 steps of scripts/train.py."""
    import train
    from sao.training import trainer

    rows: list[list[float]] = []
    trainer.Trainer.finish = lambda self: rows.extend(self.metrics.rows)
    run = made.run_settings(job["changes"])
    run["running"] |= {"validate_every": job["steps"] + 1, "workers": job["workers"]}
    sys.argv = made.train_command(job["files"], f"step-{job['steps']:08d}", run, Path(job["output"]))
    train.main()
    return {"losses": [row[1] for row in rows]}


def timed(owner: type, name: str) -> list[float]:
    """Let a method note the seconds that each call takes, in the list that is returned."""
    method, seconds = getattr(owner, name), []

    def noted(*arguments: Any, **more: Any) -> Any:
        start = time.monotonic()
        try:
            return method(*arguments, **more)
        finally:
            seconds.append(time.monotonic() - start)

    setattr(owner, name, noted)
    return seconds


def theirs(job: Row) -> Row:
    """The loop of stable-audio-tools."""
    from sao.models.build import load_model

    config = job["config"]
    watch = Watch(job)
    model = load_model(config, *weights(job))
    if lora := job.get("lora"):
        config = config | {"training": config["training"] | {"lora_config": lora}}
    data = json.loads(Path(job["data"]).read_text())
    stock.train(model, config, data, job["batch"], job["frames"], job["workers"], watch, job["number"])
    return watch.result(job["batch"])


def weights(job: Row) -> tuple[Path, Path]:
    return Path(job["files"]["model"], "hub"), Path(job["files"]["model"], "model.safetensors")


def encode_ours(job: Row) -> Row:
    import encode
    import torch
    from sao.models import encoding

    folder = Path(job["clips"])
    marks: list[float] = []

    def clock(items: Iterable, *_: object, **__: object) -> Iterator:
        for item in items:
            marks.append(time.monotonic())
            yield item
        marks.append(time.monotonic())

    encoding.progress = clock
    encoding.COMPILED_FROM = 0
    settings = json.dumps({"train_seconds": job["seconds"], "random_crop": False})
    options = {
        "audio": folder / "audio", "facts": folder / "audio.csv", "split": "noise", "model": job["files"]["model"],
        "model-digest": job["files"]["model_digest"], "settings": settings, "threads": 4, "code": "bench",
        "output": Path(job["output"], "latents"), "digest": Path(job["output"], "latents.json"),
    }  # fmt: skip
    sys.argv = ["encode.py", *(str(part) for key, value in options.items() for part in (f"--{key}", value))]
    encode.main()
    rest = marks[2:]  # the first clips find their kernels
    return {"clips_s": (len(rest) - 1) / (rest[-1] - rest[0]), "peak": peak(torch)}


def encode_theirs(job: Row) -> Row:
    import soundfile
    import torch
    from sao.models.build import load_model
    from sao.models.device import this_device

    model = load_model(job["config"], *weights(job))
    device = this_device().kind
    torch.backends.cudnn.allow_tf32 = True  # as torch has it, and pre_encode.py leaves it
    model.to(device).eval().requires_grad_(False)
    marks = []
    for path in sorted(Path(job["clips"], "audio").glob("*.wav")):
        marks.append(time.monotonic())
        audio = torch.from_numpy(soundfile.read(path, dtype="float32", always_2d=True)[0].T)
        size = job["frames"] * 2048
        audio = torch.nn.functional.pad(audio[:, :size], (0, max(size - audio.shape[1], 0)))
        stock.encode(model, audio[None].to(device))
    marks.append(time.monotonic())
    rest = marks[2:]
    return {"clips_s": (len(rest) - 1) / (rest[-1] - rest[0]), "peak": peak(torch)}


def peak(torch: Any) -> int:
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0


def render_ours(job: Row) -> Row:
    import render
    import torch
    from sao.rendering import sampling
    from sao.rendering.clips import Clip, write_clips

    if job["precision"] != "fp32":
        sampling.COMPILED_FROM = 0

    marks: list[float] = []

    def clock(items: Iterable, *_: object, **__: object) -> Iterator:
        marks.append(time.monotonic())
        for item in items:
            yield item
            marks.append(time.monotonic())

    render.progress = clock
    output, files = Path(job["output"]), job["files"]
    clips = [
        Clip(f"p{n}", "prompts", f"Noise number {n} in a hall", job["seconds"], n, SAMPLING["cfg_scale"], None)
        for n in range(job["count"])
    ]
    write_clips(output / "clips.csv", clips)
    how = SAMPLING | {"steps": job["steps"], "sampler": "dpmpp-3m-sde", "negative_prompt": None, "apg_scale": 0}
    settings = {"loudness": None, "format": "wav24", "sampling": how, "train_seconds": job["seconds"]}
    settings["precision"] = job["precision"]
    options = {
        "run": "bench", "code": "bench", "weights": files["model"] + "/model.safetensors", "weights-digest": files["model_digest"],
        "model": files["model"], "model-digest": files["model_digest"], "clips": output / "clips.csv",
        "settings": json.dumps(settings), "threads": 6, "batch-size": job["together"], "output": output / "out",
        "table": output / "out.csv",
    }  # fmt: skip
    sys.argv = ["render.py", *(str(part) for key, value in options.items() for part in (f"--{key}", value))]
    render.main()
    rates = {"audio_s": job["count"] * job["seconds"] / (marks[-1] - marks[0])}
    if job["count"] > job["together"]:
        later = marks[job["together"] :]  # from the end of the first batch
        rates["later_s"] = (len(later) - 1) * job["seconds"] / (later[-1] - later[0])
    kept = Path(job["folder"], "renders", job["precision"])
    shutil.copytree(output / "out", kept)
    return rates | {"peak": peak(torch)} | ({"difference": difference(kept)} if job["precision"] != "fp16" else {})


def difference(renders: Path) -> float:
    """The mean over renders of the norm of what those in fp16 differ by, as a share of the norm."""
    import numpy as np
    import soundfile

    shares = []
    for path in sorted(renders.glob("*.wav")):
        ours, half = (soundfile.read(each)[0] for each in (path, renders.with_name("fp16") / path.name))
        shares.append(np.linalg.norm(half - ours) / np.linalg.norm(ours))
    return float(np.mean(shares))


def render_theirs(job: Row) -> Row:
    import torch
    from sao.models.build import load_model
    from sao.models.device import this_device

    model = load_model(job["config"], *weights(job))
    device = this_device().kind
    model.to(device).eval().requires_grad_(False)
    options = SAMPLING | {"steps": job["steps"]}

    def rendered(seed: int, **changes: Any) -> None:
        prompt, window = f"Noise number {seed} in a hall", job["frames"] * 2048
        stock.render(model, prompt, job["seconds"], seed, window, options | changes, device).cpu()

    rendered(0, steps=3)  # finds its kernels
    start = time.monotonic()
    for seed in range(job["count"]):
        rendered(seed)
    return {"audio_s": job["count"] * job["seconds"] / (time.monotonic() - start), "peak": peak(torch)}


# Running them.


class Apart:
    """A part in a process of its own. It forks from this one, which has imported everything but has no device yet."""

    def __init__(self, function: Function, job: Row, limit: float) -> None:
        context = multiprocessing.get_context("fork")
        self.folder = tempfile.TemporaryDirectory(dir=job["folder"])
        self.limit, self.start = limit, time.monotonic()
        self.here, there = context.Pipe(duplex=False)
        job = job | {"output": self.folder.name}

        def work() -> None:
            with tempfile.TemporaryFile("w+") as said:
                os.dup2(said.fileno(), 1)
                os.dup2(said.fileno(), 2)
                try:
                    there.send(function(job))
                except BaseException:  # noqa: BLE001 - whatever ends a part, its line says so
                    said.seek(0)
                    there.send({"error": traceback.format_exc()[-1500:] + said.read()[-1500:]})
                there.close()
                os._exit(0)

        self.process = context.Process(target=work)
        self.process.start()
        there.close()

    def result(self) -> Row:
        """What it measured, when it has ended; `error` says what went wrong."""
        result: Row = {"error": f"not done after {self.limit:.0f} s"}
        with contextlib.suppress(EOFError):
            if self.here.poll(max(self.start + self.limit - time.monotonic(), 0)):
                result = self.here.recv()
        if self.process.is_alive() and "error" in result:
            self.process.kill()
        self.process.join()
        self.folder.cleanup()
        return result | {"wall": time.monotonic() - self.start}


class Report:
    """Prints a line as soon as a part has ended, and adds it to a file of JSON lines."""

    def __init__(self, path: Path | None) -> None:
        self.path, self.rows = path, []
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("")

    def add(self, part: str, what: str, row: Row) -> Row:
        self.rows.append({"part": part, "what": what} | row)
        if self.path:
            with self.path.open("a") as file:
                file.write(json.dumps(self.rows[-1]) + "\n")
        told = "  ".join(filter(None, (say(row) for say in SAYING)))
        print(f"{part:9} {what:58} {row.get('error') or told}  [{row.get('wall', 0):.0f} s]", flush=True)
        return row


def number(form: str, key: str, scale: float = 1) -> Callable[[Row], str]:
    return lambda row: form.format(row[key] / scale) if row.get(key) is not None else ""


SAYING = [
    lambda row: f"{row['name']}, driver {row['driver']}, torch {row['torch']}" if "name" in row else "",
    number("matmul {:.0f} TFLOP/s", "matmul", 1e12),
    number("copy {:.2f} TB/s", "copy", 1e12),
    number("{:.2f} TFLOP a clip", "flops", 1e12),
    number("{:.2f} clips/s", "clips_s"),
    number("MFU {:.1%}", "mfu"),
    number("{:.1f} s of audio/s", "audio_s"),
    number("{:.1f} from the second batch on", "later_s"),
    number("fp16 differs by {:.2%}", "difference"),
    number("peak {:.2f} GB", "peak", 1e9),
    number("estimate {:.2f} GB", "estimate", 1e9),
    number("{:.0f} kernels", "kernels"),
    number("{:.0f} syncs", "syncs"),
    number("{:.0f} reads", "reads"),
    lambda row: "losses " + ", ".join(f"{loss:.4f}" for loss in row["losses"]) if "losses" in row else "",
    number("beside the steps {:.1f} s", "around_s"),
    lambda row: ", ".join(f"{name} {seconds:.1f} s" for name, seconds in row.get("phases", {}).items()),
]
PARTS = ("train", "encode", "render", "memory", "precision", "devices")
ADAPTER = {"rank": 16, "alpha": 16, "target_modules": ["to_q", "to_kv", "to_qkv", "to_out"], "base_precision": "bf16"}
LORA = {"method": "lora", "adapter": ADAPTER}
DORA = ADAPTER | {"target_modules": ["to_q", "to_kv", "to_qkv"]}  # `to_out` is zero in a model of random weights
THEIR_LORA = {"rank": 16, "alpha": 16, "adapter_type": "lora", "include": ADAPTER["target_modules"]}


@dataclass(frozen=True)
class Size:
    """How much is made and measured."""

    config: Row
    windows: tuple[float, ...]  # s
    clips: int
    batch: int
    workers: int
    encoder_layers: int
    warmup: int  # steps
    steps: int
    sampling_steps: int
    loss_steps: int
    compile: bool


def size_of(name: str) -> Size:
    if name == "full":
        return Size(made.full_config(), (30.0, 47.0), 16, 8, 6, 12, 6, 20, 100, 100, True)
    return Size(made.micro_config(), (2.0,), 4, 2, 1, 1, 1, 2, 3, 4, False)


def sure(row: Row) -> Row:
    if "error" in row:
        sys.exit("nothing more can be measured without this")
    return row


class Benchmark:
    def __init__(
        self, size: Size, folder: Path, report: Report, traces: Path | None, limit: float, rows: str = ""
    ) -> None:
        self.size, self.folder, self.report, self.traces, self.limit = size, folder, report, traces, limit
        self.rows = rows
        self.job: Row = {"folder": str(folder), "config": size.config, "windows": size.windows, "number": size.clips}
        self.job |= {"workers": size.workers, "encoder_layers": size.encoder_layers, "batch": size.batch, "tokens": 20}
        self.job |= {"warmup": size.warmup, "steps": size.steps}

    def prepare(self) -> None:
        """Measure the card, and make the model and the clips. Without them there is nothing to measure."""
        found = self.needed("card", "", card)
        self.rate, self.together = found["matmul"], found["memory"] is None or found["memory"] >= TOGETHER
        from sao.models.config import window_frames

        self.frames = {seconds: window_frames(self.size.config, seconds) for seconds in self.size.windows}
        counts = {
            s: self.started("card", f"a clip of {s:g} s", flops, frames=self.frames[s]) for s in self.size.windows
        }
        self.needed("made", "model and clips", material)
        self.flops = {seconds: sure(finished())["flops"] for seconds, finished in counts.items()}

    def needed(self, part: str, what: str, function: Function) -> Row:
        return sure(self.run(part, what, function))

    def run(self, part: str, what: str, function: Function, seconds: float | None = None, **more: Any) -> Row:
        return self.started(part, what, function, seconds, **more)()

    def started(
        self, part: str, what: str, function: Function, seconds: float | None = None, **more: Any
    ) -> Callable[[], Row]:
        """Start a row. The function that is returned waits for it, and reports it."""
        described = f"{what}, {seconds:g} s" if seconds else what
        if part in PARTS and not re.search(self.rows, described):
            return dict
        job = self.job | (self.clips(seconds) if seconds else {}) | more
        if self.traces:
            job["trace"] = str(self.traces / f"{part}_{what}.txt".replace(" ", "_").replace(",", ""))
        process = Apart(function, job, self.limit)

        def finished() -> Row:
            row = process.result()
            if "step_s" in row:
                row["mfu"] = row["clips_s"] * self.flops[seconds] / self.rate
            if part == "memory":  # beside others
                row = {key: value for key, value in row.items() if key not in ("clips_s", "step_s", "mfu")}
            return self.report.add(part, described, row)

        return finished

    def all_of(self, part: str, function: Function, rows: dict[str, Row]) -> None:
        """Run the rows of a part, by what they are, at the same time if the card holds them."""
        waiting = [
            partial(self.started, part, what, function, self.size.windows[0], **row) for what, row in rows.items()
        ]
        if self.together:
            waiting = [start() for start in waiting]
            for finished in waiting:
                finished()
        else:
            for start in waiting:
                start()()

    def clips(self, seconds: float) -> Row:
        """What the parts need to know of the clips of a window."""
        clips = self.folder / f"{seconds:g}s"
        files = {"model": str(self.folder / "model"), "model_digest": str(self.folder / "model.sha256")}
        files |= {"datasets": str(clips / "datasets"), "sounds": [str(clips / "latents.json")]}
        files["captions"] = str(clips / "captions.safetensors")
        return {"files": files, "seconds": seconds, "frames": self.frames[seconds], "clips": str(clips)}

    def settings(self, **changes: Any) -> Row:
        usual = {"batch_size": self.size.batch, "learning_rate": 5e-5, "threads": 4, "precision": "bf16-mixed"}
        return usual | {"recompute_activations": False, "compile": self.size.compile} | changes

    def train(self) -> None:
        few = {"steps": min(5, self.size.steps), "warmup": min(2, self.size.warmup)}
        batch, first = self.size.batch, self.size.windows[0]
        for seconds in self.size.windows:
            audio, latents = (
                str(self.folder / f"{seconds:g}s" / name) for name in ("audio.json", "datasets/train.json")
            )
            self.run("train", f"ours, full, batch {batch}", ours, seconds, changes=self.settings())
            self.run("train", f"stock, full, from audio, batch {batch}", theirs, seconds, data=audio, **few)
            if seconds == first:
                self.run("train", f"stock, full, from latents, batch {batch}", theirs, seconds, data=latents, **few)
                twice = self.settings(batch_size=2 * batch)
                self.run("train", f"ours, full, batch {2 * batch}", ours, seconds, changes=twice)
                self.run("train", f"ours, lora, batch {batch}", ours, seconds, changes=self.settings(**LORA))
                more = {"data": latents, "lora": THEIR_LORA}
                self.run("train", f"stock, lora, from latents, batch {batch}", theirs, seconds, **more, **few)

    def encode(self) -> None:
        self.run("encode", "ours, compiled", encode_ours, self.size.windows[0])
        self.run("encode", "stock", encode_theirs, self.size.windows[0])

    def render(self) -> None:
        steps, seconds = self.size.sampling_steps, self.size.windows[0]
        clips = self.size.clips
        for precision, count in (("fp16", 2 * clips), ("fp32", clips // 8 or 1)):
            more = {"steps": steps, "count": count, "precision": precision, "together": clips}
            self.run("render", f"ours, {precision}, {count} clips, {steps} steps", render_ours, seconds, **more)
        self.run("render", f"stock, {steps} steps", render_theirs, seconds, steps=steps, count=1)

    def memory(self) -> None:
        few = {"steps": min(3, self.size.steps), "warmup": 1}
        eager = self.settings(compile=False)
        alone = eager | {"batch_size": 1, "recompute_activations": True}
        saved = "full, bf16-mixed, moving average, batch 1"
        rows = {
            saved: alone | {"ema": True},
            "full, bf16-mixed, batch 1": alone | {"ema": False},
            "full, bf16-true, batch 1": alone | {"precision": "bf16-true", "ema": False},
            "lora, rank 16, base fp32, batch 1": alone | LORA | {"adapter": ADAPTER | {"base_precision": "fp32"}},
            "lora, rank 16, base bf16, batch 1": alone | LORA,
            "dora, rank 16, base bf16, batch 1": alone | {"method": "dora", "adapter": DORA},
            f"full, bf16-mixed, not compiled, batch {self.size.batch}": eager,
        }
        self.all_of(
            "memory", ours, {what: {"changes": changes, "save": what == saved} | few for what, changes in rows.items()}
        )

    def precision(self) -> None:
        steps = self.size.loss_steps
        changes = self.settings(ema=False, compile=False, batch_size=2)
        self.all_of(
            "precision",
            losses,
            {
                f"{precision}, {steps} steps": {"changes": changes | {"precision": precision}, "steps": steps}
                for precision in ("32-true", "bf16-mixed", "16-mixed", "bf16-true")
            },
        )

    def devices(self) -> None:
        """Two processes, where there are two cards."""
        import torch

        if torch.cuda.device_count() > 1:
            changes = self.settings(devices=2)
            self.run("devices", f"ours, full, 2 × {self.size.batch}", ours, self.size.windows[0], changes=changes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--size", choices=["full", "micro"], default="full")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument(
        "--rows", default="", help="measure only the rows whose description this regular expression finds"
    )
    parser.add_argument("--folder", type=Path, help="where to work (default: the system's temporary folder)")
    parser.add_argument("--output", type=Path, help="also write the results there, as JSON lines")
    parser.add_argument("--traces", type=Path, help="also write to this folder where the time of a step goes")
    parser.add_argument("--limit", type=float, default=120, help="s that a part may take")
    args = parser.parse_args()

    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # a process that has asked CUDA itself cannot be forked
    if args.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if args.traces:
        args.traces.mkdir(parents=True, exist_ok=True)
    if args.folder:
        args.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        made.use_hub(Path(folder, "model/hub"))
        # Every part forks from here. Not so the text encoder: with it comes torchao, which asks for the GPU.
        import sao.training.trainer
        import train  # noqa: F401
        from transformers import AutoTokenizer  # noqa: F401

        if args.device == "cpu":
            import lightning_fabric  # noqa: F401
            import peft  # noqa: F401
            import sao.rendering.sampling  # noqa: F401
            from stable_audio_tools.inference import generation  # noqa: F401
            from transformers import T5EncoderModel  # noqa: F401

            stock.import_training()

        benchmark = Benchmark(size_of(args.size), Path(folder), Report(args.output), args.traces, args.limit, args.rows)
        benchmark.prepare()
        for part in args.only:
            getattr(benchmark, part)()


if __name__ == "__main__":
    main()
