"""Which part of a clip an inpainting model is given in training: stable-audio-tools' masks, drawn from names alone."""

from __future__ import annotations

import random
from typing import Any

import torch

from sao.training import draws


def inpaint_mask(heard: torch.Tensor, options: dict[str, Any], mask_padding: bool, *parts: object) -> torch.Tensor:
    """`[1, frames]`: 1 where a clip's latents are given, 0 where they are to be generated; a function of `parts` alone.

    `heard [frames]` is true up to the end of the clip. `options` are the model config's `training.inpainting.mask_kwargs`,
    `mask_padding` is its `mask_padding_attention`. The masks are those of random_inpaint_mask (models/inpainting.py), which
    draws from Python's own generator.
    """
    import sao.models.upstream  # noqa: F401

    from stable_audio_tools.models.inpainting import random_inpaint_mask

    before = random.getstate()
    random.seed(int(draws.generator(*parts).integers(2**63)))
    try:
        _, mask = random_inpaint_mask(torch.empty(1, 0, len(heard)), heard[None], mask_padding=mask_padding, **options)
    finally:
        random.setstate(before)
    return mask[0]
