"""Prompts of a user's own, from a file."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sao.base.command import InputError

from sao.base.files import bad_byte
from sao.base.placeholders import is_blank
from sao.base.tables import read_rows
from sao.config.settings import PromptSettings
from sao.models.config import ModelConfig, downsampling_ratio, inpaints, objective, window_frames
from sao.models.numbers import Number, numbers_of
from sao.rendering.clips import OF_SOURCE, Clip, masked, render_seed
from sao.rendering.named import COLUMN, named_sound
from sao.rendering.sources import facts_of

SPLIT = "prompts"  # the split of prompts from a file, in the table of renders
COLUMNS = ("id", "prompt", "seconds", "seed", "cfg_scale", "negative_prompt", COLUMN, *OF_SOURCE)
ID = r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}"


@dataclass(frozen=True)
class Takes:
    """What a model can make from a prompt."""

    window: float  # s, the longest sound
    rate: int  # Hz
    ratio: int  # samples of one latent frame
    noise: tuple[float, float]  # lowest and highest init_noise_level
    inpaints: bool
    numbers: Sequence[Number] = ()  # beside the prompt; each is a column

    @classmethod
    def of(cls, config: ModelConfig, settings: PromptSettings) -> Takes:
        rate, ratio = config["sample_rate"], downsampling_ratio(config)
        sampling = settings["sampling"]
        # The samplers of `v` count noise in standard deviations of the latents, those of rectified flow as a share.
        v = objective(config) == "v"
        noise = (sampling["sigma_min"], sampling["sigma_max"]) if v else (0.0, 1.0)
        window = window_frames(config, settings["train_seconds"]) * ratio / rate
        return cls(window, rate, ratio, noise, inpaints(config), numbers_of(config))


def read_prompts(path: Path, takes: Takes, settings: PromptSettings) -> list[Clip]:
    """Read the prompts of a `.txt` or `.csv` for a model. Empty cells take their values from the config.

    The clips' sources are the user's files. Raises InputError with file and row.
    """
    default_seconds(takes, settings)
    rows = _table(path, takes.numbers) if path.suffix == ".csv" else _lines(path, takes.numbers)
    clips: dict[str, Clip] = {}
    for line, row in rows:
        origin = f"{path}, row {line}"
        name = row.get("id", "").strip() or prompt_name(line)
        if not re.fullmatch(ID, name):
            raise InputError(
                f"{origin}: the id {name!r} cannot be a file name: use up to 80 letters, digits, '.', '_' and '-'"
            )
        # Some file systems ignore case.
        if name.casefold() in clips:
            raise InputError(f"{origin}: {clips[name.casefold()].origin} has the id {name!r} too: rename one")
        clips[name.casefold()] = prompt_clip(row, name, named_sound(path, row), takes, settings, origin)
    if not clips:
        raise InputError(f"{path}: holds no prompt: write one per line")
    return list(clips.values())


def prompt_name(line: int) -> str:
    """The id of a prompt without one, by the line that it is in, counted from 1."""
    return f"prompt-{line:04d}"


def default_seconds(takes: Takes, settings: PromptSettings) -> float:
    """The length of a sound whose prompt names none. Raises InputError if it is longer than the model's window."""
    default = takes.window if settings["seconds"] is None else settings["seconds"]
    if default > takes.window:
        raise InputError(
            f"render.seconds is {default}, the model's window is {takes.window:.2f} s: set it to null or to less than that"
        )
    return default


def prompt_clip(
    row: Mapping[str, str], name: str, source: Path | None, takes: Takes, settings: PromptSettings, origin: str
) -> Clip:
    """The clip of a prompt, from the texts of its columns. Empty ones take their values from the config.

    `source` is the sound to start from. Raises InputError, which begins with `origin`, on a text that a model cannot take.
    """
    sampling = settings["sampling"]
    prompt = row["prompt"].strip()
    if is_blank(prompt):
        raise InputError(f"{origin}: the prompt is empty: write one or delete the row")
    if re.search(r"\r(?!\n)", prompt + row.get("negative_prompt", "").strip()):
        raise InputError(f"{origin}: holds a carriage return: end lines as Windows or Unix does, or remove it")
    seconds = _number(row, "seconds", origin, float, lambda x: x > 0, "a number above 0", None)
    if seconds is not None and seconds > takes.window:
        raise InputError(f"{origin}: seconds is {seconds}, the model's window is {takes.window:.2f} s: ask for less")
    seed, scale = render_seed(settings["seed"], name), float(sampling["cfg_scale"])
    return Clip(
        clip_id=name,
        split=SPLIT,
        prompt=prompt,
        seed=_number(row, "seed", origin, int, lambda x: 0 <= x < 2**63, "a whole number from 0", seed),
        cfg_scale=_number(row, "cfg_scale", origin, float, lambda x: 0 <= x <= 100, "a number from 0 to 100", scale),
        negative_prompt=row.get("negative_prompt", "").strip() or sampling["negative_prompt"],
        numbers={number.name: _given(row, number, origin) for number in takes.numbers},
        origin=origin,
        **_source(source, row, seconds, default_seconds(takes, settings), takes, origin),
    )


