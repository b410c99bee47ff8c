from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ODD_NAMES, SCRIPTS
from hypothesis import given
from hypothesis import strategies as st
from sao.base.names import clip_id, read_digests, seed_for

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=80)
SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._]{0,59}-[0-9a-f]{6}")


@given(NAMES, NAMES)
def test_id_is_a_safe_file_name(split: str, name: str) -> None:
    assert SAFE.fullmatch(clip_id(split, name))


@given(NAMES, NAMES)
def test_id_is_a_function_of_split_and_name(split: str, name: str) -> None:
    assert clip_id(split, name) == clip_id(split, name)


@given(st.lists(st.tuples(st.sampled_from(["development", "validation"]), NAMES), unique=True, max_size=50))
def test_distinct_clips_have_distinct_ids(clips: list[tuple[str, str]]) -> None:
    assert len({clip_id(*clip).lower() for clip in clips}) == len(clips)


@given(NAMES, st.lists(NAMES, max_size=5))
def test_names_that_look_alike_once_made_safe_stay_apart(name: str, tails: list[str]) -> None:
    alike = {f"{name}{tail}.wav" for tail in [*tails, "?", "!", " ", "é", "雨", "X" * 80]}
    assert len({clip_id("development", one) for one in alike}) == len(alike)


@pytest.mark.parametrize("name", ODD_NAMES)
def test_id_of_an_odd_name_is_safe(name: str) -> None:
    assert SAFE.fullmatch(clip_id("development", name))


def test_id_and_seed_never_change() -> None:
    """Every process and version has to agree on them, because they identify latents, seeds and rendered files."""
    code = "import sao.base.names as c; print(c.clip_id('development', 'Choir, one chord.wav'), c.seed_for(7, 'x'))"
    done = subprocess.run([sys.executable, "-c", code], cwd=SCRIPTS, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["Choir_one_chord-937691", "3329047954"]


@given(st.lists(st.one_of(st.integers(), NAMES), max_size=4))
def test_seed_fits_every_generator(parts: list[object]) -> None:
    assert 0 <= seed_for(*parts) < 2**32 and seed_for(*parts) == seed_for(*parts)


@given(st.integers(), st.integers(), NAMES)
def test_seed_differs_from_clip_to_clip(seed: int, other: int, clip: str) -> None:
    assert seed_for(seed, clip) != seed_for(seed, f"{clip}x")
    assert seed == other or seed_for(seed, clip) != seed_for(other, clip)


def test_listing_gives_names_and_digests(tmp_path: Path) -> None:
    path = tmp_path / "sha256"
    path.write_text("".join(f"{'0' * 64}  {name}\n" for name in [*ODD_NAMES, "  two  spaces "]), encoding="utf-8")
    assert read_digests(path) == dict.fromkeys([*ODD_NAMES, "  two  spaces "], "0" * 64)
