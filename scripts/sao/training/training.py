"""What a training step is made of: the objective, the optimiser, the moving average, the metrics, the saved state."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import importlib.util
import io
import math
import os
import pickle
import shutil
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from sao.base.command import InputError

import numpy as np
import torch
from torch.nn.functional import mse_loss

from sao.base.files import whole
from sao.base.names import seed_for
from sao.models.autoencoder import moments
from sao.models.build import first_line
from sao.training.dataset import Item
from sao.training.memory import is_quantized

if TYPE_CHECKING:
    from lightning_fabric import Fabric

State = dict[str, Any]

# What the network computes in under autocast. Everything around it, the objective and its target, is float32.
AUTOCAST = {"32-true": None, "16-mixed": torch.float16, "bf16-mixed": torch.bfloat16, "bf16-true": torch.bfloat16}
# Arguments that say how an optimiser computes, not what: decided here, because torch refuses some of them together.
COMPUTING = ("foreach", "fused", "capturable")
FUSED = ("Adam", "AdamW")
EIGHT_BIT = ("Adam8bit", "AdamW8bit")
# Arguments of bitsandbytes' 8-bit optimisers, with the values at which torchao's do the same.
BITSANDBYTES = {"block_wise": True, "percentile_clipping": 100, "optim_bits": 8, "is_paged": False}


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

    stable-audio-tools recomputes activations always, which a large model needs and a small one only pays for
    (`use_checkpointing`, stable_audio_tools/models/transformer.py). Raises InputError where blocks cannot be compiled.
    """
    for conditioner in model.conditioner.conditioners.values():
        if type(conditioner).__name__ == "T5Conditioner" and not conditioner.enable_grad:
            conditioner.__dict__["model"] = PromptCache(conditioner.model)
    dit = model.model.model
    dit.timestep_features.forward = functools.partial(in_float32, dit.timestep_features.forward)
    if not recompute_activations:
        dit.transformer.forward = functools.partial(dit.transformer.forward, use_checkpointing=False)
    if compile_blocks:
        if missing := missing_compiler():
            raise InputError(f"compile needs {missing}, which is not installed: install it, or set compile to false")
        # stable-audio-tools turns this on as it is imported: what cannot be compiled would run eagerly, without a word.
        torch._dynamo.config.suppress_errors = False
        for block in dit.transformer.layers:
            block.compile()


