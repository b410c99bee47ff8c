"""How a user's config lies over config.yaml, which holds the built-in default."""

from __future__ import annotations

from pathlib import Path

import yaml

from sao.config.resolve import Config


def stand_alone(config: Config, given: Config, default: Path) -> Config:
    """The merged `config`, without the default run where `given`, what a user laid over the file `default`, has runs.

    A run of `default` that `given` names is kept, with what `given` changes of it. `render` of `default` belongs to its
    runs, and is left out with the last of them. Corpora and base models stay, so that other runs can use them.
    """
    own = given.get("runs")
    if not isinstance(own, dict) or not isinstance(config.get("runs"), dict):
        return config
    config = config | {"runs": {name: entry for name, entry in config["runs"].items() if name in own}}
    if any(own.get(name) is not None for name in _runs(default)):
        return config
    rest = {key: value for key, value in config.items() if key != "render"}
    return rest | ({"render": given["render"]} if "render" in given else {})


def _runs(path: Path) -> list[str]:
    """The names of the runs in a config file. Empty if the file has none or does not exist."""
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    content = yaml.load(text, yaml.CSafeLoader)
    runs = content.get("runs") if isinstance(content, dict) else None
    return list(runs) if isinstance(runs, dict) else []
