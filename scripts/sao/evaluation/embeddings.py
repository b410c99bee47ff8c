"""Audio embeddings, by name: a vector a clip. torch is imported only by those that need it."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from sao.base.command import InputError, output_to_log

import numpy as np

from sao.config.embeddings import THUMBNAIL, Choice
from sao.sound.spectra import RATE, mel_power, thumbnail


class Embedding(Protocol):
    """`rate` in Hz is what `sound` wants; `provenance` says where the numbers come from."""

    rate: int
    provenance: dict[str, Any]

    def sound(self, signal: np.ndarray) -> np.ndarray:
        """The embedding `[dim]` of a mono signal `[frames]`."""

    def text(self, captions: Sequence[str]) -> np.ndarray | None:
        """Embeddings `[captions, dim]` in the same space; None where text has none."""


def load(chosen: Choice, model: Path | None = None, threads: int = 1) -> Embedding:
    """The embedding; `model` is the Hub cache of a CLAP model."""
    if chosen.name == THUMBNAIL:
        return Thumbnail()
    if chosen.name == "log-mel":
        return LogMel()
    import torch

    torch.set_num_threads(threads)
    if not chosen.is_clap:
        return Aisfx()
    if model is None:
        raise InputError(f"{chosen.name}: its weights are missing: run the target `downloads`")
    return Clap(chosen, model)


class Thumbnail:
    """A coarse log-mel spectrogram; longer clips have longer vectors."""

    rate = RATE
    provenance: ClassVar = {"name": THUMBNAIL}

    def sound(self, signal: np.ndarray) -> np.ndarray:
        return thumbnail(signal)

    def text(self, captions: Sequence[str]) -> None:
        return None


def aisfx_input(signal: np.ndarray) -> np.ndarray:
    """`[frames, 96]` log-mel of a signal at 44.1 kHz, 43 frames a second: aiSFX's `spectrogram_essentia.py`."""
    return np.log10(1e4 * mel_power(signal, 44100, 2048, 1024, 96, 22050) + 1)


class LogMel:
    """Mean and standard deviation over time of aiSFX's log-mel bands: 192 numbers, nothing learned."""

    rate = 44100
    provenance: ClassVar = {"name": "log-mel"}

    def sound(self, signal: np.ndarray) -> np.ndarray:
        bands = aisfx_input(signal)
        return np.concatenate([bands.mean(axis=0), bands.std(axis=0)]).astype(np.float32)

    def text(self, captions: Sequence[str]) -> None:
        return None


class Aisfx:
    """aiSFX (Ma and Lerch 2022, ISMIR): a CNN trained to tell sound-effects categories; 512 numbers.

    Window, hop, normalisation and the padding of short clips are those of its `inference.py`; the mean of the windows
    is the clip's. The weights, in its package, are pickled: they are read as data.
    """

    rate = 44100
    FRAMES, HOP, HIGHEST = 100, 50, 9.457798957824707  # frames of a window (2.3 s), and what the input is divided by

    def __init__(self) -> None:
        from importlib.metadata import version

        import aisfx
        import torch
        from aisfx.models.cnn2d import EmbeddingNet

        from sao.models.build import pick_device

        # The numbers of classes beside the weights are numpy's; they hold no code.
        scalar = np._core.multiarray.scalar
        harmless = [(scalar, "numpy.core.multiarray.scalar"), np.dtype, type(np.dtype("int64"))]
        with torch.serialization.safe_globals(harmless):
            path = Path(aisfx.__file__).parent / "models/checkpoint.pth"
            weights, _ = torch.load(path, map_location="cpu", weights_only=True)
        own = {k.removeprefix("embedding_net."): v for k, v in weights.items() if k.startswith("embedding_net.")}
        self.net = EmbeddingNet("max", 3, 1, 64)
        self.net.load_state_dict(own)
        self.device = pick_device()
        self.net.to(self.device).eval()
        self.provenance = {"name": "aisfx", "version": version("aisfx"), "license": "CC-BY-4.0"}

    def sound(self, signal: np.ndarray) -> np.ndarray:
        import torch

        spectrum = aisfx_input(signal) / self.HIGHEST
        spectrum = np.pad(spectrum, ((0, max(0, self.FRAMES - len(spectrum))), (0, 0)))
        starts = range(0, len(spectrum) - self.FRAMES + 1, self.HOP)
        windows = torch.from_numpy(np.stack([spectrum[at : at + self.FRAMES] for at in starts]).astype(np.float32))
        with torch.inference_mode():
            parts = [self.net(part.to(self.device)).cpu() for part in windows.split(16)]
        return torch.cat(parts).mean(dim=0).numpy()

    def text(self, captions: Sequence[str]) -> None:
        return None


