"""What a training step is made of: the objective, the optimiser, the moving average, the metrics, the saved state."""

from __future__ import annotations

import functools
import importlib.metadata
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import mse_loss

from .clips import seed_for
from .command import InputError
from .dataset import Item
from .encoding import moments
from .files import whole
from .model import first_line

State = dict[str, Any]


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


def prepare(model: torch.nn.Module, recompute_activations: bool, compile_blocks: bool) -> None:
    """Encode each prompt once; recompute activations or keep them; compile the transformer's blocks.

    stable-audio-tools recomputes them always, which a large model needs and a small one only pays for
    (`use_checkpointing`, stable_audio_tools/models/transformer.py). Raises InputError where the model has no
    transformer that could do otherwise.
    """
    for conditioner in model.conditioner.conditioners.values():
        if type(conditioner).__name__ == "T5Conditioner" and not conditioner.enable_grad:
            conditioner.__dict__["model"] = PromptCache(conditioner.model)
    transformer = getattr(model.model.model, "transformer", None)
    if transformer is None and (compile_blocks or not recompute_activations):
        raise InputError("the base model has no transformer: leave recompute_activations and compile as they are")
    if not recompute_activations:
        transformer.forward = functools.partial(transformer.forward, use_checkpointing=False)
    if compile_blocks:
        for block in transformer.layers:
            block.compile()


class Objective(torch.nn.Module):
    """The loss of a conditioned latent diffusion model, after DiffusionCondTrainingWrapper of stable-audio-tools.

    Nothing in it is drawn at random: noise, timestep and dropout come with the batch (sao/dataset.py).
    """

    def __init__(self, model: torch.nn.Module, training: dict[str, Any], seed: int) -> None:
        super().__init__()
        self.dit, self.conditioner = model.model, model.conditioner
        # Not registered: it is neither trained nor needed on the device where there are latents.
        self.__dict__["model"] = model
        self.scale = float(getattr(model.pretransform, "scale", 1.0))
        self.mask_padding = training.get("mask_padding", False)
        self.mask_dropout, self.seed = training.get("mask_padding_dropout", 0.0), seed

    def forward(self, batch: Item, step: int | None) -> torch.Tensor:
        """Mean squared error `[batch]` of each clip; `step` is None for a validation, which masks nothing."""
        noise, t = batch["noise"], batch["t"]
        x = self.latents(batch) / self.scale
        if self.model.dist_shift is not None and step is not None:
            t = self.model.dist_shift.time_shift(t, x.shape[2])
        if self.model.diffusion_objective == "v":
            alpha, sigma = torch.cos(t * math.pi / 2)[:, None, None], torch.sin(t * math.pi / 2)[:, None, None]
            target = noise * alpha - x * sigma
        else:  # rectified_flow, rf_denoiser
            alpha, sigma = 1 - t[:, None, None], t[:, None, None]
            target = noise - x
        with torch.autocast(x.device.type, enabled=False):  # the text encoder is float16, and numbers need precision
            given = self.model.get_conditioning_inputs(self.conditioner(batch["info"], x.device))
        for key in ("cross_attn_cond", "prepend_cond"):  # as cfg_dropout_prob does (models/dit.py)
            if given[key] is not None:
                given[key] = torch.where(batch["keep"][:, None, None], given[key], torch.zeros_like(given[key]))
        mask = None
        masked = self.mask_padding and step is not None
        # Dropped now and then, to learn the silence of the padding.
        if masked and seed_for(self.seed, "mask", step) / 2**32 >= self.mask_dropout:
            mask = torch.stack([info["padding_mask"][0] for info in batch["info"]]).to(x.device)
            given["mask"] = mask
        output = self.dit(x * alpha + noise * sigma, t, **given)
        error = mse_loss(output.float(), target, reduction="none").mean(dim=1)
        if mask is None:
            return error.mean(dim=1)
        # Over all that is heard in the batch, not clip by clip: as stable-audio-tools' MSELoss.
        return (error * mask).sum(dim=1) * len(mask) / mask.sum()

    def latents(self, batch: Item) -> torch.Tensor:
        """Latents `[batch, channels, frames]`, made from whole clips of audio where they were not stored."""
        if "latents" in batch:
            return batch["latents"]
        autoencoder, made = self.model.pretransform.model.to(batch["noise"].device), []
        with torch.no_grad(), torch.autocast(batch["noise"].device.type, enabled=False):
            for audio, start, posterior in zip(batch["audio"], batch["start"], batch["posterior"], strict=True):
                mean, std = moments(autoencoder, audio)
                here = slice(start, start + posterior.shape[1])
                made.append(mean[:, here] + std[:, here] * posterior)
        return torch.stack(made)


class MovingAverage:
    """Exponential moving average of weights, with stable-audio-tools' settings of ema_pytorch (Wang, v0.2.3).

    beta 0.9999, power 3/4, updated every step, begun after the first.
    """

    BETA, POWER, BEGIN = 0.9999, 3 / 4, 1

    def __init__(self, weights: dict[str, torch.Tensor]) -> None:
        self.step, self.online = 0, weights
        self.average = {key: value.detach().clone() for key, value in weights.items()}

    @torch.no_grad()
    def update(self) -> None:
        self.step += 1
        age = self.step - self.BEGIN - 1
        decay = 0.0 if age <= 1 else min(1 - (1 + age) ** -self.POWER, self.BETA)  # the first three are copies
        torch._foreach_lerp_(list(self.average.values()), [v.detach() for v in self.online.values()], 1 - decay)

    def swap(self) -> None:
        """Exchange averaged and online weights, for a validation and back."""
        for key, weight in self.online.items():
            weight.data, self.average[key] = self.average[key], weight.data


