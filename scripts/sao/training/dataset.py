"""The training data: clips in an order that depends only on the seed. No clip is ever replaced by another.

On any exception, one of the metadata hook included, stable-audio-tools' own dataset classes return a random other clip
(stable_audio_tools/data/dataset.py). The classes here let the exception stop the training. They also make every random
draw of a training step, from the seed and the position of a clip in the endless stream of all epochs alone.
"""

from __future__ import annotations

import bisect
import functools
import importlib.util
import itertools
import json
import math
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sao.base.command import InputError

import numpy as np
import torch

from sao.base.files import read_json
from sao.base.names import clip_id
from sao.data.mixing import per_epoch
from sao.data.templates import draw
from sao.models.autoencoder import clip_facts, load_audio, padded
from sao.models.config import ModelConfig, downsampling_ratio, input_of
from sao.training import draws
from sao.training.captions import IN_MEMORY, EncodedCaptions
from sao.training.inpainting import inpaint_mask

Hook = Callable[[dict, Any], dict]
Item = dict[str, Any]
Latents = tuple[torch.Tensor, torch.Tensor, dict[str, Any]]  # mean, standard deviation, facts for the conditioners
VALIDATION_TIMESTEPS = (0.1, 0.3, 0.5, 0.7, 0.9)  # stable-audio-tools' (training/diffusion.py)


@dataclass(frozen=True)
class Clip:
    """A clip of a dataset config: its latents or its audio, the hook that knows its captions, and how many it has.

    `weights` are those of the captions, if they differ. `corpus` is empty where all clips are of one.
    """

    clip_id: str
    path: Path
    hook: Hook
    captions: int
    weights: tuple[float, ...] | None = None
    corpus: str = ""


