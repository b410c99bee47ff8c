"""Write the sounds of a data set's parquet files, or its tables, as a folder of sounds with a `metadata.jsonl`."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from sao.base.command import InputError, log

from sao.base.names import same_name
from sao.data.formats.tables import FILE, READERS, import_pyarrow
from sao.sound.suffixes import is_sound, suffix

TABLE = "metadata.jsonl"
ROWS = 16  # rows that are read at a time, because a row holds a sound
LONGEST = 200  # bytes of a name
# What the sounds of a parquet without names begin with, and the suffix of such sounds.
BEGINNINGS = {
    b"RIFF": ".wav",
    b"RF64": ".wav",
    b"fLaC": ".flac",
    b"OggS": ".ogg",
    b"FORM": ".aiff",
    b"ID3": ".mp3",
    b"\xff\xfb": ".mp3",
    b"\xff\xf3": ".mp3",
    b"\x1aE\xdf\xa3": ".webm",
}


class Parquet:
    """A parquet file of a data set: the column with its sounds, and what its other columns are."""

    def __init__(self, path: Path, name: str, audio_column: str | None) -> None:
        """`name` is the file's name in messages. Raises InputError if the file cannot be read or has no audio column."""
        self.path, self.name = path, name
        self.pyarrow = import_pyarrow(name)
        try:
            self.file = self.pyarrow.parquet.ParquetFile(path)
        except (self.pyarrow.ArrowException, OSError) as error:
            raise InputError(f"{name}: not a parquet file that can be read ({str(error).splitlines()[0]})") from None
        self.schema = self.file.schema_arrow
        self.features = self._features()
        self.column = self._audio_column(audio_column)
        self.columns = [f.name for f in self.schema if f.name == self.column or self._is_plain(f.type)]

    def _features(self) -> dict[str, Any]:
        """What the library `datasets` noted about the columns."""
        try:
            noted = json.loads((self.schema.metadata or {}).get(b"huggingface", b"{}"))
            features = noted.get("info", {}).get("features", {})
        except (ValueError, AttributeError):
            return {}
        return features if isinstance(features, dict) else {}

    def _feature(self, column: str) -> dict[str, Any]:
        feature = self.features.get(column)
        return feature if isinstance(feature, dict) else {}

    def _audio_column(self, chosen: str | None) -> str:
        names = self.schema.names
        if chosen is not None:
            if chosen not in names:
                raise InputError(f"{self.name}: has no column {chosen!r} (`audio_column`); found {', '.join(names)}")
            if not self._holds_files(self.schema.field(chosen).type):
                raise InputError(
                    f"{self.name}: the column {chosen!r} holds no files (`audio_column`); found {self._types()}"
                )
            return chosen
        found = [name for name in names if self._feature(name).get("_type") == "Audio"]
        if not found:  # written by another program than `datasets`
            files = [f.name for f in self.schema if self._holds_files(f.type)]
            found = [name for name in files if self._feature(name).get("_type") != "Image"]
        if len(found) != 1:
            what = f"has several audio columns: set `audio_column` to one of {', '.join(found)}"
            raise InputError(f"{self.name}: {what if found else f'has no audio column; found {self._types()}'}")
        if not self._holds_files(self.schema.field(found[0]).type):
            raise InputError(f"{self.name}: the audio column {found[0]!r} holds no files; found {self._types()}")
        return found[0]

    def _types(self) -> str:
        return ", ".join(f"{field.name} ({str(field.type)[:40]})" for field in self.schema)

    def _holds_files(self, kind: Any) -> bool:
        """Whether a column holds the bytes of files, as a struct with a path or alone."""
        types = self.pyarrow.types
        if types.is_struct(kind):
            return kind.get_field_index("bytes") >= 0 and self._is_bytes(kind.field("bytes").type)
        return bool(self._is_bytes(kind))

    def _is_bytes(self, kind: Any) -> bool:
        types = self.pyarrow.types
        return bool(types.is_binary(kind) or types.is_large_binary(kind))

    def _is_plain(self, kind: Any) -> bool:
        """Whether a column holds texts, numbers, truth values, times, or lists of texts."""
        types = self.pyarrow.types
        if types.is_list(kind) or types.is_large_list(kind):
            return bool(types.is_string(kind.value_type) or types.is_large_string(kind.value_type))
        nested = types.is_nested(kind) or self._is_bytes(kind) or types.is_fixed_size_binary(kind)
        return not nested

    def left_out(self) -> list[str]:
        """The columns that are not written: bytes, and anything nested that is no list of texts."""
        return [name for name in self.schema.names if name not in self.columns]

    def rows(self) -> Iterator[tuple[str, bytes, str, dict[str, Any]]]:
        """`(where, sound, its name or an empty text, other columns)` of each row. Raises InputError on a row without a sound."""
        number = 0
        try:
            for batch in self.file.iter_batches(ROWS, columns=self.columns):
                for row in batch.to_pylist():
                    number += 1
                    where = f"{self.name}, row {number}"
                    sound = row.pop(self.column)
                    data = sound.get("bytes") if isinstance(sound, dict) else sound
                    name = (sound.get("path") if isinstance(sound, dict) else None) or ""
                    if not data:
                        hint = f", only the name {name!r}" if name else ""
                        raise InputError(f"{where}: the column {self.column!r} holds no sound{hint}")
                    yield where, data, name, {key: self._value(key, value) for key, value in row.items()}
        except (self.pyarrow.ArrowException, OSError) as error:
            raise InputError(f"{self.name}: damaged after row {number} ({str(error).splitlines()[0]})") from None

    def _value(self, column: str, value: Any) -> Any:
        """A value as JSON has it. A class gets its name instead of its number."""
        feature = self._feature(column)
        names = feature.get("names")
        if feature.get("_type") == "ClassLabel" and isinstance(names, list) and isinstance(value, int):
            return names[value] if 0 <= value < len(names) else ""
        return value if value is None or isinstance(value, str | bool | int | float | list) else str(value)


