"""Train one leg: from a saved state, or the base model, to a given step or epoch; an interrupted leg goes on exactly."""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sao.base.command import InputError, is_first, log, output_to_log, parse, progress, run

from sao.base.files import check_room, digest, read_json, sha256, size_text, whole, whole_folder, write_json, writing
from sao.base.names import read_digests, write_digests
from sao.base.vouched import LISTING, Checking, Vouched, chosen, latent_files, leg_files, model_files, sound_files
from sao.config.settings import RunningSettings, TrainingSettings, add_settings
from sao.models.build import build, load_weights, write_safetensors
from sao.models.config import read_model_config, training_config
from sao.training.memory import adapter_parameters, check, parameter_counts, synchronises, total

if TYPE_CHECKING:
    from sao.training.dataset import Clips

INTERRUPTED = ".interrupted"  # folder of the states of legs that were stopped


def end_step(leg: str, items: int, batch: int) -> int:
    """The optimiser step at which `step-00000500` or `epoch-00000003` ends, with `batch` items a step."""
    unit, at = leg.split("-")
    return int(at) if unit == "step" else math.ceil(int(at) * items / batch)


def find_state(
    given: Path | None,
    folder: Path,
    provenance: dict[str, Any],
    end: int,
    changed: Callable[[Path], str | None],
) -> tuple[Path | None, dict[str, Any] | None]:
    """The state to go on from, and its file: the given one or, of the same provenance, one that lies further on the way to `end`.

    A training is a function of its provenance and the step, so any state on the way will do: that of a leg that was
    interrupted, or of an end that the run had before. Raises InputError when the given one has another provenance, and
    when it is not what it was saved as; another one that is not is passed over. `changed` says what is wrong with a state.
    """
    from sao.training.training import differences, read_state

    candidates = []
    if given:
        furthest = read_state(given)
        if changes := differences(furthest["provenance"], provenance):
            raise InputError(
                f"{given}: was trained from something else: {'; '.join(changes)}. Set that back, or delete "
                f"{folder.parent} to train anew"
            )
        candidates.append((furthest["step"], given, furthest))
    least = candidates[0][0] if candidates else 0
    for path in [*folder.parent.glob("*/state.ckpt"), *folder.parent.glob(f"{INTERRUPTED}/*.ckpt")]:
        try:
            state = read_state(path)
        except InputError as error:  # not one that is needed
            log.warning("warning: %s", error)
            continue
        if state["provenance"] == provenance and least < state["step"] <= end:
            candidates.append((state["step"], path, state))
    for _, path, state in sorted(candidates, key=lambda candidate: -candidate[0]):
        wrong = changed(path)
        if not wrong:
            return path, state
        if path == given:
            raise InputError(wrong)
        log.warning("warning: not gone on from: %s", wrong)
    return None, None


def state_listing(path: Path) -> Path:
    """What vouches for a training state: that of its leg, or, of an interrupted one, a file of its own."""
    return path.with_suffix(".sha256") if path.parent.name == INTERRUPTED else path.with_name(LISTING)


def changed_state(path: Path) -> str | None:
    """What is wrong with a training state, by the digest that was written with it; None where nothing is."""
    listing = state_listing(path)
    files = leg_files(listing, path.name) if listing.is_file() else []
    if not files:
        return f"{path}: nothing vouches for it ({listing} does not): delete {path.parent} and run again"
    return files[0].wrong()


