"""The files of a leg that has ended: weights, their digests, metrics, and what the leg says of itself.

The training state is none of them: it is written before, with the first line of the listing of digests.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from sao.base.files import sha256, whole, whole_folder, write_json, writing
from sao.base.names import write_known_digests
from sao.base.vouched import LISTING
from sao.models.build import write_safetensors
from sao.training.adapters import adapter_state, write_adapter
from sao.training.metrics import Metrics
from sao.training.state import tensor_bytes


def write_leg(
    folder: Path, digests: dict[str, str], metrics: Metrics, summary: dict[str, Any], speed: dict[str, Any]
) -> None:
    """Write all files of a leg but its state and its weights, which have to be there already; `digests` are the weights'."""
    state_line = (folder / LISTING).read_text(encoding="utf-8")
    write_known_digests(folder / LISTING, digests, state_line)
    with whole(folder / "metrics.csv") as temporary:
        temporary.write_text(metrics.csv(), encoding="utf-8")
    # In a file of its own, as it differs each time. The plan reads it, for the time that further legs ask a scheduler for.
    write_json(folder / "speed.json", speed)
    write_json(folder / "training.json", summary)


def write_weights(
    folder: Path, model: Any, trained: Mapping[str, torch.Tensor], settings: Mapping[str, Any]
) -> dict[str, str]:
    """Write the diffusion model and conditioner with their `trained` weights, or the adapter.

    Returns the SHA-256 of each file, by its path from the leg's folder.
    """
    with whole_folder(folder) as partial:
        if settings["method"] == "full":
            weights = {key: value for key, value in model.state_dict().items() if not key.startswith("pretransform.")}
            weights = {key: trained.get(key, value).contiguous() for key, value in weights.items()}
            with writing(folder, tensor_bytes(weights)):
                write_safetensors(weights, partial / "model.safetensors")
        else:
            write_adapter(partial, adapter_state(model, settings["method"]), settings["method"], settings["adapter"])
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder.parent).as_posix(): sha256(path) for path in files}
