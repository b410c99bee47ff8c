"""What the header of a safetensors file says of its tensors, without torch and without reading them."""

from __future__ import annotations

import json
from pathlib import Path

from sao.base.command import InputError

from sao.models.build import assert_same_keys
from sao.models.config import ModelConfig, text_conditioner

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


def _refuse_wrapped(found: Shapes, expected: Shapes, source: str) -> None:
    """Raise InputError where the model's own keys are there, most of them, behind a prefix: say of what.

    stable-audio-tools' training keeps the model as `diffusion`, and the moving average as `diffusion_ema`
    (DiffusionCondTrainingWrapper, stable_audio_tools/training/diffusion.py).
    """
    some = tuple(f".{key}" for key in list(expected)[:5])
    ends = {key: next((end for end in some if key.endswith(end)), None) for key in found}
    prefixes = {key[: 1 - len(end)] for key, end in ends.items() if end}
    prefix = max(prefixes, key=lambda prefix: sum(prefix + key in found for key in expected), default="")
    if not prefix or 2 * sum(prefix + key in found for key in expected) < len(expected):
        return
    if prefix == "diffusion.":
        averaged = ", with the moving average beside it" if any(k.startswith("diffusion_ema.") for k in found) else ""
        raise InputError(
            f"{source}: a checkpoint of stable-audio-tools' own training (its keys begin with 'diffusion.'{averaged}), not a "
            "model: make one of it with that repository's `python unwrap_model.py --model-config model_config.json "
            "--ckpt-path CHECKPOINT --name model --use-safetensors`, and name the result as `weights`"
        )
    raise InputError(
        f"{source}: not a bare model: its keys are the model's behind {prefix!r}, as another program wrapped it: take the "
        "prefix off the keys, and name the result as `weights`"
    )


def assert_same_weights(found: Shapes, expected: Shapes, config: ModelConfig, source: str) -> None:
    """Raise InputError unless weights of the shapes `found`, from `source`, are those of the model of `config`.

    A text encoder that is trained too has its weights among them, and is not built without them: they are not compared.
    """
    _refuse_wrapped(found, expected, source)
    entry = text_conditioner(config)
    if entry["config"].get("enable_grad") or entry["config"].get("finetune"):
        encoder = f"conditioner.conditioners.{entry['id']}.model."
        found = {key: shape for key, shape in found.items() if not key.startswith(encoder)}
    assert_same_keys(found, expected, source)