def sounds_to_check(sets: list[Clips], summaries: list[Path]) -> list[Vouched]:
    """The latents, or the audio, of all clips of `sets`, with what vouches for them."""
    known = []
    for summary in summaries:
        if summary.suffix == ".json":
            known += latent_files(summary)
        else:
            folders = {clips.folders[summary.stem] for clips in sets if summary.stem in clips.folders}
            known += [file for folder in sorted(folders) for file in sound_files(summary, folder)]
    return chosen(known, [path for clips in sets for path in clips.files()])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", required=True, help="name of the run")
    parser.add_argument("--leg", required=True, help="where to end: step-00000500 or epoch-00000003")
    parser.add_argument("--last", help="the last leg of the training, that is how long its schedule has to be")
    parser.add_argument("--resume", type=Path, nargs="?", help="training state of the leg before")
    add_settings(parser, TrainingSettings)
    add_settings(parser, RunningSettings, "running")
    parser.add_argument("--dataset-configs", type=Path, required=True, help="folder of train.json and validation.json")
    parser.add_argument("--datasets-digest", type=Path, required=True, help="listing that vouches for them")
    parser.add_argument(
        "--sound-digest", type=Path, required=True, nargs="+", help="vouch for the latents or the audio"
    )
    parser.add_argument("--model", type=Path, required=True, help="folder of the base model")
    parser.add_argument("--model-digest", type=Path, required=True)
    parser.add_argument("--code", required=True, help="hash of the code that trains")
    parser.add_argument("--output", type=Path, required=True, help="folder of the leg")
    args = parse(parser)
    settings = args.settings | args.running
    devices = settings["devices"] * settings["num_nodes"]
    os.environ["OMP_NUM_THREADS"] = str(settings["threads"])

    # Workers send batches by sockets below it, whose names take 32 characters; with longer ones Python would wait for ever.
    if settings["workers"] and len(os.fsencode(tempfile.gettempdir())) > 107 - 32:
        raise InputError(
            f"run {args.run}: workers need a shorter TMPDIR, of 75 characters at most, than {tempfile.gettempdir()}: set "
            "one, or workers to 0"
        )

    config = read_model_config(args.model / "model_config.json")
    try:
        training = training_config(config, settings)
    except InputError as error:
        raise InputError(f"run {args.run}: {error}") from None
    files = sorted(path for path in args.dataset_configs.rglob("*") if path.is_file() and path.suffix != ".pyc")
    provenance = {
        "settings": args.settings,
        "corpus": digest([sha256(path) for path in files if path.name != "dropped.csv"]),
        "sounds": digest([sha256(path) for path in args.sound_digest]),
        "base_model": sha256(args.model_digest),
        "code": args.code,
    }
    for path in args.sound_digest:
        made_by = read_json(path).get("base_model") if path.suffix == ".json" else provenance["base_model"]
        if made_by != provenance["base_model"]:
            raise InputError(
                f"{path}: these latents are of another base model: delete {path.with_suffix('')} and run again"
            )

    import torch
    from sao.training.dataset import Clips, TrainingClips, ValidationClips, collate, positions
    from sao.training.processes import free_memory, seats, strategy
    from sao.training.scratch import on_scratch
    from sao.training.training import (
        Metrics,
        MovingAverage,
        Objective,
        Update,
        check_schedule,
        compiled_graphs,
        low_precision,
        make_optimizer,
        make_scheduler,
        prepare,
        save_state,
        try_optimizer,
        versions,
    )

    provenance |= versions()
    on_gpu = torch.cuda.is_available()
    if on_gpu and settings["devices"] > torch.cuda.device_count():
        raise InputError(f"run {args.run}: devices is {settings['devices']}; {torch.cuda.device_count()} are there")
    torch.set_num_threads(settings["threads"])
    try:
        optimizer_bytes = try_optimizer(training, settings)
    except InputError as error:
        raise InputError(f"run {args.run}: {error}") from None

    # What there is to learn, and whether it fits, before anything large is loaded.
    clips = Clips(args.dataset_configs / "train.json", config)
    train_set = TrainingClips(clips, settings["captions"], settings["seed"], training, settings["phase_flip"])
    validation_clips = Clips(args.dataset_configs / "validation.json", config)
    validation_set = ValidationClips(validation_clips)
    batch, accumulate = settings["batch_size"], settings["accumulate"]
    effective = batch * devices * accumulate
    if len(train_set) < batch * devices:
        raise InputError(
            f"run {args.run}: {len(train_set)} training clips do not fill one batch of {batch * devices}: lower "
            "batch_size or add clips"
        )
    end = end_step(args.leg, len(train_set), effective)
    try:
        check_schedule(training, end_step(args.last or args.leg, len(train_set), effective))
    except InputError as error:
        raise InputError(f"run {args.run}: {error}") from None
    counts = parameter_counts(args.model / "model.safetensors")
    available = free_memory(on_gpu, settings["devices"])
    sized = settings | {"ema": training["use_ema"]}
    try:
        needed = total(check(config, counts, sized, clips.frames, clips.on_latents, available))
    except InputError as error:
        raise InputError(f"run {args.run}: {error}") from None
    adapted = adapter_parameters(counts, sized) if settings["method"] != "full" else 0
    log.info(
        "batch of %d (%d × %d devices × %d), %d clips, %.4g steps an epoch, %.3g M parameters trained, about %s of memory",
        effective, batch, devices, accumulate, len(clips.clips), len(train_set) / effective,
        (adapted or counts["model"] + counts["conditioner"]) / 1e6, size_text(needed),
    )  # fmt: skip

    # Most likely the one that is gone on from: it is hashed while the model is built.
    given = ThreadPoolExecutor(1).submit(changed_state, args.resume) if args.resume else None
    # By the first of several processes: all read the same.
    checking = []
    if is_first():
        cure = f"delete {args.dataset_configs} and run again"
        told = [
            Vouched(args.dataset_configs / name, digest, args.datasets_digest, cure)
            for name, digest in read_digests(args.datasets_digest).items()
        ]
        checking = [
            (Checking(told), f"dataset configs {args.dataset_configs}"),
            (Checking(model_files(args.model, args.model_digest)), f"base model {args.model}"),
            (Checking(sounds_to_check([clips, validation_clips], args.sound_digest)), "clips"),
        ]
    model = build(config, args.model / "hub")
    with output_to_log():
        from lightning_fabric import Fabric

    load_weights(model, args.model / "model.safetensors")
    for files, what in checking:
        files.finish(what)
    if settings["method"] != "full":
        from sao.training.adapters import add_adapters

        add_adapters(model, settings["method"], settings["adapter"], settings["seed"])
    elif settings["precision"] == "bf16-true":
        low_precision(model.model)
    prepare(model, settings["recompute_activations"], settings["compile"])

    trained = {key: weight for key, weight in model.named_parameters() if weight.requires_grad}

    # A state, and what is exported of it.
    size = sum(weight.numel() * weight.element_size() for weight in trained.values())
    room = (3 if training["use_ema"] else 2) * size + optimizer_bytes * sum(w.numel() for w in trained.values())
    for stale in args.output.glob(".*.part*") if is_first() else ():  # of a process that was killed while it wrote
        shutil.rmtree(stale) if stale.is_dir() else stale.unlink()
    if is_first():
        check_room(args.output, room, f"run {args.run}: the training state and the weights of a leg")
    identity = digest(provenance)[:16]
    side = args.output.parent / INTERRUPTED / f"{identity}.ckpt"
    found, state = find_state(
        args.resume,
        args.output,
        provenance,
        end,
        lambda path: given.result() if path == args.resume else changed_state(path),
    )
    start = state["step"] if state else 0
    stopping: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: stopping.append(number))
    stack = contextlib.ExitStack()
    log_row = list
    if is_first():
        # Before there are other processes, which would wait for one that cannot log in.
        log_row = stack.enter_context(loggers(args.run, settings, identity, args.output.parent, start))

    with output_to_log():
        # Of Fabric's precisions the plain one: the others round what comes in, timesteps too, before the objective has it.
        fabric = Fabric(
            accelerator="gpu" if on_gpu else "cpu",
            devices=settings["devices"],
            num_nodes=settings["num_nodes"],
            strategy=strategy(settings),
            precision="32-true",
        )
        fabric.launch()
        objective = Objective(model, training, settings["seed"], settings["precision"]).to(fabric.device)
        optimizer = make_optimizer(training, settings, list(trained.values()))
        objective, optimizer = fabric.setup(objective, optimizer)
    update = Update(fabric, objective, optimizer, list(trained.values()), settings)
    if synchronises(settings):
        for line in seats(fabric.device):
            log.info("%s", line)
    scheduler = make_scheduler(training, optimizer.optimizer)
    dit = {key: weight for key, weight in trained.items() if key.startswith("model.")}
    average = MovingAverage(dit) if training["use_ema"] else None
    metrics = Metrics([], [])

    if state:
        with torch.no_grad():
            for key, weight in trained.items():
                weight.copy_(state["weights"][key])
        optimizer.load_state_dict(state["optimizer"])
        scheduler.load_state_dict(state["scheduler"])
        update.scaler.load_state_dict(state["scaler"])
        metrics = Metrics(state["rows"], state["losses"])
        if average:
            average.step = state["average"].pop("step")
            for key, weight in average.average.items():
                weight.copy_(state["average"][key])
        log.info("resuming at step %d of %d, from %s", start, end, found)

    def save(path: Path) -> None:
        """Everything that the next step depends on."""
        losses = fabric.all_reduce(torch.tensor(metrics.losses, dtype=torch.float64)).tolist()
        state = {
            "step": step,
            "provenance": provenance,
            "weights": trained,
            "average": {**average.average, "step": average.step} if average else None,
            "optimizer": optimizer.state_dict(),
            "scheduler": scheduler.state_dict(),
            "scaler": update.scaler.state_dict(),
            "rows": metrics.rows,
            "losses": losses,
        }
        if fabric.is_global_zero:
            listing = state_listing(path)
            listing.unlink(missing_ok=True)  # of a state that was here before
            saved = save_state(path, state)
            with whole(listing) as temporary:
                temporary.write_text(f"{saved}  {path.name}\n", encoding="utf-8")
        fabric.barrier()

    def still_finite(what: str, loss: float, step: int) -> float:
        """Stop a training that has diverged, before anything of it is saved."""
        if math.isfinite(loss):
            return loss
        if not fabric.is_global_zero:  # the first process tells
            raise SystemExit(1)
        raise InputError(
            f"run {args.run}: the {what} is {loss} at step {step}; the last good state "
            f"({found or 'none: this is the first leg'}) stays: lower learning_rate, or set gradient_clip"
        )

    def validate() -> float:
        """Mean loss over all validation clips and timesteps, of the weights that are exported."""
        if average:
            average.swap()
        mine = range(fabric.global_rank, len(validation_set), devices)
        batches = [list(mine[at : at + batch]) for at in range(0, len(mine), batch)]
        total = torch.zeros(2, dtype=torch.float64, device=fabric.device)
        objective.eval()
        # Past DistributedDataParallel, which would wait for ranks that have a batch less.
        with torch.no_grad():
            for items in loader(validation_set, batches):
                losses = objective.module(items, None)
                total += torch.stack([losses.double().sum(), torch.tensor(len(losses), device=fabric.device)])
        objective.train()
        if average:
            average.swap()
        total = fabric.all_reduce(total, reduce_op="sum")
        return still_finite("validation loss", float(total[0] / total[1]), step)

    def loader(dataset: torch.utils.data.Dataset, batches: list[list[int]], workers: int = 0) -> Iterator[dict]:
        data = torch.utils.data.DataLoader(
            dataset, batch_sampler=batches, num_workers=workers, collate_fn=collate, pin_memory=on_gpu
        )
        try:
            yield from map(fabric.to_device, data)
        except InputError as error:  # of a worker, and then with its traceback around it
            raise InputError(str(error).strip().splitlines()[-1].split("InputError: ")[-1]) from None

    every = min(50, settings["validate_every"])
    wanted = positions(start * accumulate, end * accumulate, batch, fabric.global_rank, devices)
    batches = loader(train_set, wanted, settings["workers"])
    step, loss = start, math.nan
    bar = progress(range(start, end), f"training {args.run}", end, "steps", start, note=lambda: f"loss {loss:.4f}")
    objective.train()
    with stack, output_to_log(), explained(args.run):
        if settings["scratch"]:
            used = [clips, validation_clips]
            stack.enter_context(on_scratch(used, identity, fabric.local_rank == 0, fabric.barrier))
        began = time.monotonic()
        for step in bar:
            loss = update.backward(batches, step)
            if settings["compile"] and step == start:
                log.info("compiled %d graphs", compiled_graphs())
            still_finite("loss", float(fabric.all_reduce(torch.tensor(loss))), step + 1)
            norm = update.clip()
            if norm is not None and not update.scaler.is_enabled():  # which passes over a step that overflows
                still_finite("norm of the gradient", norm, step + 1)
            update.apply(step)
            rate = float(scheduler.get_last_lr()[0])
            scheduler.step()
            if average:
                average.update()
            step += 1
            metrics.losses.append(loss)
            due = step % settings["validate_every"] == 0 or step == end
            if due or step % every == 0:
                metrics.losses = fabric.all_reduce(torch.tensor(metrics.losses, dtype=torch.float64)).tolist()
                log_row(metrics.close_row(step, rate, validate() if due else None))
            if float(fabric.all_reduce(torch.tensor(float(bool(stopping))))) and step < end:
                save(side)
                raise KeyboardInterrupt if fabric.is_global_zero else SystemExit(1)
        took = time.monotonic() - began
    if update.skipped:
        log.warning(
            "warning: %d of %d steps changed nothing, because gradients overflowed in float16; the first few of a training "
            "always may, while the scale of the loss is found",
            update.skipped,
            end - start,
        )
    if metrics.losses:  # interrupted at what is the end now
        metrics.close_row(step, float(scheduler.get_last_lr()[0]))
    if metrics.rows[-1][2] is None:
        metrics.rows[-1][2] = validate()
    save(args.output / "state.ckpt")
    if not fabric.is_global_zero:
        return

    weights = {key: weight.detach() for key, weight in trained.items()}
    weights |= average.average if average else {}
    write_weights(args.output / "weights", model, weights, settings)
    files = sorted(path for path in (args.output / "weights").rglob("*") if path.is_file())
    state_line = (args.output / LISTING).read_text(encoding="utf-8")
    write_digests(args.output / LISTING, args.output, files, state_line)
    with whole(args.output / "metrics.csv") as temporary:
        temporary.write_text(metrics.csv(), encoding="utf-8")
    # No part of what was trained: it differs each time. For the time that further legs ask a scheduler for.
    write_json(
        args.output / "speed.json",
        {
            "seconds_per_step": took / (end - start) if end > start else None,
            "device": torch.cuda.get_device_name() if on_gpu else "cpu",
            "settings": args.settings,
        },
    )
    write_json(
        args.output / "training.json",
        {
            "run": args.run,
            "leg": args.leg,
            "steps": step,
            "settings": settings,
            "provenance": provenance,
            "training_clips": len(clips.clips),
            "validation_clips": len(validation_set.clips.clips),
            "batch": effective,
            "moving_average": average is not None,
            "trained_parameters": sum(weight.numel() for weight in trained.values()),
            "validation_loss": metrics.rows[-1][2],
        },
    )
    shutil.rmtree(side.parent, ignore_errors=True)
    log.info("%s: %d steps, validation loss %.4f", args.output, step, metrics.rows[-1][2])


