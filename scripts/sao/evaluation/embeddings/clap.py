"""CLAP, an embedding of sounds and of captions, whose weights are fetched from the Hub."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sao.base.command import InputError, output_to_log

import numpy as np

from sao.evaluation.embeddings.embedding import Embedding


class Clap(Embedding):
    """A ClapModel of transformers (Wu et al. 2023). A long clip's vector is the mean of its 10 s windows' vectors.

    This class cuts the windows, because the feature extractor takes a random window of a longer clip.
    """

    about = (
        "CLAP (Wu et al. 2023), 512 numbers at 48 kHz, which also scores captions. A longer clip's vector is the mean of its "
        "10 s windows' vectors, because the feature extractor alone would take one window at random"
    )
    gpu = True

    def __init__(self, repo: str, revision: str) -> None:
        self.name = self.label = repo
        self.revision = revision

    def load(self, model: Path | None, threads: int) -> None:
        if model is None:
            raise InputError(f"{self.name}: its weights are missing: run the target `downloads`")
        import torch

        torch.set_num_threads(threads)
        os.environ["HF_HUB_OFFLINE"] = "1"
        with output_to_log():
            import transformers

            from sao.models.build import first_line
            from sao.models.device import this_device

            folder = model / f"models--{self.folder}" / "snapshots" / self.revision
            clap: Any = transformers.ClapModel
            try:
                self.processor: Any = transformers.ClapProcessor.from_pretrained(folder, local_files_only=True)
                self.model, report = clap.from_pretrained(folder, local_files_only=True, output_loading_info=True)
            except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
                raise InputError(f"{folder}: transformers cannot load it as CLAP ({first_line(error)})") from None
        # transformers fills in missing weights at random.
        if lacking := sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]])):
            raise InputError(f"{folder}: {len(lacking)} weights are missing or have another shape ({lacking[0]} …)")
        self.version = transformers.__version__
        self.device = this_device().kind
        self.model = self.model.to(self.device).eval()
        self.extractor = self.processor.feature_extractor
        self.rate = self.extractor.sampling_rate
        self.window = round(self.extractor.max_length_s * self.rate)

    @property
    def provenance(self) -> dict[str, Any]:
        return {"name": self.name, "revision": self.revision, "transformers": self.version}

    def sound(self, signal: np.ndarray) -> np.ndarray:
        import torch

        parts = [signal[at : at + self.window] for at in range(0, max(len(signal), 1), self.window)]
        if len(parts) > 1 and len(parts[-1]) < self.window // 2:
            parts.pop()
        inputs = self.extractor(parts, sampling_rate=self.rate, return_tensors="pt").to(self.device)
        with torch.inference_mode():
            windows = unit(pooled(self.model.get_audio_features(**inputs)))
        return unit(windows.mean(axis=0))

    def text(self, captions: Sequence[str]) -> np.ndarray:
        import torch

        vectors = []
        for at in range(0, len(captions), 64):
            inputs = self.processor.tokenizer(
                list(captions[at : at + 64]), padding=True, truncation=True, return_tensors="pt"
            ).to(self.device)
            with torch.inference_mode():
                vectors.append(unit(pooled(self.model.get_text_features(**inputs))))
        return np.concatenate(vectors)


def pooled(output: Any) -> np.ndarray:
    """The projected vectors. transformers 5 returns them in an object, transformers 4 as they are."""
    return getattr(output, "pooler_output", output).float().cpu().numpy()


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors of length one, along the last axis."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
