"""What a fine-tuning adds to Lightning: exact repetition and resumption, and a metrics table."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import stable_audio_tools.training.utils as upstream
import torch
from torch.optim.lr_scheduler import LRScheduler

from .clips import seed_for
from .command import progress


class InverseLR(upstream.InverseLR):
    """stable-audio-tools' schedule, whose 0.0.19 passes an argument that torch 2.7 dropped."""

    def __init__(self, optimizer, inv_gamma=1.0, power=1.0, warmup=0.0, final_lr=0.0, last_epoch=-1) -> None:
        if not 0.0 <= warmup < 1:
            raise ValueError(f"invalid warmup {warmup}: 0 <= warmup < 1")
        self.inv_gamma, self.power, self.warmup, self.final_lr = inv_gamma, power, warmup, final_lr
        LRScheduler.__init__(self, optimizer, last_epoch)


upstream.InverseLR = InverseLR


class PromptCache:
    """Stands in for the frozen T5 of a conditioner and encodes each prompt once.

    One prompt a call of the encoder: what a prompt gives must not depend on the batch that it came in first.
    """

    LIMIT = 1024  # prompts kept; 200 MB for t5-base

    def __init__(self, model: torch.nn.Module) -> None:
        self.model, self.kept = model, {}

    def to(self, device: torch.device | str) -> PromptCache:
        self.model.to(device)
        return self

    def eval(self) -> PromptCache:
        self.model.eval()
        return self

    def __call__(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> dict[str, torch.Tensor]:
        """`{"last_hidden_state": [batch, tokens, width]}`, as T5EncoderModel gives it."""
        states = []
        for ids, mask in zip(input_ids, attention_mask, strict=True):
            key = tuple(ids.tolist())
            state = self.kept.get(key)
            if state is None:
                state = self.model(input_ids=ids[None], attention_mask=mask[None])["last_hidden_state"][0]
                if len(self.kept) < self.LIMIT:
                    self.kept[key] = state
            states.append(state)
        return {"last_hidden_state": torch.stack(states)}


def make_faster(model: torch.nn.Module, recompute_activations: bool) -> None:
    """Encode each prompt once; with `recompute_activations` off, keep activations instead of computing them twice.

    stable-audio-tools recomputes them always, which a large model needs and a small one only pays for
    (`use_checkpointing`, stable_audio_tools/models/transformer.py).
    """
    for conditioner in model.conditioner.conditioners.values():
        if type(conditioner).__name__ == "T5Conditioner" and not conditioner.enable_grad:
            conditioner.__dict__["model"] = PromptCache(conditioner.model)
    transformer = getattr(model.model.model, "transformer", None)
    if not recompute_activations and transformer is not None:
        transformer.forward = functools.partial(transformer.forward, use_checkpointing=False)


def seed_all(*parts: object) -> None:
    """Seed numpy and torch from `parts`; python's own generator too, which stable-audio-tools draws from."""
    import random

    seed = seed_for(*parts)
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


class Repeatable(pl.Callback):
    """Make step k a pure function of (seed, k) and the weights, so that a resumed training equals an unbroken one."""

    def __init__(self, seed: int, batch_size: int, first_batch: int) -> None:
        self.seed, self.batch_size, self.batch = seed, batch_size, first_batch

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any) -> None:
        seed_all(self.seed, "train", self.batch)
        # Timesteps come from a Sobol sequence that no checkpoint holds.
        module.rng.reset()
        module.rng.fast_forward(self.batch * self.batch_size)
        self.batch += 1

    def on_validation_batch_start(
        self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        # The same noise at every pass: the curve shows the model, not the draw.
        seed_all(self.seed, "validation", batch_idx)


class Metrics(pl.Callback):
    """Rows of `metrics.csv`; they travel in the checkpoint, so a resumed table has no row missing and none double."""

    COLUMNS = ("step", "train_loss", "validation_loss", "learning_rate")

    def __init__(self, every: int, validated: Path) -> None:
        # A state is saved before the validation of its step: what that finds is kept in the file `validated`.
        self.every, self.validated, self.rows, self.losses = every, validated, [], []

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "losses": self.losses}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rows, self.losses = state["rows"], state["losses"]
        if self.rows and self.rows[-1][2] is None and self.validated.is_file():
            step, loss = json.loads(self.validated.read_text(encoding="utf-8"))
            self.rows[-1][2] = loss if step == self.rows[-1][0] else None

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, *_: Any) -> None:
        self.losses.append(float(trainer.callback_metrics["train/loss"]))
        if trainer.global_step % self.every == 0:
            self.close_row(trainer)

    def on_validation_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        # The wrapper sends these to Weights & Biases alone, and empties them after this hook.
        losses = [loss for losses in module.validation_step_outputs.values() for loss in losses]
        self.close_row(trainer)
        self.rows[-1][2] = sum(losses) / len(losses)
        self.validated.write_text(json.dumps([self.rows[-1][0], self.rows[-1][2]]), encoding="utf-8")

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if self.losses:
            self.close_row(trainer)

    def close_row(self, trainer: pl.Trainer) -> None:
        """Write the losses since the last row as the row of this step, unless it has one."""
        step = trainer.global_step
        if step and (not self.rows or self.rows[-1][0] != step):
            rate = trainer.optimizers[0].param_groups[0]["lr"]
            self.rows.append([step, sum(self.losses) / len(self.losses), None, float(rate)])
            self.losses = []

    def csv(self) -> str:
        lines = [",".join(self.COLUMNS)]
        lines += [",".join("" if v is None else f"{v:.8g}" for v in row) for row in self.rows]
        return "\n".join(lines) + "\n"


class Checkpoint(pl.Callback):
    """One whole training state at `path`, replaced every `every` steps, at the end, and when `stop()` was called."""

    def __init__(self, path: Path, every: int) -> None:
        self.path, self.every, self.stopping, self.saved = path, every, False, -1

    def stop(self, *_: object) -> None:
        """Save at the end of the running step, then stop."""
        self.stopping = True

    def save(self, trainer: pl.Trainer) -> None:
        temporary = self.path.with_suffix(".part")
        trainer.save_checkpoint(temporary)
        temporary.replace(self.path)
        self.saved = trainer.global_step

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, *args: Any) -> None:
        batch_idx = args[1]
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return  # in the middle of an optimiser step
        step = trainer.global_step
        if self.stopping or step % self.every == 0 or step == trainer.max_steps:
            self.save(trainer)
        if self.stopping:
            trainer.should_stop = True


class Progress(pl.Callback):
    """A bar on a terminal, plain lines elsewhere."""

    def __init__(self, start: int, steps: int, label: str) -> None:
        self.bar, self.step = progress(range(start, steps), label, unit="steps"), start
        next(self.bar, None)

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        while self.step < trainer.global_step:
            next(self.bar, None)
            self.step += 1
