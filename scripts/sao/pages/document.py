"""The frame of small pages that need no other file."""

from __future__ import annotations

import html
import re

STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;font-size:13px}td,th{border-bottom:1px solid #ddd;padding:.25rem .7rem;text-align:left;
vertical-align:top}td.n{text-align:right}.plots{display:flex;flex-wrap:wrap;gap:1rem}
.bar{display:inline-block;height:.7em;background:#1f77b4}.bad{color:#b00020}
td.path{overflow-wrap:anywhere;max-width:26rem}"""


def document(title: str, body: str) -> str:
    """A page in HTML. `body` is HTML already."""
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"/><title>{escape(title)}</title>'
        f"<style>{STYLE}</style></head><body>{body}</body></html>\n"
    )


def escape(text: str) -> str:
    """Escape a text for HTML. Control characters, which HTML does not allow, are replaced."""
    return html.escape(re.sub(r"[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", text))
