"""Checks of a leg that need no torch. They come before torch is loaded and before anything large is read.

Each check is a function of the leg, or of numbers, and raises InputError. It changes nothing of a training that goes on.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from sao.base.command import InputError, about, is_first

from sao.base.files import read_json, sha256
from sao.base.vouched import (
    Checking,
    Vouched,
    caption_file,
    chosen,
    dataset_files,
    latent_files,
    model_files,
    sound_files,
)
from sao.models.config import read_model_config, training_config

if TYPE_CHECKING:
    from sao.training.dataset import Clips
    from sao.training.leg import Leg

DECIDES_NO_RESULT = "it ends a training that cannot be made, and changes none that can"

SOCKET = 107 - 32  # bytes of a path, of which the names of sockets take 32


def check_leg(leg: Leg) -> None:
    """Raise InputError on what is wrong with a leg's settings, its base model's config and its latents."""
    with about(f"run {leg.run}"):
        check_temporary_folder(leg.running["workers"], tempfile.gettempdir())
    config = read_model_config(leg.model / "model_config.json")
    with about(f"run {leg.run}"):
        training_config(config, leg.settings)
    check_latents(leg.sound_digest, sha256(leg.encoded_with))
    check_captions(leg)


def check_temporary_folder(workers: int, folder: str) -> None:
    """Workers send batches by sockets in `folder`; with a longer name Python would wait for ever."""
    if workers and len(os.fsencode(folder)) > SOCKET:
        raise InputError(
            f"workers need a shorter TMPDIR, of {SOCKET} characters at most, than {folder}: set one, or workers to 0"
        )


def check_latents(summaries: list[Path], base_model: str) -> None:
    """Latents have to be of the base model whose listing has this digest; audio is of none."""
    for path in summaries:
        if path.suffix == ".json" and read_json(path).get("base_model") != base_model:
            raise InputError(
                f"{path}: these latents are of another base model: delete {path.with_suffix('')} and run again"
            )


def check_captions(leg: Leg) -> None:
    """Encoded captions have to be of the base model and of the dataset configs whose listings have these digests."""
    summary = read_json(leg.captions_digest)
    for key, what, listing in (
        ("base_model", "another base model", leg.encoded_with),
        ("datasets", "other dataset configs", leg.datasets_digest),
    ):
        if summary[key] != sha256(listing):
            raise InputError(
                f"{leg.captions_digest}: these captions are of {what}: delete {leg.captions} and run again"
            )


def check_devices(wanted: int, there: int) -> None:
    if wanted > there:
        raise InputError(f"devices is {wanted}; {there} are there")


def check_batch(items: int, batch: int) -> None:
    """An epoch of `items` has to fill one batch of all processes."""
    if items < batch:
        raise InputError(f"{items} training clips do not fill one batch of {batch}: lower batch_size or add clips")


def start_checking(leg: Leg, sets: list[Clips]) -> list[tuple[Checking, str]]:
    """Begin to hash what the leg reads, on threads; `finish_checking` waits for it.

    The first of several processes does: all read the same.
    """
    if not is_first():
        return []
    return [
        (Checking(dataset_files(leg.dataset_configs, leg.datasets_digest)), f"dataset configs {leg.dataset_configs}"),
        (Checking(model_files(leg.model, leg.model_digest, text_encoder=False)), f"base model {leg.model}"),
        (Checking([caption_file(leg.captions_digest)]), f"captions {leg.captions}"),
        (Checking(sounds_of(sets, leg.sound_digest)), "clips"),
    ]


def finish_checking(checks: list[tuple[Checking, str]]) -> None:
    """Raise InputError on the first file that is not what its digest says."""
    for checking, what in checks:
        checking.finish(what)


def sounds_of(sets: list[Clips], summaries: list[Path]) -> list[Vouched]:
    """The latents, or the audio, of all clips of `sets`, each with the digest that vouches for it."""
    files: list[Vouched] = []
    for summary in summaries:
        if summary.suffix == ".json":
            files += latent_files(summary)
        else:
            folders = {clips.folders[summary.stem] for clips in sets if summary.stem in clips.folders}
            files += [file for folder in sorted(folders) for file in sound_files(summary, folder)]
    return chosen(files, [path for clips in sets for path in clips.files()])
