"""What the conditioners make of a batch is what stable-audio-tools' MultiConditioner makes of its clips."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from sao.training.conditioning import condition, embedded
from steps import VARIANTS, make_batch, shared_model


@pytest.mark.parametrize("variant", VARIANTS)
def test_conditions_are_those_of_the_multi_conditioner(base_model: Path, variant: str) -> None:
    model = shared_model(base_model, variant)
    batch = make_batch(model)
    found, expected = condition(model.conditioner, batch), model.conditioner(batch["info"], "cpu")
    assert found.keys() == expected.keys()
    for key, (states, mask) in found.items():
        # Upstream encodes the batch at once, which rounds otherwise.
        torch.testing.assert_close(states, expected[key][0], rtol=2e-3, atol=2e-3)
        assert torch.equal(mask.float(), expected[key][1].float())


@pytest.mark.parametrize("values", [[-3.0, 0.0, 5.5, 99.0]])
def test_numbers_are_embedded_as_upstream_does(values: list[float]) -> None:
    from stable_audio_tools.models.conditioners import IntConditioner, NumberConditioner

    torch.manual_seed(0)
    for part in (NumberConditioner(8, 0, 50), NumberConditioner(8, 1, 9, "expo"), IntConditioner(8, 0, 50)):
        whole = [int(value) for value in values] if isinstance(part, IntConditioner) else values
        expected, mask = part(whole, "cpu")
        found, found_mask = embedded(
            part, torch.tensor(values).floor() if whole is not values else torch.tensor(values)
        )
        assert found.shape == (4, 1, 8) and torch.equal(found, expected) and torch.equal(found_mask, mask)
