"""Import stable-audio-tools without what its models do not need. Whoever imports a part of it imports this first.

- `pytorch_lightning`: two callbacks of upstream's own trainer are its only use, and a second and a half of every start.
- The compiler (`torch._dynamo`, `torch._inductor`): upstream imports it to compile flex attention, before it knows whether a
  model has any. Attention in a sliding window is computed in chunks instead, which is the same.
- `flash_attn`: it would compute attention in float16 in a training in float32, on machines that have it.

Without flash_attn, upstream masks padding by setting its values to zero, while its keys still take their share of the
attention: what a clip becomes would depend on how much silence follows it. Here padding is left out of the attention.
"""

from __future__ import annotations

import contextlib
import io
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import sao.base.command  # noqa: F401 - sets what torch reads

import torch  # before a part of it is hidden

HIDDEN = ("flash_attn", "torch.nn.attention.flex_attention")


def stand_in() -> types.ModuleType:
    """What stable_audio_tools/models/lora/callbacks.py takes from pytorch_lightning: two base classes."""
    module = types.ModuleType("pytorch_lightning")
    base = type("Callback", (), {})
    module.__dict__.update(Callback=base, callbacks=types.SimpleNamespace(Callback=base, ModelCheckpoint=base))
    return module


@contextlib.contextmanager
def hidden() -> Iterator[None]:
    """Let modules be missing, and put back what was there."""
    instead: dict[str, types.ModuleType | None] = {"pytorch_lightning": stand_in(), **dict.fromkeys(HIDDEN)}
    if "torch._dynamo" not in sys.modules:
        instead["torch._dynamo"] = None
    before = {name: sys.modules[name] for name in instead if name in sys.modules}
    sys.modules.update(instead)  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in instead:
            del sys.modules[name]
        sys.modules.update(before)


def without_padding(apply: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """`Attention.apply_attn` (stable_audio_tools/models/transformer.py), but with padding left out as flash_attn does."""

    def apply_attn(
        self: Any,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        padding_mask: torch.Tensor | None = None,
        **more: Any,
    ) -> torch.Tensor:
        if padding_mask is None or more.get("flash_attn_sliding_window") is not None or more.get("causal"):
            return apply(self, q, k, v, padding_mask=padding_mask, **more)
        if self.num_heads != self.kv_heads:
            k, v = (each.repeat_interleave(self.num_heads // self.kv_heads, dim=1) for each in (k, v))
        return torch.nn.functional.scaled_dot_product_attention(
            q, k, v, attn_mask=padding_mask[:, None, None, :].bool()
        )

    apply_attn.leaves_padding_out = True  # type: ignore[attr-defined]
    return apply_attn


if "stable_audio_tools" not in sys.modules:
    with hidden(), contextlib.redirect_stdout(io.StringIO()):  # it prints what it misses
        import stable_audio_tools.models.diffusion
        import stable_audio_tools.models.factory  # noqa: F401
from stable_audio_tools.models.transformer import Attention  # noqa: E402

if not hasattr(Attention.apply_attn, "leaves_padding_out"):
    Attention.apply_attn = without_padding(Attention.apply_attn)
