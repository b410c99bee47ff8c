"""What embeddings share whose network is published as a file of weights, which the config declares."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sao.base.command import InputError

import numpy as np

from sao.base.files import sha256
from sao.evaluation.embeddings.embedding import Embedding

if TYPE_CHECKING:
    import torch

    from sao.evaluation.networks.network import Network

BATCH = 16  # windows
PEAK_DBFS = -1.0  # to which stable-audio-metrics brings each sound


class Pretrained(Embedding):
    """An embedding whose weights are a declared file."""

    gpu = True

    @abstractmethod
    def network(self) -> type[Network]:
        """The class of its network. It imports torch."""

    def load(self, model: Path | None, threads: int) -> None:
        if model is None:
            raise InputError(f"{self.name}: its weights are missing: run the target `downloads`")
        import torch

        from sao.evaluation.networks.network import load
        from sao.models.device import this_device

        torch.set_num_threads(threads)
        self.device = this_device().kind
        self.net = load(self.network(), model).to(self.device)
        self.digest = sha256(model)

    @property
    def provenance(self) -> dict[str, Any]:
        return {"name": self.name, "license": self.license, "weights": self.digest}

    def sound(self, signal: np.ndarray) -> np.ndarray:
        return self.analyse(signal[:, None], self.rate).vector

    def batches(self, rows: np.ndarray) -> list[torch.Tensor]:
        """Windows, or their spectrograms, on the device, a few at a time."""
        import torch

        return [part.to(self.device) for part in torch.split(torch.from_numpy(rows), BATCH)]


def to_peak(audio: np.ndarray) -> np.ndarray:
    """A sound `[frames, channels]` whose loudest sample is at PEAK_DBFS. Silence stays as it is."""
    peak = float(np.abs(audio).max(initial=0))
    return audio * np.float32(10 ** (PEAK_DBFS / 20) / peak) if peak else audio
