"""The table of a training, on its way to `metrics.csv`: losses, gradients and learning rate by step, and how fast steps were."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

from sao.models.device import this_device
from sao.training.dataset import VALIDATION_TIMESTEPS

Row = list[float | None]
JUMP = 2  # a loss so many times the lowest is no noise: rows are means over many steps


def rose(losses: list[float]) -> bool:
    """Whether the last loss is far above the lowest before it."""
    return len(losses) > 1 and losses[-1] > JUMP * min(losses[:-1])


class Metrics:
    """The rows of `metrics.csv`, and the losses and gradient norms of the steps since the last one.

    They travel in the training state, so a resumed table has no row missing and none double. Speeds are apart from the rest,
    because they alone differ each time.
    """

    # The validation loss, and behind the others that of each timestep: it is their mean.
    COLUMNS = ("step", "train_loss", "validation_loss", "learning_rate", "gradient_norm")
    TIMESTEPS = tuple(f"validation_loss_{t}" for t in VALIDATION_TIMESTEPS)
    OF_CORPUS = "validation_loss_of_"  # before the name of a mixture's corpus
    SPEEDS = ("clips_per_second", "waiting_for_data", "peak_memory_gb")

    def __init__(
        self, rows: list[Row], losses: list[float], norms: list[float], speeds: list[Row], corpora: Sequence[str] = ()
    ) -> None:
        self.rows, self.losses, self.norms, self.speeds = rows, losses, norms, speeds
        self.parts = (*self.TIMESTEPS, *(f"{self.OF_CORPUS}{corpus}" for corpus in corpora))

    def close_row(self, step: int, rate: float, validation: Row | None, speed: Row) -> Row | None:
        """Make the row of this step, with means since the last one; None where the step has a row.

        `validation` has the validation loss, that of each timestep, and that of each corpus of a mixture.
        """
        if self.rows and self.rows[-1][0] == step:
            return None
        loss, norm = (sum(values) / len(values) for values in (self.losses, self.norms))
        self.rows.append([step, loss, None, rate, norm, *[None] * len(self.parts)])
        if validation:
            self.validated(validation)
        self.speeds.append(speed)
        self.losses, self.norms = [], []
        return [*self.rows[-1], *speed]

    def validated(self, validation: Row) -> None:
        """Put the validation losses into the last row."""
        row = self.rows[-1]
        row[2], row[len(self.COLUMNS) :] = validation[0], validation[1:]

    def jump(self) -> str | None:
        """What happened, if the loss of the last row, and not yet that of the row before, is far above an earlier one.

        With too high a learning rate a training may lose in a few steps what it has learned, and go on.
        """
        known = [(loss, step) for step, loss, *_ in self.rows if loss is not None]
        losses = [loss for loss, _ in known]
        if not rose(losses) or rose(losses[:-1]):
            return None
        before, now = (f"{loss:.3g} at step {step}" for loss, step in (known[losses.index(min(losses))], known[-1]))
        return f"the mean loss rose from {before} to {now}"

    def csv(self) -> str:
        lines = [",".join((*self.COLUMNS, *self.parts, *self.SPEEDS))]
        for row, speed in zip(self.rows, self.speeds, strict=True):
            exact = ["" if value is None else f"{value:.8g}" for value in row]
            lines.append(",".join([*exact, *("" if value is None else f"{value:.4g}" for value in speed)]))
        return "\n".join(lines) + "\n"


class Speed:
    """How fast the steps since the last row were. `clips` is the number that a step takes."""

    def __init__(self, clips: int) -> None:
        self.clips = clips
        self.restart()

    def restart(self) -> None:
        self.began, self.steps, self.waited = time.monotonic(), 0, 0.0

    def timed(self, batches: Iterator[Any]) -> Iterator[Any]:
        """The batches, and meanwhile the time that each was waited for."""
        while True:
            start = time.monotonic()
            try:
                batch = next(batches)
            except StopIteration:
                return
            self.waited += time.monotonic() - start
            yield batch

    def measured(self) -> Row:
        """Clips a second, the share of the time that was spent waiting for data, and the most memory in GB (on a GPU)."""
        seconds = max(time.monotonic() - self.began, 1e-9)
        peak = this_device().peak()
        return [
            self.steps * self.clips / seconds,
            min(self.waited / seconds, 1.0),
            None if peak is None else peak / 1e9,
        ]
