"""Compare the shapes in a safetensors file's header with those of a model. No torch is needed, and no tensor is read."""

from __future__ import annotations

import json
from pathlib import Path

from sao.base.command import InputError

from sao.models.build import assert_same_keys

Shapes = dict[str, tuple[int, ...]]


def tensor_shapes(path: Path) -> Shapes:
    """The shapes of a file's tensors, by key. Raises InputError unless the file is as long as its header says."""
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
            raise ValueError(f"{size} bytes, the header says {end}")
        return {key: tuple(entry["shape"]) for key, entry in tensors.items()}
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not a whole safetensors file ({error})") from None


def _refuse_wrapped(shapes: Shapes, expected: Shapes, source: str) -> None:
    """Raise InputError if most of the model's keys are there, but with a prefix. The message explains the prefix.

    stable-audio-tools' training stores the model as `diffusion`, and the moving average as `diffusion_ema`
    (DiffusionCondTrainingWrapper, stable_audio_tools/training/diffusion.py).
    """
    some = tuple(f".{key}" for key in list(expected)[:5])
    ends = {key: next((end for end in some if key.endswith(end)), None) for key in shapes}
    prefixes = {key[: 1 - len(end)] for key, end in ends.items() if end}
    prefix = max(prefixes, key=lambda prefix: sum(prefix + key in shapes for key in expected), default="")
    if not prefix or 2 * sum(prefix + key in shapes for key in expected) < len(expected):
        return
    if prefix == "diffusion.":
        averaged = ", with the moving average beside it" if any(k.startswith("diffusion_ema.") for k in shapes) else ""
        raise InputError(
            f"{source}: a checkpoint of stable-audio-tools' own training (its keys begin with 'diffusion.'{averaged}), not a "
            "model: make one of it with that repository's `python unwrap_model.py --model-config model_config.json "
            "--ckpt-path CHECKPOINT --name model --use-safetensors`, and name the result as `weights`"
        )
    raise InputError(
        f"{source}: not a bare model: another program put {prefix!r} before the model's keys: remove the prefix from the "
        "keys, and name the result as `weights`"
    )


def assert_same_weights(shapes: Shapes, expected: Shapes, source: str) -> None:
    """Raise InputError unless the weights of `source`, with these shapes, are those of the model that was built."""
    _refuse_wrapped(shapes, expected, source)
    assert_same_keys(shapes, expected, source)
