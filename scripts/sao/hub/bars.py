"""Show the progress of an upload, which only the Hub's client knows. Import this before any module that imports tqdm."""

from __future__ import annotations

import contextlib
import io
import os
import re
import time
from collections.abc import Iterator

os.environ["TQDM_DISABLE"] = ""  # command.py disables the bars of libraries

from sao.base.command import PLAIN_EVERY, TERMINAL, report

DECIDES_NO_RESULT = "bars of downloads"

CONTROL = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|[\r\n]")  # sequences that move the cursor


class BarStream(io.TextIOBase):
    """A stream for progress bars: it draws them on a terminal, and writes a plain line now and then elsewhere and to the log."""

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
    """Let the Hub's client draw its bars, through a `BarStream`."""
    from huggingface_hub.utils import disable_progress_bars, enable_progress_bars

    enable_progress_bars()
    try:
        with contextlib.redirect_stderr(BarStream()):
            yield
    finally:
        disable_progress_bars()
