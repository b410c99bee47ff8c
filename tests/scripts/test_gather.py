"""The shards of a run are gathered in one folder and one table."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pandas as pd
from conftest import assert_fails, assert_succeeds, listing, run_script


def make_shard(folder: Path, clips: list[str], warning: str = "") -> None:
    folder.mkdir(parents=True)
    rows = [
        {"clip_id": clip, "split": "evaluation", "prompt": "NA", "seconds": 1.5, "seed": 2**32 - 1, "checkpoint": "m",
         "warning": warning, "reference": "", "file": f"{clip}.flac"}
        for clip in clips
    ]  # fmt: skip
    columns = ["clip_id", "split", "prompt", "seconds", "seed", "checkpoint", "warning", "reference", "file"]
    pd.DataFrame(rows, columns=columns).to_csv(f"{folder}.csv", index=False)
    for clip in clips:
        (folder / f"{clip}.flac").write_bytes(clip.encode())


def gather(root: Path, shards: int) -> subprocess.CompletedProcess[str]:
    folders = [root / f"shards/{number}" for number in range(shards)]
    tables = [f"{folder}.csv" for folder in folders]
    return run_script(
        "gather", "--table", *tables, "--render", *folders, "--output", root / "out", "--output-table", root / "out.csv"
    )


def test_shards_are_one_render_and_may_be_empty(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/old.wav").touch()
    for number, clips in enumerate((["c", "a"], [], ["b"])):
        make_shard(tmp_path / f"shards/{number}", clips)
    assert_succeeds(gather(tmp_path, 3))
    assert listing(tmp_path / "out") == {"a.flac", "b.flac", "c.flac"}
    assert (tmp_path / "out/b.flac").read_bytes() == b"b"
    table = (tmp_path / "out.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in table[1:]] == ["a", "b", "c"]
    assert table[1] == "a,evaluation,NA,1.5,4294967295,m,,,a.flac"


def test_missing_file_is_named(tmp_path: Path) -> None:
    make_shard(tmp_path / "shards/0", ["a"])
    (tmp_path / "shards/0/a.flac").unlink()
    assert_fails(gather(tmp_path, 1), tmp_path / "shards/0/a.flac", "missing")


def test_silence_all_over_is_an_error(tmp_path: Path) -> None:
    make_shard(tmp_path / "shards/0", ["a"], "silent")
    make_shard(tmp_path / "shards/1", ["b"], "silent")
    assert_fails(gather(tmp_path, 2), "every rendered clip is silent")
