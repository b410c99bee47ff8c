"""The page of all legs can be made again from what has landed."""

from __future__ import annotations

from pathlib import Path

from conftest import assert_succeeds, run_script
from listened import BASE, leg, listen

SHOWN = [BASE, leg(4)]


def test_page_is_that_of_the_last_leg(tmp_path: Path) -> None:
    for number, name in enumerate(SHOWN):
        listen(tmp_path, name, 200 + 100 * number, SHOWN)
    page = tmp_path / "listen/index.html"
    before = page.read_bytes()
    page.unlink()
    assert_succeeds(run_script("listen_page", "--shown", *SHOWN, "--output", page))
    assert page.read_bytes() == before and b"1 of 1 legs" in before
