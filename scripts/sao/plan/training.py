"""The chapter of rules/training.smk: the inputs of a leg of a training, its settings, and the resources of its job."""

from __future__ import annotations

import contextlib
import json
import math
from pathlib import Path

from sao.base.command import InputError

from sao.base.names import shard_name
from sao.config.resolve import Config
from sao.config.settings import RunningSettings, TrainingSettings, pick
from sao.data.corpora import published_splits
from sao.data.mixing import per_epoch
from sao.plan.data import Data
from sao.plan.models import Models
from sao.plan.resources import MARGIN, START, STEP, grown, rows
from sao.plan.runs import Runs, leg_name, pattern
from sao.training.leg import passes

# A user may set these in an allocation made by hand. With them, srun would show each process one GPU, or refuse to start.
UNSET = ("NTASKS_PER_GPU", "GPUS_PER_TASK", "TRES_PER_TASK", "GPU_BIND")


class Training:
    def __init__(self, config: Config, runs: Runs, data: Data, models: Models) -> None:
        self.runs, self.data, self.models = runs, data, models
        self.walltime, self.scratch = config["cluster"]["walltime"], config["cluster"]["scratch"]

    def dataset_folder(self, run: str) -> str:
        """The folder of a run's dataset configs. Their digest lies beside it."""
        return self.data.dataset_folder(self.runs.corpus(run), self.runs.base_model(run))

    def dataset_digest(self, run: str) -> str:
        return f"{self.dataset_folder(run)}.sha256"

    def _splits(self, run: str) -> list[tuple[str, str]]:
        """`(corpus, published split)` of all that a run trains or validates on."""
        pairs = []
        for name in self.data.members(self.runs.corpus(run)):
            corpus = self.data.corpora[name]
            judged = corpus["evaluation"] if corpus["split"]["method"] != "column" else ()
            pairs += [(name, split) for split in published_splits(corpus) if split not in judged]
        return pairs

    def sounds(self, run: str) -> list[str]:
        """The folders of latents or of audio that a run trains from."""
        if not self.data.on_latents:
            return [self.data.audio(corpus, split) for corpus, split in self._splits(run)]
        return [path.removesuffix(".json") for path in self.sound_digests(run)]

    def sound_digests(self, run: str) -> list[str]:
        """The small files that hold the checksums of a run's latents or audio."""
        if not self.data.on_latents:
            return [self.data.facts(corpus, split) for corpus, split in self._splits(run)]
        folder, shards = f"results/latents/{self.runs.base_model(run)}", self.data.shards
        return [
            f"{folder}/{corpus}/{split}/{shard_name(shard, shards)}.json"
            for corpus, split in self._splits(run)
            for shard in range(shards)
        ]

    def captions(self, run: str) -> str:
        """The encoded captions of a run. Their summary lies beside them."""
        return f"results/encoded_captions/{self.runs.base_model(run)}/{self.runs.corpus(run)}.safetensors"

    def captions_digest(self, run: str) -> str:
        return self.captions(run).removesuffix("safetensors") + "json"

    # Rule train.

    def _before(self, run: str, leg: str, file: str) -> list[str]:
        """A file of the leg before this one, or nothing for the first leg."""
        before = self.runs.leg_before(run, leg)
        return [f"results/checkpoints/{run}/{before}/{file}"] if before else []

    def state_before(self, run: str, leg: str) -> list[str]:
        """The training state that a leg continues from, or nothing for the first leg."""
        return self._before(run, leg, "state.ckpt")

    def digest_before(self, run: str, leg: str) -> list[str]:
        """The file of checksums of the leg before, which vouches for its training state."""
        return self._before(run, leg, "checksums.sha256")

    def kept_states(self) -> str:
        """A pattern of the legs (`run/leg`) whose training state is kept.

        These are the last leg and the last full leg, from which a longer training continues; with `keep_states: all`, all.
        """
        kept = []
        for run, settings in self.runs.runs.items():
            unit, end, every = self.runs.length(run)
            kept += [f"{run}/{leg_name(unit, at)}" for at in (end, end // every * every)]
            kept += [f"{run}/{leg}" for leg in self.runs.legs(run) if settings["keep_states"] == "all"]
        return pattern(sorted(set(kept)))

    def removed_states(self) -> str:
        """A pattern of `run` in a path `run/leg`. It matches if the leg's state is removed once the next leg is complete."""
        return rf"(?={self.runs.legs_pattern()})(?!({self.kept_states()})/)[^/]+"

    def settings(self, run: str) -> TrainingSettings:
        return pick(TrainingSettings, self.runs.runs[run])

    def running(self, run: str) -> RunningSettings:
        return pick(RunningSettings, {**self.runs.runs[run], "scratch": self.scratch})

    def launcher(self, run: str) -> list[str]:
        """The command that starts the processes of a training in a SLURM job. Elsewhere Lightning starts them itself."""
        if self.runs.processes(run) == 1:
            return []
        settings = self.runs.runs[run]
        options = {
            "nodes": settings["num_nodes"],
            "ntasks": self.runs.processes(run),
            "ntasks-per-node": settings["devices"],
            "cpus-per-task": self.cpus_per_task(run),
            # In a job called `bash` or `interactive` Lightning would not look for the other processes.
            "job-name": "train",
        }
        unset = [part for name in UNSET for part in ("-u", f"SLURM_{name}")]
        return ["env", *unset, "srun", "--kill-on-bad-exit", *(f"--{key}={value}" for key, value in options.items())]

    # The resources of the job. On SLURM, every process has to see all GPUs that the job has on its node: from these,
    # Lightning takes the GPU with the process's local number. So no GPU is requested per task, and no task per GPU: then
    # each task would see only some of the GPUs.

    def threads(self, run: str) -> int:
        """The number of CPUs per node."""
        settings = self.runs.runs[run]
        return (settings["threads"] + settings["workers"]) * settings["devices"]

    def mb(self, run: str) -> int:
        return self.models.run_mb(run) * self.runs.runs[run]["devices"]

    def _gpus(self, run: str) -> int:
        """The number of GPUs per node."""
        return self.models.run_gpus(run) * self.runs.runs[run]["devices"]

    def nodes(self, run: str) -> int:
        return self.runs.runs[run]["num_nodes"]

    def gpu(self, run: str) -> int | None:
        """The number of GPUs in all, for a training on one node. SLURM may divide this number unevenly between nodes."""
        return self._gpus(run) if self.nodes(run) == 1 else None

    def gres(self, run: str) -> str | None:
        """The GPUs per node, for a training on several nodes."""
        gpus = self._gpus(run)
        return f"gpu:{gpus}" if self.nodes(run) > 1 and gpus else None

    def mpi(self, run: str) -> str | None:
        """`srun` if the job itself starts several processes with srun, one per device and node."""
        return "srun" if self.runs.processes(run) > 1 else None

    def tasks(self, run: str) -> int | None:
        """The number of tasks in all, for a training with one task per node on several nodes (see `tasks_per_node`)."""
        return self.nodes(run) if self.nodes(run) > 1 and self.runs.runs[run]["devices"] == 1 else None

    def tasks_per_node(self, run: str) -> int | None:
        """The number of tasks per node, without which SLURM may divide them unevenly. The executor does not accept 1."""
        devices = self.runs.runs[run]["devices"]
        return devices if devices > 1 else None

    def tasks_per_gpu(self, run: str) -> int | None:
        """0 for several processes, so that the executor requests nothing; for None it would request all tasks per GPU."""
        return 0 if self.runs.processes(run) > 1 else None

    def cpus_per_task(self, run: str) -> int | None:
        """The number of CPUs per process, for a training with several processes."""
        settings = self.runs.runs[run]
        return settings["threads"] + settings["workers"] if self.runs.processes(run) > 1 else None

    def leg_minutes(self, run: str, leg: str) -> float:
        """The time that a leg needs, with a margin."""
        return START + self.runs.leg_length(run, leg) * self._unit_minutes(run, leg.split("-")[0])

    def seconds_per_step(self, run: str) -> float:
        """The seconds per step: as configured, else the most that a leg with the same settings took, else a guess."""
        if (configured := self.runs.runs[run]["seconds_per_step"]) is not None:
            return configured
        settings, measured = self.settings(run), []
        for path in Path("results/checkpoints", run).glob("*/speed.json"):
            with contextlib.suppress(FileNotFoundError, ValueError):  # another process is removing or writing the file
                speed = json.loads(path.read_text(encoding="utf-8"))
                measured += [speed["seconds_per_step"]] if speed["settings"] == settings else []
        return max(filter(None, measured), default=STEP)

    def _unit_minutes(self, run: str, unit: str) -> float:
        """The time of a step or an epoch, with a margin."""
        settings = self.runs.runs[run]
        minutes = MARGIN / 60 * self.seconds_per_step(run)
        if unit == "epoch":
            weights = self.data.weights(settings["corpus"])
            tables = {name: Path(self.data.split_folder(name), "train.csv") for name in weights}
            # Unknown until the corpora are split. Snakemake asks again when the job is ready to run.
            count = sum(per_epoch(rows(path), weights[name]) for name, path in tables.items() if path.is_file())
            minutes *= math.ceil(count / (self.runs.processes(run) * settings["batch_size"] * passes(settings)))
        return minutes

    def check_walltime(self) -> None:
        """Raise InputError if a leg may take longer than `cluster.walltime`."""
        for run in self.runs.runs if self.walltime else ():
            unit, _, every = self.runs.length(run)
            needed = grown(self.leg_minutes(run, self.runs.legs(run)[0]))  # no leg is longer than the first
            if needed > self.walltime:
                fits = int(round((self.walltime - START) / self._unit_minutes(run, unit), 6))
                raise InputError(
                    f"config: runs.{run}: a leg of {every} {unit}s takes up to {needed} min (seconds_per_step, half as "
                    f"much again, and {START} min), more than cluster.walltime, {self.walltime} min: "
                    + (f"set checkpoint_every to {fits} or less" if fits > 0 else "raise walltime")
                    + ", or seconds_per_step to what was measured"
                )

    # Rules curves and export.

    def last_metrics(self, run: str) -> str:
        return f"results/checkpoints/{run}/{self.runs.last_leg(run)}/metrics.csv"

    def summaries(self, run: str) -> list[str]:
        """The summaries of a run's legs, in order."""
        return [f"results/checkpoints/{run}/{leg}/training.json" for leg in self.runs.legs(run)]

    def _exported(self, exported: str, file: str) -> list[str]:
        """A file of each leg that an export chooses from: the named leg (`demo/step-00000500`), the last leg, or all."""
        run, _, leg = exported.partition("/")
        legs = [leg] if leg else self.runs.legs(run)
        candidates = legs if self.runs.runs[run]["checkpoint"] == "best" else legs[-1:]
        return [f"results/checkpoints/{run}/{leg}/{file}" for leg in candidates]

    def exported_weights(self, exported: str) -> list[str]:
        return self._exported(exported, "weights")

    def exported_summaries(self, exported: str) -> list[str]:
        return self._exported(exported, "training.json")

    def exported_checksums(self, exported: str) -> list[str]:
        return self._exported(exported, "checksums.sha256")
