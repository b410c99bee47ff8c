"""A long clip goes through a convolutional autoencoder in parts, which together equal the whole."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import BASE_MODEL, ROOT
from hypothesis import given
from hypothesis import strategies as st
from micro import stable_audio_open
from sao.base.files import read_json
from sao.models import autoencoder
from sao.models.config import downsampling_ratio

CONFIGS: dict[str, Callable[[], dict[str, Any]]] = {
    "demo": lambda: read_json(BASE_MODEL / "model_config.json"),
    "on patches": lambda: read_json(ROOT / "resources/demo/base_model/model_config.json"),
    "Stable Audio Open": stable_audio_open,
}


@pytest.mark.parametrize("name", CONFIGS)
def test_parts_equal_the_whole(monkeypatch: pytest.MonkeyPatch, name: str, tmp_path: Path) -> None:
    from sao.models.build import create_autoencoder

    config, frames = CONFIGS[name](), 140
    torch.manual_seed(0)
    model = create_autoencoder(config, "the model").eval().requires_grad_(False)
    for weight in model.parameters():  # a fresh model is nearly silent
        weight.data += 0.02 * torch.randn_like(weight)
    ratio, channels = downsampling_ratio(config), config["model"]["pretransform"]["config"]["io_channels"]
    audio = 0.3 * torch.randn(channels, frames * ratio)
    pretransform = SimpleNamespace(model=model, chunked=False)
    seen = []
    model.encoder.register_forward_hook(lambda _, given, output: seen.append(output.shape[-1]))
    whole = autoencoder.moments(model, audio)
    sound = autoencoder.decoded(pretransform, whole[0])
    assert seen == [frames] and sound.shape == audio.shape
    monkeypatch.setattr(autoencoder, "CHUNK", 40)
    parts = autoencoder.moments(model, audio)
    assert seen[1:] == [72, 104, 92, 52]
    for found, expected in zip(parts, whole, strict=True):
        assert found.shape == expected.shape and expected.std() > 1e-3
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(autoencoder.decoded(pretransform, whole[0]), sound, rtol=1e-4, atol=1e-5)
    # Without a margin they would differ.
    monkeypatch.setattr(autoencoder, "MARGIN", 0)
    assert not torch.allclose(autoencoder.moments(model, audio)[0], whole[0], rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("name", CONFIGS)
def test_an_encoder_with_channels_last_computes_the_same(name: str) -> None:
    from sao.models.build import create_autoencoder

    torch.manual_seed(0)
    encoder = create_autoencoder(CONFIGS[name](), "the model").encoder.eval().requires_grad_(False)
    signal = torch.randn(1, next(layer.in_channels for layer in convolutions(encoder)), 8192)
    expected = encoder(signal)
    autoencoder.channels_last(encoder)
    strides: list[int] = []
    for layer in convolutions(encoder):
        layer.register_forward_hook(lambda layer, given, output: strides.append(output.stride(1)))
    torch.testing.assert_close(encoder(signal), expected, rtol=1e-4, atol=1e-5)
    assert set(strides) == {1} and len(strides) > 5


def convolutions(module: torch.nn.Module) -> list[torch.nn.Conv1d]:
    return [layer for layer in module.modules() if isinstance(layer, torch.nn.Conv1d)]


@given(st.integers(1, 10_000))
def test_parts_cover_each_frame_once(frames: int) -> None:
    parts = autoencoder.in_parts(frames)
    kept = [(taken.start + keep.start, taken.start + keep.stop) for taken, keep in parts]
    assert kept[0][0] == 0 and kept[-1][1] == frames and all(one[1] == two[0] for one, two in pairwise(kept))
    longest = autoencoder.CHUNK + 2 * autoencoder.MARGIN
    assert all(0 < taken.stop - taken.start <= longest and taken.stop <= frames for taken, _ in parts)
    for taken, keep in parts:
        assert taken.start == 0 or keep.start == autoencoder.MARGIN
        assert taken.stop == frames or taken.stop - taken.start - keep.stop == autoencoder.MARGIN
