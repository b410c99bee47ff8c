"""AudioSeal (San Roman et al. 2024, ICML; arXiv:2401.17264): a network that marks sounds, and one that finds the mark.

Networks and their settings are those of the package `audioseal`, its 16-bit models: `generator_base.pth` and
`detector_base.pth` of facebook/audioseal on the Hub, under the MIT licence. They take mono signals at 16 kHz.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sao.base.command import InputError

import torch

from sao.models.build import assert_same_keys, read_safetensors

RATE = 16000  # Hz
BITS = 16  # of a message
CARDS = {"generator": "audioseal_wm_16bits", "detector": "audioseal_detector_16bits"}


def make(part: str) -> torch.nn.Module:
    """The `generator` or the `detector`, with random weights. Raises InputError if the package is not installed."""
    try:
        import audioseal.builder
        import audioseal.loader
        from omegaconf import OmegaConf
    except ImportError as error:
        raise InputError(
            f"AudioSeal needs {error.name}, which is not installed: run `uv sync --group watermark`"
        ) from None
    builder: Any = audioseal.builder
    loader: Any = audioseal.loader
    card: Any = OmegaConf.to_container(loader.load_local_model_config(CARDS[part]))
    del card["checkpoint"]  # the package would fetch it, unchecked
    kind = builder.AudioSealWMConfig if part == "generator" else builder.AudioSealDetectorConfig
    config = loader.AudioSeal.parse_config(card, config_type=kind)
    model = builder.create_generator(config) if part == "generator" else builder.create_detector(config)
    network: torch.nn.Module = model.eval().requires_grad_(False)
    return network


def converted(part: str, tensors: Mapping[str, torch.Tensor], path: Path) -> dict[str, torch.Tensor]:
    """The weights of a published file with the keys of the network, whose weight normalisation is folded in.

    Raises InputError unless the file holds each of the network's weights, in the right shape.
    """
    model = make(part)
    from audioseal import loader

    expected = {key: value.shape for key, value in model.state_dict().items()}
    renamed = loader.convert_state_dict_for_scriptable_model(dict(tensors))
    assert_same_keys({key: shape for key, shape in _folded(renamed).items()}, expected, path)
    loader.load_state_dict(model, renamed)
    return {key: value.clone().contiguous() for key, value in model.state_dict().items()}


def _folded(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Size]:
    """The shapes that weights have once their normalisation, a length and a direction, is folded into one tensor."""
    lengths = (".weight_g", ".parametrizations.weight.original0")
    directions = (".weight_v", ".parametrizations.weight.original1")
    shapes = {}
    for key, value in tensors.items():
        end = next((end for end in (*lengths, *directions) if key.endswith(end)), None)
        if end not in lengths:
            shapes[f"{key.removesuffix(end)}.weight" if end else key] = value.shape
    return shapes


def load(part: str, path: Path) -> torch.nn.Module:
    """The network of a file that rule `weights` wrote."""
    model, tensors = make(part), read_safetensors(path)
    assert_same_keys(
        {k: v.shape for k, v in tensors.items()}, {k: v.shape for k, v in model.state_dict().items()}, path
    )
    model.load_state_dict(tensors)
    return model


def mark(generator: Any, signal: torch.Tensor, message: int) -> torch.Tensor:
    """What has to be added to a mono signal `[samples]` at 16 kHz to mark it, `[samples]`, with a message of 16 bits."""
    from audioseal.libs.moshi.utils.compile import no_compile

    bits = torch.tensor([[message >> bit & 1 for bit in range(BITS)]], device=signal.device)
    with torch.inference_mode(), no_compile():  # compiling takes minutes, and needs a C++ compiler
        return generator.get_watermark(signal[None, None], message=bits)[0, 0]


def found(detector: Any, signal: torch.Tensor) -> tuple[float, list[float]]:
    """`(share, bits)` of a mono signal `[samples]` at 16 kHz.

    `share` is the share of its samples that are more likely marked than not, which AudioSeal calls the probability of a mark;
    `bits` are the probabilities that each bit of the message is 1, which mean something only if there is a mark.
    """
    from audioseal.libs.moshi.utils.compile import no_compile

    with torch.inference_mode(), no_compile():
        result, message = detector(signal[None, None])
    return float((result[0, 1] > 0.5).float().mean()), message[0].float().cpu().tolist()
