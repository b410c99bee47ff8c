"""Rendering: the prompt of the clip, a seed of its own, and no silent, broken or clipped sound without a word."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest
import soundfile
import torch
from conftest import assert_fails, dropped_table, run_script
from hypothesis import given
from hypothesis import strategies as st
from render import choose, finish
from safetensors.torch import load_file, save_file
from sao.command import InputError

SAMPLING = {"sampler": "dpmpp-3m-sde", "steps": 2, "cfg_scale": 1, "sigma_min": 0.3, "sigma_max": 50}


def render(
    finished: Path,
    output: Path,
    weights: Path | None = None,
    clips: dict | None = None,
    caption: int = 1,
    dropped: Sequence[str] = (),
):
    folder = finished / "results/models/demo"
    return run_script(
        "render", "--weights", weights or folder / "model.safetensors", "--model", folder,
        "--splits", finished / "results/data/demo/splits",
        "--dropped", dropped_table(output.with_suffix(".dropped.csv"), [{"clip_id": clip} for clip in dropped]),
        "--render", json.dumps({"clips": clips or {"evaluation": 2}, "caption": caption, "seed": 0}),
        "--sampling", json.dumps(SAMPLING), "--output", output, "--table", output.with_suffix(".csv"),
    )  # fmt: skip


def test_a_clip_does_not_depend_on_its_neighbours(finished: Path, tmp_path: Path) -> None:
    assert render(finished, tmp_path / "two").returncode == 0
    assert render(finished, tmp_path / "all", clips={"evaluation": "all"}).returncode == 0
    two = sorted((tmp_path / "two").glob("*.wav"))
    assert len(two) == 2 and len(list((tmp_path / "all").glob("*.wav"))) == 4
    for path in two:
        assert path.read_bytes() == (tmp_path / "all" / path.name).read_bytes()
    assert len({path.read_bytes() for path in (tmp_path / "all").glob("*.wav")}) == 4


def test_table_tells_prompt_seed_and_length(finished: Path, tmp_path: Path) -> None:
    assert render(finished, tmp_path / "out").returncode == 0
    table = pd.read_csv(tmp_path / "out.csv", keep_default_na=False)
    manifest = pd.read_csv(finished / "results/data/demo/splits/evaluation.csv").set_index("clip_id")
    for row in table.itertuples():
        assert row.prompt == manifest.loc[row.clip_id, "caption_1"]
        info = soundfile.info(tmp_path / "out" / f"{row.clip_id}.wav")
        assert info.samplerate == 16000 and info.channels == 2
        assert info.duration == pytest.approx(manifest.loc[row.clip_id, "seconds"], abs=1e-3)
        assert row.seconds == pytest.approx(info.duration, abs=1e-5)


def test_clip_that_the_model_cannot_take_is_not_rendered(finished: Path, tmp_path: Path) -> None:
    clips = pd.read_csv(finished / "results/data/demo/splits/evaluation.csv").clip_id.tolist()
    assert render(finished, tmp_path / "out", clips={"evaluation": "all"}, dropped=clips[:3]).returncode == 0
    assert [path.stem for path in (tmp_path / "out").glob("*.wav")] == clips[3:]


def test_caption_that_a_clip_does_not_have_is_named(finished: Path, tmp_path: Path) -> None:
    assert_fails(render(finished, tmp_path / "out", caption=6), "render.caption is 6", "has 5 captions")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("value", "message"), [(0.0, "every rendered clip is silent"), (math.nan, "NaN or infinite")])
def test_broken_decoder_fails(finished: Path, tmp_path: Path, value: float, message: str) -> None:
    weights = load_file(finished / "results/models/demo/model.safetensors")
    key = [k for k in weights if k.startswith("pretransform.model.decoder") and k.endswith("weight_g")][-1]
    weights[key] = torch.full_like(weights[key], value)
    save_file(weights, tmp_path / "broken.safetensors")
    done = render(finished, tmp_path / "out", tmp_path / "broken.safetensors")
    assert done.returncode == 1 and message in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.csv").exists()


def test_weights_that_do_not_fit_fail(finished: Path, tmp_path: Path) -> None:
    weights = load_file(finished / "results/models/demo/model.safetensors")
    save_file({f"diffusion.{key}": value for key, value in weights.items()}, tmp_path / "wrapped.safetensors")
    done = render(finished, tmp_path / "out", tmp_path / "wrapped.safetensors")
    assert done.returncode == 1 and f"{len(weights)} keys are missing" in done.stderr
    assert not (tmp_path / "out").exists()


def test_finish_tells_silence_and_clipping() -> None:
    tone = torch.sin(torch.arange(1000) / 10)[None]
    audio, peak, gain, odd = finish(0.5 * tone, "a")
    assert odd == "" and gain == 0 and peak == pytest.approx(-6.02, abs=0.01) and torch.equal(audio, 0.5 * tone)
    audio, peak, gain, odd = finish(2 * tone, "a")
    assert "full scale" in odd and float(audio.abs().max()) == 1 and gain == pytest.approx(-6.02, abs=0.01)
    assert finish(1e-5 * tone, "a")[3] == "silent"
    for bad in (math.nan, math.inf):
        with pytest.raises(InputError, match="clip a: rendered NaN or infinite"):
            finish(torch.full((1, 10), bad), "a")


@given(st.sets(st.text("abc", min_size=1), min_size=1, max_size=30), st.integers(1, 10), st.integers(0, 3))
def test_choice_of_clips_is_stable_when_clips_are_added(clips: set[str], count: int, seed: int) -> None:
    few = set(choose(pd.DataFrame({"clip_id": sorted(clips)}), count, seed).clip_id)
    more = set(choose(pd.DataFrame({"clip_id": [*sorted(clips), "new"]}), count, seed).clip_id)
    assert len(few) == min(count, len(clips))
    assert more - {"new"} <= few
    assert set(choose(pd.DataFrame({"clip_id": sorted(clips)}), "all", seed).clip_id) == clips
