"""Write docs/reference/configuration.md from the config schema.

uv run python docs/make_configuration.py
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
from sao.config.resolve import SCHEMA, deref

Schema = dict[str, Any]
PAGE = Path(__file__).parent / "reference/configuration.md"
INTRO = """\
# Configuration

Made from `schemas/config.schema.yaml` by `uv run python docs/make_configuration.py`: edit the schema, not this page.

`config.yaml` holds the built-in default. Each `--configfile` is merged into it, key by key, in the order given. If one
of them has runs of its own, the default run and its `render` are left out. An entry of `corpora`, `base_models` or `runs`
that is set to `null` is left out. `NAME` stands for a name of your own: letters,
digits, `.`, `_` and `-`, the first a letter or a digit. The config is checked before a job starts. An unknown key, a
value that is not allowed or a reference to nothing ends with one line that names the key, the file and the line.
"""
TYPES = {"array": "list", "object": "section"}
LIMITS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤"}


def allowed(schema: Schema, root: Schema) -> str:
    """Type and limits of a value, in words."""
    schema = deref(schema, root)
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "type" not in schema:
        return " or ".join(allowed(option, root) for option in schema["oneOf"])
    types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    text = TYPES.get(types[0], types[0])
    if "items" in schema:
        text += f" of {allowed(schema['items'], root)}s"
    text += "".join(f" {sign} {schema[key]}" for key, sign in LIMITS.items() if key in schema)
    if "pattern" in schema:
        text += f" `{schema['pattern']}`"
    return f"{text} or `null`" if "null" in types else text


def sections(schema: Schema, root: Schema, path: str, found: dict[str, tuple[list[str], Schema]]) -> None:
    """Collect `{definition: (paths, schema)}` of all that has keys; a definition that is used twice is listed once."""
    node, name = deref(schema, root), schema.get("$ref", path)
    if name in found:
        found[name][0].append(path)
        return
    if "properties" in node:
        found[name] = ([path], node)
    for key, value in node.get("properties", {}).items():
        sections(value, root, f"{path}.{key}".lstrip("."), found)
    if isinstance(node.get("additionalProperties"), dict):
        sections(node["additionalProperties"], root, f"{path}.NAME", found)
    if "items" in node:
        sections(node["items"], root, f"{path}[]", found)


def default(key: str, node: Schema, value: Schema) -> str:
    if "default" in value:
        return f"`{json.dumps(value['default'])}`"
    return "required" if key in node.get("required", []) else "–"


def table(node: Schema, root: Schema) -> str:
    """What the section needs one of, and a row a key."""
    options = [option["required"] for option in node.get("oneOf", [])]
    choice = ", or ".join(" and ".join(f"`{key}`" for key in option) for option in options)
    lines = [f"Needs {choice}.\n"] if options else []
    lines += ["| Key | Type, allowed | Default | Description |", "| --- | --- | --- | --- |"]
    for key, schema in node["properties"].items():
        value = deref(schema, root)
        cells = [f"`{key}`", allowed(schema, root), default(key, node, value), value.get("description", "")]
        lines.append("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def text() -> str:
    """The whole page."""
    schema = yaml.safe_load(SCHEMA.read_text(encoding="utf-8"))
    found: dict[str, tuple[list[str], Schema]] = {}
    sections(schema, schema, "", found)
    parts = [INTRO]
    for paths, node in found.values():
        title = ", ".join(f"`{path}`" for path in paths if path) or "Top level"
        parts.append(f"## {title}\n\n{table(node, schema)}")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(text(), encoding="utf-8")
