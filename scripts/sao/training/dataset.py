"""The training data: clips in an order that is a function of the seed, with no clip ever replaced by another.

stable-audio-tools' own dataset classes answer every exception, those of the metadata hook included, with a random
other clip (stable_audio_tools/data/dataset.py). These let it stop the training. They also make every random draw of
a training step, from (seed, position) alone: the position of a clip in the endless stream of all epochs.
"""

from __future__ import annotations

import functools
import importlib.util
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
from sao.base.names import clip_id, seed_for
from sao.models.autoencoder import clip_facts, load_audio, padded
from sao.models.config import ModelConfig, downsampling_ratio
from sao.training import draws
from sao.training.inpainting import inpaint_mask

Hook = Callable[[dict, Any], dict]
Item = dict[str, Any]
VALIDATION_TIMESTEPS = (0.1, 0.3, 0.5, 0.7, 0.9)  # stable-audio-tools' (training/diffusion.py)


@dataclass(frozen=True)
class Clip:
    """A clip of a dataset config: its latents or its audio, the hook that knows its captions, and how many it has."""

    clip_id: str
    path: Path
    hook: Hook
    captions: int


class Clips:
    """The clips of a dataset config of stable-audio-tools, latents (`pre_encoded`) or audio (`audio_dir`)."""

    def __init__(self, config_path: Path, model_config: ModelConfig) -> None:
        config = read_json(config_path)
        self.frames: int = config["latent_crop_length"]
        self.random_crop: bool = config["random_crop"]
        self.on_latents: bool = config["dataset_type"] == "pre_encoded"
        self.model_config = model_config
        self.audio_channels: int = model_config["model"]["pretransform"]["config"]["io_channels"]
        self.channels: int = model_config["model"]["io_channels"]
        read = _latent_clips if self.on_latents else _audio_clips
        self.folders = {entry["id"]: Path(entry["path"]) for entry in config["datasets"]}
        self.clips = [clip for entry in config["datasets"] for clip in read(entry)]
        self.masks_attention: bool = model_config["model"]["diffusion"].get("mask_padding_attention", False)
        self.places: dict[Path, Path] = {}  # of folders that are read elsewhere

    def files(self) -> list[Path]:
        """All that is read of the clips."""
        ends = (".npy", ".std", ".json") if self.on_latents else ()
        return [path for clip in self.clips for path in (map(clip.path.with_suffix, ends) if ends else [clip.path])]

    def _place(self, clip: Clip) -> Path:
        return self.places.get(clip.path.parent, clip.path.parent) / clip.path.name

    def read(self, clip: Clip, caption: int, crop: float, flip: bool = False) -> tuple[Item, dict[str, Any]]:
        """`(what is heard, what the conditioners are told)` of the part at quantile `crop` of where it may start.

        Of latents: `mean` and `std`, each `[channels, frames]`. Of audio: `audio [channels, samples]`, the whole clip, and
        the frame `start`. Raises InputError naming the clip on anything wrong with it.
        """
        if self.on_latents:
            mean, std, info = self._latents(clip)
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
        here = slice(start, start + self.frames)
        heard = {"mean": mean[:, here], "std": std[:, here]} if self.on_latents else {"audio": whole, "start": start}
        info |= {"caption_index": caption, "latent_crop_start": start}
        # In a list, because stable-audio-tools 0.0.19 takes `padding_mask[0]`.
        info["padding_mask"] = [torch.tensor(info["padding_mask"][here], dtype=torch.bool)]
        try:
            info.update(clip.hook(info, None))
        except Exception as error:  # noqa: BLE001 - whatever a hook raises, the user hears of it and of the clip
            raise InputError(f"{clip.path}: the metadata hook failed ({type(error).__name__}: {error})") from None
        if not isinstance(info.get("prompt"), str) or not info["prompt"].strip():
            raise InputError(f"{clip.path}: the metadata hook gave no prompt ({info.get('prompt')!r})")
        return heard, info

    def _latents(self, clip: Clip) -> tuple[torch.Tensor, torch.Tensor, dict[str, Any]]:
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
        return torch.from_numpy(mean), torch.from_numpy(std), info

    def drawn(self, heard: Item, *key: object) -> Item:
        """What is heard with the noise of the autoencoder's posterior drawn: `latents`, or that noise beside the audio."""
        noise = torch.from_numpy(draws.normal((self.channels, self.frames), *key))
        if self.on_latents:
            return {"latents": heard["mean"] + heard["std"] * noise}
        return heard | {"posterior": noise}


def _latent_clips(entry: dict[str, str]) -> list[Clip]:
    folder, hook = Path(entry["path"]), load_hook(Path(entry["custom_metadata_module"]))
    counts = {clip: len(captions) for clip, captions in read_json(folder / "captions.json").items()}
    clips = []
    for line in (folder / "filelist.txt").read_text(encoding="utf-8").splitlines():
        path = Path(folder, line)
        if path.stem not in counts:
            raise InputError(f"{folder / 'captions.json'}: clip {path.stem} has no caption")
        clips.append(Clip(path.stem, path, hook, counts[path.stem]))
    return clips


def _audio_clips(entry: dict[str, str]) -> list[Clip]:
    module = Path(entry["custom_metadata_module"])
    captions, hook = read_json(module.with_name("captions.json")), load_hook(module)
    return [
        Clip(clip_id(entry["id"], name), Path(entry["path"], name), functools.partial(_by_name, hook, name), len(told))
        for name, told in sorted(captions.items())
    ]


