"""Clips a second of training, against the loop of stable-audio-tools; what legs and the cache of prompts cost or bring.

    uv run python benchmarks/training_throughput.py  # the demo's model and clips
    uv run python benchmarks/training_throughput.py --model full --threads 8 --workers 4 --stock-workers 8  # on a GPU
    uv run python benchmarks/training_throughput.py --what legs
    uv run python benchmarks/training_throughput.py --what prompts

`--what throughput` runs in turn, `--rounds` times each, every run in a process of its own:

- stock: what stable-audio-tools' train.py does with raw audio: its model, its training wrapper, its SampleDataset in
  worker processes, the autoencoder in every step, activations recomputed, Lightning's Trainer in 16-mixed (on a CPU in
  32-true). Without logger, progress bar, checkpoints and demos.
- ours: scripts/train.py as the graph calls it, from latents; in bf16-mixed (on a CPU in 32-true), activations kept
  where they fit.

Model, clips, window, batch, optimiser and schedule are the same. The clock runs from the start of the first step after
the warm-up to the start of the last: no start, no validation, no saving. CPU time is that of the process and its
workers; with `--threads 1` it hardly depends on what else the machine does. `--quiet CORES` waits until others use less
than that, and repeats a run that they disturbed.

`--what legs` takes the default run, of `--steps` steps, in one leg and in two. `--what prompts` trains with and without
the cache of encoded prompts.

The demo's latents have to be there: `uv run snakemake --cores all results/samples`, or the two targets
`results/latents/demo/demo/{development,validation}/0001-of-0001.json`. `--model full` makes all it needs: random
weights, noise for audio, a random text encoder, 6 GB in `--folder`.
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

import psutil
import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))
Job = dict[str, Any]
MATMUL = 8192  # rows and columns of the matrices that a GPU's rate is measured with


# What runs in a process of its own. A job is a JSON object; so is what comes back.


class Clock:
    """The time between the starts of two steps, counted from 0, and when each step began."""

    def __init__(self, first: int, last: int) -> None:
        self.ends, self.marks, self.starts = (first, last), [], []

    def tick(self) -> None:
        if len(self.starts) in self.ends:
            import torch

            if torch.cuda.is_available():
                torch.cuda.synchronize()
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
        import torch

        first, last = self.ends
        seconds, mine, others = (after - before for before, after in zip(*self.marks, strict=True))
        on_gpu = torch.cuda.is_available()
        # Not `ru_maxrss`, which a process inherits.
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        peak = torch.cuda.max_memory_allocated() if on_gpu else int(status["VmHWM"].split()[0]) * 1024
        clips = batch * (last - first)
        rates = {"steps_s": (last - first) / seconds, "clips_s": clips / seconds, "cpu_clip": mine / clips}
        return rates | {"peak": peak, "gpu": on_gpu, "others": others / seconds}


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


def stock(job: Job) -> Job:
    """The loop of stable-audio-tools, driven through its library."""
    from sao.models.build import build, load_weights

    config = trained_config(job)
    model = build(config, Path(job["model"], "hub"))
    load_weights(model, Path(job["model"], "model.safetensors"))
    import pytorch_lightning
    import soundfile
    import torch
    import torchaudio
    from sao.training.schedule import make_scheduler
    from stable_audio_tools.data import dataset
    from stable_audio_tools.training import create_training_wrapper_from_config, diffusion

    torch.set_num_threads(job["threads"])

    def load_file(self: Any, filename: str) -> torch.Tensor:
        """Its own needs FFmpeg's libraries."""
        data, rate = soundfile.read(filename, dtype="float32", always_2d=True)
        audio = torch.from_numpy(data.T)
        return audio if rate == self.sr else torchaudio.transforms.Resample(rate, self.sr)(audio)

    crop = dataset.PadCrop_Normalized_T.__call__

    def pad_crop(self: Any, audio: torch.Tensor) -> tuple:
        """The training step takes `padding_mask[0]`, and fails at the mask itself, which its own gives."""
        *found, mask = crop(self, audio)
        return *found, [mask]

    dataset.SampleDataset.load_file, dataset.PadCrop_Normalized_T.__call__ = load_file, pad_crop
    # Its InverseLR cannot be made with this torch; this is the same schedule.
    diffusion.create_scheduler_from_config = lambda _, optimizer: make_scheduler(config["training"], optimizer)

    clock = Clock(job["warmup"], job["warmup"] + job["steps"])

    class Ticks(pytorch_lightning.Callback):
        def on_train_batch_start(self, *_: object) -> None:
            clock.tick()

    data = json.loads(Path(job["audio"]).read_text())
    # Listed until no epoch ends within the run: a new one would wait for its first batch.
    clips = sum(len(list(Path(entry["path"]).glob("*.wav"))) for entry in data["datasets"])
    data["datasets"] *= -(-(clock.ends[1] + 2) * job["batch"] // clips)
    loader = dataset.create_dataloader_from_config(
        data,
        batch_size=job["batch"],
        sample_size=job["frames"] * config["model"]["pretransform"]["config"]["downsampling_ratio"],
        sample_rate=config["sample_rate"],
        audio_channels=config["audio_channels"],
        num_workers=job["stock_workers"],
    )
    on_gpu = torch.cuda.is_available()
    trainer = pytorch_lightning.Trainer(
        accelerator="gpu" if on_gpu else "cpu",
        devices=1,
        precision="16-mixed" if on_gpu else "32-true",
        max_steps=clock.ends[1] + 1,
        callbacks=[Ticks()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(create_training_wrapper_from_config(config, model), loader)
    return clock.result(job["batch"])


def ours(job: Job) -> Job:
    """scripts/train.py, its progress bar replaced by a clock."""
    import train

    use_hub(Path(job["model"], "hub"))
    from sao.training import prepare, trainer

    if not job["cache"]:
        prepare.PromptCache = lambda encoder: encoder
    clock = Clock(job["warmup"], job["warmup"] + job["steps"])
    trainer.progress = clock.over
    end = clock.ends[1] + 1  # the last step validates
    sys.argv = command(job, f"step-{end:08d}", running={"validate_every": end}, settings=gpu_settings(job))
    train.main()
    return clock.result(job["batch"])


def leg(job: Job) -> Job:
    """One leg of scripts/train.py; the moments between its phases."""
    shutil.rmtree(Path(job["output"], job["leg"]), ignore_errors=True)  # of a run that was disturbed
    use_hub(Path(job["model"], "hub"))
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
    sys.argv = command(job, job["leg"], running={"validate_every": job["validate_every"]}, resume=job["resume"])
    train.main()
    marks["saving"] = moment()
    return {"marks": marks, "steps": clock.steps()}


def clip_flops(job: Job) -> Job:
    """FLOPs of a clip, forward and backward without recomputation, the frozen text encoder left out."""
    from sao.models.build import build, load_weights

    config = trained_config(job)
    model = build(config, Path(job["model"], "hub"))
    load_weights(model, Path(job["model"], "model.safetensors"))
    import torch
    from sao.training.dataset import Clips, TrainingClips, collate
    from sao.training.objective import Objective
    from sao.training.prepare import prepare
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    device = "cuda" if torch.cuda.is_available() else "cpu"
    prepare(model, False, False)
    objective = Objective(model, config["training"]).to(device)
    clips = Clips(Path(job["datasets"], "train.json"), config)
    batch = collate([TrainingClips(clips, "first", 0, config["training"], False)[0]])
    batch = {key: value.to(device) if isinstance(value, torch.Tensor) else value for key, value in batch.items()}
    with torch.no_grad():
        objective.conditioner(batch["info"], device)  # the prompt is encoded, and kept
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:  # other kernels recompute
        objective(batch).mean().backward()
    return {"flops": counter.get_total_flops()}


def matmul_rate(_: Job) -> Job:
    """FLOPs a second of a large matmul in bfloat16."""
    import torch

    on_gpu = torch.cuda.is_available()
    size, times = MATMUL if on_gpu else MATMUL // 8, 50
    a, b = (torch.randn(size, size, device="cuda" if on_gpu else "cpu", dtype=torch.bfloat16) for _ in range(2))
    for _ in range(2):  # the first time warms up
        start = time.perf_counter()
        for _ in range(times):
            a @ b
        if on_gpu:
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
    return {"rate": times * 2 * size**3 / seconds}


def make_full(job: Job) -> Job:
    """A model of Stable Audio Open 1.0's architecture with random weights, clips of noise, and latents of noise."""
    folder, config = Path(job["folder"]), full_config(job["depth"])
    use_hub(folder / "model/hub")
    import torch
    from encode import summarise
    from safetensors.torch import save_file
    from sao.base.files import sha256, write_json
    from sao.base.names import write_digests
    from sao.models.build import build
    from transformers import T5Config, T5EncoderModel

    hub, revision = folder / "model/hub/models--t5-base", 40 * "0"
    encoder = T5Config(vocab_size=32128, d_model=768, d_ff=3072, d_kv=64, num_layers=12, num_heads=12)
    T5EncoderModel(encoder).half().save_pretrained(hub / "snapshots" / revision)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(ROOT / "resources/demo/base_model/text_encoder" / name, hub / "snapshots" / revision)
    (hub / "refs").mkdir()
    (hub / "refs/main").write_text(revision)
    write_json(folder / "model/model_config.json", config)
    torch.manual_seed(0)
    state = build(config, folder / "model/hub").state_dict()
    save_file({key: value.clone().contiguous() for key, value in state.items()}, folder / "model/model.safetensors")

    frames = make_clips(folder, config, 2 * job["batch"], job["seconds"])
    # What vouches for them, as the rules write it.
    for part, listing in (("model", "model/checksums.sha256"), ("datasets", "datasets.sha256")):
        write_digests(folder / listing, folder / part, sorted(p for p in (folder / part).rglob("*") if p.is_file()))
    summary = summarise(folder / "latents", 2 * job["batch"])
    write_json(folder / "latents.json", {"base_model": sha256(folder / "model/checksums.sha256")} | summary)
    return {"frames": frames}


def make_clips(folder: Path, config: Job, count: int, seconds: float) -> int:
    """Clips of noise as audio and as latents, with the dataset configs of both; the length of a window, in frames."""
    import numpy as np
    import pandas as pd
    import soundfile
    from dataset_configs import write_hook
    from sao.base.files import write_json
    from sao.base.names import clip_id
    from sao.models.autoencoder import clip_facts
    from sao.models.config import window_frames

    rng, rate = np.random.default_rng(0), config["sample_rate"]
    samples, frames = int(seconds * rate), window_frames(config, seconds)
    names = [f"noise {number}.wav" for number in range(count)]
    ids = {name: clip_id("noise", name) for name in names}
    table = pd.DataFrame({"file_name": names, "clip_id": list(ids.values())})
    table["caption_1"] = [f"Noise number {name[6:-4]} hisses without end in a large empty hall." for name in names]
    for made in ("audio", "latents"):
        (folder / made).mkdir()
    for name, clip in ids.items():
        soundfile.write(folder / "audio" / name, 0.1 * rng.standard_normal((samples, 2)), rate, subtype="PCM_16")
        for end, scale in ((".npy", 1), (".std", 0.1)):
            noise = rng.standard_normal((64, frames), dtype=np.float32)
            with (folder / "latents" / f"{clip}{end}").open("wb") as handle:
                np.save(handle, scale * np.abs(noise) if end == ".std" else noise)
        write_json(folder / "latents" / f"{clip}.json", {"clip_id": clip} | clip_facts(samples, config, frames))

    write_hook(folder / "audio_hook", "file_name", table, [])
    entry = {"id": "noise", "path": f"{folder}/audio", "custom_metadata_module": f"{folder}/audio_hook/metadata.py"}
    write_json(folder / "audio.json", {"dataset_type": "audio_dir", "datasets": [entry], "random_crop": False})
    for role in ("train", "validation"):
        here, used = folder / "datasets" / role, names if role == "train" else names[:1]
        write_hook(here, "clip_id", table[table.file_name.isin(used)], [])
        (here / "filelist.txt").write_text("".join(f"../../latents/{ids[name]}.npy\n" for name in used))
        entry = {"id": role, "path": str(here), "custom_metadata_module": f"{here}/metadata.py"}
        dataset = {"dataset_type": "pre_encoded", "datasets": [entry], "latent_crop_length": frames}
        write_json(folder / f"datasets/{role}.json", dataset | {"random_crop": False, "drop_last": role == "train"})
    return frames


def use_hub(hub: Path) -> None:
    """Look for text encoders there and nowhere else; before anything imports huggingface_hub."""
    os.environ |= {"HF_HUB_CACHE": str(hub.resolve()), "HF_HUB_OFFLINE": "1"}


def trained_config(job: Job) -> Job:
    """The model's config, its `training` section as scripts/train.py makes it."""
    from sao.models.config import read_model_config, training_config

    config = read_model_config(Path(job["model"], "model_config.json"))
    config["training"] = training_config(config, job["settings"])
    return config


def gpu_settings(job: Job) -> Job:
    """What scripts/train.py does best with on a GPU: bfloat16, and activations kept if there is room for them."""
    import torch
    from sao.base.command import InputError
    from sao.training.memory import check, parameter_counts

    if not torch.cuda.is_available():
        return {}
    config = trained_config(job)
    chosen = {"precision": "bf16-mixed", "recompute_activations": False}
    settings = job["settings"] | chosen | {"ema": config["training"]["use_ema"]}
    counts = parameter_counts(Path(job["model"], "model.safetensors"))
    try:
        check(config, counts, settings, job["frames"], True, torch.cuda.mem_get_info()[0])
    except InputError:
        chosen["recompute_activations"] = True
    return chosen


def command(job: Job, name: str, running: Job, settings: Job | None = None, resume: str | None = None) -> list[str]:
    """The command line of scripts/train.py, as rule train has it."""
    words = ["train.py", "--run", "bench", "--leg", name, *(["--resume", resume] if resume else [])]
    words += ["--settings", json.dumps(job["settings"] | (settings or {}))]
    words += ["--running", json.dumps(job["running"] | running)]
    words += ["--dataset-configs", job["datasets"], "--datasets-digest", job["datasets"] + ".sha256"]
    words += ["--sound-digest", *job["sounds"], "--model", job["model"]]
    words += ["--model-digest", job["model_digest"], "--code", "bench", "--output", f"{job['output']}/{name}"]
    return [*words, "--log", f"{job['output']}/train.log"]


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


def full_config(depth: int) -> Job:
    """Stable Audio Open 1.0's model config."""
    shape = {"channels": 128, "c_mults": [1, 2, 4, 8, 16], "strides": [2, 4, 4, 8, 8], "use_snake": True}
    number = {"min_val": 0, "max_val": 512}
    return {
        "model_type": "diffusion_cond",
        "sample_size": 2097152,
        "sample_rate": 44100,
        "audio_channels": 2,
        "model": {
            "pretransform": {
                "type": "autoencoder",
                "iterate_batch": True,
                "config": {
                    "encoder": {"type": "oobleck", "config": {"in_channels": 2, "latent_dim": 128, **shape}},
                    "decoder": {
                        "type": "oobleck",
                        "config": {"out_channels": 2, "latent_dim": 64, "final_tanh": False, **shape},
                    },
                    "bottleneck": {"type": "vae"},
                    "latent_dim": 64,
                    "downsampling_ratio": 2048,
                    "io_channels": 2,
                },
            },
            "conditioning": {
                "configs": [
                    {"id": "prompt", "type": "t5", "config": {"t5_model_name": "t5-base", "max_length": 128}},
                    {"id": "seconds_start", "type": "number", "config": number},
                    {"id": "seconds_total", "type": "number", "config": number},
                ],
                "cond_dim": 768,
            },
            "diffusion": {
                "cross_attention_cond_ids": ["prompt", "seconds_start", "seconds_total"],
                "global_cond_ids": ["seconds_start", "seconds_total"],
                "type": "dit",
                "config": {
                    "io_channels": 64,
                    "embed_dim": 1536,
                    "depth": depth,
                    "num_heads": 24,
                    "cond_token_dim": 768,
                    "global_cond_dim": 1536,
                    "project_cond_tokens": False,
                    "transformer_type": "continuous_transformer",
                },
            },
            "io_channels": 64,
        },
        "training": {
            "use_ema": True,
            "optimizer_configs": {
                "diffusion": {
                    "optimizer": {
                        "type": "AdamW",
                        "config": {"lr": 5e-5, "betas": [0.9, 0.999], "weight_decay": 1e-3},
                    },
                    "scheduler": {
                        "type": "InverseLR",
                        "config": {"inv_gamma": 1000000, "power": 0.5, "warmup": 0.99},
                    },
                }
            },
        },
    }


def run_settings(changes: Job) -> Job:
    """Settings of config.yaml's run with changes, as rule train gives them to scripts/train.py."""
    from sao.data.corpora import resolve
    from sao.plan.plan import Plan

    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    config["runs"]["demo"] |= changes
    plan = Plan(resolve(config, [ROOT / "config.yaml"]))
    settings, running = plan.training.settings("demo"), plan.training.running("demo")
    return {"settings": settings, "running": running, "batch": settings["batch_size"], "threads": settings["threads"]}


def demo_job(args: argparse.Namespace, folder: Path) -> Job:
    """The default run, and the same clips as audio for the stock loop."""
    from dataset_configs import audio_datasets
    from sao.base.tables import read_table

    changes = {"batch_size": args.batch, "threads": args.threads}
    job = run_settings({key: value for key, value in changes.items() if value})
    datasets, model = "results/data/demo/dataset_configs/demo", "results/models/demo"
    sounds = [f"results/latents/demo/demo/{split}/0001-of-0001.json" for split in ("development", "validation")]
    if missing := [path for path in (f"{datasets}/train.json", *sounds) if not (ROOT / path).exists()]:
        sys.exit(f"missing: {missing[0]}: run `snakemake --cores all {' '.join(sounds)}` first")
    table = read_table(ROOT / "results/data/demo/splits/train.csv")
    hooks = folder / "hooks"
    entries = audio_datasets(hooks, hooks, table, {"development": "results/data/demo/audio/development"})
    (folder / "audio.json").write_text(
        json.dumps({"dataset_type": "audio_dir", "datasets": entries, "random_crop": False})
    )
    frames = json.loads((ROOT / datasets / "train.json").read_text())["latent_crop_length"]
    files = {"model": model, "model_digest": f"{model}/checksums.sha256", "datasets": datasets, "sounds": sounds}
    return job | files | {"audio": f"{folder}/audio.json", "frames": frames}


def full_job(args: argparse.Namespace, folder: Path) -> Job:
    job = run_settings({"batch_size": args.batch or 8, "learning_rate": 5e-5, "threads": args.threads or 2})
    job |= {"folder": str(folder), "seconds": args.seconds, "depth": args.depth, "quiet": None}
    made = apart(make_full, job)
    files = {"model": f"{folder}/model", "datasets": f"{folder}/datasets", "sounds": [f"{folder}/latents.json"]}
    return job | files | {"model_digest": f"{folder}/model/checksums.sha256", "audio": f"{folder}/audio.json"} | made


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
    results = alternate(rounds, {"stock": (stock, job), "ours": (ours, job)})
    print("         clips/s  CPU ms/clip  peak MB")
    clips, cpu, peak = (
        {n: median(found, key) for n, found in results.items()} for key in ("clips_s", "cpu_clip", "peak")
    )
    for name in results:
        print(f"{name:7}  {clips[name]:7.2f}  {1e3 * cpu[name]:11.2f}  {peak[name] / 1e6:7.0f}")
    print(f"ratio    {clips['ours'] / clips['stock']:7.2f}  {cpu['stock'] / cpu['ours']:11.2f}")
    if results["ours"][0]["gpu"]:
        flops = apart(clip_flops, job)["flops"]
        print(f"{flops / 1e12:.2f} TFLOP a clip")
        rate = apart(matmul_rate, job)["rate"]
        print(f"{rate / 1e12:.0f} TFLOP/s in a matmul")
        print("of which are used: " + ", ".join(f"{n} {each * flops / rate:.1%}" for n, each in clips.items()))


def prompts(job: Job, rounds: int) -> None:
    results = alternate(rounds, {"cache": (ours, job), "no cache": (ours, job | {"cache": False})})
    print("          steps/s  CPU ms/step")
    for name, found in results.items():
        print(f"{name:8}  {median(found, 'steps_s'):7.2f}  {1e3 * job['batch'] * median(found, 'cpu_clip'):11.1f}")
    with_it, without = results.values()
    rate, cpu = (median(with_it, key) / median(without, key) for key in ("steps_s", "cpu_clip"))
    print(f"ratio     {rate:7.2f}  {1 / cpu:11.2f}")


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
    parser.add_argument("--what", choices=["throughput", "legs", "prompts"], default="throughput")
    parser.add_argument("--model", choices=["demo", "full"], default="demo")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=60, help="steps measured; with `legs`, those of the run")
    parser.add_argument("--warmup", type=int, default=10, help="steps before the clock starts")
    parser.add_argument("--batch", type=int, help="default: that of config.yaml's run; 8 for the full model")
    parser.add_argument("--threads", type=int, help="of each process; default: that of config.yaml's run")
    parser.add_argument("--workers", type=int, default=0, help="worker processes that load data for ours")
    parser.add_argument("--stock-workers", type=int, default=1, help="those for stock, which needs one")
    parser.add_argument("--seconds", type=float, default=30, help="clips and window of the full model")
    parser.add_argument("--depth", type=int, default=24, help="blocks of the full model; fewer for a trial")
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
        job = demo_job(args, Path(folder)) if args.model == "demo" else full_job(args, Path(folder))
        job |= {"folder": folder, "steps": args.steps, "warmup": args.warmup, "quiet": args.quiet}
        job |= {"cache": True, "stock_workers": args.stock_workers}
        job["running"] |= {"workers": args.workers}
        if args.what == "legs":
            in_legs(job, args.rounds, args.steps)
        else:
            {"throughput": throughput, "prompts": prompts}[args.what](job, args.rounds)


if __name__ == "__main__":
    main()
