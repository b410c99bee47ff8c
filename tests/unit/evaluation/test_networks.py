"""Front ends of published networks against their formulas, the real networks with few random weights, and their embeddings."""

from __future__ import annotations

from pathlib import Path

import networks
import numpy as np
import pytest
import torch
from conftest import assert_fails, run_script
from sao.evaluation.embeddings import EMBEDDINGS, find
from sao.evaluation.embeddings.pretrained import Pretrained

SIGNAL = np.random.default_rng(0).standard_normal(48000) * np.linspace(0.01, 0.3, 48000)


def triangles(mel: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Triangles `[bins, bands]` that are straight over `mel`, of height one."""
    rising = (mel[:, None] - edges[:-2]) / np.diff(edges)[:-1]
    falling = (edges[2:] - mel[:, None]) / np.diff(edges)[1:]
    return np.maximum(np.minimum(rising, falling), 0)


def htk(hertz: np.ndarray | float) -> np.ndarray:
    return 1127 * np.log1p(np.asarray(hertz) / 700)


def power(signal: np.ndarray, window: np.ndarray, fft: int, hop: int) -> np.ndarray:
    """`[frames, bins]`. A shorter window lies in the middle of a frame."""
    margin = (fft - len(window)) // 2
    frames = np.lib.stride_tricks.sliding_window_view(signal, fft)[::hop]
    return np.square(np.abs(np.fft.rfft(frames * np.pad(window, margin))))


def hann(size: int, periodic: bool = True) -> np.ndarray:
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / (size - (not periodic)))


def test_patches_of_vggish() -> None:
    from sao.evaluation.networks.vggish import patches

    frames = np.lib.stride_tricks.sliding_window_view(SIGNAL, 400)[::160]
    spectrum = np.abs(np.fft.rfft(frames * hann(400), 512))
    bands = triangles(htk(np.fft.rfftfreq(512, 1 / 16000)), np.linspace(htk(125), htk(7500), 66))
    bands[0] = 0
    wanted = np.log(spectrum @ bands + 0.01)
    found = patches(SIGNAL)
    assert found.shape == (3, 96, 64) and np.allclose(found.reshape(-1, 64), wanted[:288], atol=1e-4)
    assert patches(SIGNAL[:100]).shape == (1, 96, 64)


def test_spectrogram_of_openl3() -> None:
    from sao.evaluation.networks import openl3

    network = networks.make("openl3")
    frequency = np.fft.rfftfreq(2048, 1 / 48000)
    edges = 700 * np.expm1(np.linspace(0, htk(24000), 258) / 1127)
    bands = triangles(frequency, edges) * 2 / (edges[2:] - edges[:-2])  # of the same area
    amplitude = np.sqrt(power(np.pad(SIGNAL, 982), hann(2048), 2048, 242) @ bands)
    decibels = 10 * np.log10(np.maximum(amplitude, 1e-10))
    wanted = np.maximum(decibels - decibels.max(), -80)
    found = network.spectrogram(torch.from_numpy(SIGNAL[None].astype(np.float32)))[0].numpy().T
    assert found.shape == (199, 256) and np.allclose(found, wanted, atol=0.02)
    cut = openl3.windows(SIGNAL, 0.5)  # half a second before the first sample, and zeros after the last
    assert cut.shape == (2, 48000) and not cut[0, :24000].any() and np.allclose(cut[1], SIGNAL, atol=1e-6)


def test_log_mel_of_panns() -> None:
    from sao.evaluation.networks.panns import log_mel
    from transformers.audio_utils import mel_filter_bank

    for rate, fft, hop, high in ((32000, 1024, 320, 14000), (16000, 512, 160, 8000)):
        edges = {"min_frequency": 50, "max_frequency": high, "sampling_rate": rate}
        bands = mel_filter_bank(fft // 2 + 1, 64, **edges, norm="slaney", mel_scale="slaney")
        cells = power(np.pad(SIGNAL, fft // 2, mode="reflect"), hann(fft), fft, hop) @ bands
        found = log_mel(torch.from_numpy(SIGNAL[None].astype(np.float32)), rate)[0].numpy()
        assert np.allclose(found, 10 * np.log10(np.maximum(cells, 1e-10)), atol=0.01)
    assert log_mel(torch.zeros(1, 10), 32000).shape == (1, 33, 64)


def test_log_mel_of_passt() -> None:
    from sao.evaluation.networks.passt import log_mel

    emphasised = np.pad(SIGNAL[1:] - 0.97 * SIGNAL[:-1], 512, mode="reflect")
    bands = triangles(htk(np.arange(513) * 32000 / 1024), np.linspace(0, htk(15000), 130))
    cells = power(emphasised, hann(800, periodic=False), 1024, 320) @ bands
    found = log_mel(torch.from_numpy(SIGNAL[None].astype(np.float32)))[0].numpy().T
    assert np.allclose(found, (np.log(cells + 1e-5) + 4.5) / 5, atol=1e-3)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The weights as rule `weights` writes them, by embedding."""
    from sao.models.build import write_safetensors

    folder = tmp_path_factory.mktemp("weights")
    for network in networks.NETWORKS:
        kept = {k: v for k, v in networks.tensors(network).items() if not k.endswith("num_batches_tracked")}
        write_safetensors({key: value.contiguous() for key, value in kept.items()}, folder / network)
    return {name: folder / network for network, names in networks.NETWORKS.items() for name in names}


def loaded(name: str, files: dict[str, Path]) -> Pretrained:
    embedding = find(name)
    assert isinstance(embedding, Pretrained)
    embedding.load(files[name], 1)
    return embedding


def stereo(seconds: float, rate: int = 44100) -> np.ndarray:
    return 0.1 * np.random.default_rng(1).standard_normal((round(seconds * rate), 2)).astype(np.float32)


DIMS = {"vggish": 6, "openl3-env": 5, "openl3-music-stereo": 10, "panns-cnn14": 7, "panns-cnn14-16k": 7, "passt": 64}


@pytest.mark.parametrize("name", DIMS)
def test_embedding_of_a_sound(name: str, files: dict[str, Path]) -> None:
    embedding = loaded(name, files)
    found = embedding.analyse(stereo(2.2), 44100)
    assert found.vector.shape == (DIMS[name],) and np.isfinite(found.vector).all()
    again = embedding.analyse(stereo(2.2), 44100)
    assert np.array_equal(found.vector, again.vector)
    windows = {"vggish": 2, "openl3-env": 5, "openl3-music-stereo": 5, "panns-cnn14": 1, "panns-cnn14-16k": 1}.get(name)
    assert (found.windows is None) == (windows is None) == (not embedding.keeps_windows)
    if found.windows is not None:
        assert found.windows.shape == (windows, DIMS[name])
        assert np.allclose(found.windows.mean(axis=0), found.vector, atol=1e-5)
    if found.classes is not None:
        assert found.classes.shape == (networks.CLASSES,) and found.classes.sum() == pytest.approx(1, abs=1e-5)
    short = embedding.analyse(np.zeros((10, 1), np.float32), 44100)  # a short silence has a vector too
    assert np.isfinite(short.vector).all()
    assert embedding.provenance["license"] and len(embedding.provenance["weights"]) == 64


def test_both_channels_count_for_a_stereo_embedding(files: dict[str, Path]) -> None:
    embedding, audio = loaded("openl3-env-stereo", files), stereo(1.5)
    left, right = np.split(embedding.analyse(audio, 44100).vector, 2)
    swapped = np.split(embedding.analyse(audio[:, ::-1], 44100).vector, 2)
    assert np.allclose(left, swapped[1], atol=1e-4) and not np.allclose(left, right, atol=1e-4)
    mono = np.split(embedding.analyse(audio[:, :1], 44100).vector, 2)
    assert np.array_equal(*mono)


def test_level_of_a_sound_does_not_count_for_metrics_of_stable_audio(files: dict[str, Path]) -> None:
    for name in ("passt", "openl3-env"):
        embedding, audio = loaded(name, files), stereo(1.2)
        one, other = (embedding.analyse(gain * audio, 44100) for gain in (1, 0.1))
        assert np.allclose(one.vector, other.vector, atol=1e-3)


def test_logits_of_windows_are_averaged(files: dict[str, Path]) -> None:
    """Windows of 10 s overlap by 5 s: 15 s are two of them."""
    from sao.evaluation.networks.passt import log_mel

    embedding = loaded("passt", files)
    signal = stereo(15, 32000)[:, 0]
    signal *= np.float32(10 ** (-1 / 20)) / np.abs(signal).max()
    with torch.inference_mode():
        parts = [embedding.net(log_mel(torch.from_numpy(signal[None, at : at + 320000])))[1][0] for at in (0, 160000)]
    wanted = torch.stack(parts).mean(dim=0).softmax(dim=0).numpy()
    assert np.allclose(embedding.analyse(signal[:, None], 32000).classes, wanted, atol=1e-5)


def test_weights_that_are_missing_are_asked_for(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("clip_id,split,file,reference,source,prompt\na,train,a.wav,,,x\n")
    (tmp_path / "a.wav").touch()
    given = ["--embedding", '"vggish"', "--table", tmp_path / "table.csv", "--renders", tmp_path]
    assert_fails(run_script("embed", *given, "--output", tmp_path / "a.npz"), "vggish: its weights are missing")


def test_each_declared_embedding_says_where_its_weights_are() -> None:
    declared = [embedding for embedding in EMBEDDINGS if embedding.published]
    assert {name for names in networks.NETWORKS.values() for name in names} | {"audioseal"} == {
        e.name for e in declared
    }
    for embedding in declared:
        assert embedding.published and embedding.published.url.startswith("https://") and embedding.license
        assert "20" in embedding.about and "arXiv" in embedding.about + str(embedding.__doc__)
