"""Import stable-audio-tools without what its models do not need. Whoever imports a part of it imports this first.

- `pytorch_lightning`: two callbacks of upstream's own trainer are its only use, and a second and a half of every start.
- The compiler (`torch._dynamo`, `torch._inductor`): upstream imports it to compile flex attention, before it knows whether a
  model has any. Attention in a sliding window is computed in chunks instead, which is the same.
- `flash_attn`: it would compute attention in float16 in a training in float32, on machines that have it.
"""

from __future__ import annotations

import contextlib
import io
import sys
import types
from collections.abc import Iterator

import sao.base.command  # noqa: F401 - sets what torch reads

import torch  # noqa: F401 - before a part of it is hidden

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


if "stable_audio_tools" not in sys.modules:
    with hidden(), contextlib.redirect_stdout(io.StringIO()):  # it prints what it misses
        import stable_audio_tools.models.diffusion
        import stable_audio_tools.models.factory  # noqa: F401