def write_parquets(parquets: Iterable[Parquet], folder: Path) -> int:
    """Write the sounds of all rows, and their other columns into a `metadata.jsonl`. Returns the number of sounds."""
    taken: set[str] = set()
    count = 0
    with (folder / TABLE).open("w", encoding="utf-8") as table:
        for parquet in parquets:
            for _, data, path, columns in parquet.rows():
                count += 1
                name = free_name(path, data, count, taken)
                (folder / name).write_bytes(data)
                write_row(table, name, columns)
    return count


def free_name(path: str, data: bytes, number: int, taken: set[str]) -> str:
    """A name for a sound that no other has: its own, or, if that cannot be used, one with its number in the split.

    Adds it to `taken`, in a form in which names that a file system may confuse are equal.
    """
    own = PurePosixPath(path.replace("\\", "/")).name.lstrip(".")
    end = suffix(own)
    if not is_sound(own):
        end = next((end for beginning, end in BEGINNINGS.items() if data.startswith(beginning)), "")
        end = ".m4a" if data[4:8] == b"ftyp" else end or ".wav"
        own = f"{own}{end}" if own else ""
    odd = (
        not own.isprintable()
        or len(own.encode(errors="replace")) > LONGEST
        or own.encode(errors="ignore").decode() != own
    )
    if not own or odd or same_name(own).casefold() in taken:
        stem = "" if not own or odd else f"{own[: len(own) - len(end)]}-"
        own = f"{stem}{number:07d}{end}"
        while same_name(own).casefold() in taken:
            own = f"{own[: len(own) - len(end)]}-{end}"
    taken.add(same_name(own).casefold())
    return own


def write_row(table: Any, name: str, columns: Mapping[str, Any]) -> None:
    others = {key: value for key, value in columns.items() if key != FILE}
    table.write(json.dumps({FILE: name} | others, ensure_ascii=False) + "\n")


def tables_for(names: Iterable[str], sounds: Iterable[str]) -> list[str]:
    """The tables and the texts of a data set that may tell of these sounds."""
    stems = {sound.removesuffix(PurePosixPath(sound).suffix) for sound in sounds} | set(sounds)
    above = {str(parent) for sound in sounds for parent in PurePosixPath(sound).parents}
    found = []
    for name in names:
        path = PurePosixPath(name)
        if path.name in READERS:
            found += [name] if str(path.parent) in above else []
        elif path.suffix in (".txt", ".json") and name.removesuffix(path.suffix) in stems:
            found.append(name)
    return found


def write_tables(tables: Mapping[str, Path], sounds: set[str], others: set[str], folder: Path) -> None:
    """Write the rows of a data set's tables, by their names in it, into one `metadata.jsonl`.

    Rows of sounds in `others`, which are in other splits, are left out.
    """
    others = set(map(same_name, others)) - set(map(same_name, sounds))
    with (folder / TABLE).open("w", encoding="utf-8") as table:
        for name, path in tables.items():
            for _, row in READERS[PurePosixPath(name).name](path):
                sound = posixpath.normpath(posixpath.join(posixpath.dirname(name), row[FILE]))
                if same_name(sound) not in others:
                    write_row(table, sound, row)


def tell_left_out(parquet: Parquet) -> None:
    if left := parquet.left_out():
        log.info(
            "%s: columns that are no text, number or list of texts are left out: %s", parquet.name, ", ".join(left)
        )
