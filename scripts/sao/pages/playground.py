"""What the page to try prompts on does, without the page: models that stay loaded, pairs of sounds, blind mode, the history."""

from __future__ import annotations

import dataclasses
import secrets
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from sao.base.command import InputError, about

from sao.models.config import SAMPLERS, downsampling_ratio, inpaints, objective, window_frames
from sao.pages.spectrogram import draw
from sao.rendering.trying import ANY_SEED, NOISE, Job, Model, Request, beside, prepare, with_random_seed
from sao.rendering.worker import Worker

LETTERS = ("A", "B")
ANSWERS = {"A": "model A", "B": "model B", "": "no difference"}  # to which of two sounds is better


@dataclass(frozen=True)
class Offer:
    """What a model takes, for the page's controls."""

    seconds: float  # of a sound, if a user names none
    window: float  # s, the longest
    steps: int
    cfg_scale: float
    samplers: tuple[str, ...]
    sampler: str
    noise: tuple[float, float, float]  # lowest and highest init_noise_level, and the one that is shown first
    inpaints: bool
    has_adapter: bool


@dataclass(frozen=True)
class Side:
    """One of two sounds."""

    letter: str  # A or B: the model as it was chosen
    model: str  # as it was chosen
    strength: float
    sound: Path
    picture: Path
    warning: str


@dataclass
class Pair:
    """What one request made: the sound of model A, and that of model B if there is one."""

    number: int  # counted from 1
    request: Request  # with its seed
    names: tuple[str, ...]  # of the models, as they were chosen
    sides: tuple[Side, ...]  # in the order in which they are shown
    seconds: float
    hidden: bool  # in blind mode, until they are revealed, nobody is to know which side is which
    better: str | None = None  # A, B, or empty for no difference; None while it is not answered
    jobs: tuple[Job, ...] = field(default=(), repr=False)

    def title(self, place: int) -> str:
        """What stands above a sound."""
        side = self.sides[place]
        if self.hidden:
            return ("Left", "Right")[place]
        strength = f", strength {side.strength:g}" if side.strength != 1 else ""
        return f"{side.letter}: {side.model}{strength}"

    def line(self) -> str:
        """The pair in one line of the history."""
        names = "models hidden" if self.hidden else " and ".join(self.names)
        better = "" if self.hidden or self.better is None else f", better: {ANSWERS[self.better]}"
        return f"{self.number}. {self.request.prompt} (seed {self.request.seed}, {round(self.seconds, 2):g} s; {names}{better})"


