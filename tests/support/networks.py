"""Published networks with few random weights, in the files that their authors publish."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
from conftest import checksum

# Names of embeddings, by the network that they compute with.
NETWORKS = {
    "vggish": ("vggish",),
    "openl3": ("openl3-env", "openl3-env-stereo", "openl3-music", "openl3-music-stereo"),
    "panns": ("panns-cnn14", "panns-cnn14-16k"),
    "passt": ("passt",),
}
CLASSES = 11


def make(network: str) -> torch.nn.Module:
    from sao.evaluation.networks import openl3, panns, passt, vggish

    torch.manual_seed(0)
    model: torch.nn.Module = {
        "vggish": lambda: vggish.Vggish((4, 4, 8, 8, 8, 8), (16, 16, 6)),
        "openl3": lambda: openl3.OpenL3((2, 2, 4, 4, 4, 4, 4, 5)),
        "panns": lambda: panns.Cnn14((2, 2, 4, 4, 4, 8), 7, CLASSES),
        "passt": lambda: passt.Passt(64, 2, 32, CLASSES, (12, 99), 16),
    }[network]()
    for key, value in model.state_dict().items():
        if key.endswith("running_var"):
            value.copy_(torch.rand_like(value) / 2 + 0.5)
        elif value.is_floating_point() and not value.any():  # a network of zeros would hide errors
            value.copy_(torch.randn_like(value) / 4)
    return model.eval()


@cache
def tensors(network: str) -> dict[str, torch.Tensor]:
    return {key: value for key, value in make(network).state_dict().items()}


def published(network: str) -> Any:
    """What the authors' file holds: the weights, and what they did not leave out."""
    state = dict(tensors(network))
    if network == "openl3":
        return state | {"speclayer.mel_basis": torch.zeros(3)}
    if network == "panns":
        return {"iteration": 7, "model": state | {"logmel_extractor.melW": torch.zeros(3)}}
    if network == "passt":
        return state | {"head_dist.weight": torch.zeros(CLASSES, 64), "head_dist.bias": torch.zeros(CLASSES)}
    return state


def write(path: Path, network: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(published(network), path, _use_new_zipfile_serialization=network != "vggish")  # which is an old file
    return path


def declared(path: Path) -> dict[str, str]:
    """The entry of a config that declares a file."""
    return {"path": str(path), "sha256": checksum(path, "sha256")}
