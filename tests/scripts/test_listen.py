"""A leg that lands is on the page at once, beside the base model and the recording. What is out of date is not."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

import pytest
from conftest import ROOT, assert_fails, checksum, listing, run_script
from listened import BASE, SOUNDS, leg, listen, render
from sao.pages.listening import landed, write_page

SHOWN = [BASE, leg(4), leg(8)]


def text_of(root: Path) -> str:
    return html.unescape((root / "listen/index.html").read_text(encoding="utf-8"))


def names(root: Path, shown: list[str] = SHOWN) -> list[str]:
    return [entry["name"] for entry in landed(root / "listen", shown)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a base model and the first of two legs. Not to be changed."""
    root = tmp_path_factory.mktemp("listen")
    listen(root, BASE, 200, SHOWN)
    listen(root, leg(4), 300, SHOWN)
    return root


def test_folder_has_all_that_the_page_plays_and_shows(root: Path) -> None:
    page = (root / "listen/index.html").read_text(encoding="utf-8")
    named = set(re.findall(r'"(?:sound|picture)": "([^"]+)"', html.unescape(page)))
    assert set(re.findall(r'src="([^"]+)"', page)) == {path for path in named if path.endswith(".webp")}
    files = {path.replace("@", "%40") for path in listing(root / "listen")}
    assert named == {path for path in files if path.endswith((".wav", ".webp"))}
    assert sum(path.endswith(".wav") for path in named) == 2 * len(SOUNDS) + 2  # one recording, one source


def test_page_tells_what_has_landed(root: Path) -> None:
    text = text_of(root)
    assert "demo: 1 of 2 legs: step-00000004, validation loss 0.5" in text and "data-training>" in text
    assert "Rain & <b>wind</b>." in text and "<b>wind" not in (root / "listen/index.html").read_text()
    assert text.index("Übung: ein Horn.") < text.index("(no prompt)") and '<p class="odd">silent</p>' in text
    assert text.index("cfg scale 4<") < text.index("cfg scale 10<")


def test_summary_vouches_for_the_sounds(root: Path) -> None:
    summary = json.loads((root / f"listen/{leg(4)}.json").read_text())
    base = json.loads((root / f"listen/{BASE}.json").read_text())
    assert (summary["run"], summary["leg"], summary["steps"]) == ("demo", "step-00000004", 4)
    assert summary["beside"] == base["beside"] and base["run"] == base["training"] == ""
    for sound in summary["sounds"] + base["sounds"]:
        assert checksum(root / "listen" / sound["file"], "sha256") == sound["sha256"]
    assert {sound["reference"] for sound in base["sounds"]} == {f"{BASE}/reference/a.wav", ""}
    assert {sound["reference"] for sound in summary["sounds"]} == {""}
    # Tones of 0.3 s are too short for a loudness.
    assert {sound[key] for sound in base["sounds"] for key in ("loudness", "reference_loudness")} == {None}


def test_own_recordings_are_copied_and_what_rules_made_is_linked(root: Path) -> None:
    page = root / "listen" / BASE
    assert not (page / "reference/a.wav").samefile(root / "my sounds/a.wav")
    assert (page / "source/mine.wav").samefile(root / "data/demo/prompts/demo/mine.wav")
    assert (page / "a@cfg-4.wav").samefile(root / f"renders/.listen/{BASE}/a@cfg-4.wav")


def test_page_is_complete_with_the_last_leg_and_drops_what_is_out_of_date(tmp_path: Path) -> None:
    listen(tmp_path, BASE, 200, SHOWN)
    listen(tmp_path, leg(4), 300, SHOWN)
    listen(tmp_path, leg(8), 400, SHOWN)
    assert "2 of 2 legs" in text_of(tmp_path) and "data-training>" not in text_of(tmp_path)
    # Trained anew: the first leg lands, and the second is still that of the earlier training.
    listen(tmp_path, leg(4), 300, SHOWN, provenance="y")
    assert names(tmp_path) == [BASE, leg(4)] and "1 of 2 legs" in text_of(tmp_path)
    # Other prompts or settings: the base model's sounds are others, and both legs wait.
    listen(tmp_path, BASE, 250, SHOWN)
    assert names(tmp_path) == [BASE] and "0 of 2 legs" in text_of(tmp_path)
    # Another config has other legs.
    assert names(tmp_path, [BASE, leg(2)]) == [BASE]


def test_runs_do_not_hide_each_other(tmp_path: Path) -> None:
    shown = [BASE, leg(4), leg(4, "other")]
    for number, name in enumerate(shown):
        listen(tmp_path, name, 200 + 50 * number, shown, provenance=name)
    assert names(tmp_path, shown) == shown
    assert "demo: 1 of 1" in text_of(tmp_path) and "other: 1 of 1" in text_of(tmp_path)


def test_whoever_writes_last_has_seen_all(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another leg lands, and its job writes the page, while this one is about to write what it saw before."""
    import sao.pages.listening as module

    folder = tmp_path / "listen"
    folder.mkdir()
    for name in (BASE, leg(4)):
        (folder / f"{name}.json").write_text((root / f"listen/{name}.json").read_text())
    late, replace = (folder / f"{leg(4)}.json").rename(tmp_path / "late.json"), module._replace

    def overtaken(page: Path, text: str) -> None:
        if late.exists():
            late.rename(folder / f"{leg(4)}.json")
        replace(page, text)

    monkeypatch.setattr(module, "_replace", overtaken)
    assert write_page(folder, SHOWN) == 1 and "1 of 2 legs" in text_of(tmp_path)
    assert listing(folder) == {f"{BASE}.json", f"{leg(4)}.json", "index.html"}


def test_missing_render_is_named(tmp_path: Path) -> None:
    options = render(tmp_path, BASE, 200)
    gone = tmp_path / f"renders/.listen/{BASE}/a@cfg-4.wav"
    gone.unlink()
    outputs = ["--output", tmp_path / f"listen/{BASE}", "--summary", tmp_path / f"listen/{BASE}.json"]
    assert_fails(run_script("listen", *options, "--shown", *SHOWN, *outputs, cwd=ROOT), gone, "listed in")
    assert listing(tmp_path / "listen") == set()
