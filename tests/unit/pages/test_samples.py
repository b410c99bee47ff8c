"""Tests of sao/pages/samples.py that need no browser."""

from __future__ import annotations

from sao.pages.samples import with_extremes_first


def test_a_split_opens_with_its_best_and_its_worst_clip() -> None:
    def entry(split: str, clip: str, distance: float | None) -> dict[str, object]:
        figures = {} if distance is None else {"Log-mel distance, two": distance, "Log-mel distance, one": 0.0}
        return {"split": split, "id": clip, "place": "", "figures": figures}

    entries = [entry("evaluation", *clip) for clip in (("a", 3.0), ("b", 9.0), ("c", 1.0), ("d", None), ("e", 5.0))]
    few = [entry("train", "f", 2.0), entry("train", "g", 1.0)]
    ordered = with_extremes_first([*entries, *few], "two")
    assert [made["id"] for made in ordered] == ["c", "b", "a", "d", "e", "f", "g"]
    assert ordered[0]["place"] == "best of 4 by Log-mel distance, two" and ordered[1]["place"].startswith("worst of 4")
    assert not any(made["place"] for made in ordered[2:])
