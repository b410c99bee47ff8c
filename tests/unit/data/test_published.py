"""The files of a split are those that `datasets` takes, by the card of a data set or by their names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sao.base.command import InputError
from sao.base.names import same_name
from sao.data.published import configs_of, files_of_split
from sao.data.unpacked import LONGEST, free_name, tables_for
from sao.sound.suffixes import is_sound

TRAIN = ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"]
SHARDS = [*TRAIN, "data/test-00000-of-00001.parquet", "README.md", ".gitattributes", "data/.hidden/train.parquet"]
CONVERTED = ["default/train/0000.parquet", "default/validation/0000.parquet", "small/train/0000.parquet"]
FOLDERS = ["train/a.wav", "train/x/b.m4a", "dev/a.wav", "metadata.csv", "training.parquet.md"]


def card(*configs: dict[str, Any]) -> str:
    return f"---\nconfigs: {json.dumps(configs)}\n---\nWords.\n"


def by(**files: Any) -> dict[str, Any]:
    return {"data_files": [{"split": split, "path": path} for split, path in files.items()]}


CASES: dict[str, tuple[list[str], str, str | None, str, list[str]]] = {
    "shards by name": (SHARDS, "", None, "train", TRAIN),
    "all": (SHARDS, "", None, "all", sorted([*TRAIN, SHARDS[2]])),
    "converted": (CONVERTED, "", "default", "train", CONVERTED[:1]),
    "converted, other word": (CONVERTED, "", "default", "validation", CONVERTED[1:2]),
    "folders": (FOLDERS, "", None, "train", ["train/a.wav", "train/x/b.m4a"]),
    "folders, other word": (FOLDERS, "", None, "validation", ["dev/a.wav"]),
    "no word at all": (["x/a.wav", "b.wav"], "", None, "train", ["b.wav", "x/a.wav"]),
    "another split": (["fold_1/a.wav", "fold_2/a.wav"], "", None, "fold_1", ["fold_1/a.wav"]),
    "card": (SHARDS, card(by(train="data/train-*", test="data/test-*")), None, "test", [SHARDS[2]]),
    "card, list": (SHARDS, card(by(train=TRAIN[1:], test="x")), None, "train", TRAIN[1:]),
    "card, a text": (SHARDS, card({"data_files": "data/*.parquet"}), None, "train", sorted([*TRAIN, SHARDS[2]])),
    "card, texts": (SHARDS, card({"data_files": TRAIN[:1]}), None, "train", TRAIN[:1]),
    "card, folder": (CONVERTED, card(by(train="small")), None, "train", CONVERTED[2:]),
    "card, deep": (CONVERTED, card(by(train="**/train/*.parquet")), None, "train", [CONVERTED[0], CONVERTED[2]]),
    "card, star within a folder": (CONVERTED, card(by(train=["*", "small/*/0000.parquet"])), None, "train", CONVERTED[2:]),
    "card, data_dir": (CONVERTED, card({"data_dir": "default"}), None, "validation", CONVERTED[1:2]),
    "card, data_dir and files": (CONVERTED, card({"data_dir": "small", **by(train="train/*")}), None, "train", CONVERTED[2:]),
    "card, config": (CONVERTED, card({"config_name": "s", **by(train="small/**")}, {"config_name": "d", **by(train="default/train/*")}), "s", "train", CONVERTED[2:]),
    "card, default": (CONVERTED, card({"config_name": "s", **by(train="small/**")}, {"config_name": "d", "default": True, **by(train="default/train/*")}), None, "train", CONVERTED[:1]),
    "card without files": (SHARDS, card({"config_name": "default"}), None, "train", TRAIN),
    "card without configs": (SHARDS, "---\nlicense: mit\n---\n", None, "train", TRAIN),
}  # fmt: skip


@pytest.mark.parametrize(("names", "text", "config", "split", "expected"), CASES.values(), ids=CASES)
def test_files_of_a_split(names: list[str], text: str, config: str | None, split: str, expected: list[str]) -> None:
    assert files_of_split(names, text, config, split, "a/b") == expected


@pytest.mark.parametrize(
    ("names", "text", "config", "split", "message"),
    [
        (["a.tar", "a.csv"], "", None, "train", "neither parquet files nor sounds"),
        (SHARDS, "", None, "validation", "the word 'validation'"),
        (SHARDS, "", "small", "train", "no config 'small'"),
        (SHARDS, card(by(test="data/test-*")), None, "train", "no split 'train'; found test"),
        (SHARDS, card(by(train="a**b")), None, "train", r"pattern 'a\*\*b' cannot be used"),
    ],
)
def test_split_without_files_is_one_line(
    names: list[str], text: str, config: str | None, split: str, message: str
) -> None:
    with pytest.raises(InputError, match=message) as error:
        files_of_split(names, text, config, split, "a/b")
    assert str(error.value).startswith("a/b: ") and len(str(error.value).splitlines()) == 1


@given(st.text(max_size=60) | st.text("-:[]{} \nconfigsdata_files*", max_size=60))
def test_any_card_is_read_or_one_line(text: str) -> None:
    for whole in (text, f"---\n{text}\n---\n", f"---\nconfigs:\n- data_files: {text}\n---\n"):
        try:
            assert isinstance(configs_of(whole, "here"), list)
            assert files_of_split(TRAIN, whole, None, "train", "here")
        except InputError as error:
            assert len(str(error).splitlines()) == 1


PATHS = st.text(max_size=12) | st.sampled_from(
    ["a.wav", "A.WAV", "a-0000002.wav", "x/a.wav", "é.wav", "e\u0301.wav", ""]
)


@given(st.lists(st.tuples(PATHS, st.sampled_from([b"RIFF", b"fLaC", b"", b"\0\0\0\x18ftyp"])), max_size=12))
def test_names_are_usable_and_none_is_taken_twice(tmp_path_factory: Any, given: list[tuple[str, bytes]]) -> None:
    taken: set[str] = set()
    names = [free_name(path, data, n, taken) for n, (path, data) in enumerate(given, 1)]
    assert len({same_name(name).casefold() for name in names}) == len(names) == len(taken)
    for name in names:
        assert name and name == Path(name).name and not name.startswith(".") and is_sound(name) and name.isprintable()
        assert len(name.encode()) <= LONGEST + 20


def test_tables_and_texts_that_may_tell_of_sounds() -> None:
    names = ["metadata.csv", "x/metadata.jsonl", "y/metadata.csv", "x/a.txt", "x/a.wav.json", "x/b.txt", "README.txt"]
    assert tables_for(names, ["x/a.wav"]) == ["metadata.csv", "x/metadata.jsonl", "x/a.txt", "x/a.wav.json"]