class Clap:
    """A ClapModel of transformers (Wu et al. 2023). A long clip's embedding is the mean of its 10 s windows'.

    Cut here, because the feature extractor takes a random window of what is longer than its own.
    """

    def __init__(self, chosen: Choice, model: Path) -> None:
        os.environ["HF_HUB_OFFLINE"] = "1"
        with output_to_log():
            from transformers import ClapModel, ClapProcessor, __version__

            from sao.models.build import first_line, pick_device

            folder = model / f"models--{chosen.folder}" / "snapshots" / chosen.revision
            try:
                self.processor = ClapProcessor.from_pretrained(folder, local_files_only=True)
                self.model, told = ClapModel.from_pretrained(folder, local_files_only=True, output_loading_info=True)
            except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
                raise InputError(f"{folder}: transformers cannot load it as CLAP ({first_line(error)})") from None
        # transformers draws at random what a file lacks.
        if told["missing_keys"] or told["mismatched_keys"]:
            lacking = sorted(map(str, [*told["missing_keys"], *told["mismatched_keys"]]))
            raise InputError(f"{folder}: {len(lacking)} weights are missing or have another shape ({lacking[0]} …)")
        self.device = pick_device()
        self.model = self.model.to(self.device).eval()
        self.extractor = self.processor.feature_extractor
        self.rate = self.extractor.sampling_rate
        self.window = round(self.extractor.max_length_s * self.rate)
        names = {"name": chosen.name, "revision": chosen.revision}
        self.provenance = names | {"transformers": __version__}

    def sound(self, signal: np.ndarray) -> np.ndarray:
        import torch

        parts = [signal[at : at + self.window] for at in range(0, max(len(signal), 1), self.window)]
        if len(parts) > 1 and len(parts[-1]) < self.window // 2:
            parts.pop()
        inputs = self.extractor(parts, sampling_rate=self.rate, return_tensors="pt").to(self.device)
        with torch.inference_mode():
            found = unit(pooled(self.model.get_audio_features(**inputs)))
        return unit(found.mean(axis=0))

    def text(self, captions: Sequence[str]) -> np.ndarray:
        import torch

        found = []
        for at in range(0, len(captions), 64):
            inputs = self.processor.tokenizer(
                list(captions[at : at + 64]), padding=True, truncation=True, return_tensors="pt"
            ).to(self.device)
            with torch.inference_mode():
                found.append(unit(pooled(self.model.get_text_features(**inputs))))
        return np.concatenate(found)


def pooled(output: Any) -> np.ndarray:
    """The projected vectors: transformers 5 gives them in an output, 4 bare."""
    return getattr(output, "pooler_output", output).float().cpu().numpy()


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors of length one, along the last axis."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


@dataclass
class Embedded:
    """What a `.npz` of rule `embed` holds: `vectors [clips, dim]` by `ids`, `text` where there is any."""

    ids: list[str]
    splits: list[str]
    vectors: np.ndarray
    text: np.ndarray | None
    provenance: dict[str, Any]

    def write(self, path: Path) -> None:
        text = {} if self.text is None else {"text": self.text.astype(np.float32)}
        with path.open("wb") as handle:
            np.savez(
                handle,
                ids=np.array(self.ids, dtype=str),
                splits=np.array(self.splits, dtype=str),
                vectors=self.vectors,
                provenance=np.array(json.dumps(self.provenance)),
                **text,
            )

    @classmethod
    def read(cls, path: Path) -> Embedded:
        """Raises InputError on a file that rule `embed` did not write."""
        try:
            with np.load(path, allow_pickle=False) as held:
                text = held.get("text")
                lists = held["ids"].tolist(), held["splits"].tolist()
                return cls(*lists, held["vectors"], text, json.loads(held["provenance"].item()))
        except (ValueError, KeyError, OSError, EOFError) as error:
            raise InputError(f"{path}: not a file of embeddings ({error}): delete it and run again") from None

    def of(self, ids: Sequence[str]) -> np.ndarray:
        """The vectors of these clips, in this order."""
        rows = {clip: row for row, clip in enumerate(self.ids)}
        return self.vectors[[rows[clip] for clip in ids]]

    def of_split(self, *splits: str) -> tuple[list[str], np.ndarray]:
        chosen = [row for row, split in enumerate(self.splits) if split in splits]
        return [self.ids[row] for row in chosen], self.vectors[chosen]


def stack(vectors: Sequence[np.ndarray], fill: float) -> np.ndarray:
    """`[clips, dim]` of vectors of unequal length, filled up at their ends."""
    width = max(map(len, vectors))
    return np.stack([np.pad(v, (0, width - len(v)), constant_values=fill) for v in vectors]).astype(np.float32)
