"""A loaded model in a process of its own.

Libraries read where the Hub cache lies once, so a process has the text encoder of one base model. And a process that ends gives back
all memory, that of a GPU too.
"""

from __future__ import annotations

import logging
import multiprocessing
import signal
import sys
import threading
import warnings
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from sao.base.command import LARGER, TERMINAL, InputError, is_out_of_memory, log

from sao.rendering.trying import Job, Loaded, Model

WAIT = 3.0  # s for a process to end by itself


class Worker:
    """Loads a model at once, and renders jobs with it until it is closed."""

    def __init__(self, model: Model) -> None:
        self.model, self.lock = model, threading.Lock()
        context = multiprocessing.get_context("spawn")
        self.connection, there = context.Pipe()
        self.process = context.Process(target=_serve, args=(there, model), daemon=True)
        self.process.start()
        there.close()

    def render(self, job: Job, folder: Path) -> dict[str, Any]:
        """As `Loaded.render`; several threads may ask. Raises InputError too if the process ended."""
        try:
            with self.lock:
                self.connection.send((job, folder))
                row, problem = self.connection.recv()
        except (EOFError, OSError):
            self.process.join(5)
            code = self.process.exitcode
            raise InputError(
                f"{self.model.name}: the process with the model ended (exit code {code}): it may have run out of memory: {LARGER}"
            ) from None
        if problem:
            raise InputError(problem)
        return row

    def runs(self) -> bool:
        """Whether the process has not ended."""
        return self.process.is_alive()

    def close(self) -> None:
        self.connection.close()  # upon which the process ends, once it has rendered
        self.process.join(WAIT)
        self.process.terminate()
        self.process.join()


def _serve(connection: Connection, model: Model) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that asks ends this one
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    log.handlers = [logging.StreamHandler(TERMINAL)]
    log.handlers[0].setFormatter(logging.Formatter(f"{Path(sys.argv[0]).stem}: %(message)s"))
    log.propagate = False
    warnings.simplefilter("ignore")  # of libraries, about their own code
    loaded: Loaded | None = None
    while True:
        try:
            job, folder = connection.recv()
        except (EOFError, OSError):
            return
        try:
            loaded = loaded or Loaded(model)
            answer: tuple[Any, str] = loaded.render(job, folder), ""
        except InputError as error:
            answer = None, str(error)
        except Exception as error:  # noqa: BLE001 - the process that asks tells it in one line
            log.exception("while rendering with %s", model.name)
            memory = f"{model.name}: out of memory: {LARGER}"
            answer = None, memory if is_out_of_memory(error) else f"unexpected {type(error).__name__}: {error}"
        connection.send(answer)
