"""The folder to listen in: every sample, its reference, one table, one page."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pandas as pd
from conftest import run_script


class Sources(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attributes: list) -> None:
        if tag == "audio":
            self.found.append(unquote(dict(attributes)["src"]))


def make_render(folder: Path, clips: list[str], warning: str = "") -> None:
    folder.mkdir(parents=True)
    for clip in clips:
        (folder / f"{clip}.wav").write_bytes(b"RIFF")
        (folder.parent / f"{clip} original.wav").write_bytes(b"RIFF")
    table = pd.DataFrame(
        {"clip_id": clips, "split": "evaluation", "prompt": "<b>loud</b> & clear", "seed": 1, "seconds": 1.0,
         "checkpoint": "m", "peak_dbfs": -1.0, "gain_db": 0.0, "warning": warning,
         "reference": [f"{folder.parent}/{clip} original.wav" for clip in clips]}
    )  # fmt: skip
    table.to_csv(folder.with_suffix(".csv"), index=False)


def collect(root: Path):
    return run_script(
        "collect", "--run", "base", "mine", "--table", root / "a.csv", root / "b.csv",
        "--render", root / "a", root / "b", "--output", root / "samples",
    )  # fmt: skip


def test_page_plays_every_sample_and_reference(tmp_path: Path) -> None:
    make_render(tmp_path / "a", ["x", "y"])
    make_render(tmp_path / "b", ["x", "y"], warning="silent")
    assert collect(tmp_path).returncode == 0
    samples = pd.read_csv(tmp_path / "samples/samples.csv", keep_default_na=False)
    assert list(samples.run) == ["base", "base", "mine", "mine"]
    page = (tmp_path / "samples/index.html").read_text()
    sources = Sources()
    sources.feed(page)
    assert len(sources.found) == 6 and all((tmp_path / "samples" / source).is_file() for source in sources.found)
    assert "&lt;b&gt;loud&lt;/b&gt; &amp; clear" in page and page.count("silent") == 2


def test_missing_wav_fails_and_names_it(tmp_path: Path) -> None:
    make_render(tmp_path / "a", ["x"])
    make_render(tmp_path / "b", ["x"])
    (tmp_path / "b/x.wav").unlink()
    done = collect(tmp_path)
    assert done.returncode == 1 and f"{tmp_path / 'b/x.wav'}: listed in" in done.stderr