def _source(
    path: Path | None, row: Mapping[str, str], seconds: float | None, default: float, takes: Takes, origin: str
) -> dict[str, Any]:
    """The fields of a clip that its source decides: how long it is, and what is done to the source."""
    if path is None:
        if given := next((name for name in OF_SOURCE if row.get(name, "").strip()), None):
            raise InputError(f"{origin}: {given} is given without an init_audio: name a sound there, or leave it empty")
        return {"seconds": default if seconds is None else seconds}
    facts = facts_of(path, origin)
    if seconds is None:
        seconds = facts.seconds
        if seconds > takes.window:
            raise InputError(
                f"{origin}: the init_audio {path.as_posix()!r} has {seconds:g} s, the model's window is {takes.window:.2f} s: set "
                "seconds, and the sound is made from so much of it"
            )
    low, high = takes.noise
    noise = _number(
        row,
        "init_noise_level",
        origin,
        float,
        lambda x: low < x <= high,
        f"a number above {low:g} up to {high:g}",
        None,
    )
    start, end = (
        _number(row, name, origin, float, lambda x: x >= 0, "a number from 0", None)
        for name in ("mask_start", "mask_end")
    )
    if start is not None or end is not None:
        start, end = start or 0.0, seconds if end is None else end
        _check_mask(start, end, seconds, facts.seconds, takes, origin)
    elif noise is None:
        raise InputError(
            f"{origin}: does not say what to do with its init_audio: give an init_noise_level to vary it, or mask_start and "
            "mask_end to make a part of it anew"
        )
    return {
        "seconds": seconds,
        "source": path.as_posix(),
        "source_sha256": facts.sha256,
        "init_noise_level": noise,
        "mask_start": start,
        "mask_end": end,
    }


def _check_mask(start: float, end: float, seconds: float, given: float, takes: Takes, origin: str) -> None:
    """Raise InputError on a mask that the model cannot fill. All in s; `given` is the length of the source."""
    mask = f"{origin}: the mask from {start:g} to {end:g} s"
    if not takes.inpaints:
        raise InputError(
            f"{mask} is for an inpainting model (model_type diffusion_cond_inpaint), and the base model is none: leave "
            "mask_start and mask_end empty, and give an init_noise_level"
        )
    if end > seconds:
        raise InputError(f"{mask} ends after the sound, which has {seconds:g} s")
    if not masked(start, end, seconds, takes.rate, takes.ratio):
        frame = 1000 * takes.ratio / takes.rate
        raise InputError(f"{mask} holds no whole latent frame, which has {frame:.0f} ms: make it longer")
    if given < seconds and not (start <= given and end >= seconds):
        raise InputError(
            f"{mask} leaves a part of the sound's {seconds:g} s to an init_audio of {given:g} s: begin the mask before the end "
            "of the init_audio, and end it with the sound"
        )


def _table(path: Path, numbers: Sequence[Number]) -> list[tuple[int, dict[str, str]]]:
    needed = [number.name for number in numbers]
    rows = read_rows(path, ["prompt", *needed])
    allowed = (*COLUMNS, *needed)
    for name in rows[0][1] if rows else ():
        if name not in allowed:
            near = difflib.get_close_matches(name, allowed, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise InputError(f"{path}, row 1: unknown column {name!r}; {hint}allowed: {', '.join(allowed)}")
    return rows


def _lines(path: Path, numbers: Sequence[Number]) -> list[tuple[int, dict[str, str]]]:
    if numbers:
        names = ", ".join(number.name for number in numbers)
        raise InputError(
            f"{path}: the model takes numbers beside a prompt: write a CSV with the columns prompt, {names}"
        )
    try:
        lines = path.read_bytes().decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        row, _ = bad_byte(error)
        raise InputError(f"{path}, row {row}: is not UTF-8: save the file as UTF-8") from None
    numbered = ((number, line.strip()) for number, line in enumerate(lines, start=1))
    return [(number, {"prompt": line}) for number, line in numbered if line and not line.startswith("#")]


def _given(row: Mapping[str, str], number: Number, origin: str) -> float | int:
    try:
        return number.read(row[number.name].strip())
    except ValueError as error:
        raise InputError(f"{origin}: {number.name} {error}: correct it") from None


def _number(
    row: Mapping[str, str],
    column: str,
    origin: str,
    kind: type,
    fits: Callable[[Any], bool],
    allowed: str,
    default: Any,
) -> Any:
    """The number in a cell, or `default` if the cell is empty. Raises InputError unless it is finite and `fits`."""
    text = row.get(column, "").strip()
    if not text:
        return default
    try:
        value = kind(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or not fits(value):
        raise InputError(f"{origin}: {column} is {text!r}, not {allowed}: correct it or leave it empty")
    return value
