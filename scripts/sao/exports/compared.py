"""A sound of an export beside the same sound of the model that it was made of."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from sao.exports.form import Weights

if TYPE_CHECKING:
    import torch

    from sao.rendering.clips import Clip


def difference_db(
    model: Any, exact: Weights, exported: Weights, clip: Clip, sampling: dict[str, Any], window: int, chunk: int
) -> float | None:
    """The level of the difference of a clip's two renders, in dB of the first one's; None if they are equal.

    The first is of the model with the weights `exact` in place of its own, by the keys of stable-audio-tools, the second of that with
    `exported`, which it keeps. Both are computed in float32, from the same noise, in `window` latent frames.
    """
    import torch

    from sao.rendering.sampling import render

    def sound(weights: Weights) -> torch.Tensor:
        state = model.state_dict()
        with torch.no_grad():
            for key, value in weights.items():
                state[key].copy_(value)
        ((_, audio),) = render(model, [clip], sampling, window, 1, chunk)
        return audio.double()

    before = sound(exact)
    difference, level = float((sound(exported) - before).norm()), float(before.norm())
    return 20 * math.log10(difference / level) if difference and level else None
