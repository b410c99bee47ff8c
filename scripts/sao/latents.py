"""The training data: pre-encoded latents in an order that is a function of the seed, with no clip ever replaced.

stable-audio-tools' own dataset classes answer every exception, those of the metadata hook included, with a random
other clip (stable_audio_tools/data/dataset.py). These let it stop the training.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .clips import seed_for
from .command import InputError
from .files import read_json

Item = tuple[int, int]  # epoch, index


class LatentDataset(torch.utils.data.Dataset):
    """Clips of a `pre_encoded` dataset config, indexed by `(epoch, index)`.

    `captions`: `first`, `random` (one a clip and epoch, a pure function of seed, epoch and clip) or `all` (each
    caption of each clip is an item of its own).
    """

    def __init__(self, config_path: Path, captions: str, seed: int, channels: int) -> None:
        config = read_json(config_path)
        if config["dataset_type"] != "pre_encoded":
            raise InputError(f"{config_path}: dataset_type is {config['dataset_type']!r}, not 'pre_encoded'")
        self.frames: int = config["latent_crop_length"]
        self.channels, self.seed, self.captions = channels, seed, captions
        self.clips: list[tuple[Path, Callable[[dict, Any], dict], int]] = []
        for entry in config["datasets"]:
            folder = Path(entry["path"])
            hook = load_hook(Path(entry["custom_metadata_module"]))
            counts = {clip: len(c) for clip, c in read_json(folder / "captions.json").items()}
            for line in (folder / "filelist.txt").read_text(encoding="utf-8").splitlines():
                path = Path(folder, line)
                if path.stem not in counts:
                    raise InputError(f"{folder / 'captions.json'}: clip {path.stem} has no caption")
                self.clips.append((path, hook, counts[path.stem]))
        if captions == "all":
            self.items = [(clip, caption) for clip, (_, _, n) in enumerate(self.clips) for caption in range(n)]
        else:
            self.items = [(clip, None) for clip in range(len(self.clips))]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, item: Item) -> tuple[torch.Tensor, dict[str, Any]]:
        """`(latents [channels, frames], info)`; raises InputError naming the clip on anything wrong with it."""
        epoch, index = item
        clip, caption = self.items[index]
        path, hook, captions = self.clips[clip]
        try:
            latents = np.load(path, allow_pickle=False)
            info = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        except (OSError, ValueError, EOFError) as error:
            raise InputError(f"{path}: cannot be read ({error}): delete the folder and encode it again") from None
        if latents.shape != (self.channels, self.frames) or not np.isfinite(latents).all():
            raise InputError(
                f"{path}: shape {latents.shape}, not {(self.channels, self.frames)}, or NaN: encode it again"
            )
        if caption is None:
            caption = (
                0 if self.captions == "first" else seed_for(self.seed, "caption", epoch, info["clip_id"]) % captions
            )
        info["caption_index"] = caption
        try:
            info.update(hook(info, None))
        except Exception as error:  # noqa: BLE001 - whatever a hook raises, the user hears of it and of the clip
            raise InputError(f"{path}: the metadata hook failed ({type(error).__name__}: {error})") from None
        if not isinstance(info.get("prompt"), str) or not info["prompt"].strip():
            raise InputError(f"{path}: the metadata hook gave no prompt ({info.get('prompt')!r})")
        # In a list, because stable-audio-tools 0.0.19 takes `padding_mask[0]`.
        info["padding_mask"] = [torch.tensor(info["padding_mask"], dtype=torch.bool)]
        return torch.from_numpy(latents), info


def load_hook(path: Path) -> Callable[[dict, Any], dict]:
    """`get_custom_metadata` of a metadata module."""
    spec = importlib.util.spec_from_file_location(f"metadata_module_{path.parent.name}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise InputError(f"{path}: no such metadata module")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_custom_metadata


class EndlessBatches(torch.utils.data.Sampler):
    """Batches `start`, `start + 1`, … without end; batch k is a pure function of (seed, k).

    Items come epoch after epoch, each epoch shuffled anew; a batch may span two epochs, so none is ever dropped.
    """

    def __init__(self, items: int, batch_size: int, seed: int, start: int = 0) -> None:
        self.items, self.batch_size, self.seed, self.start = items, batch_size, seed, start

    def __iter__(self) -> Iterator[list[Item]]:
        position = self.start * self.batch_size
        epoch, order = -1, np.empty(0)
        while True:
            batch = []
            for _ in range(self.batch_size):
                if position // self.items != epoch:
                    epoch = position // self.items
                    order = np.random.default_rng([self.seed, epoch]).permutation(self.items)
                batch.append((epoch, int(order[position % self.items])))
                position += 1
            yield batch


def collate(batch: list[tuple[torch.Tensor, dict]]) -> tuple[torch.Tensor, tuple[dict, ...]]:
    """`(latents [batch, channels, frames], infos)`, the form that stable-audio-tools' wrappers take."""
    latents, infos = zip(*batch, strict=True)
    return torch.stack(latents), infos
