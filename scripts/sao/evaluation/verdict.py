"""Whether a model is better than its base, in one sentence from its figures.

A figure is an entry of `measures` in the JSON of rule `evaluate`. The sentence is written there as `verdict`, and the page, the
model card and summary.json show it:

    closer to the recordings than the base: KAD (aiSFX) −11 [−20, −2], n = 40
    no clear difference to the base: KAD (aiSFX) −3 [−9, 4], n = 8
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sao.evaluation.measures import MEASURES
from sao.evaluation.printed import difference

COMPARED_BY = "evaluation"  # the split that models are compared by
WORDS = {measure.key: measure.words for measure in MEASURES if measure.words}


def clearly(figure: dict[str, Any]) -> str:
    """`better` or `worse` than the base, or an empty text if the interval of the difference holds zero or is not known."""
    low, high = figure["difference_low"], figure["difference_high"]
    if not figure["better"] or low is None or high is None or low <= 0 <= high:
        return ""
    return "better" if (low > 0) == (figure["better"] == "higher") else "worse"


def leading(figures: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The figure that a model is judged by: of the held-out clips the first in the order of `MEASURES` with an interval.

    Which one it is does not depend on its value. None if there is none.
    """
    candidates = [f for f in figures if f["split"] == COMPARED_BY and f["difference_low"] is not None]
    return next((f for key in WORDS for f in candidates if f["measure"] == key), None)


def verdict(figures: Sequence[dict[str, Any]]) -> str:
    """The sentence about a fine-tuned model or a leg, from its figures. It begins in lower case and has no full stop."""
    figure = leading(figures)
    if figure is None:
        held_out = [f["n"] for f in figures if f["split"] == COMPARED_BY]
        if not held_out:
            return f"not compared with the base: no clip of the split `{COMPARED_BY}` was measured"
        return f"not compared with the base: the split `{COMPARED_BY}` has too few clips for it, n = {max(held_out)}"
    better, worse = WORDS[figure["measure"]] or ("", "")
    claim = {"better": f"{better} the base", "worse": f"{worse} the base"}.get(
        clearly(figure), "no clear difference to the base"
    )
    unit = f" {figure['unit']}" if figure["unit"] else ""
    return f"{claim}: {figure['name']} {difference(figure)}{unit}, n = {figure['difference_n']}"
