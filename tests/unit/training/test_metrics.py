"""The table of a training's losses, and of its speed."""

from __future__ import annotations

import math
import time

from sao.training.metrics import Metrics, Speed


def test_metrics_average_the_steps_since_the_last_row() -> None:
    metrics = Metrics([], [], [], [])
    metrics.losses += [1.0, 2.0]
    metrics.norms += [3.0, 4.0]
    assert metrics.close_row(2, 0.1, None, [20.0, 0.25, None]) == [
        2,
        1.5,
        None,
        0.1,
        3.5,
        *[None] * 5,
        20.0,
        0.25,
        None,
    ]
    assert metrics.close_row(2, 0.1, [3.0] * 6, [1.0, 0.0, None]) is None
    metrics.losses.append(0.123456789)
    metrics.norms.append(math.inf)  # of a step that was passed over, in 16-mixed
    metrics.close_row(3, 0.1, [1 / 3, 0.1, 0.2, 0.3, 0.4, 2 / 3], [123.456, 0.0, 5.43211])
    assert metrics.rows[-1][2] == 1 / 3 and metrics.rows[-1][-1] == 2 / 3
    assert metrics.csv() == (
        "step,train_loss,validation_loss,learning_rate,gradient_norm,validation_loss_0.1,validation_loss_0.3,"
        "validation_loss_0.5,validation_loss_0.7,validation_loss_0.9,clips_per_second,waiting_for_data,peak_memory_gb\n"
        "2,1.5,,0.1,3.5,,,,,,20,0.25,\n"
        "3,0.12345679,0.33333333,0.1,inf,0.1,0.2,0.3,0.4,0.66666667,123.5,0,5.432\n"
    )


def test_speed_is_of_the_steps_since_the_last_row() -> None:
    def slow() -> object:
        for number in range(4):
            time.sleep(0.1)
            yield number

    speed = Speed(8)
    batches = speed.timed(iter(slow()))
    for _ in range(2):
        next(batches)
        time.sleep(0.05)
        speed.steps += 1
    clips, waiting, peak = speed.measured()
    assert 16 / 0.6 < clips < 16 / 0.3 and 0.4 < waiting < 0.75 and peak is None
    speed.restart()
    assert speed.measured()[:2] == [0, 0]
    assert list(batches) == [2, 3]


def test_each_jump_of_the_loss_is_told_once() -> None:
    metrics, said = Metrics([], [], [], []), []
    for row, loss in enumerate([0.96, 0.44, 0.48, 8.28, 1.19, 0.86, 0.9], 1):
        metrics.losses.append(loss)
        metrics.norms.append(1.0)
        metrics.close_row(50 * row, 0.1, None, [1.0, 0.0, None])
        said.append(metrics.jump())
    assert said == [None] * 3 + ["the mean loss rose from 0.44 at step 100 to 8.28 at step 200"] + [None] * 2 + [
        "the mean loss rose from 0.44 at step 100 to 0.9 at step 350"
    ]
