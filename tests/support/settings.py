"""Settings of scripts, written as options: `--on-invalid drop` in a test is `--settings '{…, "on_invalid": "drop"}'`.

Other settings have the schema's default, so a test names only the settings that it is about.
"""

from __future__ import annotations

import json
from typing import Any

WINDOW = {"train_seconds": None, "random_crop": False}
SPLIT = {"seed": None, "fractions": None}
SOURCE = {"model_config": "model_config.json", "weights": "model.safetensors"}
NESTED = {
    f"{part}_{key}": (part, key) for part in ("text_encoder", "clap") for key in ("repo", "revision", "file", "path")
}
DEFAULTS: dict[str, dict[str, Any]] = {
    "scan": {
        "format": "audiofolder",
        "folder": None,
        "top": None,
        "caption_columns": None,
        "splits": None,
        "tags": False,
    },
    "fetch": {"repo": None, "revision": None, "config": None, "audio_column": None},
    "manifest": {
        "format": "clotho",
        "audio": None,
        "split_column": None,
        "group_column": None,
        "columns": [],
        "fields": [],
    },
    "validate": {
        "split": None,
        "on_invalid": "fail",
        "on_leak": "fail",
        "licenses": None,
        "silence_dbfs": -60.0,
        "train_seconds": None,
    },
    "split": {"split": None},
    "dataset_configs": {"latents": None, "shards": 1, "audio": None, "on_invalid": "fail", "prompts": None, **WINDOW},
    "encode": WINDOW,
    "embed": {"embedding": None},
    "evaluate": {"source": None, "embeddings": None, "bootstrap": None, "level": None, "seed": None, "comparisons": 1},
    "model_card": {"source": None, "corpora": {"demo": 1}, "sampling": None, "train_seconds": None},
    "prompts": {"render": None, "sampling": None, "train_seconds": None},
    "render": {"render": None, "sampling": None, "train_seconds": None},
    "rehearse": SOURCE | dict.fromkeys(("path", "repo", "revision")),
    "base_model": SOURCE | dict.fromkeys(("path", "repo", "revision", *NESTED)),
    "collect": {"rendering": None},
    "votes": {"level": None},
}
TEXTS = {
    "format",
    "folder",
    "top",
    "split_column",
    "group_column",
    "on_invalid",
    "on_leak",
    "latents",
    *SOURCE,
    "path",
    "repo",
    "revision",
    *NESTED,
    "config",
    "audio_column",
}


def as_options(script: str, given: list[str]) -> list[str]:
    """The options of a script. Those that are settings of the script are moved into `--settings`."""
    if script not in DEFAULTS or "--settings" in given:
        return given
    settings, rest, given = dict(DEFAULTS[script]), [], list(given)
    texts = TEXTS | ({"audio"} if script == "manifest" else set())
    while given:
        option = given.pop(0)
        name, _, text = option.removeprefix("--").partition("=")
        name = name.replace("-", "_")
        if not option.startswith("--") or name not in settings:
            rest.append(option)
        elif settings[name] is False:
            settings[name] = True
        else:
            text = text or given.pop(0)
            settings[name] = text if name in texts else json.loads(text)
    if script == "dataset_configs":
        rest = ["--batches" if option == "--runs" else option for option in rest]
        rest += [] if "--batches" in rest else ["--batches", "{}"]
    return [*rest, "--settings", json.dumps(_shaped(script, settings))]


def _shaped(script: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Settings in the form of the script's type of settings."""
    if script == "scan":
        options = {key: settings.pop(key) for key in ("caption_columns", "top", "splits", "tags")}
        return settings | {"options": options}
    if script == "split":
        return SPLIT | settings["split"]
    if script == "validate":
        return settings | {"split": SPLIT | settings["split"]}
    if script == "fetch":
        return {key: value for key, value in settings.items() if value is not None}
    if script in ("prompts", "render"):
        keys = {"prompts": ("clips", "caption", "seconds", "seed"), "render": ("loudness", "format", "precision")}[
            script
        ]
        named = {"prompts": "takes", "render": "watermark"}[script]
        keys += (named,) if named in settings["render"] else ()
        return {key: settings["render"][key] for key in keys} | {
            key: settings[key] for key in ("sampling", "train_seconds")
        }
    if script == "collect":
        return settings["rendering"]
    if script == "dataset_configs" and settings["audio"]:
        return settings | {"shards": None}
    if script in ("rehearse", "base_model"):
        source: dict[str, Any] = {key: value for key, value in settings.items() if value is not None}
        for name, (part, key) in NESTED.items():
            if name in source:
                source.setdefault(part, {})[key] = source.pop(name)
        return source
    return settings
