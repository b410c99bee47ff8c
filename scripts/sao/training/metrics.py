"""The table of a training: losses and learning rate by step, on their way to `metrics.csv`."""

from __future__ import annotations

Row = list[float | None]


class Metrics:
    """The rows of `metrics.csv`, and the losses of the steps since the last one.

    They travel in the training state, so a resumed table has no row missing and none double.
    """

    COLUMNS = ("step", "train_loss", "validation_loss", "learning_rate")

    def __init__(self, rows: list[Row], losses: list[float]) -> None:
        self.rows, self.losses = rows, losses

    def close_row(self, step: int, rate: float, validation_loss: float | None = None) -> Row | None:
        """Make the row of this step, with the mean of the losses since the last one; None where the step has a row."""
        if self.rows and self.rows[-1][0] == step:
            return None
        self.rows.append([step, sum(self.losses) / len(self.losses), validation_loss, rate])
        self.losses = []
        return self.rows[-1]

    def csv(self) -> str:
        lines = [",".join(self.COLUMNS)]
        lines += [",".join("" if v is None else f"{v:.8g}" for v in row) for row in self.rows]
        return "\n".join(lines) + "\n"
