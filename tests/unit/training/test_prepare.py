"""The preparation of a model for its training changes no loss."""

from __future__ import annotations

from pathlib import Path

import torch
from sao.training.objective import Objective
from sao.training.prepare import prepare
from steps import make_batch, make_model, shared_model


def test_prepared_model_has_the_same_loss(base_model: Path) -> None:
    model, batch = make_model(base_model), make_batch(shared_model(base_model))
    expected = Objective(shared_model(base_model), {})(batch)
    prepare(model, recompute_activations=False, compile_blocks=False)
    torch.testing.assert_close(Objective(model, {})(batch), expected, rtol=1e-5, atol=0)
