"""aiSFX, an embedding whose weights come with its package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from sao.evaluation.embeddings.embedding import Embedding
from sao.evaluation.embeddings.logmel import RATE, aisfx_input


class Aisfx(Embedding):
    """aiSFX (Ma and Lerch 2022, ISMIR): a CNN trained to distinguish categories of sound effects; 512 numbers.

    Window, hop, normalisation and the padding of short clips are those of its `inference.py`. A clip's vector is the mean of
    its windows' vectors. The weights in its package are pickled, and are read as data.
    """

    name = "aisfx"
    label = "aiSFX"
    about = (
        "aiSFX (Ma and Lerch 2022), 512 numbers, full bandwidth: a CNN trained to sort sound effects, whose weights come with its "
        "package. [benchmarks](../../benchmarks/README.md) has the measurements that led to this choice"
    )
    license = "CC-BY-4.0"
    rate = RATE
    gpu = True
    FRAMES, HOP, HIGHEST = 100, 50, 9.457798957824707  # FRAMES is the window (2.3 s); the input is divided by HIGHEST

    def load(self, model: Path | None, threads: int) -> None:
        import aisfx
        import torch
        from aisfx.models.cnn2d import EmbeddingNet

        from sao.models.device import this_device

        torch.set_num_threads(threads)
        # Beside the weights lie the numbers of classes as numpy scalars, which contain no code.
        scalar = np._core.multiarray.scalar  # type: ignore[attr-defined]
        harmless: list[Any] = [(scalar, "numpy.core.multiarray.scalar"), np.dtype, type(np.dtype("int64"))]
        with torch.serialization.safe_globals(harmless):
            path = Path(aisfx.__file__).parent / "models/checkpoint.pth"
            weights, _ = torch.load(path, map_location="cpu", weights_only=True)
        own = {k.removeprefix("embedding_net."): v for k, v in weights.items() if k.startswith("embedding_net.")}
        self.net = EmbeddingNet("max", 3, 1, 64)
        self.net.load_state_dict(own)
        self.device = this_device().kind
        self.net.to(self.device).eval()

    @property
    def provenance(self) -> dict[str, Any]:
        from importlib.metadata import version

        return {"name": self.name, "version": version("aisfx"), "license": self.license}

    def sound(self, signal: np.ndarray) -> np.ndarray:
        import torch

        spectrum = aisfx_input(signal) / self.HIGHEST
        spectrum = np.pad(spectrum, ((0, max(0, self.FRAMES - len(spectrum))), (0, 0)))
        starts = range(0, len(spectrum) - self.FRAMES + 1, self.HOP)
        windows = torch.from_numpy(np.stack([spectrum[at : at + self.FRAMES] for at in starts]).astype(np.float32))
        with torch.inference_mode():
            parts = [self.net(part.to(self.device)).cpu() for part in torch.split(windows, 16)]
        return torch.cat(parts).mean(dim=0).numpy()