def low_precision(module: torch.nn.Module) -> None:
    """Keep the matrices of linear layers and convolutions in bfloat16; all else, Fourier features say, stays precise."""
    for layer in module.modules():
        if isinstance(layer, torch.nn.Linear | torch.nn.Conv1d):
            layer.to(torch.bfloat16)


def make_optimizer(
    config: dict[str, Any], settings: dict[str, Any], weights: list[torch.Tensor]
) -> torch.optim.Optimizer:
    """The optimiser of a model config's `training` section, Adam and AdamW fused.

    In bfloat16 the one of `optimi` with Kahan summation, without which most updates are lost in rounding (Zamirai et al.,
    2020, arXiv:2010.06192). Raises InputError on one that cannot be made.
    """
    entry = config["optimizer_configs"]["diffusion"]["optimizer"]
    kind, options = entry["type"], dict(entry.get("config", {}))
    if settings["precision"] == "bf16-true":
        import optimi

        if kind not in ("Adam", "AdamW"):
            raise InputError(f"precision bf16-true has Adam and AdamW, not {kind}: set the run's optimizer.type")
        make = functools.partial(getattr(optimi, kind), kahan_sum=True)
    else:
        make = getattr(torch.optim, kind, None)
        if not isinstance(make, type) or not issubclass(make, torch.optim.Optimizer):
            raise InputError(f"torch.optim has no optimiser {kind!r}: set the run's optimizer.type, say to AdamW")
        if kind in ("Adam", "AdamW"):
            options.setdefault("fused", True)  # one pass over the weights, no temporaries
    try:
        return make(weights, **options)
    except (TypeError, ValueError) as error:
        raise InputError(f"optimiser {kind} does not take {options}: {first_line(error)}") from None


def make_scheduler(config: dict[str, Any], optimizer: torch.optim.Optimizer) -> Any:
    """The learning-rate schedule of a model config's `training` section, or a constant one; raises InputError."""
    entry = config["optimizer_configs"]["diffusion"].get("scheduler") or {"type": "constant"}
    kind, options = entry["type"], entry.get("config", {})
    schedulers = torch.optim.lr_scheduler
    try:
        if kind == "constant" and not options:
            return schedulers.LambdaLR(optimizer, lambda _: 1.0)
        if kind == "InverseLR":
            return schedulers.LambdaLR(optimizer, inverse_lr(optimizer.defaults["lr"], **options))
        make = getattr(schedulers, kind, None)
        if not isinstance(make, type) or not issubclass(make, schedulers.LRScheduler) or kind == "ReduceLROnPlateau":
            raise InputError(
                f"there is no schedule {kind!r}: set scheduler.type to InverseLR, constant, or a class in "
                "torch.optim.lr_scheduler that needs no metric"
            )
        return make(optimizer, **options)
    except (TypeError, ValueError) as error:
        raise InputError(f"schedule {kind} does not take {options}: {first_line(error)}") from None


def inverse_lr(base: float, inv_gamma: float = 1.0, power: float = 1.0, warmup: float = 0.0, final_lr: float = 0.0):
    """stable-audio-tools' InverseLR as a factor of the base rate; its own class cannot be made with torch 2.7 or later."""
    if not 0 <= warmup < 1:
        raise ValueError(f"warmup is {warmup}, not in [0, 1)")
    return lambda n: (1 - warmup ** (n + 1)) * max(final_lr / base, (1 + n / inv_gamma) ** -power)


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seed what draws inside the model (an adapter's dropout) from (seed, step)."""
    import random

    value = seed_for(seed, "step", step, rank)
    random.seed(value)
    np.random.seed(value)
    torch.manual_seed(value)


class Metrics:
    """Rows of `metrics.csv`; they travel in the state, so a resumed table has no row missing and none double."""

    COLUMNS = ("step", "train_loss", "validation_loss", "learning_rate")

    def __init__(self, rows: list[list[float | None]], losses: list[float]) -> None:
        self.rows, self.losses = rows, losses

    def close_row(self, step: int, rate: float, validation_loss: float | None = None) -> list[float | None] | None:
        """The losses since the last row as the row of this step; None if it had one."""
        if self.rows and self.rows[-1][0] == step:
            return None
        self.rows.append([step, sum(self.losses) / len(self.losses), validation_loss, rate])
        self.losses = []
        return self.rows[-1]

    def csv(self) -> str:
        lines = [",".join(self.COLUMNS)]
        lines += [",".join("" if v is None else f"{v:.8g}" for v in row) for row in self.rows]
        return "\n".join(lines) + "\n"


def versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in ("torch", "stable-audio-tools")}


def save_state(path: Path, state: State) -> None:
    with whole(path) as temporary:
        torch.save(state, temporary)


def read_state(path: Path) -> State:
    """A training state, its tensors left on the disk until they are used; raises InputError on anything else."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        missing = {"step", "provenance", "weights", "optimizer", "rows"} - set(state)
    except Exception as error:  # noqa: BLE001 - a damaged or malicious file may raise anything
        raise InputError(
            f"{path}: not a training state that can be loaded safely ({first_line(error)}): delete it and the legs after "
            "it, then run again"
        ) from None
    if missing:
        raise InputError(f"{path}: a training state without {', '.join(sorted(missing))}: delete it, then run again")
    return state


def differences(then: dict[str, Any], now: dict[str, Any], at: str = "") -> list[str]:
    """What differs between two provenances: `settings.seed (0 then, 1 now)`."""
    found = []
    for key in sorted(set(then) | set(now)):
        old, new = then.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            found += differences(old, new, f"{at}{key}.")
        elif old != new:
            found.append(f"{at}{key} ({_short(old)} then, {_short(new)} now)")
    return found


def _short(value: Any) -> str:
    return f"{value[:12]}…" if isinstance(value, str) and len(value) > 16 else str(value)
