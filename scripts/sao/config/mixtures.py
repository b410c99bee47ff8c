"""Runs on several corpora. Such a set of corpora, with its weights, is a mixture, which later stages take for one corpus."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sao.base.command import InputError

Config = dict[str, Any]
JOINT = "+"  # in the names of mixtures; no name in a config has it
LONGEST = 64
# What clips of one batch must have in common.
SHARED = ("train_seconds", "random_crop")


def mixture_name(weights: dict[str, float]) -> str:
    """`clotho-1+mine-3`. A long name ends in hex digits in place of what is cut off."""
    name = JOINT.join(f"{corpus}-{weight:.12g}" for corpus, weight in sorted(weights.items()))
    if len(name) <= LONGEST:
        return name
    return f"{name[: LONGEST - 11]}{JOINT}{hashlib.sha256(name.encode()).hexdigest()[:10]}"


def name_corpora(config: Config, place_of: Callable[[list[Any], list[Path]], str], files: list[Path]) -> None:
    """Give each run on several corpora the name of its mixture as its `corpus`.

    The corpora are known, and their defaults filled in. Raises InputError on corpora that do not fit together.
    """
    for name, run in config["runs"].items():
        key: list[Any] = ["runs", name, "corpora"]
        several = run["corpora"] is not None
        if several == ("corpus" in run and not is_named(run)):
            problem = (
                ": has corpus and corpora; keep one" if several else ".corpus: missing; a run needs it, or corpora"
            )
            raise InputError(f"config: runs.{name}{problem} ({place_of(key, files)})")
        if not several:
            continue
        for shared in SHARED:
            values = {corpus: config["corpora"][corpus][shared] for corpus in run["corpora"]}
            if len(set(values.values())) > 1:
                text = ", ".join(f"{corpus} {value}" for corpus, value in values.items())
                raise InputError(
                    f"config: {'.'.join(key)}: the clips of a batch have one window, and {shared} differs ({text}): give the "
                    f"corpora the same ({place_of(key, files)})"
                )
        if config["corpora"][next(iter(run["corpora"]))]["train_seconds"] == "auto":
            raise InputError(
                f"config: {'.'.join(key)}: train_seconds: auto gives each corpus a window of its own: give all of them one length "
                f"in seconds ({place_of(key, files)})"
            )
        run["corpus"] = mixture_name(run["corpora"])


def is_named(run: Config) -> bool:
    """Whether a run's `corpus` is the name of its mixture."""
    return run["corpora"] is not None and run.get("corpus") == mixture_name(run["corpora"])


def mixtures(config: Config) -> dict[str, Config]:
    """The mixtures of the runs by name, with the weights of their corpora, and what a corpus says of its clips."""
    found: dict[str, Config] = {}
    for run in config["runs"].values():
        if run["corpora"] is None:
            continue
        entries = [config["corpora"][corpus] for corpus in run["corpora"]]
        found[run["corpus"]] = {
            "corpora": dict(sorted(run["corpora"].items())),
            **{key: all_drop(entries, key) for key in ("on_invalid", "on_leak")},
            **{shared: entries[0][shared] for shared in SHARED},
        }
    return found


def all_drop(entries: list[Config], key: str) -> str:
    """`drop` if all corpora drop, else `fail`."""
    return "drop" if all(entry[key] == "drop" for entry in entries) else "fail"


def corpus_entry(config: Config, corpus: str) -> Config:
    """The entry of a corpus or of a mixture."""
    return mixtures(config).get(corpus) or config["corpora"][corpus]


def members(run: Config) -> list[str]:
    """The corpora that a run trains on."""
    return list(run["corpora"] or [run["corpus"]])
