"""What a model's conditioners make of a batch, from tensors alone: nothing is tokenised, and nothing waits for the device.

stable-audio-tools' MultiConditioner takes a list of dictionaries instead, and copies each number to the device by itself.
"""

from __future__ import annotations

from typing import Any

import torch

from sao.models.text import Encoded, projected


def condition(conditioner: Any, batch: dict[str, Any]) -> dict[str, Encoded]:
    """The tensor and mask of each conditioner of a MultiConditioner, by its key.

    `batch` has `text [batch, tokens, width]` with `text_mask [batch, tokens]`, as the encoder gave them, and `numbers`, each
    `[batch]`, by the name of the value.
    """
    made = {}
    for key, part in conditioner.conditioners.items():
        name = key if key == "prompt" or key in batch["numbers"] else conditioner.default_keys[key]
        if name == "prompt":
            made[key] = projected(part, batch["text"], batch["text_mask"])
        else:
            made[key] = embedded(part, batch["numbers"][name])
    return made


def embedded(part: Any, values: torch.Tensor) -> Encoded:
    """A number for each clip, `values [batch]`, as NumberConditioner and IntConditioner embed it: `[batch, 1, width]`."""
    if type(part).__name__ == "IntConditioner":
        vectors = part.int_embedder(values.long().clamp(part.min_val, part.max_val))
    else:
        scaled = (values.clamp(part.min_val, part.max_val) - part.min_val) / (part.max_val - part.min_val)
        vectors = part.embedder(scaled.to(next(part.embedder.parameters()).dtype))
    return vectors.unsqueeze(1), torch.ones(len(values), 1, device=values.device)