class Clips:
    """The clips of a dataset config of stable-audio-tools, latents (`pre_encoded`) or audio (`audio_dir`)."""

    def __init__(self, config_path: Path, model_config: ModelConfig, captions: EncodedCaptions) -> None:
        config = read_json(config_path)
        self.captions = captions
        entries = model_config["model"]["conditioning"]["configs"]
        # The names of the values that conditioners take beside the caption.
        self.numbers = {input_of(model_config, entry) for entry in entries} - {"prompt"}
        self.frames: int = config["latent_crop_length"]
        self.random_crop: bool = config["random_crop"]
        self.on_latents: bool = config["dataset_type"] == "pre_encoded"
        self.model_config = model_config
        self.audio_channels: int = model_config["model"]["pretransform"]["config"]["io_channels"]
        self.channels: int = model_config["model"]["io_channels"]
        read = _latent_clips if self.on_latents else _audio_clips
        self.folders = {entry["id"]: Path(entry["path"]) for entry in config["datasets"]}
        self.clips = [clip for entry in config["datasets"] for clip in read(entry)]
        # How often an epoch takes each clip of a corpus, by corpus.
        self.weights: dict[str, float] = {
            entry.get("corpus", ""): entry.get("weight", 1) for entry in config["datasets"]
        }
        self.masks_attention: bool = model_config["model"]["diffusion"].get("mask_padding_attention", False)
        self.places: dict[Path, Path] = {}  # by folder, the copy of it that is read instead
        # Mean and standard deviation, in float32. With random_crop, what is stored may be longer than the window.
        size = len(self.clips) * self.channels * self.frames * 8
        self.stays = self.on_latents and not self.random_crop and size <= IN_MEMORY
        self.read_before: dict[Path, Latents] = {}

    def files(self) -> list[Path]:
        """All files that are read for the clips."""
        ends = (".npy", ".std", ".json") if self.on_latents else ()
        return [path for clip in self.clips for path in (map(clip.path.with_suffix, ends) if ends else [clip.path])]

    def _place(self, clip: Clip) -> Path:
        return self.places.get(clip.path.parent, clip.path.parent) / clip.path.name

    def read(self, clip: Clip, caption: int, crop: float, flip: bool = False) -> tuple[Item, dict[str, Any]]:
        """`(sound, info for the conditioners)` of one window. `crop`, from 0 to 1, places it between the first and last start.

        The sound of latents is `mean` and `std`, each `[channels, frames]`. The sound of audio is `audio [channels,
        samples]`, the whole clip, and the frame `start`. Raises InputError with the clip's path if anything is wrong with
        it.
        """
        if self.on_latents:
            mean, std, stored_info = self._latents(clip)
            info = dict(stored_info)
            stored = mean.shape[1]
        else:
            audio = load_audio(self._place(clip), self.model_config["sample_rate"], self.audio_channels)
            whole = padded(-audio if flip else audio, downsampling_ratio(self.model_config), self.frames)
            stored = whole.shape[1] // downsampling_ratio(self.model_config)
            info = clip_facts(audio.shape[1], self.model_config, stored)
            info |= {"clip_id": clip.clip_id, "relpath": clip.path.name}
        last = sum(info["padding_mask"]) - self.frames
        if last > 0 and not self.random_crop:
            raise InputError(f"{clip.path}: longer than the training window: set random_crop, or encode it again")
        start = int(crop * (last + 1)) if last > 0 else 0
        window = slice(start, start + self.frames)
        sound = (
            {"mean": mean[:, window], "std": std[:, window]} if self.on_latents else {"audio": whole, "start": start}
        )
        info |= {"caption_index": caption, "latent_crop_start": start}
        # In a list, because stable-audio-tools takes `padding_mask[0]`.
        info["padding_mask"] = [torch.tensor(info["padding_mask"][window], dtype=torch.bool)]
        try:
            info.update(clip.hook(info, None))
        except Exception as error:  # noqa: BLE001 - a hook may raise anything; the message names the clip
            raise InputError(f"{clip.path}: the metadata hook failed ({type(error).__name__}: {error})") from None
        if not isinstance(info.get("prompt"), str) or not info["prompt"].strip():
            raise InputError(f"{clip.path}: the metadata hook gave no prompt ({info.get('prompt')!r})")
        return sound, info

    def conditions(self, info: dict[str, Any]) -> Item:
        """What a model needs to know of a clip: `text [tokens, width]` with `text_mask`, `numbers`, and `length` in frames."""
        states, mask = self.captions.of(info["prompt"])
        samples = int(info["seconds_total"] * self.model_config["sample_rate"])
        numbers = {name: float(info[name]) for name in sorted(self.numbers)}
        length = math.ceil(samples / downsampling_ratio(self.model_config))
        return {"text": states, "text_mask": mask, "numbers": numbers, "length": length}

    def _latents(self, clip: Clip) -> Latents:
        if clip.path in self.read_before:
            return self.read_before[clip.path]
        path = self._place(clip)
        try:
            mean, std = (np.load(path.with_suffix(end), allow_pickle=False) for end in (".npy", ".std"))
            info = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
            least = (self.channels, max(self.frames, len(info["padding_mask"])))
        except (OSError, ValueError, EOFError, KeyError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise InputError(f"{clip.path}: cannot be read ({reason}): delete the folder and encode it again") from None
        if mean.shape != least or std.shape != least or not (np.isfinite(mean).all() and np.isfinite(std).all()):
            raise InputError(f"{clip.path}: shape {mean.shape} and {std.shape}, not {least}, or NaN: encode it again")
        latents = torch.from_numpy(mean), torch.from_numpy(std), info
        if self.stays:
            self.read_before[clip.path] = latents
        return latents

    def drawn(self, sound: Item, *key: object) -> Item:
        """The sound after drawing the noise of the autoencoder's posterior: `latents`, or audio with `posterior` noise."""
        noise = torch.from_numpy(draws.normal((self.channels, self.frames), *key))
        if self.on_latents:
            return {"latents": sound["mean"] + sound["std"] * noise}
        return sound | {"posterior": noise}


def _latent_clips(entry: dict[str, str]) -> list[Clip]:
    folder, hook = Path(entry["path"]), load_hook(Path(entry["custom_metadata_module"]))
    counts = {clip: len(captions) for clip, captions in read_json(folder / "captions.json").items()}
    weights = _weights(folder)
    clips = []
    for line in (folder / "filelist.txt").read_text(encoding="utf-8").splitlines():
        path = Path(folder, line)
        if path.stem not in counts:
            raise InputError(f"{folder / 'captions.json'}: clip {path.stem} has no caption")
        clips.append(Clip(path.stem, path, hook, counts[path.stem], weights.get(path.stem), entry.get("corpus", "")))
    return clips


def _audio_clips(entry: dict[str, str]) -> list[Clip]:
    module = Path(entry["custom_metadata_module"])
    captions, hook = read_json(module.with_name("captions.json")), load_hook(module)
    weights = _weights(module.parent)
    return [
        Clip(
            clip_id(entry["id"], name),
            Path(entry["path"], name),
            functools.partial(_by_name, hook, name),
            len(texts),
            weights.get(name),
            entry.get("corpus", ""),
        )
        for name, texts in sorted(captions.items())
    ]


def _weights(folder: Path) -> dict[str, tuple[float, ...]]:
    """The weights of captions, by clip. There are none where captions are drawn evenly."""
    path = folder / "weights.json"
    return {clip: tuple(weights) for clip, weights in read_json(path).items()} if path.is_file() else {}


def _by_name(hook: Hook, name: str, info: dict, audio: Any) -> dict:
    """A hook's metadata of an audio file. Like stable-audio-tools, it gives the hook the path in the dataset's folder."""
    return hook({key: value for key, value in info.items() if key != "clip_id"} | {"relpath": name}, audio)


def load_hook(path: Path) -> Hook:
    """Load `get_custom_metadata` from a metadata module."""
    spec = importlib.util.spec_from_file_location(f"metadata_module_{path.parent.name}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise InputError(f"{path}: no such metadata module")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_custom_metadata


class Stream:
    """The items of one corpus without end: round for round each item once. An epoch takes the next `count` of them.

    Where epochs take whole rounds, the order of items in a round is theirs to decide.
    """

    def __init__(self, corpus: str, items: list[tuple[Clip, int | None]], weight: float, seed: int) -> None:
        self.corpus, self.items, self.seed = corpus, items, seed
        self.count = per_epoch(len(items), weight)
        self.whole = self.count % len(items) == 0
        self.order = functools.lru_cache(2 * (self.count // len(items) + 2))(self._order)

    def _order(self, number: int) -> np.ndarray:
        return draws.generator(self.seed, "round", self.corpus, number).permutation(len(self.items))

    def at(self, position: int) -> tuple[Clip, int | None, int]:
        """`(clip, caption, round)` of a position in the stream."""
        number, place = divmod(position, len(self.items))
        clip, caption = self.items[place if self.whole else self.order(number)[place]]
        return clip, caption, number


class TrainingClips(torch.utils.data.Dataset):
    """Items by their position in the stream of epochs. Each epoch is a permutation that depends only on (seed, epoch).

    An epoch takes from each corpus as many items as its weight says (`sao.data.mixing`); without weights, each item once.

    `captions` is `first`, `random` (one per clip and epoch, which depends only on seed, epoch and clip) or `all` (every
    caption of a clip is an item). `training` is the model config's section with the timestep sampler and dropout.
    """

    def __init__(self, clips: Clips, captions: str, seed: int, training: dict[str, Any], phase_flip: bool) -> None:
        self.clips, self.seed, self.training, self.phase_flip = clips, seed, training, phase_flip
        self.sampler = training.get("timestep_sampler", "uniform")
        items: dict[str, list[tuple[Clip, int | None]]] = {}
        for clip in clips.clips:
            each = [(clip, n) for n in range(clip.captions)] if captions == "all" else [(clip, None)]
            items.setdefault(clip.corpus, []).extend(each)
        self.streams = [Stream(corpus, own, clips.weights[corpus], seed) for corpus, own in items.items()]
        self.ends = list(itertools.accumulate(stream.count for stream in self.streams))
        self.first = captions == "first"
        self.order = functools.lru_cache(2)(self._order)

    def __len__(self) -> int:
        """The number of items in one epoch. Positions continue without end."""
        return self.ends[-1]

    def _order(self, epoch: int) -> np.ndarray:
        return np.random.default_rng([self.seed, epoch]).permutation(len(self))

    def item_at(self, position: int) -> tuple[Clip, int]:
        """The clip and the number of its caption at a position."""
        epoch, place = divmod(position, len(self))
        slot = int(self.order(epoch)[place])
        which = bisect.bisect_right(self.ends, slot)
        stream = self.streams[which]
        clip, caption, number = stream.at(epoch * stream.count + slot - (self.ends[which] - stream.count))
        if caption is None:
            caption = 0 if self.first else draw(clip.captions, clip.weights, self.seed, number, clip.clip_id)
        return clip, caption

    def __getitem__(self, position: int) -> Item:
        """`latents` (or `audio`, `start`, `posterior`), `noise` `[channels, frames]`, `t`, `keep`, masks, conditions, `info`."""
        clip, caption = self.item_at(position)
        flip = self.phase_flip and draws.uniform(self.seed, "flip", position) < 0.5
        crop = draws.uniform(self.seed, "crop", position) if self.clips.random_crop else 0.0
        sound, info = self.clips.read(clip, caption, crop, flip)
        t = draws.timestep(
            draws.stratified(position, self.seed), self.sampler, self.training.get("timestep_sampler_options") or {}
        )
        one_shot = self.training.get("p_one_shot", 0.0)
        if one_shot and draws.uniform(self.seed, "one shot", position) < one_shot:
            t = 1.0
        dropped = draws.uniform(self.seed, "dropout", position) < self.training.get("cfg_dropout_prob", 0.1)
        shape = (self.clips.channels, self.clips.frames)
        noise = torch.from_numpy(draws.normal(shape, self.seed, "noise", position))
        item = {"noise": noise, "t": t, "keep": not dropped, "info": info} | self._masks(info, position)
        item |= self.clips.conditions(info)
        return item | self.clips.drawn(sound, self.seed, "posterior", position)

    def _masks(self, info: dict[str, Any], position: int) -> Item:
        """`heard [frames]`, the clip and some of the silence after it, and of an inpainting model `source [1, frames]`."""
        heard, masked = info["padding_mask"][0], self.clips.masks_attention
        extension = self.training.get("silence_extension_scale_seconds", 0.0)
        if masked and extension:  # create_augmented_padding_mask of stable-audio-tools (training/utils.py)
            scale = extension * self.clips.model_config["sample_rate"] / downsampling_ratio(self.clips.model_config)
            more = int(-scale * math.log1p(-draws.uniform(self.seed, "silence", position)))
            heard = torch.arange(len(heard)) < heard.sum() + more
        if (inpainting := self.training.get("inpainting")) is None:
            return {"heard": heard}
        options = inpainting.get("mask_kwargs", {})
        return {"heard": heard, "source": inpaint_mask(heard, options, masked, self.seed, "inpainting", position)}


class ValidationClips(torch.utils.data.Dataset):
    """Every clip at every validation timestep. A clip's noise never changes, so runs and steps can be compared."""

    def __init__(self, clips: Clips) -> None:
        self.clips = clips
        self.read = functools.lru_cache(1)(self._read)  # the timesteps of a clip follow each other

    def __len__(self) -> int:
        return len(self.clips.clips) * len(VALIDATION_TIMESTEPS)

    def _read(self, number: int) -> tuple[Item, dict[str, Any], Item]:
        """`(sound, info, conditions)` of a clip."""
        clip = self.clips.clips[number]
        sound, info = self.clips.read(clip, 0, draws.uniform("validation crop", clip.clip_id))
        return self.clips.drawn(sound, "validation posterior", clip.clip_id), info, self.clips.conditions(info)

    def __getitem__(self, index: int) -> Item:
        """The same keys as an item of TrainingClips. The caption is the clip's first, and is never dropped."""
        number, step = divmod(index, len(VALIDATION_TIMESTEPS))
        clip = self.clips.clips[number]
        sound, info, conditions = self.read(number)
        t = VALIDATION_TIMESTEPS[step]
        noise = draws.normal((self.clips.channels, self.clips.frames), "validation noise", clip.clip_id, t)
        item = {"noise": torch.from_numpy(noise), "t": t, "keep": True, "info": info}
        # All is to be generated; only an inpainting model looks at it.
        item |= {"heard": info["padding_mask"][0], "source": torch.zeros(1, self.clips.frames)}
        return item | conditions | sound


ClipSet = TrainingClips | ValidationClips


def positions(start: int, stop: int, batch_size: int, rank: int = 0, world: int = 1) -> list[list[int]]:
    """The positions of the clips in forward passes `start` to `stop`, on one of `world` devices. Each gets its own clips."""
    first = ((number * world + rank) * batch_size for number in range(start, stop))
    return [list(range(at, at + batch_size)) for at in first]


def load(dataset: ClipSet, batches: list[list[int]], workers: int, pin_memory: bool) -> Generator[Item]:
    """Yield batches of a dataset, read by `workers` processes. `batches` has the positions of the items of each."""
    loader = torch.utils.data.DataLoader(
        dataset, batch_sampler=batches, num_workers=workers, collate_fn=collate, pin_memory=pin_memory
    )
    try:
        yield from loader
    except InputError as error:  # from a worker it comes with a traceback, whose last line is the message
        raise InputError(str(error).strip().splitlines()[-1].split("InputError: ")[-1]) from None


def collate(items: list[Item]) -> Item:
    """Make a batch of items, of tensors and of lists of whole clips of audio. What is only told of a clip stays behind."""
    batch: Item = {key: [item[key] for item in items] for key in items[0] if key not in ("info", "numbers")}
    for key in ("latents", "noise", "posterior", "heard", "source", "text", "text_mask"):
        if key in batch:
            batch[key] = torch.stack(batch[key])
    batch["t"] = torch.tensor(batch["t"], dtype=torch.float32)
    batch["keep"], batch["length"] = torch.tensor(batch["keep"]), torch.tensor(batch["length"])
    names = items[0]["numbers"]
    batch["numbers"] = {
        name: torch.tensor([item["numbers"][name] for item in items], dtype=torch.float32) for name in names
    }
    return batch
