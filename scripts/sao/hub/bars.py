"""The bars of the Hub's client, which alone knows how far an upload is. To be imported before anything that has tqdm."""

from __future__ import annotations

import contextlib
import io
import os
import re
import time
from collections.abc import Iterator

os.environ["TQDM_DISABLE"] = ""  # command.py turns the bars of libraries off

from sao.base.command import PLAIN_EVERY, TERMINAL, report

CONTROL = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|[\r\n]")  # what moves the cursor


class Told(io.TextIOBase):
    """A stream for bars: they are drawn on a terminal; elsewhere, and in the log file, a plain line now and then."""

    def __init__(self) -> None:
        self.last = -PLAIN_EVERY

    def isatty(self) -> bool:
        return TERMINAL.isatty()

    def write(self, text: str) -> int:
        if TERMINAL.isatty():
            TERMINAL.write(text)
        line, now = CONTROL.sub("", text).strip(), time.monotonic()
        if "B/s" in line and now - self.last >= PLAIN_EVERY:
            self.last = now
            report(line)
        return len(text)

    def flush(self) -> None:
        TERMINAL.flush()


@contextlib.contextmanager
def client_bars() -> Iterator[None]:
    """Let the Hub's client draw its bars, by way of `Told`."""
    from huggingface_hub.utils import disable_progress_bars, enable_progress_bars

    enable_progress_bars()
    try:
        with contextlib.redirect_stderr(Told()):
            yield
    finally:
        disable_progress_bars()
