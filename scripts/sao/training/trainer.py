"""The training of one leg, from its data to its files. `Trainer.run` is all of it, in order.

Every process of a training runs it: each on its device, with its part of every batch. The first one speaks and writes.
"""

from __future__ import annotations

import contextlib
import math
import shutil
import signal
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from sao.base.command import InputError, about, is_first, log, output_to_log, progress

import torch

from sao.base.files import check_room, digest, size_text
from sao.models.build import load_trainable
from sao.models.config import read_model_config, training_config
from sao.models.device import this_device
from sao.training.average import MovingAverage
from sao.training.captions import EncodedCaptions
from sao.training.checks import check_batch, check_devices, finish_checking, start_checking
from sao.training.dataset import (
    VALIDATION_TIMESTEPS,
    Clips,
    ClipSet,
    Item,
    TrainingClips,
    ValidationClips,
    load,
    positions,
)
from sao.training.failures import explained
from sao.training.leg import Leg, least_batch, provenance
from sao.training.loggers import loggers
from sao.training.memory import adapter_parameters, check, parameter_counts, resolved, synchronises, total
from sao.training.metrics import Metrics, Row, Speed
from sao.training.objective import Objective
from sao.training.optimizer import make_optimizer, try_optimizer
from sao.training.prepare import compiled_graphs, compiles, make_trainable, trainable
from sao.training.processes import any_of, check_agreement, free_memory, seats, start_processes
from sao.training.results import write_leg, write_weights
from sao.training.schedule import check_schedule, make_scheduler
from sao.training.scratch import on_scratch
from sao.training.sharding import fill, gathered, split_states
from sao.training.state import State, changed_state, find_state, interrupted_state, write_state
from sao.training.update import Update

ROW_EVERY = 50  # steps between two rows of metrics.csv, at most
READ_EVERY = 10  # steps between two looks at what lies on the device, at most; each waits until the device is done


