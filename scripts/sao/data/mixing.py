"""Several corpora in one training: how often an epoch takes the clips of each.

An epoch of a corpus with weight w takes w times as many items as the corpus has, rounded, and one at least. Each corpus is an
endless stream, in which every item comes once before any comes again. An epoch takes the next items of each stream, in a random
order. So after each epoch, two items of a corpus were taken equally often, or one of them once more.
"""

from __future__ import annotations


def per_epoch(items: int, weight: float) -> int:
    """How many items of a corpus an epoch takes."""
    return max(1, round(items * weight))
