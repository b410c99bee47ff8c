"""Splits of data sets on the Hub become folders of sounds, from a stand-in for the Hub to which the real client talks."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from conftest import assert_fails, assert_succeeds, listing, run_script, write_csv
from hub import Files, Hub, serve_hub
from hub_datasets import REPO, REVISION, card, config, parquet, row, samples, sound
from sao.base.names import read_digests
from sao.base.tables import read_table
from sao.sound.read import measure, read_sound

TOKEN = "hf_of_the_tests"
FEATURES = {
    "audio": {"sampling_rate": 8000, "_type": "Audio"},
    "category": {"names": ["dog", "rain"], "_type": "ClassLabel"},
}


def train() -> list[dict[str, Any]]:
    rows = [row(f"s{n}", category=n % 2, bpm=100 + n, tags=["x", "y"], vector=[0.5, n], raw=b"1") for n in range(7)]
    rows[1]["audio"] |= {"path": "deep/in/S1.FLAC", "bytes": sound("s1", "FLAC")}
    rows[2]["audio"] |= {"path": None, "bytes": sound("s2", "OGG", seconds=1)}
    rows[3]["audio"] |= {"path": "s0.wav"}  # a name that another row has
    rows[4]["audio"] |= {"path": "../../.odd\nname.wav"}
    return rows


@pytest.fixture
def hub() -> Iterator[Hub]:
    rows = train()
    files: Files = {
        "README.md": card(config(train="data/train-*", test="data/test-*.parquet")),
        "data/train-00000-of-00002.parquet": parquet(rows[:4], FEATURES),
        "data/train-00001-of-00002.parquet": parquet(rows[4:], FEATURES),
        "data/test-00000-of-00001.parquet": parquet([row("t")], FEATURES),
        "script.py": b"raise SystemExit",
    }
    with serve_hub({(f"datasets/{REPO}", REVISION): files}) as hub:
        hub.lfs = (".parquet", ".wav")
        yield hub


def files_of(hub: Hub) -> Files:
    return hub.repos[f"datasets/{REPO}", REVISION]


def fetch(
    hub: Hub, folder: Path, *more: object, split: str = "train", fresh: bool = False, **variables: str
) -> subprocess.CompletedProcess[str]:
    env = {
        "HF_ENDPOINT": hub.endpoint,
        "HF_HUB_OFFLINE": "0",
        "HF_HOME": str(folder / "home"),
        "HF_TOKEN": "",
    } | variables
    options = ["--repo", REPO, "--revision", REVISION] if "--repo" not in more else []
    options += ["--split", split, "--output", folder / "audio" / split, "--source", folder / f"hub/{split}.json"]
    return run_script("fetch", *options, *more, env=env, fresh=fresh)


def rows_of(folder: Path, split: str = "train") -> list[dict[str, Any]]:
    return list(map(json.loads, (folder / "audio" / split / "metadata.jsonl").read_text("utf-8").splitlines()))


def scan(folder: Path, split: str = "train", **more: object) -> subprocess.CompletedProcess[str]:
    outputs = {name: folder / f"scanned/{name}" for name in ("captions", "facts", "digests", "listing")}
    options = [word for key, value in (outputs | more).items() for word in (f"--{key.replace('_', '-')}", value)]
    return run_script("scan", "--format", "hub", "--folder", folder / "audio" / split, "--key", "0" * 64, *options)


NAMES = ["s0.wav", "S1.FLAC", "0000003.ogg", "s0-0000004.wav", "0000005.wav", "s5.wav", "s6.wav"]


def test_parquet_files_become_sounds_and_a_table(tmp_path: Path, hub: Hub) -> None:
    done = fetch(hub, tmp_path)
    assert_succeeds(done)
    assert "left out: vector, raw" in done.stderr
    assert listing(tmp_path / "audio/train") == {*NAMES, "metadata.jsonl"}
    given, told = train(), rows_of(tmp_path)
    assert [entry.pop("file_name") for entry in told] == NAMES
    for name, want, found in zip(NAMES, given, told, strict=True):
        assert (tmp_path / "audio/train" / name).read_bytes() == want["audio"]["bytes"]
        kind = ["dog", "rain"][want["category"]]
        assert found == {"caption": want["caption"], "category": kind, "bpm": want["bpm"], "tags": ["x", "y"]}
    source = json.loads((tmp_path / "hub/train.json").read_text())
    assert (source["repo"], source["revision"], source["sounds"]) == (REPO, REVISION, 7)
    assert [file["name"] for file in source["files"]] == sorted(name for name in files_of(hub) if "train-" in name)
    assert not hub.transfers("data/test-00000-of-00001.parquet") and not (tmp_path / "hub/.partial/train").exists()

    assert_succeeds(scan(tmp_path))
    facts, captions = (read_table(tmp_path / "scanned" / name) for name in ("facts", "captions"))
    assert (facts.problem == "").all() and sorted(facts.file_name) == sorted(NAMES) == captions.file_name.tolist()
    assert captions.set_index("file_name").loc["S1.FLAC", ["caption_1", "category", "bpm"]].tolist() == ["It is s1.", "rain", "101"]  # fmt: skip
    read, rate = read_sound(tmp_path / "audio/train/S1.FLAC")
    assert rate == 8000 and (read == samples(given[1]["audio"]["bytes"])).all()
    assert set(read_digests(tmp_path / "scanned/digests")) == {*NAMES, "metadata.jsonl"}
    assert_succeeds(scan(tmp_path, caption_columns='["category"]'))
    assert set(read_table(tmp_path / "scanned/captions").caption_1) == {"dog", "rain"}


def test_all_takes_every_split_and_a_second_run_replaces_the_folder(tmp_path: Path, hub: Hub) -> None:
    (tmp_path / "audio/all").mkdir(parents=True)
    (tmp_path / "audio/all/old.wav").write_bytes(b"")
    assert_succeeds(fetch(hub, tmp_path, split="all"))
    assert len(rows_of(tmp_path, "all")) == 8 and not (tmp_path / "audio/all/old.wav").exists()


def test_broken_transfer_goes_on_where_it_stopped(tmp_path: Path, hub: Hub) -> None:
    name = "data/train-00001-of-00002.parquet"
    files_of(hub)[name] = parquet(
        [row("long", audio={"bytes": sound("long", seconds=60), "path": "long.wav"})], FEATURES
    )
    hub.mishaps = {name: ["cut", 503], "README.md": [429]}
    assert_succeeds(fetch(hub, tmp_path))
    ranges = [headers.get("Range") or headers.get("range") for headers in hub.transfers(name)]
    assert len(ranges) == 3 and ranges[0] is None and ranges[1] == ranges[2]
    begin = int(ranges[2].removeprefix("bytes=").removesuffix("-"))
    assert 0 < begin <= len(files_of(hub)[name]) // 2
    assert (tmp_path / "audio/train/long.wav").read_bytes() == sound("long", seconds=60)


def test_damaged_transfer_is_refused(tmp_path: Path, hub: Hub) -> None:
    hub.mishaps = {"data/train-00001-of-00002.parquet": ["damage"]}
    assert_fails(fetch(hub, tmp_path), f"{REPO}: data/train-00001-of-00002.parquet", "damaged in transfer")
    assert not (tmp_path / "audio/train").exists() and not (tmp_path / "hub/train.json").exists()
    assert_succeeds(fetch(hub, tmp_path))
    assert len(hub.transfers("data/train-00000-of-00002.parquet")) == 1  # it was kept


def test_token_opens_a_gated_data_set_and_stays_with_the_hub(tmp_path: Path, hub: Hub) -> None:
    hub.token = TOKEN
    page = f"https://huggingface.co/datasets/{REPO}"
    assert_fails(fetch(hub, tmp_path), REPO, "the dataset is gated", page, "hf auth login")
    assert_succeeds(fetch(hub, tmp_path, HF_TOKEN=TOKEN))
    assert not any("Authorization" in headers for server, *_, headers in hub.asked if server == "cdn")


TRAIN = "data/train-00000-of-00002.parquet"
TWO = [row("a") | {"speech": {"bytes": b"x", "path": "x.wav"}}]
WRONG: dict[str, tuple[Callable[[Files], object], list[object], list[str]]] = {
    "no such data set": (lambda f: None, ["--repo", "no/one", "--revision", REVISION], ["no/one", "no such dataset", "check the name"]),
    "no such commit": (lambda f: None, ["--repo", REPO, "--revision", "d" * 40], [REPO, f"has no commit {'d' * 40}", "correct `revision`"]),
    "no such config": (lambda f: None, ["--config", "small"], [REPO, "no config 'small'", "found default"]),
    "several configs": (lambda f: f.update({"README.md": card(config("a", train="*"), config("b", train="*"))}), [], ["several configs", "a, b"]),
    "no such split": (lambda f: f.update({"README.md": card(config(rest="**"))}), [], ["has no split 'train'", "found rest"]),
    "pattern of nothing": (lambda f: f.update({"README.md": card(config(train="no/*"))}), [], ["no/* to the split 'train'", "found data/test"]),
    "card that is none": (lambda f: f.update({"README.md": b"---\nconfigs: [\n---\n"}), [], ["README.md", "not valid YAML"]),
    "nothing to read": (lambda f: [f.pop(name) for name in list(f) if name.endswith("parquet")], [], ["neither parquet files nor sounds", "refs/convert/parquet"]),
    "no audio column": (lambda f: f.update({TRAIN: parquet([{"text": "a", "n": 1}])}), [], [TRAIN, "no audio column", "text (string), n (int64)"]),
    "names alone": (lambda f: f.update({TRAIN: parquet([{"audio": "a.wav"}], FEATURES, {"audio": pyarrow.string()})}), [], [TRAIN, "'audio' holds no files"]),
    "two audio columns": (lambda f: f.update({TRAIN: parquet(TWO, types={"speech": None})}), [], ["several audio columns", "audio, speech"]),
    "chosen column is not there": (lambda f: None, ["--audio-column", "sound"], [TRAIN, "has no column 'sound'", "found audio, caption"]),
    "chosen column of texts": (lambda f: None, ["--audio-column", "caption"], [TRAIN, "'caption' holds no files"]),
    "row without a sound": (lambda f: f.update({TRAIN: parquet([row("a"), row("b", audio={"bytes": None, "path": "b.wav"})])}), [], [f"{TRAIN}, row 2", "holds no sound", "'b.wav'"]),
    "no parquet": (lambda f: f.update({TRAIN: b"PAR1"}), [], [TRAIN, "not a parquet file"]),
    "damaged parquet": (lambda f: f.update({TRAIN: f[TRAIN][:4] + bytes(400) + f[TRAIN][404:]}), [], [TRAIN, "damaged after row"]),
}  # fmt: skip


@pytest.mark.parametrize(("edit", "options", "words"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_one_line(
    tmp_path: Path, hub: Hub, edit: Any, options: list[object], words: list[str]
) -> None:
    edit(files_of(hub))
    assert_fails(fetch(hub, tmp_path, *options), *words)
    assert not (tmp_path / "audio/train").exists() and not (tmp_path / "hub/train.json").exists()


def test_missing_audio_column_is_told_before_the_other_files_are_fetched(tmp_path: Path, hub: Hub) -> None:
    files_of(hub)[TRAIN] = parquet([{"text": "a"}])
    assert_fails(fetch(hub, tmp_path), "no audio column")
    assert not hub.transfers("data/train-00001-of-00002.parquet")


def test_network_that_is_off_and_pyarrow_that_is_missing_are_told(tmp_path: Path, hub: Hub) -> None:
    assert_fails(fetch(hub, tmp_path, HF_HUB_OFFLINE="1"), REPO, "HF_HUB_OFFLINE is set")
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden/pyarrow.py").write_text("raise ImportError('not installed')")
    done = fetch(hub, tmp_path, fresh=True, PYTHONPATH=str(tmp_path / "hidden"))
    assert_fails(done, TRAIN, "pyarrow is needed", "uv sync --group parquet")
    assert not hub.transfers(TRAIN)


@pytest.mark.parametrize("column", ["audio", "sound"])
def test_parquet_of_another_program_needs_no_notes(tmp_path: Path, hub: Hub, column: str) -> None:
    """A column of bytes without names, and an image beside it that `datasets` noted."""
    rows = [{column: sound("a", "FLAC"), "text": "A.", "picture": {"bytes": b"GIF", "path": "a.gif"}}]
    files_of(hub)[TRAIN] = parquet(rows, {"picture": {"_type": "Image"}}, {"audio": None})
    files_of(hub).pop("data/train-00001-of-00002.parquet")
    assert_succeeds(fetch(hub, tmp_path))
    assert rows_of(tmp_path) == [{"file_name": "0000001.flac", "text": "A."}]
    assert measure(tmp_path / "audio/train/0000001.flac").problem == ""


def of_folders(tmp_path: Path) -> Files:
    """A data set of sounds in folders, with one table for all splits and a text."""
    names = ["train/a.wav", "train/x/b.wav", "test/a.wav"]
    rows = [{"file_name": name, "caption": f"It is {name}."} for name in names]
    files: Files = {name: sound(name) for name in [*names, "train/c.wav", "extra/d.wav"]}
    files["metadata.csv"] = write_csv(tmp_path / "metadata.csv", rows).read_bytes()
    files["train/c.txt"] = b"It is train/c.wav.\n"
    files["test/metadata.csv"] = b"file_name,caption\nno.wav,No.\n"
    files["train/notes.txt"] = b"Of no sound.\n"
    return files


def test_folder_of_sounds_is_taken_by_its_names(tmp_path: Path, hub: Hub) -> None:
    files_of(hub).clear()
    files_of(hub).update(of_folders(tmp_path))
    assert_succeeds(fetch(hub, tmp_path))
    names = {"train/a.wav", "train/x/b.wav", "train/c.wav"}
    assert listing(tmp_path / "audio/train") == {*names, "train/c.txt", "metadata.jsonl"}
    assert all((tmp_path / "audio/train" / name).read_bytes() == files_of(hub)[name] for name in names)
    assert_succeeds(scan(tmp_path))
    told = read_table(tmp_path / "scanned/captions").set_index("file_name").caption_1
    assert told.to_dict() == {name: f"It is {name}." for name in sorted(names)}
    # A row of a sound that the data set lacks is kept, and told by rule scan.
    assert_succeeds(fetch(hub, tmp_path, split="test"))
    assert_fails(scan(tmp_path, "test"), "metadata.jsonl, row 2", "no sound 'test/no.wav'")
