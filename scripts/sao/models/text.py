"""The text encoder of a model apart from the rest: what it makes of a caption, and the model without it.

The encoder is frozen. So each caption is encoded once, and a training neither loads the encoder nor runs it.
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator
from typing import Any
from unittest import mock

from sao.base.command import InputError

import torch

from sao.models.config import TEXT_ENCODERS

Encoded = tuple[torch.Tensor, torch.Tensor]  # states and mask


@torch.inference_mode()
def encode_caption(conditioner: Any, caption: str, device: torch.device | str) -> Encoded:
    """What a text conditioner's encoder makes of a caption: `states [tokens, width]` and `mask [tokens]`, true at tokens.

    The conditioner's own layer and its treatment of padding come later, in `projected`. A caption is encoded alone, so that
    what comes of it does not depend on others, and as `render` encodes a prompt.
    """
    layer, padding = conditioner.proj_out, conditioner.padding_mode
    conditioner.proj_out, conditioner.padding_mode = torch.nn.Identity(), "none"
    try:
        states, mask = conditioner([caption], device)
    finally:
        conditioner.proj_out, conditioner.padding_mode = layer, padding
    return states[0], mask[0].bool()


def keeps_padding(conditioner: Any) -> bool:
    """Whether what the encoder makes of padding reaches the model. `zero` and `learned` put something else there."""
    return str(getattr(conditioner.padding_mode, "value", conditioner.padding_mode)) == "none"


def projected(conditioner: Any, states: torch.Tensor, mask: torch.Tensor) -> Encoded:
    """The rest of a text conditioner, from `states [batch, tokens, width]` on.

    Based on T5Conditioner, T5GemmaConditioner and CLAPTextConditioner (stable_audio_tools/models/conditioners.py).
    """
    if not isinstance(conditioner.proj_out, torch.nn.Identity):
        states = states.to(next(conditioner.proj_out.parameters()).dtype)
    return conditioner.apply_padding(conditioner.proj_out(states), mask), mask


@contextlib.contextmanager
def without_text_encoder(clap_has_to_be_there: bool = False) -> Iterator[None]:
    """Let stable-audio-tools build text conditioners without the encoders that they load by name.

    Based on T5Conditioner, T5GemmaConditioner and CLAPTextConditioner (stable_audio_tools/models/conditioners.py).
    """
    import sao.models.upstream  # noqa: F401

    from stable_audio_tools.models import conditioners

    def frozen(kind: str, key: str, default: str, names: list[str], widths: dict[str, int]) -> type:
        class Frozen(conditioners.Conditioner):
            def __init__(
                self, output_dim: int, project_out: bool = False, padding_mode: str = "zero", **rest: Any
            ) -> None:
                name = rest.get(key, default)
                if name not in names:
                    raise InputError(
                        f"the {kind} conditioner's {key} is {name!r}; stable-audio-tools knows {', '.join(names)}"
                    )
                super().__init__(widths[name], output_dim, project_out=project_out, padding_mode=padding_mode)

        return Frozen

    t5, gemma = conditioners.T5Conditioner, conditioners.T5GemmaConditioner
    names = [name for name in t5.T5_MODELS if name in t5.T5_MODEL_DIMS]
    replaced = {
        "T5Conditioner": frozen("t5", *TEXT_ENCODERS["t5"], names, t5.T5_MODEL_DIMS),
        "T5GemmaConditioner": frozen(
            "t5gemma", *TEXT_ENCODERS["t5gemma"], gemma.T5GEMMA_MODELS, gemma.T5GEMMA_MODEL_DIMS
        ),
    }

    class Clap(conditioners.Conditioner):
        def __init__(
            self,
            output_dim: int,
            use_text_features: bool = False,
            project_out: bool = False,
            padding_mode: str = "none",
            **_: Any,
        ) -> None:
            if clap_has_to_be_there and importlib.util.find_spec("laion_clap") is None:
                raise InputError(
                    "the model's text conditioner is CLAP, but laion_clap is not installed: run `uv sync --group clap`"
                )
            super().__init__(768 if use_text_features else 512, output_dim, project_out, padding_mode)

    stubs: dict[str, Any] = {"CLAPTextConditioner": Clap, **replaced}
    with mock.patch.multiple(conditioners, **stubs):
        yield
