"""Where the rows of a run's metrics are sent while it trains: Weights & Biases and TensorBoard, as the run asks for them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sao.base.command import InputError, is_first, log, output_to_log

from sao.training.dataset import VALIDATION_TIMESTEPS

DECIDES_NO_RESULT = "it shows what metrics.csv holds, elsewhere"

ANSWERS_WITHIN = 20  # s
PATIENCE = 600  # s, for all that is left to send at the end of a leg; wandb's client would try for days

Row = list[float | None]
Values = dict[str, float]


def names(corpora: Sequence[str]) -> list[str]:
    """The names of the columns after the step (sao/training/metrics.py)."""
    return [
        "train/loss",
        "validation/loss",
        "learning_rate",
        "train/gradient_norm",
        *(f"validation/loss_{t}" for t in VALIDATION_TIMESTEPS),
        *(f"validation/loss_of_{corpus}" for corpus in corpora),
        "speed/clips_per_second",
        "speed/waiting_for_data",
        "speed/peak_memory_gb",
    ]


@contextlib.contextmanager
def loggers(
    run: str, settings: Mapping[str, Any], identity: str, folder: Path, start: int, corpora: Sequence[str] = ()
) -> Iterator[Callable[[Row], None]]:
    """A function that sends one row of the metrics; `folder` is the run's, `start` the step that the leg goes on from.

    The first of several processes sends, the others send nothing. All legs of a run go on in one run of Weights & Biases,
    whose id is `identity`.
    """
    with contextlib.ExitStack() as stack:
        sinks: list[Callable[[int, Values], None]] = []
        if settings["wandb"] is not None and is_first():
            sinks.append(stack.enter_context(_wandb(run, settings, identity, folder)))
        if settings["tensorboard"] and is_first():
            sinks.append(stack.enter_context(_tensorboard(folder / "tensorboard", start)))

        def send(row: Row) -> None:
            step, *rest = row
            values = {name: value for name, value in zip(names(corpora), rest, strict=True) if value is not None}
            for sink in sinks:
                sink(int(step or 0), values)

        yield send


@contextlib.contextmanager
def _wandb(
    run: str, settings: Mapping[str, Any], identity: str, folder: Path
) -> Iterator[Callable[[int, Values], None]]:
    with output_to_log():
        import wandb

        (folder / "wandb").mkdir(parents=True, exist_ok=True)
        project, mode = settings["wandb"]["project"], settings["wandb"]["mode"]
        try:
            if mode == "online" and wandb.login() and (failure := no_answer(wandb.setup().settings.base_url)):
                mode = "offline"
                log.warning("warning: %s", kept(f"run {run}", failure, folder))
            session = wandb.init(
                project=project,
                mode=mode,
                name=run,
                group=run,  # with its sounds (sao/training/audio_log.py)
                id=identity,
                resume="allow",
                dir=folder,
                config=dict(settings),
                settings=wandb.Settings(finish_timeout=PATIENCE, finish_timeout_raises=True),
            )
        except wandb.errors.Error as error:
            raise InputError(
                f"run {run}: Weights & Biases cannot be reached ({str(error).splitlines()[0]}): run `wandb login`, set "
                "wandb.mode to offline, or wandb to null"
            ) from None
    try:
        yield lambda step, values: session.log(values, step=step)
    finally:
        try:
            session.finish()
        except TimeoutError:
            sync = f"`wandb sync --append {Path(session.dir).parent}`"
            log.warning("warning: run %s: Weights & Biases took not all in %d s: send it with %s", run, PATIENCE, sync)


def no_answer(url: str) -> str | None:
    """Why nothing answers at a URL; None if something does. Without an answer wandb.init would wait for ever."""
    import requests

    try:
        requests.get(url, timeout=ANSWERS_WITHIN)
    except requests.RequestException as error:
        return f"{url}: {type(error).__name__}"
    return None


def kept(subject: str, failure: str, folder: Path) -> str:
    """The line that says that what is logged was written to disk instead of sent."""
    return (
        f"{subject}: Weights & Biases does not answer ({failure}); the training goes on, and this is logged to disk: send it "
        f"later with `wandb sync --append --sync-all`, called in {folder}"
    )


@contextlib.contextmanager
def _tensorboard(folder: Path, start: int) -> Iterator[Callable[[int, Values], None]]:
    from torch.utils.tensorboard import SummaryWriter

    def send(step: int, values: Values) -> None:
        for name, value in values.items():
            writer.add_scalar(name, value, step)

    with SummaryWriter(folder, purge_step=start + 1) as writer:
        yield send