def compiled_graphs() -> int:
    """How many graphs `torch.compile` has made in this process; raises InputError if none."""
    graphs = int(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    if not graphs:
        raise InputError("compile: torch compiled nothing, and runs eagerly: set compile to false")
    return graphs


def in_float32(forward: Any, t: torch.Tensor) -> torch.Tensor:
    """Call `forward`, the Fourier features of the timesteps `t [batch, 1]`, past autocast.

    Autocast would round timesteps to 8 binary digits (0.9985 to 1.0), and angles of up to 20 as well, while rendering
    does neither.
    """
    with torch.autocast(t.device.type, enabled=False):
        return forward(t.float())


def missing_compiler() -> str | None:
    """What `torch.compile` needs for the device and does not find, or None."""
    if torch.cuda.is_available():
        if importlib.util.find_spec("triton") is None:
            return "the Python package triton"
        names = [os.environ["CC"]] if os.environ.get("CC") else ["gcc", "clang", "cc"]
        return None if any(map(shutil.which, names)) else f"a C compiler ({' or '.join(names)})"
    name = os.environ.get("CXX", "g++")
    return None if shutil.which(name) else f"a C++ compiler ({name})"


class Objective(torch.nn.Module):
    """The loss of a conditioned latent diffusion model, after DiffusionCondTrainingWrapper of stable-audio-tools.

    Nothing in it is drawn at random: noise, timestep and dropout come with the batch (sao/training/dataset.py). Noised latents,
    timesteps, target and loss are float32 in every `precision`; only the diffusion transformer runs in a lower one.
    """

    def __init__(self, model: torch.nn.Module, training: dict[str, Any], seed: int, precision: str = "32-true") -> None:
        super().__init__()
        self.dit, self.conditioner = model.model, model.conditioner
        # Not registered: it is neither trained nor needed on the device where there are latents.
        self.__dict__["model"] = model
        self.scale = float(getattr(model.pretransform, "scale", 1.0))
        self.mask_padding = training.get("mask_padding", False)
        self.mask_dropout, self.seed = training.get("mask_padding_dropout", 0.0), seed
        self.lower = AUTOCAST[precision]

    def forward(self, batch: Item, number: int | None) -> torch.Tensor:
        """Mean squared error `[batch]` of each clip.

        `number` is that of the batch among all of the training, on all devices: a mask is dropped for a whole batch. None
        for a validation, which masks nothing.
        """
        device = batch["noise"].device.type
        with torch.autocast(device, enabled=False):
            noise, t = batch["noise"], batch["t"]
            x = self.latents(batch) / self.scale
            if self.model.dist_shift is not None and number is not None:
                t = self.model.dist_shift.time_shift(t, x.shape[2])
            if self.model.diffusion_objective == "v":
                alpha, sigma = torch.cos(t * math.pi / 2)[:, None, None], torch.sin(t * math.pi / 2)[:, None, None]
                target = noise * alpha - x * sigma
            else:  # rectified_flow, rf_denoiser
                alpha, sigma = 1 - t[:, None, None], t[:, None, None]
                target = noise - x
            noised = x * alpha + noise * sigma
            given = self.model.get_conditioning_inputs(self.conditioner(batch["info"], x.device))
            for key in ("cross_attn_cond", "prepend_cond"):  # as cfg_dropout_prob does (models/dit.py)
                if given[key] is not None:
                    given[key] = torch.where(batch["keep"][:, None, None], given[key], torch.zeros_like(given[key]))
        mask = None
        masked = self.mask_padding and number is not None
        # Dropped now and then, to learn the silence of the padding.
        if masked and seed_for(self.seed, "mask", number) / 2**32 >= self.mask_dropout:
            mask = torch.stack([info["padding_mask"][0] for info in batch["info"]]).to(x.device)
            given["mask"] = mask
        assert {noised.dtype, t.dtype, target.dtype} == {torch.float32}, "the objective has to be float32"
        with torch.autocast(device, dtype=self.lower, enabled=self.lower is not None):
            output = self.dit(noised, t, **given)
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
        with torch.no_grad():
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


class Update:
    """One step of the optimiser: gradients of several batches, clipped, and in 16-mixed scaled, then applied.

    In three parts, so that a caller can stop a training that has diverged before its weights have changed.
    """

    def __init__(
        self,
        fabric: Fabric,
        objective: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        weights: list[torch.Tensor],
        settings: dict[str, Any],
    ) -> None:
        """`objective` and `optimizer` as `fabric.setup` gives them; `weights` are those that are trained."""
        self.fabric, self.objective, self.optimizer, self.weights = fabric, objective, optimizer, weights
        self.accumulate, self.seed = settings["accumulate"], settings["seed"]
        self.limit = settings["gradient_clip"]
        self.skipped = 0  # steps whose gradients overflowed in float16, and which changed nothing
        # Gradients of float16 vanish where they are small, so the loss is scaled up; elsewhere this passes all through.
        self.scaler = torch.amp.GradScaler(fabric.device.type, enabled=settings["precision"] == "16-mixed")

    def backward(self, batches: Iterator[Item], step: int) -> float:
        """Add the gradients of the next batches of optimiser step `step`, and return their mean loss."""
        loss = 0.0
        for part in range(self.accumulate):
            number = step * self.accumulate + part
            items = next(batches)
            seed_step(self.seed, number, self.fabric.global_rank)
            with self.fabric.no_backward_sync(self.objective, enabled=part < self.accumulate - 1):
                drawn = number * self.fabric.world_size + self.fabric.global_rank
                error = self.objective(items, drawn).mean() / self.accumulate
                self.fabric.backward(self.scaler.scale(error))
            loss += error.item()
        return loss

    def clip(self) -> float | None:
        """Clip the gradients and return their norm before, where the run clips; None where it does not.

        In 16-mixed the norm may be infinite: such a step is passed over.
        """
        if not self.limit:
            return None
        self.scaler.unscale_(self.optimizer.optimizer)
        return float(torch.nn.utils.clip_grad_norm_(self.weights, self.limit))

    def apply(self, step: int) -> None:
        """Change the weights, and forget the gradients."""
        # Rounding to bfloat16 is drawn at random: alike on all devices, or their weights would part.
        seed_step(self.seed, step, -1)
        before = self.scaler.get_scale()
        self.scaler.step(self.optimizer.optimizer)
        self.scaler.update()
        self.skipped += self.scaler.get_scale() < before
        self.optimizer.zero_grad()


def low_precision(module: torch.nn.Module) -> None:
    """Keep the matrices of linear layers and convolutions in bfloat16.

    All else stays float32: Fourier features, norms, biases, and matrices that are too small for 8-bit states.
    """
    for layer in module.modules():
        if isinstance(layer, torch.nn.Linear | torch.nn.Conv1d) and is_quantized(layer.weight.numel()):
            layer.weight.data = layer.weight.data.to(torch.bfloat16)


def make_optimizer(
    config: dict[str, Any], settings: dict[str, Any], weights: list[torch.Tensor]
) -> torch.optim.Optimizer:
    """The optimiser of a model config's `training` section, Adam and AdamW fused.

    With bf16-true Adam and AdamW are torchao's of 8 bits, whose stochastic rounding loses no update of a bfloat16 weight
    on the average: 6 bytes for each parameter (weight 2, gradient 2, states 2), where float32 takes 16. Raises InputError
    on one that cannot be made.
    """
    entry = config["optimizer_configs"]["diffusion"]["optimizer"]
    kind, options = entry["type"], {k: v for k, v in (entry.get("config") or {}).items() if k not in COMPUTING}
    low = settings["precision"] == "bf16-true"
    if low and kind not in (*FUSED, *EIGHT_BIT):
        raise InputError(f"precision bf16-true has Adam and AdamW, not {kind}: set the run's optimizer.type")
    if kind in EIGHT_BIT:
        options = {k: v for k, v in options.items() if BITSANDBYTES.get(k, ...) != v}
    if low or kind in EIGHT_BIT:
        if options.pop("amsgrad", False):
            raise InputError(f"optimiser {kind} keeps 8-bit states here, which has no amsgrad: set it to false")
        make = functools.partial(eight_bit(kind.removesuffix("8bit")), bf16_stochastic_round=True)
    else:
        make = getattr(torch.optim, kind, None)
        if not isinstance(make, type) or not issubclass(make, torch.optim.Optimizer):
            raise InputError(f"torch.optim has no optimiser {kind!r}: set the run's optimizer.type, say to AdamW")
        if kind in FUSED:
            options["fused"] = True  # one pass over the weights, no temporaries
    try:
        return make(weights, **options)
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        raise InputError(
            f"optimiser {kind} cannot be made with {options} ({first_line(error)}): set the run's optimizer"
        ) from None


def eight_bit(kind: str) -> type[torch.optim.Optimizer]:
    """torchao's `Adam` or `AdamW` with states of 8 bits (Dettmers et al., 2022, arXiv:2110.02861).

    It compiles its step for each shape of a weight. Where that is not possible, and on a CPU, where it would take longer
    than it saves, the step runs eagerly.
    """
    from torchao import optim

    eager = not torch.cuda.is_available() or missing_compiler() is not None  # asked once, not at every step

    class EightBit(getattr(optim, f"{kind}8bit")):
        def _new_buffer(self, p: torch.Tensor, signed: bool) -> torch.Tensor:
            state = super()._new_buffer(p, signed)
            # Of a small weight: in bfloat16, as torchao has it, a second moment would never decay.
            return state.float() if type(state) is torch.Tensor else state

        def step(self, closure: Any = None) -> Any:
            with torch.compiler.set_stance("force_eager" if eager else "default"):
                return super().step(closure)

    return EightBit


def try_optimizer(config: dict[str, Any], settings: dict[str, Any]) -> float:
    """Take two steps with optimiser and schedule of a `training` section, on made-up weights of a model's shapes.

    Returns the bytes that the optimiser's states take on the disk for each parameter.
    Raises InputError where they cannot be made or cannot step: before anything is downloaded, and not after hours.
    """
    stored = torch.bfloat16 if settings["precision"] == "bf16-true" else torch.float32
    shapes = {(64, 64): stored, (64, 64, 1): stored, (64,): torch.float32}
    weights = [torch.nn.Parameter(torch.ones(shape, dtype=dtype)) for shape, dtype in shapes.items()]
    optimizer = make_optimizer(config, settings, weights)
    scheduler = make_scheduler(config, optimizer)
    entry = config["optimizer_configs"]["diffusion"]
    kind, what = entry["optimizer"]["type"], "optimizer"
    try:
        for _ in range(2):
            what = "optimizer"
            for weight in weights:
                weight.grad = torch.full_like(weight, 0.5)
            optimizer.step()
            what = "scheduler"
            scheduler.step()
        what = "optimizer"
        saved = io.BytesIO()
        torch.save(optimizer.state_dict(), saved)
        saved.seek(0)
        optimizer.load_state_dict(torch.load(saved, weights_only=True))
    except Exception as error:  # noqa: BLE001 - whatever an optimiser raises, the user hears of it now
        culprit = f"optimiser {kind}" if what == "optimizer" else f"schedule {entry['scheduler']['type']}"
        raise InputError(
            f"{culprit} cannot take a step ({type(error).__name__}: {first_line(error)}): set the run's {what}"
        ) from None
    if not all(torch.isfinite(weight).all() for weight in weights):
        raise InputError(f"optimiser {kind} makes weights infinite or NaN at its first step: lower the learning rate")
    return len(saved.getbuffer()) / sum(weight.numel() for weight in weights)


SCHEDULED = 10_000  # steps of a schedule that are tried; what ends later says so itself


def check_schedule(config: dict[str, Any], steps: int) -> None:
    """Raise InputError where the schedule of a `training` section cannot be followed for `steps` steps.

    It is stepped alone, on a made-up weight, which takes a tenth of a second: a schedule that ends before the training
    (OneCycleLR) raises only then, after hours.
    """
    entry = config["optimizer_configs"]["diffusion"]
    kind = (entry.get("scheduler") or {"type": "constant"})["type"]
    rate = (entry["optimizer"].get("config") or {}).get("lr", 1e-3)
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=rate)
    scheduler = make_scheduler(config, optimizer)
    ends = getattr(scheduler, "total_steps", None)
    cure = f"set the run's scheduler so that it lasts for the {steps} steps of the training"
    if ends is not None and ends < steps:
        raise InputError(f"schedule {kind} ends after {ends} of {steps} steps: {cure}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the optimiser did not step
        for step in range(min(steps, SCHEDULED)):
            try:
                scheduler.step()
            except Exception as error:  # noqa: BLE001 - whatever a schedule raises, the user hears of it now
                raise InputError(
                    f"schedule {kind} fails at step {step + 1} ({type(error).__name__}: {first_line(error)}): {cure}"
                ) from None


def make_scheduler(config: dict[str, Any], optimizer: torch.optim.Optimizer) -> Any:
    """The learning-rate schedule of a model config's `training` section, or a constant one; raises InputError."""
    entry = config["optimizer_configs"]["diffusion"].get("scheduler") or {"type": "constant"}
    kind, options = entry["type"], entry.get("config") or {}
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
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise InputError(
            f"schedule {kind} cannot be made with {options} ({first_line(error)}): set the run's scheduler"
        ) from None


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


class _Hashed:
    """A file that is hashed while torch writes it, which it does from beginning to end."""

    def __init__(self, handle: BinaryIO) -> None:
        self.handle, self.hasher, self.pool = handle, hashlib.sha256(), ThreadPoolExecutor(1)

    def write(self, data: bytes) -> int:
        hashing = self.pool.submit(self.hasher.update, data)
        try:
            return self.handle.write(data)
        finally:
            hashing.result()

    def flush(self) -> None:
        self.handle.flush()


def tensor_bytes(value: Any) -> int:
    """Bytes of all tensors in nested dicts and lists."""
    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size()
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return sum(map(tensor_bytes, parts))


def save_state(path: Path, state: State) -> str:
    """Write a training state, whole or not at all; returns its SHA-256."""
    with whole(path, tensor_bytes(state)) as temporary, temporary.open("wb") as handle:
        hashed = _Hashed(handle)
        torch.save(state, hashed)
    return hashed.hasher.hexdigest()


def read_state(path: Path) -> State:
    """A training state, its tensors left on the disk until they are used; raises InputError on anything else."""
    try:
        try:
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except pickle.UnpicklingError as error:
            if "torchao" not in str(error):
                raise
            import torchao.optim  # noqa: F401 - which says that its states of 8 bits hold no code

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
