"""AudioSeal's own networks with random weights mark sounds of any rate and number of channels, and listen for the mark."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.skipif(find_spec("audioseal") is None, reason="needs `uv sync --group watermark`")

RATE = 44100


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The weights as rule `weights` writes them. The mark of random weights is loud."""
    import torch
    from sao.models import audioseal
    from sao.models.build import write_safetensors

    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    for part in audioseal.CARDS:
        state = {key: value.clone().contiguous() for key, value in audioseal.make(part).state_dict().items()}
        write_safetensors(state, folder / part)
    return {part: folder / part for part in audioseal.CARDS}


def marked(weights: dict[str, Path], audio: np.ndarray, message: int = 5, strength: float = 1) -> np.ndarray:
    from sao.rendering.watermark import Marker

    settings: dict[str, Any] = {"method": "audioseal", "message": message, "strength": strength}
    return Marker(weights["generator"], settings, "cpu").marked(audio, RATE)


def test_same_mark_is_added_to_each_channel(weights: dict[str, Path]) -> None:
    audio = 0.1 * np.random.default_rng(0).standard_normal((RATE, 2)).astype(np.float32)
    mark = marked(weights, audio) - audio
    assert mark.shape == audio.shape and audio.dtype == mark.dtype and np.abs(mark).max() > 1e-4
    assert np.allclose(mark[:, 0], mark[:, 1], atol=1e-6)
    spectrum = np.square(np.abs(np.fft.rfft(mark[:, 0])))
    assert (
        spectrum[np.fft.rfftfreq(RATE, 1 / RATE) > 8200].sum() < 0.02 * spectrum.sum()
    )  # the sound above stays as it is
    assert np.array_equal(marked(weights, audio), audio + mark) or np.allclose(
        marked(weights, audio), audio + mark, atol=1e-6
    )
    assert np.allclose(marked(weights, audio, strength=0.5) - audio, mark / 2, atol=1e-6)
    other = marked(weights, audio, message=6) - audio
    assert not np.allclose(other, mark, atol=1e-5)


@pytest.mark.parametrize("frames", [1, 777, 16001])
def test_sound_of_any_length_keeps_it(frames: int, weights: dict[str, Path]) -> None:
    audio = 0.1 * np.random.default_rng(0).standard_normal((frames, 1)).astype(np.float32)
    assert marked(weights, audio).shape == audio.shape


def test_detector_is_an_embedding(weights: dict[str, Path]) -> None:
    from sao.evaluation.embeddings import find

    embedding = find("audioseal")
    embedding.load(weights["detector"], 1)
    audio = 0.1 * np.random.default_rng(0).standard_normal((RATE, 2)).astype(np.float32)
    vector = embedding.analyse(audio, RATE).vector
    assert vector.shape == (17,) and vector.min() >= 0 and vector.max() <= 1
    assert embedding.provenance["license"] == "MIT" and embedding.detects


def test_weights_of_the_other_part_are_refused(weights: dict[str, Path]) -> None:
    from sao.base.command import InputError
    from sao.models.audioseal import load

    with pytest.raises(InputError, match="keys are missing"):
        load("detector", weights["generator"])
