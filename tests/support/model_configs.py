"""The demo's model config with changes, for tests of model configs that are refused."""

from __future__ import annotations

import copy

from conftest import BASE_MODEL
from sao.base.files import read_json

CONFIG = read_json(BASE_MODEL / "model_config.json")


def changed(*changes: tuple[str, object]) -> dict:
    """The demo's model config with other values at dotted keys. None removes a key."""
    config = copy.deepcopy(CONFIG)
    for key, value in changes:
        *path, last = key.split(".")
        node = config
        for part in path:
            node = node[int(part) if part.isdigit() else part]
        if value is None:
            del node[last]
        else:
            node[last] = value
    return config