def _by_name(hook: Hook, name: str, info: dict, audio: Any) -> dict:
    """What a hook says of a file of audio, which it knows by its path in the dataset's folder, as stock does."""
    return hook({key: value for key, value in info.items() if key != "clip_id"} | {"relpath": name}, audio)


def load_hook(path: Path) -> Hook:
    """`get_custom_metadata` of a metadata module."""
    spec = importlib.util.spec_from_file_location(f"metadata_module_{path.parent.name}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise InputError(f"{path}: no such metadata module")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_custom_metadata


class TrainingClips(torch.utils.data.Dataset):
    """Items by their position in the stream: epoch after epoch, each a permutation that follows from (seed, epoch).

    `captions`: `first`, `random` (one a clip and epoch, a pure function of seed, epoch and clip) or `all` (each caption
    of each clip is an item of its own). `training` is the model config's section: its timestep sampler and dropout.
    """

    def __init__(self, clips: Clips, captions: str, seed: int, training: dict[str, Any], phase_flip: bool) -> None:
        self.clips, self.seed, self.training, self.phase_flip = clips, seed, training, phase_flip
        self.sampler = training.get("timestep_sampler", "uniform")
        self.items: list[tuple[Clip, int | None]] = []
        for clip in clips.clips:
            self.items += [(clip, n) for n in range(clip.captions)] if captions == "all" else [(clip, None)]
        self.first = captions == "first"
        self.order = functools.lru_cache(2)(self._order)

    def __len__(self) -> int:
        """Items of an epoch; positions go on without end."""
        return len(self.items)

    def _order(self, epoch: int) -> np.ndarray:
        return np.random.default_rng([self.seed, epoch]).permutation(len(self.items))

    def __getitem__(self, position: int) -> Item:
        """`latents` (or `audio`, `start`, `posterior`), `noise` `[channels, frames]`, `t`, `keep`, `info`, and masks."""
        epoch, place = divmod(position, len(self.items))
        clip, caption = self.items[self.order(epoch)[place]]
        if caption is None:
            caption = 0 if self.first else seed_for(self.seed, "caption", epoch, clip.clip_id) % clip.captions
        flip = self.phase_flip and draws.uniform(self.seed, "flip", position) < 0.5
        heard, info = self.clips.read(clip, caption, draws.uniform(self.seed, "crop", position), flip)
        t = draws.timestep(
            draws.stratified(position, self.seed), self.sampler, self.training.get("timestep_sampler_options") or {}
        )
        if draws.uniform(self.seed, "one shot", position) < self.training.get("p_one_shot", 0.0):
            t = 1.0
        dropped = draws.uniform(self.seed, "dropout", position) < self.training.get("cfg_dropout_prob", 0.1)
        shape = (self.clips.channels, self.clips.frames)
        noise = torch.from_numpy(draws.normal(shape, self.seed, "noise", position))
        item = {"noise": noise, "t": t, "keep": not dropped, "info": info} | self._masks(info, position)
        return item | self.clips.drawn(heard, self.seed, "posterior", position)

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
    """Every clip at every validation timestep, with noise that is its own for ever, so that runs and steps compare."""

    def __init__(self, clips: Clips) -> None:
        self.clips = clips

    def __len__(self) -> int:
        return len(self.clips.clips) * len(VALIDATION_TIMESTEPS)

    def __getitem__(self, index: int) -> Item:
        """As TrainingClips; the clip's first caption, never dropped."""
        number, step = divmod(index, len(VALIDATION_TIMESTEPS))
        clip = self.clips.clips[number]
        heard, info = self.clips.read(clip, 0, draws.uniform("validation crop", clip.clip_id))
        t = VALIDATION_TIMESTEPS[step]
        noise = draws.normal((self.clips.channels, self.clips.frames), "validation noise", clip.clip_id, t)
        item = {"noise": torch.from_numpy(noise), "t": t, "keep": True, "info": info}
        # All is to be generated; only an inpainting model looks at it.
        item |= {"heard": info["padding_mask"][0], "source": torch.zeros(1, self.clips.frames)}
        return item | self.clips.drawn(heard, "validation posterior", clip.clip_id)


ClipSet = TrainingClips | ValidationClips


def positions(start: int, stop: int, batch_size: int, rank: int = 0, world: int = 1) -> list[list[int]]:
    """The positions of forward passes `start` to `stop` on one of `world` devices, each of which sees its own clips."""
    first = ((number * world + rank) * batch_size for number in range(start, stop))
    return [list(range(at, at + batch_size)) for at in first]


def load(dataset: ClipSet, batches: list[list[int]], workers: int, pin_memory: bool) -> Generator[Item]:
    """The batches of a dataset, by the positions of their items, read by `workers` processes."""
    loader = torch.utils.data.DataLoader(
        dataset, batch_sampler=batches, num_workers=workers, collate_fn=collate, pin_memory=pin_memory
    )
    try:
        yield from loader
    except InputError as error:  # of a worker, and then with its traceback around it
        raise InputError(str(error).strip().splitlines()[-1].split("InputError: ")[-1]) from None


def collate(items: list[Item]) -> Item:
    """A batch: tensors stacked, `info` (and whole clips of audio) in lists."""
    batch: Item = {key: [item[key] for item in items] for key in items[0]}
    for key in ("latents", "noise", "posterior", "heard", "source"):
        if key in batch:
            batch[key] = torch.stack(batch[key])
    batch["t"], batch["keep"] = torch.tensor(batch["t"], dtype=torch.float32), torch.tensor(batch["keep"])
    return batch
