"""The preparation of a model for its training changes no loss."""

from __future__ import annotations

from pathlib import Path

import torch
from sao.training.objective import Objective
from sao.training.prepare import prepare
from sao.training.prompt_cache import PromptCache
from steps import PROMPTS, make_batch, make_model, shared_model


def test_prepared_model_has_the_same_loss(base_model: Path) -> None:
    model, batch = make_model(base_model), make_batch()
    expected = Objective(shared_model(base_model), {})(batch)
    prepare(model, recompute_activations=False, compile_blocks=False)
    cache = model.conditioner.conditioners["prompt"].model
    assert isinstance(cache, PromptCache)
    for _ in range(2):
        torch.testing.assert_close(Objective(model, {})(batch), expected, rtol=1e-5, atol=0)
    assert len(cache.kept) == len(PROMPTS)
