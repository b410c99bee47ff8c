"""Estimate the memory that a training needs on a device, before anything heavy is loaded. No torch."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sao.base.command import InputError

from sao.base.files import size_text
from sao.models.config import ModelConfig, downsampling_ratio, text_max_length
from sao.models.header import tensor_shapes

DECIDES_NO_RESULT = "an estimate, which lets a training start or not"

Settings = dict[str, Any]
Counts = dict[str, Any]

# Tensors of their inputs' size that conditioners, noise and loss keep, or need for a moment.
LATENT_TENSORS, CONTEXT_TENSORS = 8, 6
EIGHT_BIT_TENSORS = 9  # float32 tensors of the largest weight's size, in an eager step of the 8-bit optimiser
ENCODER_TENSORS = 5  # tensors of a clip's size in the encoder's first layer, while audio is encoded
QUANTIZED, BLOCK = 4096, 256  # elements: from QUANTIZED on, torchao keeps a weight's states in 8 bits, in blocks
USABLE = 0.95  # share of the free memory; the allocator's fragments take the rest
ATTENTION = ["to_q", "to_kv", "to_qkv", "to_out"]
# If a run has none.
ADAPTER = {
    "rank": 16, "alpha": 16, "rslora": False, "dropout": 0, "target_modules": ATTENTION, "include": None, "exclude": None,
    "base_precision": "fp32",
}  # fmt: skip
# By method: the numbers of a `[rows, columns]` weight's adapter, beside low-rank matrices or the core of `-xs`.
MAGNITUDES: dict[str, Callable[[int, int], int]] = {
    "dora": lambda rows, columns: rows,
    "dora-cols": lambda rows, columns: columns,
    "bora": lambda rows, columns: rows + columns,
}
# By method: the matrices as large as a weight that the backward pass of an adapted weight needs, float32.
REMADE = {"lora": 0, "dora": 2, "dora-cols": 2, "bora": 4}
PEFT = ("lora", "dora")  # methods that peft computes, on a layer's input


def parameter_counts(weights: Path) -> Counts:
    """Count the parameters of `model` (the DiT), `conditioner` and `pretransform`. `shapes` has the DiT's tensors by key.

    Only the header of the safetensors file is read. Raises InputError unless the file is as long as its header says.
    """
    return counted(tensor_shapes(weights))


def counted(shapes: Mapping[str, Sequence[int]]) -> Counts:
    """What `parameter_counts` says of a model, from the shapes of its weights by key."""
    counts: Counts = {"model": 0, "conditioner": 0, "pretransform": 0, "shapes": {}}
    for key, shape in shapes.items():
        part = key.split(".")[0]
        if part in ("model", "conditioner", "pretransform"):
            counts[part] += math.prod(shape)
        if part == "model":
            counts["shapes"][key] = tuple(shape)
    return counts


def total(parts: dict[str, int]) -> int:
    """The sum of all parts, in bytes."""
    return sum(parts.values())


def is_quantized(key: str, size: int) -> bool:
    """Whether bf16-true keeps a weight of `size` elements in bfloat16: if so, torchao has 8-bit states for it.

    The embedding of timesteps stays float32: stable-audio-tools converts timesteps and inputs to the type of the DiT's
    first weight (stable_audio_tools/models/dit.py).
    """
    return size >= QUANTIZED and size % BLOCK == 0 and "to_timestep_embed." not in key


def synchronises(settings: Mapping[str, Any]) -> bool:
    """Whether processes exchange gradients (DistributedDataParallel). Then each needs buffers for all gradients."""
    return settings.get("devices", 1) * settings.get("num_nodes", 1) > 1 or settings.get("strategy") in ("ddp", "fsdp")


def estimate(
    config: ModelConfig,
    counts: Counts,
    settings: Settings,
    frames: int,
    on_latents: bool,
) -> dict[str, int]:
    """The bytes of each part at the peak of a training step, for each process, from the second step on.

    Some parts stay all the time: weights, optimiser states, EMA, autoencoder, and the buckets in which
    several processes exchange gradients. One of four phases adds the most to them: encoding audio, forward, backward or
    optimiser step. The estimate leaves out the context of the device's driver, NCCL's own buffers, the allocator's
    fragments, and the activations of a model that is not a DiT. It ignores `compile`.
    """
    precision, full = settings["precision"], settings["method"] == "full"
    low = precision == "bf16-true"
    stored = 2 if not full and settings["adapter"]["base_precision"] == "bf16" else 4
    adapters = 0 if full else adapter_parameters(counts, settings)
    trained = counts["model"] + counts["conditioner"] if full else adapters
    # Adapters stay float32. bf16-true keeps large matrices in 16 bits, with states of 8 bits and a scale for each block.
    weights = stored * (counts["model"] + counts["conditioner"]) + 4 * adapters
    if settings["method"].endswith("-xs"):
        weights += 4 * settings["adapter"]["rank"] * sum(map(sum, adapted_shapes(counts, settings)))  # singular vectors
    gradients, states = 4 * trained, 8 * trained
    if low and full:
        sizes = {key: math.prod(shape) for key, shape in counts["shapes"].items()}
        large = sum(size for key, size in sizes.items() if is_quantized(key, size))
        weights = gradients = 2 * large + 4 * (trained - large)
        states = round((2 + 8 / BLOCK) * large) + 8 * (trained - large)
    shares = 1
    if split(settings):
        shares = settings["devices"] * settings["num_nodes"]
        block, others = _unsharded(counts)
        # A block is gathered while the one before it computes. What belongs to no block stays gathered.
        weights, states = weights // shares + 2 * block + others, states // shares
        gradients = gradients // shares + block + others
    largest = max((math.prod(shape) for shape in counts["shapes"].values()), default=0)
    # torchao's optimiser computes one weight at a time in float32: weight, gradient, moments and results. torch's fused
    # AdamW needs no temporary. `foreach`, torch's default on a GPU, would take 4 bytes for each parameter, and these would
    # decide the peak of a full fine-tuning.
    temporary = EIGHT_BIT_TENSORS * 4 * largest if low and full else 0

    parts = {
        "weights": weights,
        "gradients": 0,
        "buckets": gradients if synchronises(settings) and not split(settings) else 0,
        "optimizer": states,
        "ema": (stored * counts["model"] + 4 * adapters) // shares if settings["ema"] else 0,
        "activations": 0,
        "autoencoder": 0 if on_latents else 4 * counts["pretransform"],
    }
    kept = gradients if settings.get("accumulate", 1) > 1 else 0  # from the batches before this one
    # New gradients move into the buckets one by one. Those of batches that are not exchanged wait outside.
    bucketed = synchronises(settings) and not split(settings)
    phases = [{"gradients": 0 if bucketed else gradients, "optimizer": temporary}]
    if not on_latents:
        phases.append({"gradients": kept, "autoencoder": _encoding(config, settings, frames)})
    for shared, activations in _activations(config, counts, settings, frames, stored):
        reached = round(shared * gradients)
        outside = min(reached, (2 if low and full else 4) * largest) if bucketed else reached
        phases.append({"gradients": max(kept, outside), "activations": activations})
    phase = max(phases, key=total)
    return {name: size + phase.get(name, 0) for name, size in parts.items()}


def split(settings: Mapping[str, Any]) -> bool:
    """Whether weights, gradients and states are split over the processes."""
    return settings.get("strategy") == "fsdp"


def _unsharded(counts: Counts) -> tuple[int, int]:
    """Bytes of the weights of one block of the transformer, and of all that belongs to no block, in float32."""
    sizes = {key: 4 * math.prod(shape) for key, shape in counts["shapes"].items()}
    block = sum(size for key, size in sizes.items() if ".layers.0." in key)
    in_blocks = sum(size for key, size in sizes.items() if ".layers." in key)
    return block, sum(sizes.values()) - in_blocks + 4 * counts["conditioner"]


def adapter_parameters(counts: Counts, settings: Settings) -> int:
    """The trained numbers of the adapters: `rank` rows and columns per matrix, or their core, and magnitudes."""
    rank, method = settings["adapter"]["rank"], settings["method"]
    magnitudes = MAGNITUDES.get(method.removesuffix("-xs"), lambda rows, columns: 0)
    core = method.endswith("-xs")
    return sum(
        (rank * rank if core else rank * (shape[0] + shape[1])) + magnitudes(*shape)
        for shape in adapted_shapes(counts, settings)
    )


def adapted_shapes(counts: Counts, settings: Settings) -> list[tuple[int, int]]:
    """`(rows, columns)` of the matrices that have an adapter."""
    return [
        (shape[0], shape[1])
        for key, shape in counts["shapes"].items()
        if len(shape) == 2 and key.endswith(".weight")
        # The module's name counts from the DiT.
        if is_adapted(key.removesuffix(".weight").removeprefix("model."), settings["adapter"])
        if not key.endswith("timestep_features.weight")  # a table of frequencies, not a linear layer
    ]


def is_adapted(module: str, adapter: Mapping[str, Any]) -> bool:
    """Whether a module of the DiT gets an adapter, as far as its name decides."""
    if any(re.search(pattern(part), module) for part in adapter["exclude"] or ()):
        return False
    if adapter["include"] is not None and not any(re.search(pattern(part), module) for part in adapter["include"]):
        return False
    return is_target(module, adapter)


def is_target(module: str, adapter: Mapping[str, Any]) -> bool:
    targets = adapter["target_modules"]
    return targets == "all-linear" or any(f".{module}".endswith(f".{target}") for target in targets)


def pattern(part: str) -> str:
    """A part of a name as a regular expression. `[0-11]` stands for each of the numbers, as in stable-audio-tools."""
    pieces = re.split(r"\[(\d+)-(\d+)\]", part)
    ranges = [range(int(low), int(high) + 1) for low, high in zip(pieces[1::3], pieces[2::3], strict=True)]
    numbers = [f"(?:{'|'.join(map(str, each))})" for each in ranges]
    return "".join(f"{re.escape(text)}{number}" for text, number in zip(pieces[::3], [*numbers, ""], strict=True))


def _encoding(config: ModelConfig, settings: Settings, frames: int) -> int:
    """The bytes in use while the autoencoder encodes clip by clip in float32. Nothing is kept for a backward pass."""
    pretransform = config["model"]["pretransform"]
    channels = pretransform["config"].get("encoder", {}).get("config", {}).get("channels", 128)
    inner = pretransform["config"].get("pretransform", {}).get("config", {}).get("patch_size", 1)
    samples = frames * downsampling_ratio(config)
    audio = settings["batch_size"] * config.get("audio_channels", 2) * samples
    return 4 * (audio + ENCODER_TENSORS * channels * samples // inner)


def _activations(
    config: ModelConfig, counts: Counts, settings: Settings, frames: int, stored: int
) -> Iterator[tuple[float, int]]:
    """`(share of the gradients that exist, bytes that the DiT keeps)` at both ends of the backward pass.

    Based on stable_audio_tools/models/transformer.py. Attention keeps nothing quadratic (SDPA's flash and
    memory-efficient kernels). Under autocast the residual stream is 16 bits wide, but a norm keeps float32.
    """
    diffusion = config["model"]["diffusion"]
    if diffusion["type"] != "dit":
        return  # nothing is known of other models' activations
    dit, batch = diffusion["config"], settings["batch_size"]
    width, depth, heads = dit.get("embed_dim", 768), dit.get("depth", 12), dit.get("num_heads", 8)
    full, method = settings["method"] == "full", settings["method"]
    mixed = settings["precision"].endswith("-mixed")
    element = 4 if settings["precision"] == "32-true" else 2
    modulated = dit.get("global_cond_type", "prepend") == "adaLN"
    sequence = frames // dit.get("patch_size", 1) + dit.get("num_memory_tokens", 0) + (0 if modulated else 1)
    cross = dit.get("cond_token_dim", 0)
    others = len(diffusion.get("cross_attention_cond_ids", [])) - 1  # one token each beside the text
    tokens, context = batch * sequence, batch * (text_max_length(config) + others) if cross else 0
    inner = int(dit.get("ff_kwargs", {}).get("mult", 4) * width)
    # Differential attention is two, with queries and keys of their own and the same values.
    options = dit.get("attn_kwargs", {})
    twice = 2 if options.get("differential", False) else 1

    # Elements that one block keeps. A linear layer keeps its input only if its weight is trained.
    linears = {
        "self_attn.to_qkv": (tokens, width, (1 + 2 * twice) * width),
        "self_attn.to_out": (tokens, width, width),
    }
    if cross:
        kept_width = width if dit.get("project_cond_tokens", True) else cross
        linears |= {
            "cross_attn.to_q": (tokens, width, twice * width),
            "cross_attn.to_kv": (context, kept_width, (1 + twice) * kept_width),
            "cross_attn.to_out": (tokens, width, width),
        }
    linears |= {"ff.ff.0.proj": (tokens, width, 2 * inner), "ff.ff.2": (tokens, inner, width)}
    # Attention shares its output with to_out, and all blocks share the context; the cast of peft's adapters is a copy of its own.
    shared = ("self_attn.to_out", "cross_attn.to_out", "cross_attn.to_kv") if method not in PEFT or not mixed else ()
    adapted = {name: shape for name, shape in linears.items() if not full and is_target(name, settings["adapter"])}
    inputs = sum(n * i for name, (n, i, _) in (linears if full else adapted).items() if name not in shared)
    attention = (1 + 5 * twice) * tokens * width
    attention += (2 * twice * tokens * width + (1 + twice) * context * width) if cross else 0
    gated = 3 * tokens * inner  # both halves of the projection, and the activated gate
    more = 4 * tokens * width if modulated else 0
    if adapted:
        low_rank = settings["adapter"]["rank"] if method in PEFT else 0
        more += sum(n * low_rank + (2 * n * o if method == "dora" else 0) for n, _, o in adapted.values())
    # An RMS norm that is trained keeps its input and the normalised input, where it has no fused kernel.
    norms = (3 if cross else 2) * tokens * width * 4 * (2 if full and dit.get("norm_type") == "rms_norm" else 1)
    if (normed := options.get("qk_norm", "none")) != "none":
        norms += twice * (3 * tokens + context) * width * 4 * (2 if full and normed == "rms" else 1)
    sums = (2 if cross else 1) * twice * heads * tokens * 4  # attention's logarithms of sums, float32
    block = element * (inputs + attention + gated + more) + norms + sums

    # For a moment, in the backward pass of the gate: its three inputs and three gradients, and two of the block's.
    feedforward = gated + (tokens * inner if full or "ff.ff.2" in adapted else 0)
    moment = element * (6 * tokens * inner - feedforward + 2 * tokens * width)
    matrices = [math.prod(shape) for key, shape in counts["shapes"].items() if ".layers.0." in key and len(shape) > 1]
    if method not in ("full", "lora") and adapted:
        moment += 3 * 4 * max(i * o for _, i, o in adapted.values())  # the merged weight, float32
    # Outside of peft each forward pass makes the adapted weights anew, and keeps them with what led to them.
    made = sum(i * o for _, i, o in adapted.values()) if not full and method not in PEFT else 0
    # Autocast's copies of weights: kept for the backward pass; of trained weights until the end of the forward pass.
    cast = 2 * sum(matrices) if mixed and (stored == 4 or settings["precision"] == "16-mixed") else 0
    if made:
        kept = 4 * REMADE[method.removesuffix("-xs")]
        cast += made * (kept + (4 if not mixed else 2 if stored == 2 else 0))
    ends = 4 * LATENT_TENSORS * batch * frames * dit["io_channels"] + element * CONTEXT_TENSORS * context * cross

    block_share = sum(matrices) / max(counts["model"], 1)
    residual = element * tokens * width
    if settings["recompute_activations"]:
        # The forward pass of the last block up to the end of its gated layer.
        last = element * (4 * tokens * inner + 3 * tokens * width)
        yield 0, depth * residual + (depth * cast if full else cast) + last + ends
        yield block_share / 2, depth * residual + block + cast + moment + ends
        yield 1 - block_share / 2, residual + block + cast + moment + ends
    else:
        yield block_share / 2, depth * (block + cast) + moment + ends
        yield 1 - block_share / 2, block + cast + moment + ends


def resolved(
    config: ModelConfig,
    counts: Counts,
    settings: Settings,
    frames: int,
    on_latents: bool,
    available_bytes: int,
) -> Settings:
    """What `accumulate: auto` and `recompute_activations: null` mean on a device: the quickest way that fits.

    A step takes the same clips, whether at once or in parts, and with the same result but for rounding and the draws of an
    adapter's dropout. If nothing fits, it is the way that needs least, and `check` says what would fit.
    """
    batch, automatic = settings["batch_size"], settings["accumulate"] == "auto"
    parts = [count for count in range(1, batch + 1) if batch % count == 0] if automatic else [settings["accumulate"]]
    recompute = settings["recompute_activations"]

    def taken(count: int, again: bool) -> Settings:
        size = batch // count if automatic else batch
        return {"accumulate": count, "batch_size": size, "recompute_activations": again}

    ways = [taken(count, again) for count in parts for again in ([False, True] if recompute is None else [recompute])]

    def need(way: Settings) -> int:
        return total(estimate(config, counts, settings | way, frames, on_latents))

    ways.sort(key=_slowness)
    return next((way for way in ways if fit(need(way), available_bytes)), None) or min(ways, key=need)


def fit(needed: int, available_bytes: int) -> bool:
    """Whether so many bytes fit, beside what the allocator's fragments take."""
    return needed <= USABLE * available_bytes


