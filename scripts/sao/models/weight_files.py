"""Find faults in files of weights: NaN, infinity, quantised numbers, an incomplete text encoder. No torch is needed."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sao.base.command import InputError

import numpy as np
from tokenizers import Tokenizer

from sao.base.files import CHUNK, read_json
from sao.models.header import Shapes, tensor_shapes

# For each type of number: the unsigned integer of its size, and the bits that are all set only in NaN and infinity.
KINDS = {
    "F64": (np.uint64, 0x7FF0_0000_0000_0000),
    "F32": (np.uint32, 0x7F80_0000),
    "F16": (np.uint16, 0x7C00),
    "BF16": (np.uint16, 0x7F80),
}
COUNTS = ("BOOL", "I16", "I32", "I64")  # types of positions and the like, which are not weights
WORDS = ("shared.weight", "encoder.embed_tokens.weight")  # the two names of T5's matrix of token vectors
T5_DEFAULTS = {
    "vocab_size": 32128,
    "d_model": 512,
    "d_kv": 64,
    "d_ff": 2048,
    "num_layers": 6,
    "num_heads": 8,
    "relative_attention_num_buckets": 32,
    "feed_forward_proj": "relu",
}  # the defaults of transformers


def check_numbers(path: Path, source: object) -> None:
    """Raise InputError on NaN, infinity, and weights that are not plain floats in a safetensors file from `source`."""
    tensor_shapes(path)
    with path.open("rb") as handle:
        length = int.from_bytes(handle.read(8), "little")
        header = json.loads(handle.read(length))
        for key, entry in header.items():
            if key == "__metadata__" or entry["dtype"] in COUNTS:
                continue
            if entry["dtype"] not in KINDS:
                raise InputError(
                    f"{source}: {key} has the type {entry['dtype']} of quantised weights, which would be misread: take the "
                    f"model in {', '.join(KINDS)}"
                )
            kind, exponent = KINDS[entry["dtype"]]
            begin, end = entry["data_offsets"]
            handle.seek(8 + length + begin)
            for at in range(begin, end, CHUNK):
                bits = np.frombuffer(handle.read(min(CHUNK, end - at)), kind)
                if (bits & kind(exponent) == exponent).any():
                    raise InputError(
                        f"{source}: {key} holds NaN or infinity: the file is damaged or its training diverged: use another "
                        "model"
                    )


def check_text_encoder(
    kind: str, config_path: Path, weights: Iterable[Path], tokenizer_path: Path, source: object
) -> None:
    """Raise InputError unless weights and tokenizer fit the text encoder of the config. `kind` is its conditioner's type.

    transformers would fill missing weights with random ones, without an error.
    """
    name, shapes_of = ENCODERS[kind]
    try:
        vocabulary, expected = shapes_of(read_json(config_path))
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"{config_path}: not the config of a {name} text encoder ({type(error).__name__}: {error}): take it from the "
            "encoder's repository"
        ) from None
    shapes: Shapes = {}
    for path in weights:
        shapes |= {key.removeprefix("model."): shape for key, shape in tensor_shapes(path).items()}
    if WORDS[0] in expected and WORDS[0] not in shapes and WORDS[1] in shapes:
        expected[WORDS[1]] = expected.pop(WORDS[0])
    missing = sorted(set(expected) - set(shapes))
    wrong = sorted(key for key in set(expected) - set(missing) if shapes[key] != expected[key])
    if missing or wrong:
        fault = (
            f"{len(missing)} keys are missing ({missing[0]} …)"
            if missing
            else f"{len(wrong)} have another shape ({wrong[0]}: {shapes[wrong[0]]}, not {expected[wrong[0]]})"
        )
        raise InputError(f"{source}: weights do not fit its config.json: {fault}: take both from one repository")
    try:
        largest = max(Tokenizer.from_file(str(tokenizer_path)).get_vocab().values(), default=-1)
    except Exception as error:  # noqa: BLE001 - tokenizers raises plain Exception
        raise InputError(
            f"{tokenizer_path}: not a tokenizer ({error}): take it from the text encoder's repository"
        ) from None
    if largest >= vocabulary:
        raise InputError(
            f"{tokenizer_path}: has tokens up to number {largest}, but the text encoder knows {vocabulary}: "
            "take both from one repository"
        )


def t5_shapes(config: dict[str, Any]) -> tuple[int, Shapes]:
    """`(size of the vocabulary, shapes of the weights by key)` of transformers' T5EncoderModel."""
    config = {**T5_DEFAULTS, **config}
    width, inner, hidden = config["d_model"], config["num_heads"] * config["d_kv"], config["d_ff"]
    gated = config["feed_forward_proj"].startswith("gated-")
    shapes: Shapes = {WORDS[0]: (config["vocab_size"], width), "encoder.final_layer_norm.weight": (width,)}
    for number in range(config["num_layers"]):
        attention, feed = (f"encoder.block.{number}.layer.{layer}." for layer in (0, 1))
        shapes |= {f"{attention}SelfAttention.{part}.weight": (inner, width) for part in "qkv"}
        shapes[f"{attention}SelfAttention.o.weight"] = (width, inner)
        shapes |= {f"{layer}layer_norm.weight": (width,) for layer in (attention, feed)}
        shapes |= {
            f"{feed}DenseReluDense.{part}.weight": (hidden, width) for part in (["wi_0", "wi_1"] if gated else ["wi"])
        }
        shapes[f"{feed}DenseReluDense.wo.weight"] = (width, hidden)
    bias = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    shapes[bias] = (config["relative_attention_num_buckets"], config["num_heads"])
    return config["vocab_size"], shapes


def t5gemma_shapes(config: dict[str, Any]) -> tuple[int, Shapes]:
    """`(size of the vocabulary, shapes of the weights by key)` of transformers' T5GemmaEncoderModel."""
    encoder = config["encoder"]
    width, hidden, size = encoder["hidden_size"], encoder["intermediate_size"], encoder["head_dim"]
    queries, keys = encoder["num_attention_heads"] * size, encoder["num_key_value_heads"] * size
    shapes: Shapes = {WORDS[1]: (encoder["vocab_size"], width), "encoder.norm.weight": (width,)}
    for number in range(encoder["num_hidden_layers"]):
        layer = f"encoder.layers.{number}."
        shapes |= {
            f"{layer}self_attn.q_proj.weight": (queries, width),
            f"{layer}self_attn.k_proj.weight": (keys, width),
            f"{layer}self_attn.v_proj.weight": (keys, width),
            f"{layer}self_attn.o_proj.weight": (width, queries),
            f"{layer}mlp.gate_proj.weight": (hidden, width),
            f"{layer}mlp.up_proj.weight": (hidden, width),
            f"{layer}mlp.down_proj.weight": (width, hidden),
        }
        norms = ("pre_self_attn", "post_self_attn", "pre_feedforward", "post_feedforward")
        shapes |= {f"{layer}{norm}_layernorm.weight": (width,) for norm in norms}
    return encoder["vocab_size"], shapes


# By the type of a conditioner: the name of its text encoder in messages, and what its weights are.
ENCODERS = {"t5": ("T5", t5_shapes), "t5gemma": ("T5Gemma", t5gemma_shapes)}
