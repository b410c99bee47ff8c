"""Turn errors that torch raises during a training into one line that says which setting to change."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from sao.base.command import InputError

from sao.models.build import enough_memory


@contextlib.contextmanager
def explained(run: str) -> Iterator[None]:
    """Turn an allocation or a compilation that failed into an InputError."""
    from torch._dynamo.exc import TorchDynamoException

    cure = (
        "lower batch_size (and raise accumulate) or train_seconds, set recompute_activations to true, precision to bf16-true, "
        "or method to lora"
    )
    try:
        with enough_memory(f"run {run}", cure):
            yield
    except TorchDynamoException as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise InputError(
            f"run {run}: the transformer's blocks cannot be compiled ({lines[0] if lines else type(error).__name__}): set "
            "compile to false, or see to the compiler"
        ) from error
