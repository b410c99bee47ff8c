"""PANNs' CNN14, an embedding and a classifier of AudioSet."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sao.evaluation.embeddings.embedding import Analysis, Published
from sao.evaluation.embeddings.pretrained import Pretrained

if TYPE_CHECKING:
    from sao.evaluation.networks.network import Network


class Panns(Pretrained):
    """CNN14 of PANNs (Kong et al. 2020): 2048 numbers of each whole sound, mono, and the probabilities of 527 classes.

    The probabilities are the softmax of its logits.
    """

    keeps_windows = True
    license = "CC-BY-4.0"

    def __init__(self, rate: int, file: str) -> None:
        self.rate = rate
        self.name = "panns-cnn14" if rate == 32000 else f"panns-cnn14-{rate // 1000}k"
        self.label = "PANNs" if rate == 32000 else f"PANNs {rate // 1000} kHz"
        at = "" if rate == 32000 else f" ({rate // 1000} kHz)"
        self.names = {"fd": f"FAD-PANNs{at}", "kl": f"KL-PANNs{at}"}
        use = "" if rate == 32000 else ". The papers on AudioLDM (arXiv:2301.12503) call FAD-PANNs FD"
        self.about = (
            f"CNN14 of PANNs (Kong et al. 2020, arXiv:1912.10211), 2048 numbers at {rate // 1000} kHz, mono, of each whole sound, and a "
            f"classifier of AudioSet{use}"
        )
        self.published = Published(
            f"https://zenodo.org/records/3987831/files/{file}", "https://zenodo.org/records/3987831"
        )

    def network(self) -> type[Network]:
        from sao.evaluation.networks.panns import Cnn14

        return Cnn14

    def analyse(self, audio: np.ndarray, rate: int) -> Analysis:
        import torch

        from sao.evaluation.networks.panns import log_mel
        from sao.sound.spectra import to_mono

        signal = torch.from_numpy(to_mono(audio, rate, self.rate).astype(np.float32)).to(self.device)
        with torch.inference_mode():
            vectors, logits = self.net(log_mel(signal[None], self.rate))
            return Analysis(vectors[0].cpu().numpy(), vectors.cpu().numpy(), logits[0].softmax(dim=0).cpu().numpy())
