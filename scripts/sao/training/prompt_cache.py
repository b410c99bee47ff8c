"""A cache for the text encoder: each prompt is encoded once."""

from __future__ import annotations

import torch


class PromptCache:
    """Stands in for the frozen T5 or T5Gemma of a conditioner and encodes each prompt once.

    The encoder gets one prompt at a time: what comes of a prompt must not depend on the batch in which it came first.
    """

    LIMIT = 1024  # prompts kept; 200 MB for t5-base

    def __init__(self, model: torch.nn.Module) -> None:
        self.model = model
        self.kept: dict[tuple[int, ...], torch.Tensor] = {}

    def to(self, device: torch.device | str) -> PromptCache:
        self.model.to(device)
        return self

    def eval(self) -> PromptCache:
        self.model.eval()
        return self

    def __call__(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> dict[str, torch.Tensor]:
        """`{"last_hidden_state": [batch, tokens, width]}`, as the encoder gives it."""
        states = []
        for ids, mask in zip(input_ids, attention_mask, strict=True):
            key = tuple(ids.tolist())
            state = self.kept.get(key)
            if state is None:
                state = self.model(input_ids=ids[None], attention_mask=mask[None])["last_hidden_state"][0]
                if len(self.kept) < self.LIMIT:
                    self.kept[key] = state
            states.append(state)
        return {"last_hidden_state": torch.stack(states)}
