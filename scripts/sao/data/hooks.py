"""A user's own metadata module of stable-audio-tools, as a source of prompts.

Its `get_custom_metadata(info, audio)` is called before the training, so that all texts that it gives are checked and encoded
like others. https://github.com/Stability-AI/stable-audio-tools/blob/main/docs/datasets.md
"""

from __future__ import annotations

import importlib.util
import random
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sao.base.command import InputError

import numpy as np

from sao.base.names import seed_for
from sao.data.origin import one_line
from sao.data.templates import Source, Weighted

FUNCTION = "get_custom_metadata"
Hook = Callable[[dict[str, Any], None], Any]


def load_hook(path: Path) -> Hook:
    """The function of a metadata module. Raises InputError if the module cannot be loaded or does not have it."""
    spec = importlib.util.spec_from_file_location("prompts_hook", path)
    if spec is None or spec.loader is None:
        raise InputError(f"{path}: no Python module")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.resolve().parent))  # it may import its neighbours
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # noqa: BLE001 - a module may raise anything
        raise InputError(f"{path}: cannot be loaded ({type(error).__name__}: {error}): correct it") from None
    if not callable(hook := getattr(module, FUNCTION, None)):
        raise InputError(f"{path}: has no function {FUNCTION}(info, audio): add it")
    return hook


def texts_of(hook: Hook, source: Source, info: dict[str, Any], variants: int) -> list[Weighted]:
    """The prompts that a hook gives for a clip in so many calls, each once, weighted by how often it came.

    Each call begins with a seed of its own, so a hook that draws at random gives the same texts again. Raises ValueError,
    with the reason, where it fails or gives no prompt.
    """
    texts: Counter[str] = Counter()
    for variant in range(variants):
        seed = seed_for("hook", source.clip_id, variant)
        random.seed(seed)
        np.random.seed(seed)  # for hooks that draw from it
        try:
            metadata = hook(dict(info), None)
        except Exception as error:  # noqa: BLE001 - a hook may raise anything
            raise ValueError(f"the hook failed ({type(error).__name__}: {error})") from None
        if isinstance(metadata, dict) and metadata.get("__reject__"):
            raise ValueError("the hook rejected the clip")
        if not isinstance(metadata, dict) or not isinstance(metadata.get("prompt"), str):
            raise ValueError(f"the hook gave no prompt, but {metadata!r:.60}")
        texts[one_line(metadata["prompt"])] += 1
    return [(text, count / variants) for text, count in texts.items()]