@contextlib.contextmanager
def explained(name: str) -> Iterator[None]:
    """Turn an allocation or a compilation that failed into an InputError that says what to set."""
    import torch
    from torch._dynamo.exc import TorchDynamoException

    try:
        yield
    except TorchDynamoException as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise InputError(
            f"run {name}: the transformer's blocks cannot be compiled ({lines[0] if lines else type(error).__name__}): set "
            "compile to false, or see to the compiler"
        ) from error
    except RuntimeError as error:  # what torch raises on the CPU has no class of its own
        if not isinstance(error, torch.OutOfMemoryError) and "allocate memory" not in str(error):
            raise
        raise InputError(
            f"run {name}: out of memory: lower batch_size (and raise accumulate) or train_seconds, set "
            "recompute_activations to true, precision to bf16-true, or method to lora"
        ) from None


def write_weights(folder: Path, model: Any, trained: dict[str, Any], settings: dict[str, Any]) -> None:
    """What was trained: the diffusion model and conditioner, or the adapter in the form of peft."""
    from sao.training.training import tensor_bytes

    with whole_folder(folder) as partial:
        if settings["method"] == "full":
            state = {key: value for key, value in model.state_dict().items() if not key.startswith("pretransform.")}
            state = {key: trained.get(key, value).contiguous() for key, value in state.items()}
            with writing(folder, tensor_bytes(state)):
                write_safetensors(state, partial / "model.safetensors")
        else:
            from sao.training.adapters import adapter_state, write_adapter

            write_adapter(partial, adapter_state(model), settings["method"], settings["adapter"])


