"""The moving average of weights, compared with that of ema_pytorch, which stable-audio-tools holds a copy of."""

from __future__ import annotations

import torch
from sao.training.average import MovingAverage


def test_moving_average_is_ema_pytorchs() -> None:
    from stable_audio_tools.training.ema import EMA

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
    stock = EMA(model, beta=0.9999, power=3 / 4, update_every=1, update_after_step=1, include_online_model=False)
    weights = dict(model.named_parameters())
    ours = MovingAverage(weights)
    for _ in range(20):
        with torch.no_grad():
            for weight in weights.values():
                weight.add_(torch.randn_like(weight))
        ours.update()
        stock.update()
        for key, value in stock.ema_model.named_parameters():
            torch.testing.assert_close(ours.average[key], value, rtol=1e-6, atol=1e-7)
    assert all((ours.average[key] - weights[key]).abs().max() > 0.1 for key in weights)


def test_moving_average_swaps_there_and_back() -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    average = MovingAverage({"w": weight})
    average.average["w"].zero_()
    average.swap()
    assert weight.tolist() == [0, 0, 0] and average.average["w"].tolist() == [1, 1, 1]
    average.swap()
    assert weight.tolist() == [1, 1, 1] and average.average["w"].tolist() == [0, 0, 0]
