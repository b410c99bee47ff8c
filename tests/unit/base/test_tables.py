from __future__ import annotations

import tempfile
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sao.base.command import InputError
from sao.base.tables import caption_columns, captions_of, read_rows, read_table, read_tables, write_table

# Tables have no carriage return or NUL, because manifest.py and read_rows refuse them.
TEXT = st.text(st.characters(exclude_characters="\r\0", codec="utf-8"), max_size=20)


@given(st.lists(st.tuples(TEXT, TEXT, st.floats(allow_nan=False)), min_size=1, max_size=5))
def test_table_comes_back_as_it_was(rows: list[tuple[str, str, float]]) -> None:
    table = pd.DataFrame(rows, columns=["clip_id", "caption_1", "peak_dbfs"])
    with tempfile.TemporaryDirectory() as folder:
        write_table(Path(folder, "table.csv"), table)
        pd.testing.assert_frame_equal(read_table(Path(folder, "table.csv")), table)
        assert [path.name for path in Path(folder).iterdir()] == ["table.csv"]


def test_numbers_are_numbers_and_text_is_text(tmp_path: Path) -> None:
    row = {"clip_id": "007", "caption_1": "NA", "peak_dbfs": float("-inf"), "seconds": 1.5, "frames": 3, "sound_id": 12}
    write_table(tmp_path / "table.csv", pd.DataFrame([row]))
    table = read_table(tmp_path / "table.csv")
    assert table.loc[0].to_dict() == row | {"sound_id": "12"}
    assert pd.api.types.is_integer_dtype(table.frames)


def test_table_that_cannot_be_written_keeps_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    write_table(path, pd.DataFrame({"a": ["old"]}))
    with pytest.raises(UnicodeEncodeError):
        write_table(path, pd.DataFrame({"a": ["new"] * 9999 + ["\ud800"]}))
    assert [p.name for p in tmp_path.iterdir()] == ["table.csv"] and "old" in path.read_text()


def test_caption_columns_come_in_numeric_order() -> None:
    names = ["caption_10", "caption_2", "caption_1", "caption_", "caption_x", "captions", "clip_id"]
    assert caption_columns(pd.DataFrame(columns=names)) == ["caption_1", "caption_2", "caption_10"]


@pytest.mark.parametrize("encoding", ["utf-8", "iso-8859-1"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_published_rows_are_text(tmp_path: Path, encoding: str, end: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(end.join(["file_name,x", '"a, ""b"".wav",NA', "", "é.wav, 007 ", ""]).encode(encoding))
    assert read_rows(path, ["x"], encoding) == [
        (2, {"file_name": 'a, "b".wav', "x": "NA"}),
        (4, {"file_name": "é.wav", "x": " 007 "}),
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "iso-8859-1"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_utf8_is_known_whatever_was_to_be_expected(tmp_path: Path, encoding: str, mark: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(f"{mark}file_name,x\né.wav,雨 – Größe\n".encode())
    assert read_rows(path, ["file_name"], encoding) == [(2, {"file_name": "é.wav", "x": "雨 – Größe"})]


def test_file_with_a_mark_of_utf8_that_is_not_is_named_with_its_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b"\xef\xbb\xbffile_name,x\na.wav,caf\xe9\n")
    with pytest.raises(InputError, match=r"rows\.csv, row 2: byte 0xe9 is not UTF-8"):
        read_rows(path, ["file_name"], "iso-8859-1")


def test_row_is_numbered_by_the_line_it_begins_in(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b'\xef\xbb\xbfa,b\n1,"two\nlines"\n\n2,x\n3,"y\r\nz"\n4,w')
    assert [(number, row["a"]) for number, row in read_rows(path, ["a"])] == [(2, "1"), (5, "2"), (6, "3"), (8, "4")]


def test_tables_with_unlike_columns_are_joined_as_text(tmp_path: Path) -> None:
    one, two = tmp_path / "1.csv", tmp_path / "2.csv"
    write_table(one, pd.DataFrame({"clip_id": ["a"], "caption_1": ["NA"], "caption_2": ["x"], "caption_count": [2]}))
    write_table(two, pd.DataFrame({"clip_id": ["b"], "caption_1": ["y"], "caption_count": [1], "given_group": ["g"]}))
    table = read_tables([one, two])
    assert table.index.tolist() == [0, 1] and table.caption_count.tolist() == [2, 1]
    assert table.caption_2.tolist() == ["x", ""] and table.given_group.tolist() == ["", "g"]
    assert [captions_of(row, caption_columns(table)) for row in table.to_dict("records")] == [["NA", "x"], ["y"]]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ["'a'", "an empty file"]),
        (b"a,c\n1,2\n", ["'b'", "a, c"]),
        (b"a,b,a\n1,2,3\n", ["twice", "a, b, a"]),
        (b"a,b\n1,2\n1,2,3\n", ["row 3", "3 fields", "quote"]),
        (b"a,b\n1,2\n\n1\n", ["row 4", "1 fields"]),
        (b'a,b\n1,2\n"1"x,2\n', ["row 3", "CSV"]),
        (b'a,b\n1,2\n1,"2\n', ["row 3", "CSV"]),
        (b"a,b\n1,2\n1,\xe9\n", ["row 3", "0xe9", "UTF-8"]),
        (b"a,b\n1,2\n1,\0\n", ["row 3", "NUL"]),
        ("a,b\n1,2\n".encode("utf-16"), ["row 1", "0xff", "UTF-8"]),
    ],
)
def test_odd_file_is_named_with_its_row(tmp_path: Path, content: bytes, words: list[str]) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        read_rows(path, ["a", "b"])
    assert all(word in str(error.value) for word in [str(path), *words]), error.value
    assert "\n" not in str(error.value)
