"""Where a sound is from: author, link and licence, whatever a table calls them."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from sao.base.names import plain_id
from sao.base.placeholders import is_placeholder
from sao.base.tables import plain

Row = dict[str, str]
# Clotho's columns, and what else they are called: in tables of people's own, in Freesound's API (`username`, `url`).
# Its `id` is no `sound_id`, since other tables number their rows under that name.
METADATA = {
    "keywords": ("tags",),
    "sound_id": ("freesound_id",),
    "sound_link": ("link", "url", "source"),
    "start_end_samples": (),
    "manufacturer": ("author", "artist", "creator", "username", "user", "uploader"),
    "license": ("licence", "license_url", "licence_url", "license_name", "licence_name"),
}
# The page of a sound on Freesound, which names its `sound_id`.
FREESOUND = re.compile(r"https?://(?:www\.)?freesound\.org/(?:people/[^/]+/sounds|s)/(\d+)", re.IGNORECASE)
LINKS = ("sound_link", "link", "url")  # a `source` may be a microphone


def one_line(text: str) -> str:
    """Text with every run of white space, line breaks included, made one space."""
    return " ".join(text.split())


def web_address(text: str) -> str:
    """An http(s) address; `www.…` is taken for https. Nothing for any other text."""
    address = f"https://{text}" if text.lower().startswith("www.") else text
    try:
        parts = urlsplit(address)
        host = parts.hostname
    except ValueError:  # no valid host
        return ""
    return address if parts.scheme in ("http", "https") and host and not re.search(r"[\s<>\"]", address) else ""


def origin(row: Row) -> Row:
    """Clotho's metadata columns of a row, whatever they are called there.

    Words for nothing (`NA`) are no link, author or licence, and a link is an http(s) address. A `sound_id` stays as it
    is, for validation to name; where there is no such column, it follows from a link to Freesound.
    """
    cells, found = {plain(column): value for column, value in row.items()}, {}
    for column, others in METADATA.items():
        texts = [one_line(cells[name]) for name in (column, *others) if cells.get(name)]
        if column == "sound_link":
            texts = [web_address(text) for text in texts]
        if column in ("sound_link", "manufacturer", "license"):
            texts = ["" if is_placeholder(text) else text for text in texts]
        found[column] = next(filter(None, texts), "")
    found["sound_id"] = plain_id(found["sound_id"])
    if not {"sound_id", *METADATA["sound_id"]} & set(cells) and (page := FREESOUND.match(found["sound_link"])):
        found["sound_id"] = page[1]
    return found


def lost_links(row: Row) -> list[str]:
    """What the columns for links hold that is neither an address nor a word for nothing."""
    texts = [one_line(value) for column, value in row.items() if plain(column) in LINKS]
    return [text for text in texts if not is_placeholder(text) and not web_address(text)]