@contextlib.contextmanager
def loggers(
    name: str, settings: dict[str, Any], identity: str, folder: Path, start: int
) -> Iterator[Callable[[list[float | None]], None]]:
    """A function that sends a row of the metrics to Weights & Biases and TensorBoard, as far as the run asks for them.

    All legs of a run go on in one run of Weights & Biases, whose id is `identity`.
    """
    with contextlib.ExitStack() as stack:
        sinks = []
        if settings["wandb"] is not None:
            with output_to_log():
                import wandb

                (folder / "wandb").mkdir(parents=True, exist_ok=True)
                try:
                    there = wandb.init(
                        project=settings["wandb"]["project"],
                        mode=settings["wandb"]["mode"],
                        name=name,
                        id=identity,
                        resume="allow",
                        dir=folder,
                        config=settings,
                    )
                except wandb.errors.Error as error:
                    raise InputError(
                        f"run {name}: Weights & Biases cannot be reached ({str(error).splitlines()[0]}): run `wandb "
                        "login`, set wandb.mode to offline, or wandb to null"
                    ) from None
            stack.callback(there.finish)
            sinks.append(lambda row, values: there.log(values, step=row[0]))
        if settings["tensorboard"]:
            from torch.utils.tensorboard import SummaryWriter

            writer = stack.enter_context(SummaryWriter(folder / "tensorboard", purge_step=start + 1))
            sinks.append(lambda row, values: [writer.add_scalar(key, value, row[0]) for key, value in values.items()])

        def log_row(row: list[float | None]) -> None:
            values = dict(zip(("train/loss", "validation/loss", "learning_rate"), row[1:], strict=True))
            for sink in sinks:
                sink(row, {key: value for key, value in values.items() if value is not None})

        yield log_row


if __name__ == "__main__":
    run(main)
