"""What the header of a safetensors file says of its tensors, without torch and without reading them."""

from __future__ import annotations

import json
from pathlib import Path

from .command import InputError
from .model import assert_same_keys
from .model_config import ModelConfig, text_conditioner

Shapes = dict[str, tuple[int, ...]]


def tensor_shapes(path: Path) -> Shapes:
    """Shapes by key; raises InputError unless the file is as long as its header says."""
    size = path.stat().st_size
    try:
        with path.open("rb") as handle:
            length = int.from_bytes(handle.read(8), "little")
            if length > size - 8:
                raise ValueError(f"a header of {length} bytes in a file of {size}")
            header = json.loads(handle.read(length))
        tensors = {key: entry for key, entry in header.items() if key != "__metadata__"}
        end = 8 + length + max((entry["data_offsets"][1] for entry in tensors.values()), default=0)
        if end != size:
            raise ValueError(f"{size} bytes, where the header tells of {end}")
        return {key: tuple(entry["shape"]) for key, entry in tensors.items()}
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not a whole safetensors file ({error})") from None


def assert_same_weights(found: Shapes, expected: Shapes, config: ModelConfig, source: str) -> None:
    """Raise InputError unless weights of the shapes `found`, from `source`, are those of the model of `config`.

    A text encoder that is trained too has its weights among them, and is not built without them: they are not compared.
    """
    entry = text_conditioner(config)
    if entry["config"].get("enable_grad") or entry["config"].get("finetune"):
        encoder = f"conditioner.conditioners.{entry['id']}.model."
        found = {key: shape for key, shape in found.items() if not key.startswith(encoder)}
    assert_same_keys(found, expected, source)
