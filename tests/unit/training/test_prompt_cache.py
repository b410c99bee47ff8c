"""Each prompt is encoded only once."""

from __future__ import annotations

import pytest
import torch
from sao.training.prompt_cache import PromptCache


class T5(torch.nn.Module):
    """A text encoder that records the prompts it gets. Its answer is a function of the prompt."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple] = []

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> dict[str, torch.Tensor]:
        assert input_ids.shape == attention_mask.shape and len(input_ids) == 1
        self.asked.append(tuple(input_ids[0].tolist()))
        return {"last_hidden_state": (input_ids * attention_mask)[..., None].float().repeat(1, 1, 2)}


def test_prompt_cache_asks_once_for_each_prompt() -> None:
    inner = T5()
    cache = PromptCache(inner)
    ids = torch.tensor([[1, 2, 0], [3, 4, 5], [1, 2, 0]])
    mask = (ids > 0).long()
    expected = ids[..., None].float().repeat(1, 1, 2)
    for rows in ([0, 1, 2], [2, 1], [1]):
        assert torch.equal(cache(input_ids=ids[rows], attention_mask=mask[rows])["last_hidden_state"], expected[rows])
    assert inner.asked == [(1, 2, 0), (3, 4, 5)]


def test_prompt_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PromptCache, "LIMIT", 2)
    inner = T5()
    cache = PromptCache(inner)
    ids = torch.arange(1, 6)[:, None]
    for _ in range(2):
        states = cache(input_ids=ids, attention_mask=torch.ones_like(ids))["last_hidden_state"]
        assert states[:, 0, 0].tolist() == [1, 2, 3, 4, 5]
    assert len(cache.kept) == 2 and len(inner.asked) == 5 + 3
