"""VGGish, the embedding of the first FAD."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from sao.evaluation.embeddings.embedding import Analysis, Published
from sao.evaluation.embeddings.pretrained import Pretrained

if TYPE_CHECKING:
    from sao.evaluation.networks.network import Network


class Vggish(Pretrained):
    """VGGish (Hershey et al. 2017): 128 numbers of each patch of 0.96 s at 16 kHz, mono, without overlap.

    The front end and the 128 numbers before the last ReLU, PCA and quantisation are those of `frechet_audio_distance`.
    """

    name, label, rate = "vggish", "VGGish", 16000
    about = (
        "VGGish (Hershey et al. 2017, arXiv:1609.09430), 128 numbers at 16 kHz, mono. FAD-VGGish is that of Kilgour et al. 2019 "
        "(arXiv:1812.08466): of the vectors of all patches of 0.96 s, before the last ReLU, PCA and quantisation"
    )
    names = MappingProxyType({"fd": "FAD-VGGish"})
    keeps_windows = True
    license = "Apache-2.0"
    published = Published(
        "https://github.com/harritaylor/torchvggish/releases/download/v0.1/vggish-10086976.pth",
        "https://github.com/harritaylor/torchvggish",
    )

    def network(self) -> type[Network]:
        from sao.evaluation.networks.vggish import Vggish

        return Vggish

    def analyse(self, audio: np.ndarray, rate: int) -> Analysis:
        import torch

        from sao.evaluation.networks.vggish import patches
        from sao.sound.spectra import to_mono

        signal = to_mono(audio, rate, self.rate)
        with torch.inference_mode():
            windows = torch.cat([self.net(batch).cpu() for batch in self.batches(patches(signal))]).numpy()
        return Analysis(windows.mean(axis=0), windows)
