"""AudioSeal's detector of watermarks, as an embedding: a set of sounds is listened to once, like by any other."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType
from typing import Any

from sao.base.command import InputError

import numpy as np

from sao.base.files import sha256
from sao.evaluation.embeddings.embedding import Embedding, Published


class AudioSeal(Embedding):
    """The share of a sound's samples that AudioSeal takes for marked, and the probabilities of the 16 bits of the message.

    It listens to the mean of the channels at 16 kHz.
    """

    name, label, rate = "audioseal", "AudioSeal", 16000
    about = (
        "AudioSeal's detector of watermarks (San Roman et al. 2024, arXiv:2401.17264), at 16 kHz, mono: the share of samples that "
        "are taken for marked, and 16 bits. It compares no sets. `render.watermark` adds it"
    )
    license = "MIT"
    gpu = True
    compares_sets = finds_copies = False
    detects = True
    names = MappingProxyType({"watermark": "Watermark in renders", "reference_watermark": "Watermark in recordings"})
    published = Published(
        "https://huggingface.co/facebook/audioseal/resolve/main/detector_base.pth",
        "https://huggingface.co/facebook/audioseal",
    )

    def load(self, model: Path | None, threads: int) -> None:
        if model is None:
            raise InputError(f"{self.name}: its weights are missing: run the target `downloads`")
        import torch

        from sao.models.audioseal import load
        from sao.models.device import this_device

        torch.set_num_threads(threads)
        self.device = this_device().kind
        self.net = load("detector", model).to(self.device)
        self.digest = sha256(model)

    @property
    def provenance(self) -> dict[str, Any]:
        return {"name": self.name, "license": self.license, "weights": self.digest}

    def sound(self, signal: np.ndarray) -> np.ndarray:
        import torch

        from sao.models.audioseal import found

        share, bits = found(self.net, torch.from_numpy(signal.astype(np.float32)).to(self.device))
        return np.array([share, *bits], np.float32)