class Trainer:
    def __init__(self, leg: Leg) -> None:
        self.leg, self.run_name = leg, f"run {leg.run}"
        self.settings: dict[str, Any] = {**leg.settings, **leg.running}
        self.config = read_model_config(leg.model / "model_config.json")
        self.training = training_config(self.config, leg.settings)
        self.provenance = provenance(leg)
        self.identity = digest(self.provenance)[:16]
        self.signals: list[int] = []  # that asked the training to stop
        torch.set_num_threads(self.settings["threads"])

    def run(self) -> None:
        """Train from the furthest state there is to the end of the leg."""
        self.read_data()
        self.check_fit()
        self.load_model()
        self.choose_state()
        self.catch_signals()
        # Before there are other processes, which would wait for one that cannot log in.
        with self.loggers() as self.send_row, explained(self.leg.run):
            self.start_devices()
            self.resume()
            with (
                output_to_log(),
                self.clips_on_scratch(),
                self.training_batches() as batches,
            ):
                self.batches = self.speed.timed(batches)
                self.objective.train()
                self.speed.restart()
                began = time.monotonic()
                for step in self.steps():
                    self.take_step(step)
                    if self.row_is_due():
                        self.close_row()
                    if self.is_stopped():
                        self.pause()
                self.seconds = time.monotonic() - began
        self.finish()

    # What there is to learn, and whether it fits, before anything large is loaded.

    def read_data(self) -> None:
        encoded = EncodedCaptions(self.leg.captions)
        clips, held_out = (
            Clips(self.leg.dataset_configs / f"{role}.json", self.config, encoded) for role in ("train", "validation")
        )
        captions, seed, flip = (self.settings[key] for key in ("captions", "seed", "phase_flip"))
        self.clips = [clips, held_out]
        self.train_set = TrainingClips(clips, captions, seed, self.training, flip)
        self.validation_set = ValidationClips(held_out)
        self.corpora = sorted({clip.corpus for clip in held_out.clips} - {""})  # of a mixture
        self.end = self.leg.end(len(self.train_set))

    def check_fit(self) -> None:
        """Raise InputError where the settings cannot be trained with, here and on these clips."""
        leg, settings, (clips, _) = self.leg, self.settings, self.clips
        counts = parameter_counts(leg.model / "model.safetensors")
        sized = settings | {"ema": self.training["use_ema"]}
        with about(self.run_name):
            if this_device().is_gpu:
                check_devices(settings["devices"], this_device().count())
            self.optimizer_bytes = try_optimizer(self.training, settings)
            check_batch(len(self.train_set), least_batch(settings) * leg.processes)
            check_schedule(self.training, leg.last_end(len(self.train_set)))
            available = free_memory(settings["devices"])
            place = (clips.frames, clips.on_latents, available)
            found = resolved(self.config, counts, sized, *place)
            needed = total(check(self.config, counts, sized | found, *place))
        settings |= found
        adapted = adapter_parameters(counts, sized) if settings["method"] != "full" else 0
        log.info(
            "batch of %d (%d × %d devices × %d), activations %s, %d clips, %.4g steps an epoch, %.3g M parameters trained, "
            "about %s of memory",
            leg.items_per_step, settings["batch_size"], leg.processes, settings["accumulate"],
            "recomputed" if settings["recompute_activations"] else "kept", len(clips.clips),
            len(self.train_set) / leg.items_per_step, (adapted or counts["model"] + counts["conditioner"]) / 1e6,
            size_text(needed),
        )  # fmt: skip

    # The model, and the state that it goes on from.

    def load_model(self) -> None:
        """Build the base model with its weights, and choose the weights to train. Meanwhile files are hashed."""
        leg = self.leg
        # Most likely it is the state to go on from.
        self.resume_check = ThreadPoolExecutor(1).submit(changed_state, leg.resume) if leg.resume else None
        checks = start_checking(leg, self.clips)
        self.model = load_trainable(self.config, leg.model / "model.safetensors")
        finish_checking(checks)
        self.compiled = compiles(self.settings)
        self.trained = make_trainable(self.model, self.settings, self.compiled)
        if is_first():
            self.make_room()

    def make_room(self) -> None:
        """Remove the leftovers of a killed process. Raise InputError unless state and weights fit on the disk."""
        for stale in self.leg.output.glob(".*.part*"):
            shutil.rmtree(stale) if stale.is_dir() else stale.unlink()
        size = sum(weight.numel() * weight.element_size() for weight in self.trained.values())
        states = self.optimizer_bytes * sum(weight.numel() for weight in self.trained.values())
        copies = 3 if self.training["use_ema"] else 2  # in the state, of the moving average, in what is exported
        check_room(
            self.leg.output, copies * size + states, f"{self.run_name}: the training state and the weights of a leg"
        )

    def choose_state(self) -> None:
        """Find the furthest state that this leg can go on from; without one it begins with the base model."""
        found = find_state(self.leg.resume, self.leg.output, self.provenance, self.end, self.changed_state)
        self.came_from: Path | None = found[0] if found else None
        self.state: State | None = found[1] if found else None
        self.start = self.step = self.state["step"] if self.state else 0  # `step`: how many are done

    def changed_state(self, path: Path) -> str | None:
        return self.resume_check.result() if self.resume_check and path == self.leg.resume else changed_state(path)

    def catch_signals(self) -> None:
        """From here on, a signal stops the training at the end of the current step."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, _: self.signals.append(number))

    def loggers(self) -> contextlib.AbstractContextManager[Callable[[Row], None]]:
        return loggers(self.leg.run, self.settings, self.identity, self.leg.output.parent, self.start, self.corpora)

    def start_devices(self) -> None:
        """Start the processes of this node, where Lightning does, and give model and optimiser to the devices."""
        settings = self.settings
        with output_to_log():
            self.fabric = start_processes(settings)
            objective = Objective(self.model, self.training, settings["precision"])
            self.objective = self.fabric.setup_module(objective)
            self.trained = trainable(self.model)  # split weights are others than those that were loaded
            weights = list(self.trained.values())
            optimizer: Any = self.fabric.setup_optimizers(make_optimizer(self.training, settings, weights))
        self.optimizer = optimizer
        with about(self.run_name):
            check_agreement(self.fabric, settings)
        self.update = Update(self.fabric, self.objective, self.optimizer, weights, settings)
        self.scheduler = make_scheduler(self.training, optimizer.optimizer)
        dit = {key: weight for key, weight in self.trained.items() if key.startswith("model.")}
        self.average = MovingAverage(dit) if self.training["use_ema"] else None
        self.metrics = Metrics([], [], [], [], self.corpora)
        self.speed = Speed(self.leg.items_per_step)
        self.unread: list[torch.Tensor] = []  # `[loss, norm]` of each step since they were read
        self.newest = math.nan  # the loss that was read last
        if synchronises(settings):
            for line in seats(self.fabric.device):
                log.info("%s", line)

    def resume(self) -> None:
        """Restore everything that the next step depends on from the state."""
        if self.state is None:
            return
        with torch.no_grad():
            for key, weight in self.trained.items():
                fill(weight, self.state["weights"][key])
        self.optimizer.load_state_dict(split_states(self.state["optimizer"], list(self.trained.values())))
        self.scheduler.load_state_dict(self.state["scheduler"])
        self.update.scaler.load_state_dict(self.state["scaler"])
        if self.average:
            self.average.load_state_dict(self.state["average"])
        rows, losses, norms, speeds = (self.state[key] for key in ("rows", "losses", "norms", "speeds"))
        self.metrics = Metrics(rows, losses, norms, speeds, self.corpora)
        log.info("resuming at step %d of %d, from %s", self.start, self.end, self.came_from)

    def save(self, path: Path) -> None:
        """Write everything that the next step depends on."""
        self.read_losses()
        state: State = {
            "step": self.step,
            "provenance": self.provenance,
            "weights": self.trained,
            "average": self.average.state_dict() if self.average else None,
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "scaler": self.update.scaler.state_dict(),
            "rows": self.metrics.rows,
            "losses": self.metrics.losses,
            "norms": self.metrics.norms,
            "speeds": self.metrics.speeds,
        }
        first = self.fabric.is_global_zero
        whole = gathered(state, keep=first)
        if first:
            write_state(path, whole)
        self.fabric.barrier()

    # Training.

    def clips_on_scratch(self) -> contextlib.AbstractContextManager[None]:
        if not self.settings["scratch"]:
            return contextlib.nullcontext()
        return on_scratch(self.clips, self.identity, self.fabric.local_rank == 0, self.fabric.barrier)

    def training_batches(self) -> contextlib.closing[Generator[Item]]:
        """The batches of all steps of the leg, one after the other. To close them is to end the workers that read clips."""
        accumulate, batch = self.settings["accumulate"], self.settings["batch_size"]
        first, stop = self.start * accumulate, self.end * accumulate
        items = positions(first, stop, batch, self.fabric.global_rank, self.leg.processes)
        return contextlib.closing(self.load(self.train_set, items, self.settings["workers"]))

    def load(self, dataset: ClipSet, batches: list[list[int]], workers: int = 0) -> Generator[Item]:
        """The batches of a dataset, by the positions of their items, on the device."""
        with contextlib.closing(load(dataset, batches, workers, this_device().pins_memory)) as loaded:
            yield from map(self.fabric.to_device, loaded)

    def steps(self) -> Iterator[int]:
        """The steps of the leg, under a bar."""
        steps, label = range(self.start, self.end), f"training {self.leg.run}"
        return progress(steps, label, self.end, "steps", self.start, note=self.last_loss)

    def take_step(self, step: int) -> None:
        loss = self.update.backward(self.batches, step)
        if self.compiled and step == self.start:
            log.info("compiled %d graphs", compiled_graphs())
        self.unread.append(torch.stack([loss, self.update.clip().to(loss)]))
        self.update.apply(step)
        self.rate = self.learning_rate()
        self.scheduler.step()
        if self.average:
            self.average.update()
        self.step = step + 1
        self.speed.steps += 1
        if self.step % READ_EVERY == 0:
            self.read_losses()

    def learning_rate(self) -> float:
        return float(self.scheduler.get_last_lr()[0])

    def last_loss(self) -> str:
        """The loss of the last step, for people who watch: of this process alone, if the losses were not read since."""
        last = float(self.unread[-1][0]) if self.unread else self.newest
        return f"loss {last:.4f}"

    def read_losses(self) -> None:
        """Read the losses of the last steps, the means over all processes, all of which have to call it.

        Raises InputError at the first that is not finite. Steps may have followed it, but nothing of them is saved.
        """
        if not self.unread:
            return
        mean: Any = self.fabric.all_reduce(torch.stack(self.unread))
        self.unread, first = [], self.step - len(mean) + 1
        for step, (loss, norm) in enumerate(mean.tolist(), first):
            self.assert_finite("loss", loss, step)
            if not self.update.scaler.is_enabled():  # which passes over a step that overflows
                self.assert_finite("norm of the gradient", norm, step)
            self.metrics.losses.append(loss)
            self.metrics.norms.append(norm)
            self.newest = loss

    def assert_finite(self, what: str, number: float, step: int) -> None:
        """Stop a training that has diverged, before anything of it is saved."""
        if math.isfinite(number):
            return
        if not self.fabric.is_global_zero:  # the first process says so
            raise SystemExit(1)
        raise InputError(
            f"{self.run_name}: the {what} is {number} at step {step}; the last good state "
            f"({self.came_from or 'none: this is the first leg'}) stays: lower learning_rate, or set gradient_clip"
        )

    def validation_is_due(self) -> bool:
        return self.step % self.settings["validate_every"] == 0 or self.step == self.end

    def row_is_due(self) -> bool:
        return self.validation_is_due() or self.step % min(ROW_EVERY, self.settings["validate_every"]) == 0

    def close_row(self) -> None:
        """End a row of the metrics, and send it to the run's loggers."""
        self.read_losses()
        speed = self.speed.measured()
        validation = self.validate() if self.validation_is_due() else None
        row = self.metrics.close_row(self.step, self.rate, validation, speed)
        if row:
            self.send_row(row)
            self.warn_of_a_jump()
        self.speed.restart()

    def warn_of_a_jump(self) -> None:
        said = self.metrics.jump()
        if said and self.fabric.is_global_zero:
            log.warning("warning: %s: %s: lower learning_rate, or set gradient_clip", self.run_name, said)

    def validate(self) -> Row:
        """Mean loss over all validation clips, of the weights that are exported: of all timesteps, of each, of each corpus."""
        if self.average:
            self.average.swap()
        batch, rank = self.settings["batch_size"], self.fabric.global_rank
        mine = range(rank, len(self.validation_set), self.leg.processes)
        batches = [list(mine[at : at + batch]) for at in range(0, len(mine), batch)]
        # Split weights are exchanged in each pass, so every process takes as many; what is too much counts nothing.
        most = math.ceil(math.ceil(len(self.validation_set) / self.leg.processes) / batch)
        batches += [[] for _ in range(most - len(batches))]
        # Blocks would be compiled anew for a last batch of another size.
        full = [items + (items[-1:] or [0]) * ((batch if self.compiled else 1) - len(items)) for items in batches]
        counted_in = self.counted_in()
        losses, count_of = torch.zeros_like(counted_in[0]), torch.zeros_like(counted_in[0])
        self.objective.eval()
        # Past DistributedDataParallel, which has nothing to exchange here.
        with torch.no_grad():
            workers = self.settings["workers"] if this_device().is_gpu else 0
            for items, batch_of in zip(self.load(self.validation_set, full, workers), batches, strict=True):
                found = self.objective.module(items, validating=True)[: len(batch_of)].to(losses)
                which = counted_in[batch_of]
                losses, count_of = losses + found @ which, count_of + which.sum(dim=0)
        sums = torch.stack([losses, count_of])
        self.objective.train()
        if self.average:
            self.average.swap()
        summed: Any = self.fabric.all_reduce(sums, reduce_op="sum")
        loss = float(summed[0, : len(VALIDATION_TIMESTEPS)].sum() / summed[1, : len(VALIDATION_TIMESTEPS)].sum())
        self.assert_finite("validation loss", loss, self.step)
        return [loss, *(summed[0] / summed[1]).tolist()]

    def counted_in(self) -> torch.Tensor:
        """`[items, timesteps + corpora]`: 1 where an item of the validation counts, 0 elsewhere. A clip's timesteps follow each other."""
        steps = len(VALIDATION_TIMESTEPS)
        items = torch.arange(len(self.validation_set))
        columns = [items % steps == step for step in range(steps)]
        corpora = [clip.corpus for clip in self.validation_set.clips.clips]
        columns += [
            torch.tensor([own == corpus for own in corpora]).repeat_interleave(steps) for corpus in self.corpora
        ]
        return torch.stack(columns, dim=1).to(self.fabric.device, this_device().double)

    def is_stopped(self) -> bool:
        """Whether any process got a signal. All processes have to ask. A leg that is done is not stopped any more."""
        return self.step < self.end and any_of(bool(self.signals))

    def pause(self) -> None:
        """Save the state, so that the same command can continue, and end."""
        self.save(interrupted_state(self.leg.output.parent, self.identity))
        raise KeyboardInterrupt if self.fabric.is_global_zero else SystemExit(1)

    # What stays of it.

    def finish(self) -> None:
        if skipped := int(self.update.skipped):
            log.warning(
                "warning: %d of %d steps changed nothing, because gradients overflowed in float16; the first few of a training "
                "always may, while the scale of the loss is found",
                skipped,
                self.end - self.start,
            )
        self.read_losses()
        if self.metrics.losses:  # of a training that was interrupted at what is its end now
            self.metrics.close_row(self.step, self.learning_rate(), None, self.speed.measured())
        if self.metrics.rows[-1][2] is None:
            self.metrics.validated(self.validate())
        weights = {key: weight.detach() for key, weight in self.trained.items()}
        weights |= self.average.average if self.average else {}
        weights = gathered(weights, keep=self.fabric.is_global_zero)
        if not self.fabric.is_global_zero:
            self.save(self.leg.output / "state.ckpt")
            return
        with ThreadPoolExecutor(1) as pool:  # beside the state, which takes longer
            written = pool.submit(write_weights, self.leg.output / "weights", self.model, weights, self.settings)
            self.save(self.leg.output / "state.ckpt")
            self.write(written.result())

    def write(self, digests: dict[str, str]) -> None:
        """Write everything but state and weights; the states of interrupted legs are not needed any more."""
        folder, loss = self.leg.output, self.metrics.rows[-1][2]
        write_leg(folder, digests, self.metrics, self.summary(), self.pace())
        shutil.rmtree(interrupted_state(folder.parent, self.identity).parent, ignore_errors=True)
        log.info("%s: %d steps, validation loss %.4f", folder, self.step, loss)

    def summary(self) -> dict[str, Any]:
        """The content of training.json."""
        return {
            "run": self.leg.run,
            "leg": self.leg.leg,
            "steps": self.step,
            "settings": self.settings,
            "provenance": self.provenance,
            "training_clips": len(self.train_set.clips.clips),
            "validation_clips": len(self.validation_set.clips.clips),
            "batch": self.leg.items_per_step,
            "moving_average": self.average is not None,
            "trained_parameters": sum(weight.numel() for weight in self.trained.values()),
            "validation_loss": self.metrics.rows[-1][2],
        }

    def pace(self) -> dict[str, Any]:
        """The time of a step, with the machine and the settings that it was measured on."""
        steps = self.end - self.start
        return {
            "seconds_per_step": self.seconds / steps if steps else None,
            "device": this_device().name(),
            "settings": self.leg.settings,
        }
