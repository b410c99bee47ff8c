"""Try a prompt with a model: what a user asks for becomes a clip as rule `prompts` makes it, rendered as rule `render` does.

So the file has the bytes that the graph's render of this prompt has. On a CPU, the last bits of a sound depend on the size of
the batch that it is computed in. A prompt that the graph renders is therefore computed at its place in a batch of the graph's
size, beside copies of itself; any other one is computed alone, as the graph does with `render.batch_size: 1`.
"""

from __future__ import annotations

import dataclasses
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sao.base.command import InputError, about, log, output_to_log

from sao.base.files import sha256
from sao.base.names import shard_of
from sao.base.takes import is_first_take
from sao.base.vouched import Checking, Vouched, model_files
from sao.config.settings import PromptSettings, RenderSettings, Sampling
from sao.models.config import (
    SAMPLERS,
    ModelConfig,
    check_sampler,
    chunk_frames,
    inpaints,
    objective,
    read_model_config,
    window_frames,
)
from sao.rendering.clips import Clip, check_tokens, read_clips, with_takes
from sao.rendering.finish import FORMATS, write_render
from sao.rendering.prompts import SPLIT, Takes, prompt_clip, prompt_name, read_prompts
from sao.rendering.ready import mark_file, ready_marker, ready_model, weights_hash
from sao.rendering.sources import copy_source

ORIGIN = "the request"  # begins the messages about what a user asks for
NAME = prompt_name(1)  # of a prompt that the graph does not render: its seed is that of a file with this prompt alone
ANY_SEED = "-1"  # stable-audio-tools' word for a seed that is drawn
MOST_STEPS = 10000  # as in the config
# Where stable-audio-tools' page has its slider of the noise on a source, by the samplers' scale of noise.
NOISE = {"v": 8.0, "rectified_flow": 0.9, "rf_denoiser": 0.9}
MASK = re.compile(r"([0-9.]*):([0-9.]*)")
PLAIN = 1.0  # strength of an adapter as it was trained


@dataclass(frozen=True)
class Adapter:
    """An adapter, and the weights that it lies on."""

    path: Path  # lora.safetensors
    start: Path
    vouched: tuple[Vouched, ...]


@dataclass(frozen=True)
class Model:
    """A model to try, and how the graph renders with it. `sao.plan.trying` finds it by its name."""

    name: str  # in the table of renders: demo, demo@step-00000300, base--demo--demo; of a folder, its path
    weights: Path
    weights_digest: Path | None  # None for a user's own folder
    base: Path  # the folder with its model_config.json and the Hub cache of its text encoder
    base_digest: Path | None
    rendering: RenderSettings
    prompts: PromptSettings
    table: Path | None = None  # of the sounds that the graph renders with it
    file: Path | None = None  # of the user's prompts among them
    shards: int = 1
    batch_size: int | None = None
    threads: int = 1
    adapter: Adapter | None = None
    watermark: tuple[Path, Path] | None = None  # the weights that mark its sounds, and their listing

    def config(self) -> ModelConfig:
        return read_model_config(self.base / "model_config.json")


@dataclass(frozen=True)
class Request:
    """What a user asks for, as texts. Empty ones take what the graph has for this prompt, or the config's value."""

    prompt: str
    seconds: str = ""
    seed: str = ""
    cfg_scale: str = ""
    steps: str = ""
    sampler: str = ""
    negative_prompt: str | None = None  # None takes the config's, an empty one takes none
    init_audio: str = ""
    init_noise_level: str = ""
    mask: str = ""  # START:END
    strength: str = ""
    numbers: dict[str, str] = field(default_factory=dict)  # beside the prompt


@dataclass(frozen=True)
class Job:
    """A sound to render, which a model can take."""

    clip: Clip
    sampling: Sampling
    strength: float = PLAIN
    among: tuple[Clip, ...] = ()  # the clips that the graph renders together with it; without any, it is rendered alone


