"""The table of a training's losses."""

from __future__ import annotations

from sao.training.metrics import Metrics


def test_metrics_average_the_steps_since_the_last_row() -> None:
    metrics = Metrics([], [])
    metrics.losses += [1.0, 2.0]
    assert metrics.close_row(2, 0.1) == [2, 1.5, None, 0.1]
    assert metrics.close_row(2, 0.1, 3.0) is None
    metrics.losses.append(0.123456789)
    metrics.close_row(3, 0.1, 1 / 3)
    assert metrics.csv() == "step,train_loss,validation_loss,learning_rate\n2,1.5,,0.1\n3,0.12345679,0.33333333,0.1\n"
