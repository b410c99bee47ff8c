"""The folder to listen in: every sample, its reference, one table, one page."""

from __future__ import annotations

import json
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


def make_render(folder: Path, clips: list[str], warning: str = "", suffix: str = "wav") -> None:
    """Renders of clips, and of a prompt `z` that there is no recording of."""
    folder.mkdir(parents=True)
    for clip in [*clips, "z"]:
        (folder / f"{clip}.{suffix}").write_bytes(b"RIFF")
        (folder.parent / f"{clip} original.wav").write_bytes(b"RIFF")
    table = pd.DataFrame(
        {"clip_id": [*clips, "z"], "split": [*["evaluation"] * len(clips), "prompts"], "prompt": "<b>loud</b> & clear",
         "seed": 1, "seconds": 1.0, "run": folder.name, "checkpoint": "m", "peak_dbfs": -1.0, "gain_db": 0.0,
         "overs": 0, "warning": warning,
         "reference": [*(f"{folder.parent}/{clip} original.wav" for clip in clips), ""],
         "file": [f"{clip}.{suffix}" for clip in [*clips, "z"]]}
    )  # fmt: skip
    table.to_csv(folder.with_suffix(".csv"), index=False)


def collect(root: Path):
    data = root / "data/my corpus"
    (data / "dataset_configs/demo").mkdir(parents=True)
    report = {
        "corpus": "my <corpus>",
        "clips": {"train": 3, "evaluation": 2},
        "warnings": [1],
        "left_out": [{"check": "license"}],
    }
    (data / "validation.json").write_text(json.dumps(report))
    dropped = data / "dataset_configs/demo/dropped.csv"
    dropped.write_text("clip_id,published_split,path,check,message\nx,all,x.wav,tokens,too long\n")
    return run_script(
        "collect", "--run", "base", "mine", "--table", root / "a.csv", root / "b.csv",
        "--render", root / "a", root / "b", "--report", data / "validation.json", "--dropped", dropped,
        "--output", root / "samples",
    )  # fmt: skip


def test_page_plays_every_sample_and_reference(tmp_path: Path) -> None:
    make_render(tmp_path / "a", ["x", "y"])
    make_render(tmp_path / "b", ["x", "y"], warning="silent", suffix="flac")
    assert collect(tmp_path).returncode == 0
    samples = pd.read_csv(tmp_path / "samples/samples.csv", keep_default_na=False)
    assert list(samples.run) == ["base"] * 3 + ["mine"] * 3
    page = (tmp_path / "samples/index.html").read_text()
    sources = Sources()
    sources.feed(page)
    assert len(sources.found) == 8 and all((tmp_path / "samples" / source).is_file() for source in sources.found)
    assert "&lt;b&gt;loud&lt;/b&gt; &amp; clear" in page and page.count("silent") == 3
    assert page.count("<td>–</td>") == 1 and sources.found[-2:] == ["base/z.wav", "mine/z.flac"]
    assert "my &lt;corpus&gt;</a>: 5 clips, 2 left out (license: 1, tokens: 1), 1 warnings." in page


def test_missing_wav_fails_and_names_it(tmp_path: Path) -> None:
    make_render(tmp_path / "a", ["x"])
    make_render(tmp_path / "b", ["x"])
    (tmp_path / "b/x.wav").unlink()
    done = collect(tmp_path)
    assert done.returncode == 1 and f"{tmp_path / 'b/x.wav'}: listed in" in done.stderr
