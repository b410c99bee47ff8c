"""The templates of pages, which lie in this folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import jinja2


def template(name: str, **filters: Callable[..., str]) -> jinja2.Template:
    """A template. It has the filter `path`, which makes a path an address, and those that are given."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"path": quote, **filters}
    return environment.get_template(name)
