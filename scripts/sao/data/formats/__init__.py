"""The formats of corpora: one module for each, and its line in `FORMATS`. `base` says what a format answers."""

from __future__ import annotations

from sao.data.formats.audiofolder import AudioFolder
from sao.data.formats.base import Format
from sao.data.formats.clotho import Clotho

FORMATS: dict[str, Format] = {
    "clotho": Clotho(),
    "audiofolder": AudioFolder(),
}
