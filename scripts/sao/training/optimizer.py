"""The optimiser of a training, from its name and arguments in a model config or a run; tried before anything is loaded."""

from __future__ import annotations

import functools
import io
from collections.abc import Mapping, Sequence
from typing import Any

from sao.base.command import InputError

import torch

from sao.models.build import first_line
from sao.models.device import this_device
from sao.training.schedule import make_scheduler

# Arguments that say how an optimiser computes, not what: decided here, because torch refuses some of them together.
COMPUTING = ("foreach", "fused", "capturable")

FUSED = ("Adam", "AdamW")

EIGHT_BIT = ("Adam8bit", "AdamW8bit")

# Arguments of bitsandbytes' 8-bit optimisers, with the values at which torchao's do the same.
BITSANDBYTES = {"block_wise": True, "percentile_clipping": 100, "optim_bits": 8, "is_paged": False}


def make_optimizer(
    config: dict[str, Any], settings: Mapping[str, Any], weights: Sequence[torch.Tensor]
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
        make: Any = functools.partial(eight_bit(kind.removesuffix("8bit")), bf16_stochastic_round=True)
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


def eight_bit(kind: str) -> Any:
    """torchao's `Adam` or `AdamW` with states of 8 bits (Dettmers et al., 2022, arXiv:2110.02861).

    On a GPU with a compiler the arithmetic of a weight's step is one compiled kernel. torchao would compile it for each
    shape of a weight, which takes minutes for a large model. Here weights are handed over as vectors of any length, so
    two graphs are compiled: for weights with 8-bit states, and for those without. Weights on a CPU, those of
    `try_optimizer` too, step eagerly: to compile for a CPU takes a minute.
    """
    from torchao import optim
    from torchao.optim.adam import single_param_adam

    base: Any = getattr(optim, f"{kind}8bit")
    steps = {"cpu": single_param_adam}  # by the kind of device that a weight is on
    if this_device().is_gpu:
        has_compiler = this_device().missing_compiler() is None
        quick = torch.compile(single_param_adam, fullgraph=True, dynamic=True) if has_compiler else single_param_adam
        steps[this_device().kind] = quick

    class EightBit(base):
        def _new_buffer(self, p: torch.Tensor, signed: bool) -> torch.Tensor:
            state = super()._new_buffer(p, signed)
            # Of a small weight: in bfloat16, as torchao has it, a second moment would never decay.
            return state.float() if type(state) is torch.Tensor else state

        @torch.no_grad()
        def step(self, closure: None = None) -> None:
            for group in self.param_groups:
                beta1, beta2 = group["betas"]
                for p in group["params"]:
                    if p.grad is None:
                        continue
                    state = self.state[p]
                    if not state:
                        state["step"] = torch.tensor(0.0)
                        state["exp_avg"], state["exp_avg_sq"] = self._new_buffer(p, True), self._new_buffer(p, False)
                    state["step"] += 1
                    steps[p.device.type](
                        flat(p.detach()), p.grad.reshape(-1), state["step"], flat(state["exp_avg"]),
                        flat(state["exp_avg_sq"]), None, group["lr"], beta1, beta2, group["weight_decay"],
                        group["eps"], self.is_adamw, self.bf16_stochastic_round and p.dtype is torch.bfloat16,
                    )  # fmt: skip

    return EightBit


def flat(tensor: torch.Tensor) -> torch.Tensor:
    """A vector that shares its memory with a tensor, which may be one of torchao's 8-bit states."""
    if type(tensor) is torch.Tensor:
        return tensor.view(-1)
    from torchao.optim.subclass_8bit import OptimState8bit

    state: Any = tensor
    return OptimState8bit(state.codes.view(-1), state.scale, state.qmap, state.signed, dtype=state.dtype)


def try_optimizer(config: dict[str, Any], settings: Mapping[str, Any]) -> float:
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
