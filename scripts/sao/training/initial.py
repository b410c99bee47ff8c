"""Read the weights that a training starts from: an earlier fine-tuning's, in any of the forms in which people keep them.

Every key of the file is accounted for: it is used, or known to be none of the model's weights, or the file is refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sao.base.command import InputError, log

from sao.models.build import assert_same_keys, changed_keys, read_pickled, read_safetensors
from sao.training.adapters import CONFIG, WEIGHTS, merged_weights
from sao.training.forms import BETWEEN, FILE, merged_form

if TYPE_CHECKING:
    import torch

Weights = dict[str, "torch.Tensor"]
FROZEN = "pretransform."  # the autoencoder's, which no training changes
# The keys of a Lightning checkpoint of stable-audio-tools (DiffusionCondTrainingWrapper, training/diffusion.py): the model,
# and beside it the moving average of its `model`.
WRAPPED, AVERAGE = "diffusion.", "diffusion_ema.ema_model."
COUNTERS = ("diffusion_ema.initted", "diffusion_ema.step")
ONLINE = "diffusion_ema.online_model."  # the same weights a second time


def read_initial(path: Path, base: Weights, average: bool) -> tuple[Weights, str, int]:
    """All weights of the base model, with those that `path` has instead, the kind of file, and how many keys differ.

    `base` has the untouched weights by key. `path` is a safetensors file or a pickled checkpoint of a whole model or of its
    trained part, or a folder or file of an adapter, which is merged. Of a checkpoint with a moving average and the weights
    that it follows, `average` chooses. Raises InputError on keys or shapes that are not the base model's, on another
    autoencoder, on numbers that are not finite, and on weights that are all the base model's own.
    """
    import torch

    file = path / "model.safetensors" if path.is_dir() else path
    folder = path if path.is_dir() else path.parent if path.name == WEIGHTS else None
    if folder and any((folder / name).is_file() for name in (CONFIG, FILE)):
        weights, kind = merged_weights(base, folder), "adapter"
    elif not file.is_file():
        raise InputError(f"{path}: has no model.safetensors, {CONFIG} or {FILE}: correct init_from")
    else:
        state = read_safetensors(file) if file.suffix == ".safetensors" else read_pickled(file)
        if file.suffix == ".safetensors" and any(BETWEEN in key for key in state):
            weights, kind = merged_form(base, file), "adapter"
        else:
            trained, kind = unwrapped(state, file, average)
            weights = replaced(base, trained, file)
    if bad := [key for key, value in weights.items() if not torch.isfinite(value).all()]:
        raise InputError(f"{path}: {len(bad)} weights are NaN or infinite ({bad[0]} …): its training diverged")
    changed = len(changed_keys(weights, base))
    if not changed:
        raise InputError(f"{path}: all weights are those of the base model: remove init_from, or name another file")
    return weights, kind, changed


def unwrapped(state: Weights, path: Path, average: bool) -> tuple[Weights, str]:
    """The keys as the bare model has them, and the kind of file. Raises InputError on a wrapped key that is not known."""
    if not any(key.startswith((WRAPPED, AVERAGE)) for key in state):
        return state, "model"
    online = {key.removeprefix(WRAPPED): value for key, value in state.items() if key.startswith(WRAPPED)}
    averaged = {f"model.{key.removeprefix(AVERAGE)}": value for key, value in state.items() if key.startswith(AVERAGE)}
    known = (WRAPPED, AVERAGE, ONLINE)
    if strange := sorted(key for key in state if not key.startswith(known) and key not in COUNTERS):
        raise InputError(
            f"{path}: {len(strange)} keys are not known in a checkpoint of stable-audio-tools ({strange[0]} …): export the "
            "model with its unwrap_model.py, and name that file"
        )
    if average and averaged:
        return online | averaged, "moving average of a checkpoint"
    if average:
        log.warning("warning: %s: has no moving average, so its weights are taken as they are", path)
    return online, "checkpoint"


def replaced(base: Weights, trained: Weights, path: Path) -> Weights:
    """`base` with the weights of `trained`, in float32, which need not have the autoencoder."""
    whole = any(key.startswith(FROZEN) for key in trained)
    expected = {key: value.shape for key, value in base.items() if whole or not key.startswith(FROZEN)}
    assert_same_keys({key: value.shape for key, value in trained.items()}, expected, path)
    if other := changed_keys({key: value for key, value in trained.items() if key.startswith(FROZEN)}, base):
        raise InputError(
            f"{path}: has another autoencoder than the base model ({len(other)} weights, {other[0]} …): declare it as a base "
            "model of its own"
        )
    return {
        key: value if key.startswith(FROZEN) or key not in trained else trained[key].float()
        for key, value in base.items()
    }
