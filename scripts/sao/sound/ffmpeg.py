"""FFmpeg, through PyAV: the dependency group `media`. It is imported only for a file that needs it."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from sao.base.command import InputError

# FFmpeg's demuxers for `MEDIA` and `FILMS` of `suffixes`.
DEMUXERS = "aac,ac3,amr,asf,eac3,matroska,mov,tta,wv"


def import_av(task: str, other: str) -> ModuleType:
    """PyAV. Raises InputError, with the task that needs it and another way out, if it is not installed."""
    try:
        import av
    except ImportError:
        raise InputError(f"{task}, FFmpeg is needed: run `uv sync --group media`, or {other}") from None
    return av


def restricted_to(demuxers: str) -> dict[str, str]:
    """Options to open a file. A playlist under the name of a sound could make FFmpeg open other files and addresses."""
    return {"format_whitelist": demuxers, "protocol_whitelist": "file"}


def place_of(path: Path) -> str:
    """A path as FFmpeg takes it: a name may begin like the address of another protocol."""
    return f"file:{path.absolute()}"