def prepare(model: Model, request: Request) -> Job:
    """The job that a request means for a model. Raises InputError, with one line, on what the model cannot take."""
    config = model.config()
    sampling = sampling_of(config, model.rendering["sampling"], request)
    settings: PromptSettings = {**model.prompts, "sampling": sampling}
    takes = Takes.of(config, settings)
    request = with_noise(request, config, takes)
    known, complete = graph_clips(model, takes, settings)
    alike = [clip for clip in known if clip.prompt == request.prompt.strip()]
    made = [asked(request, config, takes, settings, clip) for clip in (*alike, None)]
    # Of several clips with this prompt, the one that has all that is asked for.
    same = next((clip for clip in made if same_sound(clip, alike)), None)
    clip = same or made[0]
    check_tokens([clip], config, model.base / "hub")
    strength = strength_of(model, request)
    shard = shard_of(clip.clip_id, model.shards)
    among = [other for other in known if shard_of(other.clip_id, model.shards) == shard]
    return Job(clip, sampling, strength, tuple(among) if same and complete else ())


def same_sound(clip: Clip, others: Sequence[Clip]) -> bool:
    """Whether one of `others` is this clip, wherever its source lies."""

    def plain(each: Clip) -> Clip:
        return dataclasses.replace(each, source="", origin="", reference="")

    return plain(clip) in [plain(other) for other in others]


def graph_clips(model: Model, takes: Takes, settings: PromptSettings) -> tuple[list[Clip], bool]:
    """The clips that the graph renders, in its order, and whether these are all.

    Those of the corpus are in the table that rule prompts wrote; while it does not exist, they are not known. A user's own prompts
    are read from their file, which may be newer.
    """
    complete = model.table is not None and model.table.is_file()
    table = read_clips(model.table) if complete and model.table else []
    clips = [clip for clip in table if clip.split != SPLIT and is_first_take(clip.clip_id)]
    clips += read_prompts(model.file, takes, settings) if model.file else []
    return with_takes(clips, settings.get("takes", 1)), complete


def with_noise(request: Request, config: ModelConfig, takes: Takes) -> Request:
    """A request that says how a source is used: if it names none of noise and mask, it is noised."""
    if not request.init_audio or request.init_noise_level or request.mask:
        return request
    level = min(NOISE[objective(config)], takes.noise[1])
    log.info("%s: init_noise_level %g, where stable-audio-tools' page begins", request.init_audio, level)
    return dataclasses.replace(request, init_noise_level=str(level))


def asked(request: Request, config: ModelConfig, takes: Takes, settings: PromptSettings, known: Clip | None) -> Clip:
    """The clip of a request, with the seed, length and rest of a `known` clip where the request names none."""
    start, end = mask_of(request, config)
    sourced = bool(request.init_audio)
    if known and known.source and request.seconds and not sourced:
        raise InputError(
            f"{ORIGIN}: the graph starts it from a sound, which decides its seconds: leave seconds out, or name an init_audio"
        )
    row = {
        "prompt": request.prompt,
        "seconds": request.seconds,
        "seed": request.seed,
        "cfg_scale": request.cfg_scale,
        "negative_prompt": request.negative_prompt or "",
        "init_noise_level": request.init_noise_level,
        "mask_start": start,
        "mask_end": end,
        **numbers_of(request, takes, known),
    }
    if not request.prompt.strip():
        raise InputError(f"{ORIGIN}: the prompt is empty: write one")
    path = Path(request.init_audio) if sourced else None
    if path is not None and not path.is_file():
        raise InputError(f"{ORIGIN}: the init_audio {path.as_posix()!r} does not exist: correct its path")
    clip = prompt_clip(row, known.clip_id if known else NAME, path, takes, settings, ORIGIN)
    if request.negative_prompt == "":
        clip = dataclasses.replace(clip, negative_prompt=None)
    if known is None:
        return clip
    kept: dict[str, Any] = {"split": known.split, "reference": known.reference}
    if not sourced:
        names = ("source", "source_sha256", "init_noise_level", "mask_start", "mask_end")
        kept |= {name: getattr(known, name) for name in names}
    kept |= {"seed": known.seed} if not request.seed else {}
    kept |= {"cfg_scale": known.cfg_scale} if not request.cfg_scale else {}
    kept |= {"seconds": known.seconds} if not request.seconds and not sourced else {}
    kept |= {"negative_prompt": known.negative_prompt} if request.negative_prompt is None else {}
    return dataclasses.replace(clip, **kept)


