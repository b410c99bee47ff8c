"""The formats of corpora. Each has a module and a line in `FORMATS`. `base` has the methods that a format implements."""

from __future__ import annotations

from sao.data.formats.audiofolder import AudioFolder
from sao.data.formats.base import Format
from sao.data.formats.clotho import Clotho
from sao.data.formats.hub import Hub

FORMATS: dict[str, Format] = {
    "clotho": Clotho(),
    "audiofolder": AudioFolder(),
    "hub": Hub(),
}
