"""Fine-tune a base model on pre-encoded latents for a fixed number of steps, resuming where it was interrupted."""

from __future__ import annotations

import argparse
import copy
import json
import os
import signal
from pathlib import Path
from typing import Any

from sao.command import InputError, log, output_to_log, parse, run
from sao.files import digest, link_or_copy, sha256, whole, write_json
from sao.model import build, first_line, load_weights
from sao.model_config import ModelConfig, read_model_config


def training_config(config: ModelConfig, settings: dict[str, Any]) -> ModelConfig:
    """The model's own config with the run's changes to its `training` section."""
    config = copy.deepcopy(config)
    training = config.setdefault("training", {})
    training["pre_encoded"] = True
    optimizers = training.get("optimizer_configs")
    if optimizers is None and "learning_rate" not in training and settings["learning_rate"] is None:
        raise InputError("model_config.json has no optimiser and no learning rate: set learning_rate in the run")
    if settings["learning_rate"] is not None:
        if optimizers is None:
            training["learning_rate"] = settings["learning_rate"]
        else:
            optimizers["diffusion"]["optimizer"]["config"]["lr"] = settings["learning_rate"]
    return config


def resume_step(checkpoint: Path, steps: int) -> int:
    """The step that a saved training state has reached; 0 where there is none that leads to `steps`."""
    import torch

    if not checkpoint.is_file():
        return 0
    try:
        step = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)["global_step"]
    except Exception as error:  # noqa: BLE001 - a damaged or malicious file may raise anything
        raise InputError(
            f"{checkpoint}: not a training state that can be loaded safely ({first_line(error)}): delete it to train anew"
        ) from None
    if step > steps:
        log.info("%s is at step %d, past %d: starting anew", checkpoint, step, steps)
        return 0
    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", required=True, help="name of the run")
    parser.add_argument("--settings", type=json.loads, required=True, help="JSON: the run's entry in the config")
    parser.add_argument("--dataset-configs", type=Path, required=True, help="folder of train.json and validation.json")
    parser.add_argument("--latents-digest", type=Path, required=True, nargs="+")
    parser.add_argument("--model", type=Path, required=True, help="folder of the base model")
    parser.add_argument("--model-digest", type=Path, required=True)
    parser.add_argument("--code", required=True, help="hash of the code that trains")
    parser.add_argument("--output", type=Path, required=True, help="folder of the run's checkpoints")
    args = parse(parser)
    settings = args.settings
    os.environ["OMP_NUM_THREADS"] = str(settings["threads"])

    config = training_config(read_model_config(args.model / "model_config.json"), settings)
    # What decides the result. Not the number of steps: raising it goes on from the state that is there.
    inputs = [*args.latents_digest, args.model_digest, *sorted(args.dataset_configs.rglob("*.*"))]
    deciding = {k: v for k, v in settings.items() if k not in ("steps", "wandb", "workers", "checkpoint_every")}
    fingerprint = digest(
        deciding, [sha256(path) for path in inputs if path.suffix != ".pyc" and path.name != "dropped.csv"], args.code
    )[:16]
    # Undeclared to Snakemake, so that it outlives an interrupted job; the name says what it was trained from.
    state = args.output / "state" / fingerprint
    state.mkdir(parents=True, exist_ok=True)

    model = build(config, args.model / "hub")
    load_weights(model, args.model / "model.safetensors")
    with output_to_log():
        import pytorch_lightning as pl
        import torch
        from sao.latents import EndlessBatches, LatentDataset, collate
        from sao.training import Checkpoint, Metrics, Progress, Repeatable, make_faster, seed_all
        from stable_audio_tools.training.factory import create_training_wrapper_from_config

    if settings["precision"] == "16-mixed" and not torch.cuda.is_available():
        raise InputError(
            f"run {args.run}: precision 16-mixed needs a GPU, and none is found: set 32-true or bf16-mixed"
        )
    torch.set_num_threads(settings["threads"])
    train_set = LatentDataset(
        args.dataset_configs / "train.json", settings["captions"], settings["seed"], model.io_channels
    )
    validation_set = LatentDataset(
        args.dataset_configs / "validation.json", "first", settings["seed"], model.io_channels
    )
    batch_size, accumulate, steps = settings["batch_size"], settings["accumulate"], settings["steps"]
    if len(train_set) < batch_size:
        raise InputError(
            f"run {args.run}: {len(train_set)} training clips do not fill one batch of {batch_size}: "
            "lower batch_size or add clips"
        )
    checkpoint = Checkpoint(state / "last.ckpt", settings["checkpoint_every"])
    start = resume_step(checkpoint.path, steps)
    if start:
        log.info("resuming at step %d of %d", start, steps)

    seed_all(settings["seed"], "wrapper")
    make_faster(model, settings["recompute_activations"])
    with output_to_log():
        wrapper = create_training_wrapper_from_config(config, model)
    loaders = [
        torch.utils.data.DataLoader(
            train_set,
            batch_sampler=EndlessBatches(len(train_set), batch_size, settings["seed"], start * accumulate),
            num_workers=settings["workers"],
            collate_fn=collate,
        ),
        torch.utils.data.DataLoader(
            validation_set, batch_sampler=[[(0, i)] for i in range(len(validation_set))], collate_fn=collate
        ),
    ]
    metrics = Metrics(min(50, settings["validate_every"]), state / "validated.json")
    trainer = pl.Trainer(
        max_steps=steps,
        accelerator="auto",
        devices=1,
        precision=settings["precision"],
        accumulate_grad_batches=accumulate,
        gradient_clip_val=settings["gradient_clip"] or None,
        val_check_interval=settings["validate_every"] * accumulate,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        callbacks=[
            Repeatable(settings["seed"], batch_size, start * accumulate),
            metrics,
            checkpoint,
            Progress(start, steps, f"training {args.run}"),
        ],
        logger=wandb_logger(args.run, settings, fingerprint, state),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=state,
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, checkpoint.stop)
    with output_to_log():
        trainer.fit(wrapper, *loaders, ckpt_path=checkpoint.path if start else None, weights_only=True)
    if trainer.global_step < steps:
        if checkpoint.stopping:
            raise KeyboardInterrupt
        raise InputError(f"run {args.run}: the training ended at step {trainer.global_step} of {steps}")
    if checkpoint.saved < 0 and not start:
        raise InputError(f"run {args.run}: no training state was saved")

    link_or_copy(checkpoint.path, args.output / "last.ckpt")
    with whole(args.output / "metrics.csv") as temporary:
        temporary.write_text(metrics.csv(), encoding="utf-8")
    write_json(
        args.output / "training.json",
        {
            "run": args.run,
            "settings": settings,
            "fingerprint": fingerprint,
            "steps": trainer.global_step,
            "training_clips": len(train_set.clips),
            "validation_clips": len(validation_set.clips),
            "checkpoint_sha256": sha256(checkpoint.path),
        },
    )
    log.info("%d steps; state in %s", trainer.global_step, checkpoint.path)


def wandb_logger(name: str, settings: dict[str, Any], fingerprint: str, folder: Path) -> Any:
    """Lightning's logger for Weights & Biases, under an id that a resumed run finds again; False for none."""
    if settings["wandb"] is None:
        return False
    import wandb
    from pytorch_lightning.loggers import WandbLogger

    logger = WandbLogger(
        project=settings["wandb"]["project"],
        offline=settings["wandb"]["mode"] == "offline",
        name=name,
        id=fingerprint,
        resume="allow",
        save_dir=folder,
        config=settings,
    )
    try:
        logger.experiment.id  # noqa: B018 - connects now, not after the model went to the GPU
    except wandb.errors.Error as error:
        raise InputError(
            f"run {name}: Weights & Biases cannot be reached ({str(error).splitlines()[0]}): run `wandb login`, set "
            "wandb.mode to offline, or wandb to null"
        ) from None
    return logger


if __name__ == "__main__":
    run(main)