def _slowness(way: Settings) -> float:
    """The time that a clip takes, roughly, relative to the quickest way.

    To recompute activations is a second forward pass, beside a backward pass of twice its time. Each batch costs a GPU about the
    time of two clips: a rule of thumb that no benchmark measured.
    """
    return (4 / 3 if way["recompute_activations"] else 1) * (1 + 2 / way["batch_size"])


def check(
    config: ModelConfig,
    counts: Counts,
    settings: Settings,
    frames: int,
    on_latents: bool,
    available_bytes: int,
) -> dict[str, int]:
    """Return the estimate if the training fits. If not, raises InputError with settings that would fit."""

    def need(changes: Settings) -> dict[str, int]:
        return estimate(config, counts, settings | changes, frames, on_latents)

    def fits(changes: Settings) -> bool:
        return fit(total(need(changes)), available_bytes)

    parts = need({})
    if fits({}):
        return parts
    needs = f"the training needs {size_text(total(parts))} of device memory, and {size_text(available_bytes)} are free"
    changes = _fitting(settings, fits)
    if changes is None:
        smallest = [{key: value for step in steps for key, value in step[-1].items()} for steps in _paths(settings)]
        least = min(total(need(changes)) for changes in smallest)
        raise InputError(
            f"{needs}; its smallest form (adapters, batch_size 1) needs {size_text(least)}: take a larger device"
        )
    raise InputError(f"{needs}: set {_as_config(settings, changes)}")