def sampling_of(config: ModelConfig, sampling: Sampling, request: Request) -> Sampling:
    """The settings of sampling, with steps and sampler of a request."""
    steps, sampler = sampling["steps"], request.sampler or sampling["sampler"]
    if request.steps:
        if not request.steps.isdecimal() or not 1 <= int(request.steps) <= MOST_STEPS:
            raise InputError(
                f"{ORIGIN}: steps is {request.steps!r}, not a whole number from 1 to {MOST_STEPS}: correct it"
            )
        steps = int(request.steps)
    if sampler not in (allowed := SAMPLERS[objective(config)]):
        raise InputError(f"{ORIGIN}: sampler is {sampler!r}; this model takes {', '.join(allowed)}")
    with about(ORIGIN):
        check_sampler(config, sampler, steps)
    return {**sampling, "steps": steps, "sampler": sampler}


def mask_of(request: Request, config: ModelConfig) -> tuple[str, str]:
    """Start and end of a mask, as texts; empty ones mean those of the sound."""
    if not request.mask:
        return "", ""
    found = MASK.fullmatch(request.mask.strip())
    if not found or not any(found.groups()):
        raise InputError(
            f"{ORIGIN}: mask is {request.mask!r}, not START:END in seconds, such as 1.5:2.25, 1.5: or :2.25"
        )
    if not request.init_audio:
        raise InputError(f"{ORIGIN}: a mask needs an init_audio, the sound outside of it: name one")
    if not inpaints(config):
        raise InputError(
            f"{ORIGIN}: a mask needs an inpainting model (model_type diffusion_cond_inpaint), and this one is "
            f"{config['model_type']}: leave the mask out, and give an init_noise_level"
        )
    start, end = found.groups()
    return start or "0", end


def numbers_of(request: Request, takes: Takes, known: Clip | None) -> dict[str, str]:
    """The numbers that a model takes beside the prompt, by name."""
    names = [number.name for number in takes.numbers]
    if unknown := [name for name in request.numbers if name not in names]:
        raise InputError(
            f"{ORIGIN}: this model takes no number {unknown[0]!r} beside a prompt, {'but ' + ', '.join(names) if names else 'nor any other'}: leave it out"
        )
    given = {name: str(value) for name, value in (known.numbers if known else {}).items()} | request.numbers
    if missing := [name for name in names if name not in given]:
        raise InputError(f"{ORIGIN}: the model takes a number {missing[0]!r} beside a prompt: give {missing[0]}=NUMBER")
    return given


def strength_of(model: Model, request: Request) -> float:
    """The strength of the adapter. Raises InputError if a model without one is asked for another than PLAIN."""
    if not request.strength:
        return PLAIN
    try:
        strength = float(request.strength)
    except ValueError:
        strength = -1.0
    if not 0 <= strength <= 10:  # as on stable-audio-tools' page
        raise InputError(f"{ORIGIN}: strength is {request.strength!r}, not a number from 0 to 10: correct it")
    if strength != PLAIN and model.adapter is None:
        raise InputError(f"{ORIGIN}: {model.name} has no adapter whose strength could be {strength:g}: leave it out")
    return strength


def with_random_seed(request: Request) -> Request:
    """A request whose seed is drawn if it is -1, so that several models get the same one."""
    return dataclasses.replace(request, seed=str(secrets.randbelow(2**32))) if request.seed == ANY_SEED else request


