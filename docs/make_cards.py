"""Write docs/reference/cards.md: how much of a training fits into the memory of a GPU, by the estimate that trainings use.

uv run python docs/make_cards.py
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
from made import full_config
from sao.models.config import window_frames
from sao.training.memory import ADAPTER, USABLE, Settings, counted, estimate, fit, resolved, total
from sao.training.rehearsal import rehearse

PAGE = Path(__file__).parent / "reference/cards.md"
CARDS = (8, 12, 16, 24, 32, 48, 80, 141)  # GB
SECONDS, BATCH = 30, 16
MIXED = {"ema": False, "precision": "bf16-mixed"}
BF16 = ADAPTER | {"base_precision": "bf16"}  # the default with bf16-mixed
TRAININGS: dict[str, Settings] = {
    "full, with moving average": MIXED | {"method": "full", "ema": True},
    "full, `ema: false`": MIXED | {"method": "full"},
    "full, `bf16-true`": MIXED | {"method": "full", "precision": "bf16-true"},
    "`lora`, `base_precision: fp32`": MIXED | {"method": "lora", "adapter": ADAPTER},
    "`dora`": MIXED | {"method": "dora", "adapter": BF16},
    "`lora`": MIXED | {"method": "lora", "adapter": BF16},
}
INTRO = f"""\
# What a GPU's memory holds

Made by `uv run python docs/make_cards.py` from the estimate that every training makes of its memory: edit that, not this page. On
an H100 it was within 2 % of the measured peak of eager steps ([benchmarks](../../benchmarks/README.md)); compiled steps need less.

With `accumulate: auto` a step of `batch_size` clips is taken in as few parts as the memory allows, and with
`recompute_activations: null` activations are recomputed where that is quicker than smaller parts. The table has the clips at once
for Stable Audio Open 1.0's architecture, clips of {SECONDS} s and `batch_size: {BATCH}`, trained on latents. *r*: activations are
recomputed. –: does not fit. {100 * USABLE:.0f} % of the memory is used; other programs' share is not.

"""


def text() -> str:
    config = full_config()
    shapes = rehearse(config, "Stable Audio Open 1.0's architecture", {})
    counts, frames = counted(shapes), window_frames(config, SECONDS)
    rows = [
        f"| {BATCH} clips, {SECONDS} s | {' | '.join(f'{card} GB' for card in CARDS)} |",
        f"| --- |{' ---: |' * len(CARDS)}",
    ]
    common = {"batch_size": BATCH, "accumulate": "auto", "recompute_activations": None, "adapter": None}
    for name, training in TRAININGS.items():
        cells = []
        for card in CARDS:
            settings = common | training
            way = resolved(config, counts, settings, frames, True, card * 10**9)
            needed = total(estimate(config, counts, settings | way, frames, True))
            again = " r" if way["recompute_activations"] else ""
            cells.append(f"{way['batch_size']}{again}" if fit(needed, card * 10**9) else "–")
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return INTRO + "\n".join(rows) + "\n"


if __name__ == "__main__":
    PAGE.write_text(text(), encoding="utf-8")
