"""Read a config as Snakemake does: config.yaml, the files of `--configfile` over it, and the values of `--config` over all."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sao.base.command import InputError

import yaml

from sao.config.layers import stand_alone
from sao.config.resolve import Config, check_file

DEFAULT = Path("config.yaml")


def read_config(files: Sequence[Path], values: Sequence[str]) -> tuple[Config, list[Path]]:
    """The merged config of this folder, and the files that it is from, in order.

    `values` are `key=value`, of which the value is YAML. Raises InputError if there is no config.yaml, on a file that cannot be
    read, and on a value without a key.
    """
    if not DEFAULT.is_file():
        raise InputError(f"{DEFAULT}: not in {Path.cwd()}: start in the folder that has config.yaml and results")
    given: Config = {}
    for path in files:
        given = laid_over(given, _read(path))
    for text in values:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise InputError(f"--config: found {text!r}; it takes key=value, such as device=cpu")
        try:
            given = laid_over(given, {key: yaml.load(value, yaml.CSafeLoader)})
        except yaml.YAMLError:
            raise InputError(f"--config: the value of {key} is not YAML: {value!r}") from None
    used = [DEFAULT, *(path for path in files if path != DEFAULT)]
    return stand_alone(laid_over(_read(DEFAULT), given), given, DEFAULT), used


def _read(path: Path) -> Config:
    if not path.is_file():
        raise InputError(f"{path}: no such file; correct --configfile")
    check_file(path)
    text = path.read_text(encoding="utf-8")
    try:
        config: Any = json.loads(text)  # JSON may have tabs, YAML may not
    except ValueError:
        try:
            config = yaml.load(text, yaml.CSafeLoader)
        except yaml.YAMLError as error:
            reason = " ".join(str(error).split())
            raise InputError(f"{path}: neither JSON nor YAML ({reason})") from None
    if not isinstance(config, dict):
        raise InputError(f"{path}: has no keys at its top level: write a config there")
    return config


def laid_over(config: Mapping[str, Any], over: Mapping[str, Any]) -> Config:
    """A config with another one laid over it, key by key at every depth, as Snakemake merges them (`update_config`)."""
    merged = dict(copy.deepcopy(config))
    for key, value in over.items():
        below = merged.get(key, {})
        if isinstance(value, Mapping):  # without keys it changes nothing
            value = laid_over(below if isinstance(below, Mapping) else {}, value) if value else below
        merged[key] = copy.deepcopy(value)
    return merged