def beside(model: Model, request: Request, other: Job) -> Job:
    """The job of a request for a second model, with the seed and the length of the first one's `other`."""
    job = prepare(model, request)
    if (job.clip.seed, job.clip.seconds) == (other.clip.seed, other.clip.seconds):
        return job
    seconds = "" if other.clip.source else repr(other.clip.seconds)
    return prepare(model, dataclasses.replace(request, seed=str(other.clip.seed), seconds=request.seconds or seconds))


class Loaded:
    """A model that stays loaded. Building it raises InputError if a file changed after it was made."""

    def __init__(self, model: Model) -> None:
        self.model, self.strength = model, PLAIN
        self.config = model.config()
        self.rate = self.config["sample_rate"]
        self.frames = window_frames(self.config, model.rendering["train_seconds"])
        vouched = model_files(model.base, model.base_digest, weights=False) if model.base_digest else []
        if model.weights_digest:
            self.sha256 = weights_hash(model.weights, model.weights_digest)
            cure = f"delete {model.weights} and run again"
            vouched.append(Vouched(model.weights, self.sha256, model.weights_digest, cure))
        else:
            self.sha256 = sha256(model.weights)
        vouched += [mark_file(*model.watermark)] if model.watermark else []
        self.built, self.precision = ready_model(
            self.config,
            model.base / "hub",
            model.weights,
            vouched,
            model.rendering["precision"],
            model.threads,
            f"{model.weights}",
        )
        marking = model.rendering.get("watermark")
        self.marker = ready_marker(model.watermark[0], marking) if model.watermark and marking else None

    def render(self, job: Job, folder: Path) -> dict[str, Any]:
        """Write the sound of a job into `folder`; returns its row as in the table of renders."""
        clip = job.clip
        self._set_strength(job.strength)
        if clip.source:
            path = folder / f".{clip.clip_id}.source.wav"
            copy_source(clip, path)
            clip = dataclasses.replace(clip, source=path.as_posix())
        audio = self._sound(dataclasses.replace(job, clip=clip))
        samples = audio[:, : max(round(clip.seconds * self.rate), 1)].T.numpy()
        settings: RenderSettings = {**self.model.rendering, "sampling": job.sampling}
        told: dict[str, Any] = {
            "run": self.model.name,
            "checkpoint": self.model.weights.as_posix(),
            "model_sha256": self.sha256,
        }
        told |= {"adapter_strength": job.strength} if job.strength != PLAIN else {}
        return write_render(folder, clip, samples, self.rate, settings, self.precision, told, self.marker)

    def _sound(self, job: Job) -> Any:
        """The sound `[channels, samples]` of a job, in the model's window."""
        with output_to_log():
            from sao.rendering.sampling import batch_of, render, render_in_batch

        clip, sampling, chunk = job.clip, dict(job.sampling), chunk_frames(self.config)
        if job.among:
            size, place = batch_of(self.built, job.among, clip, sampling, self.frames, self.model.batch_size, chunk)
            return render_in_batch(self.built, clip, sampling, self.frames, size, place, chunk)
        return next(render(self.built, [clip], sampling, self.frames, 1, chunk))[1]

    def _set_strength(self, strength: float) -> None:
        """Give the model's adapter a strength."""
        if strength == self.strength:
            return
        from sao.models.build import read_safetensors
        from sao.training.forms import merged_form

        adapter = self.model.adapter
        if strength == PLAIN or adapter is None:
            weights = read_safetensors(self.model.weights)
        else:
            checking = Checking(adapter.vouched)
            checking.finish(f"{adapter.path}")
            weights = merged_form(read_safetensors(adapter.start), adapter.path, strength)
        self.built.load_state_dict(weights, strict=True)
        self.strength = strength


def suffix_of(model: Model) -> str:
    """The suffix of the files that a model's renders have."""
    return f".{FORMATS[model.rendering['format']][0]}"
