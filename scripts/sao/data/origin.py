"""Find the origin of a sound in a row of a table: author, link and licence, under any of their usual column names."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from sao.base.names import plain_id
from sao.base.placeholders import is_placeholder
from sao.base.tables import plain

Row = dict[str, str]
# Clotho's columns, and their other names in users' tables and in Freesound's API (`username`, `url`). Freesound's `id` is
# not among them, because other tables number their rows under that name.
METADATA = {
    "keywords": ("tags",),
    "sound_id": ("freesound_id",),
    "sound_link": ("link", "url", "source"),
    "start_end_samples": (),
    "manufacturer": ("author", "artist", "creator", "username", "user", "uploader", "tag_artist"),
    "license": ("licence", "license_url", "licence_url", "license_name", "licence_name", "tag_license"),
}
# The page of a sound on Freesound, which names its `sound_id`.
FREESOUND = re.compile(r"https?://(?:www\.)?freesound\.org/(?:people/[^/]+/sounds|s)/(\d+)", re.IGNORECASE)
LINKS = ("sound_link", "link", "url")  # a `source` may be a microphone


def one_line(text: str) -> str:
    """Replace each run of white space in a text, line breaks included, by one space."""
    return " ".join(text.split())


def web_address(text: str) -> str:
    """The http(s) address in a text; `www.…` gets https. Any other text gives an empty text."""
    address = f"https://{text}" if text.lower().startswith("www.") else text
    try:
        parts = urlsplit(address)
        host = parts.hostname
    except ValueError:  # no valid host
        return ""
    return address if parts.scheme in ("http", "https") and host and not re.search(r"[\s<>\"]", address) else ""


def origin(row: Row) -> Row:
    """Clotho's metadata columns of a row, under any of their usual names.

    Words for nothing (`NA`) are no link, author or licence, and a link is an http(s) address. A `sound_id` stays as it is, so
    that validation can name it. Without such a column, a link to Freesound gives it.
    """
    cells, metadata = {plain(column): value for column, value in row.items()}, {}
    for column, others in METADATA.items():
        texts = [one_line(cells[name]) for name in (column, *others) if cells.get(name)]
        if column == "sound_link":
            texts = [web_address(text) for text in texts]
        if column in ("sound_link", "manufacturer", "license"):
            texts = ["" if is_placeholder(text) else text for text in texts]
        metadata[column] = next(filter(None, texts), "")
    metadata["sound_id"] = plain_id(metadata["sound_id"])
    if not {"sound_id", *METADATA["sound_id"]} & set(cells) and (page := FREESOUND.match(metadata["sound_link"])):
        metadata["sound_id"] = page[1]
    return metadata


def lost_links(row: Row) -> list[str]:
    """Texts in the columns for links that are neither an address nor a word for nothing."""
    texts = [one_line(value) for column, value in row.items() if plain(column) in LINKS]
    return [text for text in texts if not is_placeholder(text) and not web_address(text)]
