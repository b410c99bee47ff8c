"""Weights in half precision, and how far they lie from those that they were made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def stored(weights: Mapping[str, torch.Tensor], precision: str) -> dict[str, torch.Tensor]:
    """The weights in a precision, of those in `sao.exports.form`.

    Matrices and kernels take it. Vectors keep float32: biases, norms, and frequencies, of which half precision would keep too
    few digits. They are less than a hundredth of the bytes.
    """
    import torch

    kind = getattr(torch, precision)
    return {
        key: value.to(kind if is_matrix(value) else torch.float32) if value.is_floating_point() else value
        for key, value in weights.items()
    }


def is_matrix(value: torch.Tensor) -> bool:
    """Whether a tensor has two dimensions of more than one."""
    return sum(size > 1 for size in value.shape) > 1


def differences(weights: Mapping[str, torch.Tensor], exact: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """How far `weights` lie from `exact`, which has the same keys, as numbers for a JSON.

    Of each tensor, the error is the length of the difference over the length of the exact tensor; `largest_error` is the largest
    of these, with its tensor, and `mean_error` their mean over all numbers of the weights.
    """
    largest, where, total, count = 0.0, None, 0.0, 0
    for key, right in exact.items():
        if not right.is_floating_point():
            continue
        difference = float((weights[key].double() - right.double()).norm())
        length = float(right.double().norm())
        error = difference / length if length else difference
        if error > largest:
            largest, where = error, key
        total, count = total + error * right.numel(), count + right.numel()
    return {"largest_error": largest, "largest_error_of": where, "mean_error": total / max(count, 1)}