class Playground:
    """The state of the page. `find` gives the model of a name; sounds are written below `folder`."""

    def __init__(self, find: Callable[[str, Model | None], Model], folder: Path) -> None:
        self.find, self.folder = find, folder
        self.workers: dict[tuple[str, str], Worker] = {}
        self.pairs: list[Pair] = []
        self.lock = threading.Lock()  # of all above: one request at a time

    def offer(self, name: str) -> Offer:
        """What a model takes. Raises InputError if there is no such model."""
        model = self.find(name, None)
        config, sampling = model.config(), model.rendering["sampling"]
        frames = window_frames(config, model.rendering["train_seconds"])
        window = frames * downsampling_ratio(config) / config["sample_rate"]
        v = objective(config) == "v"
        low, high = (sampling["sigma_min"], sampling["sigma_max"]) if v else (0.0, 1.0)
        wanted = model.prompts["seconds"]
        return Offer(
            seconds=window if wanted is None else min(wanted, window),
            window=window,
            steps=sampling["steps"],
            cfg_scale=float(sampling["cfg_scale"]),
            samplers=SAMPLERS[objective(config)],
            sampler=sampling["sampler"],
            noise=(low, high, min(NOISE[objective(config)], high)),
            inpaints=inpaints(config),
            has_adapter=model.adapter is not None,
        )

    def render(self, request: Request, names: tuple[str, ...], strengths: tuple[float, ...], blind: bool) -> Pair:
        """Render a request with one model or two, on one seed. Raises InputError on what a model cannot take."""
        if blind and len(names) < 2:
            raise InputError("blind mode compares two models: choose a model B too")
        with self.lock:
            request = with_random_seed(request if request.seed else dataclasses.replace(request, seed=ANY_SEED))
            jobs: list[tuple[Model, Job]] = []
            for letter, name, strength in zip(LETTERS, names, strengths, strict=False):
                with about(f"model {letter}"):
                    model = self.find(name, jobs[0][0] if jobs else None)
                    own = strength if model.adapter else 1.0
                    asked = dataclasses.replace(request, strength=f"{own:g}")
                    job = beside(model, asked, jobs[0][1]) if jobs else prepare(model, asked)
                    # Alone, a sound is there sooner than in a batch of the graph's size.
                    jobs.append((model, dataclasses.replace(job, among=())))
            number = len(self.pairs) + 1
            order = [*range(len(jobs))]
            if blind:
                secrets.SystemRandom().shuffle(order)
            sides = list(self._rendered(jobs, names, order, number))
            seconds = jobs[0][1].clip.seconds
            kept = tuple(job for _, job in jobs)
            pair = Pair(number, request, names, tuple(sides[at] for at in order), seconds, blind, jobs=kept)
            self.pairs.append(pair)
            return pair

    def _rendered(
        self, jobs: list[tuple[Model, Job]], names: tuple[str, ...], order: list[int], number: int
    ) -> Iterator[Side]:
        """The sides of a pair, in the order of the models. The models render at the same time."""
        self._load([model for model, _ in jobs])
        places = [self.folder / f"{number:04d}-{('left', 'right')[order.index(at)]}" for at in range(len(jobs))]
        for place in places:
            place.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(len(jobs)) as pool:
            made = [
                pool.submit(self.workers[key_of(model)].render, job, place)
                for (model, job), place in zip(jobs, places, strict=True)
            ]
            for letter, name, (_, job), place, row in zip(LETTERS, names, jobs, places, made, strict=False):
                done = row.result()
                # A name of its own for the download, which tells no model.
                sound = (place / done["file"]).rename(
                    place / f"{place.name}-seed-{job.clip.seed}{Path(done['file']).suffix}"
                )
                draw(sound, picture := place / "spectrogram.webp")
                yield Side(letter, name, job.strength, sound, picture, done["warning"])

    def _load(self, models: list[Model]) -> None:
        """Load the models that are not loaded. Two stay loaded; before a third one, the one that was longest not asked for goes."""
        wanted = {key_of(model): model for model in models}
        for key in [key for key, worker in self.workers.items() if not worker.runs()]:
            self.workers.pop(key).close()
        new = len(wanted.keys() - self.workers.keys())
        for key in [key for key in self.workers if key not in wanted][: max(len(self.workers) + new - len(LETTERS), 0)]:
            self.workers.pop(key).close()
        for key, model in wanted.items():
            loaded = self.workers.pop(key) if key in self.workers else Worker(model)
            self.workers[key] = loaded  # the last one asked for is last

    def reveal(self, number: int, better: str | None = None) -> Pair:
        """Show which side is which, and keep which one was called better: `left`, `right`, `same`, or None."""
        pair = self.pairs[number - 1]
        if better is not None:
            place = {"left": 0, "right": 1}.get(better)
            pair.better = "" if place is None else pair.sides[place].letter
        pair.hidden = False
        return pair

    def score(self) -> str:
        """How often each model was called better in blind mode."""
        counts = {answer: sum(pair.better == answer for pair in self.pairs) for answer in ANSWERS}
        asked = sum(counts.values())
        told = ", ".join(f"{ANSWERS[answer]}: {count}" for answer, count in counts.items())
        return f"{asked} answered. Better were {told}." if asked else ""

    def lines(self) -> list[tuple[str, int]]:
        """The history, newest first: a line for each pair, and its number."""
        return [(pair.line(), pair.number) for pair in reversed(self.pairs)]

    def close(self) -> None:
        for worker in self.workers.values():
            worker.close()
        self.workers.clear()


def key_of(model: Model) -> tuple[str, str]:
    """What a loaded model is known by: its name, and the state of its files."""
    stamps = [str(path.stat().st_mtime_ns) for path in (model.weights, model.base / "model_config.json")]
    return model.name, " ".join([*stamps, str(model.adapter and model.adapter.path), model.rendering["format"]])
