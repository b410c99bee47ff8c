"""A real browser for the tests of a page."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# The first is the same browser without windows, and takes half the processor time.
PROGRAMS = ("chromium-headless-shell", "chromium")


@contextlib.contextmanager
def chromium(*arguments: str) -> Iterator[Browser]:
    """Chromium, started with more `arguments`. The test is skipped where there is none."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.skip("no Chromium on PATH: apt-get install chromium-headless-shell")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--disable-gpu", *arguments]
        )
        yield started
        started.close()
