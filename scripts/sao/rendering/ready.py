"""Load a model and make it ready to render, as rule `render` has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sao.base.command import InputError, output_to_log

from sao.base.files import read_json
from sao.base.names import read_digests
from sao.base.vouched import Checking, Vouched
from sao.models.build import load_model
from sao.models.config import ModelConfig

if TYPE_CHECKING:
    from sao.rendering.watermark import Marker


def weights_hash(weights: Path, digest: Path) -> str:
    """SHA-256 of the weights, from an export.json or a checksum listing."""
    return read_json(digest)["sha256"] if digest.suffix == ".json" else read_digests(digest)[weights.name]


def ready_model(
    config: ModelConfig,
    hub: Path,
    weights: Path,
    vouched: Sequence[Vouched],
    precision: str,
    threads: int,
    label: str,
) -> tuple[Any, str]:
    """The model of `config` with `weights` and the text encoder from the Hub cache `hub`, and the precision it computes in.

    The `vouched` files are compared with their digests meanwhile; `label` names them in the log. Raises InputError if one
    changed, or if keys or shapes of the weights do not match.
    """
    checking = Checking(vouched)
    model = load_model(config, hub, weights)
    checking.finish(label)
    with output_to_log():
        import torch

        from sao.models.device import this_device
        from sao.rendering.precision import chosen, lower

    torch.set_num_threads(threads)
    precision = chosen(precision, this_device())
    lower(model, precision)
    return model.to(this_device().kind).eval().requires_grad_(False), precision


def mark_file(weights: Path | None, listing: Path | None) -> Vouched:
    """The weights that mark sounds, with their digest in a listing. Raises InputError if they are missing."""
    if weights is None or listing is None:
        raise InputError(
            "--watermark: renders are to be marked, but its weights are missing: run the target `downloads`"
        )
    return Vouched(weights, read_digests(listing)[weights.name], listing, "delete it and run again")


def ready_marker(weights: Path, settings: Mapping[str, Any]) -> Marker:
    """What marks sounds, by the settings of `render.watermark`."""
    with output_to_log():
        from sao.models.device import this_device
        from sao.rendering.watermark import Marker

    return Marker(weights, settings, this_device().kind)
