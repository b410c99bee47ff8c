"""PaSST, the classifier of KL-PaSST in the papers on Stable Audio."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from sao.evaluation.embeddings.embedding import Analysis, Published
from sao.evaluation.embeddings.pretrained import Pretrained, to_peak

if TYPE_CHECKING:
    from sao.evaluation.networks.network import Network

WINDOW, STEP = 10, 5  # s


class Passt(Pretrained):
    """PaSST (Koutini et al. 2022): 768 numbers, mono, at 32 kHz, and the probabilities of 527 classes.

    As in stable-audio-metrics' `passt_kld.py`: each sound is brought to a peak of -1 dBFS and cut into windows of 10 s that
    overlap by 5 s, the last one padded with zeros. The probabilities are the softmax of the windows' mean logits. Unlike there,
    a sound below 1.5 s is padded too.
    """

    name, label, rate = "passt", "PaSST", 32000
    names = MappingProxyType({"kl": "KL-PaSST"})
    about = (
        "PaSST (Koutini et al. 2022, arXiv:2110.05069), 768 numbers at 32 kHz, mono, and a classifier of AudioSet. Windows of 10 s "
        "overlap by 5 s; its KL-PaSST is that of stable-audio-metrics (Evans et al. 2024, arXiv:2402.04825)"
    )
    license = "Apache-2.0"
    published = Published(
        "https://github.com/kkoutini/PaSST/releases/download/v0.0.1-audioset/passt-s-f128-p16-s10-ap.476-swa.pt",
        "https://github.com/kkoutini/PaSST",
    )

    def network(self) -> type[Network]:
        from sao.evaluation.networks.passt import Passt

        return Passt

    def analyse(self, audio: np.ndarray, rate: int) -> Analysis:
        import torch

        from sao.evaluation.networks.passt import log_mel
        from sao.sound.spectra import to_mono

        signal = to_peak(to_mono(audio, rate, self.rate)[:, None])[:, 0].astype(np.float32)
        size, step = WINDOW * self.rate, STEP * self.rate
        starts = range(0, max(step, len(signal) - step), step)
        rows = [np.pad(part, (0, size - len(part))) for part in (signal[at : at + size] for at in starts)]
        with torch.inference_mode():
            parts = [self.net(log_mel(batch)) for batch in self.batches(np.stack(rows))]
            vectors, logits = (torch.cat(each).mean(dim=0) for each in zip(*parts, strict=True))
            return Analysis(vectors.cpu().numpy(), classes=logits.softmax(dim=0).cpu().numpy())
