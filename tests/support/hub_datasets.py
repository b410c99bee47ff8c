"""Data sets in the forms in which they lie on the Hugging Face Hub."""

from __future__ import annotations

import functools
import io
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import soundfile
from conftest import noise

REPO, REVISION = "someone/sounds", "c" * 40
AUDIO = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])


@functools.cache  # an Ogg file has another number each time
def sound(key: str, form: str = "WAV", rate: int = 8000, seconds: float = 0.1) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, noise(key, seconds, rate), rate, format=form)
    return buffer.getvalue()


def samples(data: bytes) -> np.ndarray:
    return soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)[0]


def parquet(
    rows: Sequence[dict[str, Any]], features: dict[str, Any] | None = None, types: dict[str, Any] | None = None
) -> bytes:
    """A parquet file. `features` is what the library `datasets` notes; columns called `audio` hold files."""
    known = {"audio": AUDIO} | (types or {})
    columns = {
        name: pyarrow.array([row[name] for row in rows], known.get(name)) for name in (rows[0] if rows else known)
    }
    table = pyarrow.table(columns)
    if features is not None:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(table, buffer, row_group_size=3)
    return buffer.getvalue()


def row(key: str, **more: Any) -> dict[str, Any]:
    return {"audio": {"bytes": sound(key), "path": f"{key}.wav"}, "caption": f"It is {key}."} | more


def card(*configs: dict[str, Any]) -> bytes:
    return f"---\nlicense: cc-by-4.0\nconfigs: {json.dumps(list(configs))}\n---\n# Sounds\n".encode()


def config(name: str = "default", **splits: str | list[str]) -> dict[str, Any]:
    return {
        "config_name": name,
        "data_files": [{"split": split, "path": paths} for split, paths in splits.items()],
    }