def _paths(settings: Settings) -> list[list[list[Settings]]]:
    """Ways to need less memory, the least harmful first. Each is a list of steps in order, and a step has options."""
    batch, adapter = settings["batch_size"], settings.get("adapter") or ADAPTER
    smaller = [size for size in range(batch - 1, 0, -1) if batch % size == 0]
    accumulate = settings.get("accumulate", 1)
    precision: list[Settings] = [] if settings["precision"] == "bf16-true" else [{"precision": "bf16-true"}]
    lora, base = {"method": "lora", "adapter": adapter}, {"adapter": adapter | {"base_precision": "bf16"}}
    steps = [
        [] if settings["recompute_activations"] else [{"recompute_activations": True}],
        [{"batch_size": size, "accumulate": accumulate * batch // size} for size in smaller],
        [{"ema": False}] if settings["ema"] else [],
    ]
    steps = [step for step in steps if step]
    further: list[list[list[Settings]]]
    if settings["method"] == "full":  # with adapters, 16 bits for the frozen weights harm less than 16 bits for all
        further = [[precision], [[lora, lora | base], precision]]
    else:
        further = [[[base], precision, [{"method": "lora"}]]]
    # A smaller batch accumulates gradients. With several processes these need more memory, so try without this step too.
    starts = [steps, [step for step in steps if "batch_size" not in step[0]]] if synchronises(settings) else [steps]
    return [[step for step in (*start, *more) if step] for more in further for start in starts]


def _fitting(settings: Settings, fits: Callable[[Settings], bool]) -> Settings | None:
    """The least harmful changes with which the training fits; None if all of them together do not suffice."""

    def merged(options: list[Settings]) -> Settings:
        return {key: value for option in options for key, value in option.items()}

    for steps in _paths(settings):
        changes: list[Settings] = []
        for step in steps:
            changes.append(next((option for option in step if fits(merged([*changes, option]))), step[-1]))
            if fits(merged(changes)):
                break
        else:
            continue
        # Undo the changes that did not help, the most harmful first.
        for number in reversed(range(len(changes))):
            before, after = changes[:number], changes[number + 1 :]
            changes[number] = next(o for o in ({}, *steps[number]) if fits(merged([*before, o, *after])))
        return merged(changes)
    return None


def _as_config(settings: Settings, changes: Settings) -> str:
    """The changes as lines of a config."""
    lines = {key: value for key, value in changes.items() if key != "adapter" and value != settings.get(key)}
    base = changes.get("adapter", {}).get("base_precision", "fp32")
    if base != "fp32" and base != (settings.get("adapter") or ADAPTER)["base_precision"]:
        lines["adapter.base_precision"] = base
    return ", ".join(f"{key}: {json.dumps(value).strip(chr(34))}" for key, value in lines.items())
