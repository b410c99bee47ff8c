"""OpenL3, the embedding of FD-OpenL3 in the papers on Stable Audio."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sao.evaluation.embeddings.embedding import Analysis, Published
from sao.evaluation.embeddings.pretrained import Pretrained, to_peak

if TYPE_CHECKING:
    from sao.evaluation.networks.network import Network

HOP = 0.5  # s
BANDWIDTH = 44100  # Hz; a sound of a higher rate is brought to this one first


class OpenL3(Pretrained):
    """OpenL3 (Cramer et al. 2019), `mel256`, 512 numbers of each window of 1 s, one each 0.5 s, at 48 kHz.

    As in stable-audio-metrics' `openl3_fd.py`: each sound is brought to a peak of -1 dBFS. With `stereo`, the vectors of left
    and right stand side by side, 1024 numbers, and a mono sound counts for both; without, channels are averaged.
    """

    keeps_windows = True
    license = "CC-BY-4.0"
    rate = 48000

    def __init__(self, content: str, stereo: bool = False) -> None:
        self.stereo = stereo
        self.name = f"openl3-{content}" + ("-stereo" if stereo else "")
        self.label = f"OpenL3 {content}" + (", stereo" if stereo else "")
        self.names = {"fd": f"FD-OpenL3 ({content}{', stereo' if stereo else ''})"}
        use = "environmental sounds" if content == "env" else "music"
        self.about = (
            f"OpenL3 for {use} (Cramer et al. 2019, ICASSP), {'1024 numbers, 512 of each channel' if stereo else '512 numbers, mono'}, "
            f"at 48 kHz. FD-OpenL3 is that of stable-audio-metrics (Evans et al. 2024, arXiv:2402.04825; `channels={1 + stereo}`, "
            "`samplingrate=44100`, hop 0.5 s), of all windows of 1 s"
        )
        self.published = Published(
            f"https://github.com/torchopenl3/torchopenl3-models/raw/master/torchopenl3_mel256_{content}_512.pth.tar",
            "https://github.com/marl/openl3",
        )

    def network(self) -> type[Network]:
        from sao.evaluation.networks.openl3 import OpenL3

        return OpenL3

    def analyse(self, audio: np.ndarray, rate: int) -> Analysis:
        from sao.sound.spectra import to_mono

        audio = to_peak(audio)
        sides = (audio[:, :1], audio[:, min(1, audio.shape[1] - 1) :][:, :1]) if self.stereo else (audio,)
        parts = []
        for side in sides if audio.shape[1] > 1 else sides[:1]:
            limited = min(rate, BANDWIDTH)
            parts.append(self._windows(to_mono(to_mono(side, rate, limited)[:, None], limited, self.rate)))
        windows = np.concatenate(parts * (len(sides) // len(parts)), axis=1)
        return Analysis(windows.mean(axis=0), windows)

    def _windows(self, signal: np.ndarray) -> np.ndarray:
        import torch

        from sao.evaluation.networks.openl3 import windows

        with torch.inference_mode():
            return torch.cat([self.net(batch).cpu() for batch in self.batches(windows(signal, HOP))]).numpy()
