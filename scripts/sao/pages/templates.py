"""The templates of pages, which lie in this folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2

HERE = Path(__file__).parent


def template(name: str, **filters: Callable[..., Any]) -> jinja2.Template:
    """A template. It has the filter `path`, which makes a path an address, and those that are given.

    Its function `inline` gives the text of a style sheet or script of this folder, which becomes a part of the page.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"path": quote, **filters}
    environment.globals["inline"] = inline
    return environment.get_template(name)


def inline(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")
