"""Each render has its clip's prompt and its own seed. A silent, broken or clipped sound gives a warning or an error."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyloudnorm
import pytest
import soundfile
import torch
from conftest import assert_fails, assert_succeeds, change, checksum, listing, run_script
from forks import Forks, Started
from prompt_tables import RENDER, SAMPLING, run_prompts
from safetensors.torch import load_file, save_file
from sao.base.command import InputError
from sao.rendering.finish import finish

RATE = 16000  # Hz
PROMPTS = """id,prompt,seconds,seed,cfg_scale,negative_prompt
gull,A gull over water – 雨 "twice",0.5,7,,
,A door.,1,,4,
wind,Wind.,0.7,,4,A loud engine.
"""


def render(
    model: Path,
    splits: Path,
    output: Path,
    *more: object,
    prompts: Path | None = None,
    weights: Path | None = None,
    dropped: Sequence[str] = (),
    **settings: object,
) -> subprocess.CompletedProcess[str]:
    """Run the scripts of rules prompts and render."""
    own = ["--prompts", prompts] if prompts else []
    clips = output.with_suffix(".clips.csv")
    assert_succeeds(run_prompts(model, splits, clips, *own, dropped=dropped, **settings))
    return run_script("render", *command(model, output, clips, weights, **settings), *more)


def command(
    model: Path,
    output: Path,
    table: Path,
    weights: Path | None = None,
    steps: int = SAMPLING["steps"],
    **settings: object,
) -> list[object]:
    return [
        "--run", "mine", "--code", "x", "--weights", weights or model / "model.safetensors", "--model", model,
        "--weights-digest", digest_of(weights, output) if weights else model / "checksums.sha256",
        "--model-digest", model / "checksums.sha256", "--clips", table,
        "--render", json.dumps(RENDER | settings), "--sampling", json.dumps(SAMPLING | {"steps": steps}),
        "--output", output, "--table", output.with_suffix(".csv"),
    ]  # fmt: skip


@pytest.mark.slow
def test_killed_render_keeps_its_finished_clips(base_model: Path, splits: Path, tmp_path: Path, forks: Forks) -> None:
    clips = tmp_path / "clips.csv"
    assert_succeeds(run_prompts(base_model, splits, clips, clips={"train": 4}))

    def start(name: str) -> Started:  # with enough steps that a clip takes longer than to see that another one is done
        return forks.start(
            "render", *command(base_model, tmp_path / name, clips, steps=16), "--batch-size", 1, cwd=tmp_path
        )

    whole, cut = start("whole"), start("cut")
    until = time.monotonic() + 60
    while not (kept := sorted(tmp_path.glob(".cut.*/*.json"))) and time.monotonic() < until:
        time.sleep(0.005)
    os.killpg(cut.pid, signal.SIGKILL)
    assert cut.finish().returncode == -signal.SIGKILL and not (tmp_path / "cut").exists()
    times = {path.stem: (path.parent / f"{path.stem}.wav").stat().st_mtime_ns for path in kept}
    again = start("cut").finish()
    assert_succeeds(again)
    assert re.search(r"\b[1-3] of 4 clips are rendered already", again.stderr)
    assert_succeeds(whole.finish())
    assert listing(tmp_path / "cut") == listing(tmp_path / "whole") and len(listing(tmp_path / "cut")) == 4
    for name in listing(tmp_path / "whole"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert all((tmp_path / f"cut/{clip}.wav").stat().st_mtime_ns == written for clip, written in times.items())
    assert tmp_path.joinpath("cut.csv").read_bytes() == tmp_path.joinpath("whole.csv").read_bytes()
    assert not list(tmp_path.glob(".cut.*"))


def test_finished_clips_of_other_settings_are_not_taken(
    base_model: Path, splits: Path, tmp_path: Path, forks: Forks
) -> None:
    clips = tmp_path / "clips.csv"
    assert_succeeds(run_prompts(base_model, splits, clips, clips={"train": 2}))
    left = tmp_path / ".out.0123456789abcdef"
    left.mkdir()
    (left / "x.json").write_text("{}")
    done = forks.start("render", *command(base_model, tmp_path / "out", clips), cwd=tmp_path).finish()
    assert_succeeds(done)
    assert "rendered already" not in done.stderr and not left.exists() and len(listing(tmp_path / "out")) == 2


def digest_of(weights: Path, output: Path) -> Path:
    """Write the digest of weights, as export.py does. For missing weights it is all zeros."""
    path = output.with_suffix(".export.json")
    path.write_text(json.dumps({"sha256": checksum(weights, "sha256") if weights.is_file() else "0" * 64}))
    return path


def table_of(output: Path) -> pd.DataFrame:
    return pd.read_csv(output.with_suffix(".csv"), keep_default_na=False).set_index("clip_id")


@pytest.fixture(scope="module")
def rendered(base_model: Path, splits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Renders of twelve clips of the corpus and three prompts, in batches of three. Tests must not change them."""
    folder = tmp_path_factory.mktemp("rendered")
    (folder / "prompts.csv").write_text(PROMPTS, encoding="utf-8")
    clips = {"evaluation": "all", "train": "all"}
    options = ["--batch-size", "3", "--weights-digest", base_model / "checksums.sha256"]
    assert_succeeds(render(base_model, splits, folder / "out", *options, prompts=folder / "prompts.csv", clips=clips))
    return folder / "out"


def test_same_command_gives_the_same_bytes_and_shards_the_same_sound(
    rendered: Path, base_model: Path, splits: Path, tmp_path: Path
) -> None:
    options = ["--weights-digest", base_model / "checksums.sha256"]
    wanted = {"prompts": rendered.with_name("prompts.csv"), "clips": {"evaluation": "all", "train": "all"}}
    assert_succeeds(render(base_model, splits, tmp_path / "again", *options, "--batch-size", 3, **wanted))
    assert listing(tmp_path / "again") == listing(rendered)
    for name in listing(rendered):
        assert (rendered / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    assert tmp_path.joinpath("again.csv").read_bytes() == rendered.with_suffix(".csv").read_bytes()
    parts = []
    for shard, size in (("0001-of-0002", 1), ("0002-of-0002", 8)):
        done = render(base_model, splits, tmp_path / shard, *options, "--batch-size", size, "--shard", shard, **wanted)
        assert_succeeds(done)
        parts.append(listing(tmp_path / shard))
        for name in parts[-1]:
            found, expected = (soundfile.read(folder / name)[0] for folder in (tmp_path / shard, rendered))
            np.testing.assert_allclose(found, expected, atol=1.5 / 2**15)  # one and a half steps of 16 bits
    assert parts[0] and parts[1] and not parts[0] & parts[1] and parts[0] | parts[1] == listing(rendered)


@pytest.mark.parametrize(
    ("pattern", "cure"),
    [
        ("model.safetensors", "/model.safetensors and run again"),
        ("hub/*/snapshots/*/model.safetensors", "/hub and run"),
    ],
)
def test_model_that_changed_after_it_was_made_is_not_rendered_with(
    base_model: Path, splits: Path, tmp_path: Path, pattern: str, cure: str
) -> None:
    shutil.copytree(base_model, tmp_path / "model")
    victim = change(next((tmp_path / "model").glob(pattern)))
    result = render(tmp_path / "model", splits, tmp_path / "out")
    assert_fails(result, f"{victim}: has the SHA-256 {checksum(victim, 'sha256')}", "checksums.sha256 says", cure)
    assert not list(tmp_path.glob("out*.wav")) and not (tmp_path / "out").exists()


def test_table_tells_prompt_seed_and_length(rendered: Path, splits: Path) -> None:
    table = table_of(rendered)
    manifest = pd.concat(pd.read_csv(splits / f"{side}.csv") for side in ("evaluation", "train")).set_index("clip_id")
    assert set(table.index) == {*manifest.index, "gull", "prompt-0003", "wind"}
    assert len({path.read_bytes() for path in rendered.glob("*.wav")}) == len(table) == 15
    for row in table[table.split != "prompts"].itertuples():
        assert row.prompt == manifest.loc[row.Index, "caption_1"] and row.reference == manifest.loc[row.Index, "path"]
        assert row.seconds == pytest.approx(manifest.loc[row.Index, "seconds"], abs=1e-3)
        assert (row.cfg_scale, row.negative_prompt) == (1, "")
    for row in table.itertuples():
        info = soundfile.info(rendered / row.file)
        assert (info.samplerate, info.channels, info.subtype) == (RATE, 2, "PCM_16")
        assert row.seconds == pytest.approx(info.duration, abs=1e-5)
    assert table.seed.nunique() == 15 and (table.gain_db == 0).all()
    assert table.warning.tolist() == [
        f"{overs} samples over full scale, clipped" if overs else "" for overs in table.overs
    ]


def test_prompts_are_rendered_as_their_rows_say(rendered: Path) -> None:
    prompts = table_of(rendered).query("split == 'prompts'")
    assert prompts.seconds.to_dict() == {"gull": 0.5, "prompt-0003": 1.0, "wind": 0.7}
    assert prompts.cfg_scale.to_dict() == {"gull": 1, "prompt-0003": 4, "wind": 4}
    assert prompts.negative_prompt.to_dict() == {"gull": "", "prompt-0003": "", "wind": "A loud engine."}
    assert prompts.loc["gull", "seed"] == 7 and (prompts.reference == "").all()


def test_file_tells_what_it_was_made_from(rendered: Path, base_model: Path) -> None:
    with soundfile.SoundFile(rendered / "gull.wav") as sound:
        title, comment = sound.title, json.loads(sound.comment)
    assert title == 'A gull over water – 雨 "twice"'
    expected = {"clip_id": "gull", "run": "mine", "seed": 7, "seconds": 0.5, "cfg_scale": 1, "negative_prompt": None}
    expected |= {"model_sha256": checksum(base_model / "model.safetensors", "sha256"), "steps": 2, "precision": "fp32"}
    assert expected.items() <= comment.items() and "prompt" not in comment
    assert table_of(rendered).model_sha256.unique().tolist() == [expected["model_sha256"]]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_sound_in_16_bits_is_nearly_the_same(
    rendered: Path, base_model: Path, splits: Path, tmp_path: Path, precision: str
) -> None:
    assert_succeeds(render(base_model, splits, tmp_path / "out", precision=precision))
    files = sorted((tmp_path / "out").glob("*.wav"))
    assert len(files) == 2
    for file in files:
        found, expected = (soundfile.read(path)[0] for path in (file, rendered / file.name))
        assert np.linalg.norm(found - expected) < 0.2 * np.linalg.norm(expected)
        assert json.loads(soundfile.SoundFile(file).comment)["precision"] == precision


@pytest.mark.parametrize("form", ["wav24", "flac"])
def test_loudness_and_format(base_model: Path, splits: Path, tmp_path: Path, form: str) -> None:
    (tmp_path / "prompts.txt").write_text("Ein Vögelchen.\n", encoding="utf-8")
    wanted = {"prompts": tmp_path / "prompts.txt", "clips": {}, "seconds": 1.0}
    done = render(base_model, splits, tmp_path / "out", loudness=-30, format=form, **wanted)
    assert_succeeds(done)
    row = table_of(tmp_path / "out").loc["prompt-0001"]
    path = tmp_path / "out" / row.file
    assert path.suffix == (".flac" if form == "flac" else ".wav")
    with soundfile.SoundFile(path) as sound:
        assert sound.subtype == ("PCM_16" if form == "flac" else "PCM_24")
        assert sound.title == "Ein Vögelchen." and json.loads(sound.comment)["clip_id"] == "prompt-0001"
        audio = sound.read()
    assert len(audio) == RATE and row.gain_db != 0
    assert pyloudnorm.Meter(RATE).integrated_loudness(audio) == pytest.approx(-30, abs=0.1)
    assert row.model_sha256 == checksum(base_model / "model.safetensors", "sha256")


def test_loudness_of_a_quiet_sound_is_reached() -> None:
    """Most of it is below -70 LUFS, where nothing counts until it is louder."""
    noise = np.random.default_rng(0).standard_normal((3 * RATE, 2))
    audio = noise * np.where(np.arange(3 * RATE) < RATE, 10 ** (-70 / 20), 10 ** (-77 / 20))[:, None]
    done = finish(audio, RATE, -30, "a", "fp32")
    assert pyloudnorm.Meter(RATE).integrated_loudness(done.audio) == pytest.approx(-30, abs=0.1)


def test_clip_that_the_model_cannot_take_is_not_rendered(base_model: Path, splits: Path, tmp_path: Path) -> None:
    clips = pd.read_csv(splits / "evaluation.csv").clip_id.tolist()
    assert_succeeds(render(base_model, splits, tmp_path / "out", dropped=clips[:1]))
    assert [path.stem for path in (tmp_path / "out").glob("*.wav")] == clips[1:]


@pytest.mark.parametrize(("value", "message"), [(0.0, "every rendered clip is silent"), (math.nan, "NaN or infinite")])
def test_broken_decoder_fails(base_model: Path, splits: Path, tmp_path: Path, value: float, message: str) -> None:
    weights = load_file(base_model / "model.safetensors")
    key = [k for k in weights if k.startswith("pretransform.model.decoder") and k.endswith("weight_g")][-1]
    weights[key] = torch.full_like(weights[key], value)
    save_file(weights, tmp_path / "broken.safetensors")
    done = render(base_model, splits, tmp_path / "out", weights=tmp_path / "broken.safetensors")
    assert done.returncode == 1 and message in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.csv").exists()


def test_weights_that_do_not_fit_fail(base_model: Path, splits: Path, tmp_path: Path) -> None:
    weights = load_file(base_model / "model.safetensors")
    save_file({f"diffusion.{key}": value for key, value in weights.items()}, tmp_path / "wrapped.safetensors")
    done = render(base_model, splits, tmp_path / "out", weights=tmp_path / "wrapped.safetensors")
    assert done.returncode == 1 and f"{len(weights)} keys are missing" in done.stderr
    assert not (tmp_path / "out").exists()


def test_finish_keeps_the_level_and_counts_what_is_over_full_scale(tmp_path: Path) -> None:
    tone = np.sin(np.arange(8000) / 10)[:, None].repeat(2, 1)
    done = finish(0.5 * tone, RATE, None, "a", "fp32")
    assert (done.warning, done.gain_db, done.overs) == ("", 0, 0) and done.peak_dbfs == pytest.approx(-6.02, abs=0.01)
    assert np.array_equal(done.audio, 0.5 * tone)
    done = finish(2 * tone, RATE, None, "a", "fp32")
    assert done.overs == (np.abs(tone) > 0.5).sum() and done.warning == f"{done.overs} samples over full scale, clipped"
    assert np.array_equal(done.audio, 2 * tone) and done.gain_db == 0
    soundfile.write(tmp_path / "a.wav", done.audio, RATE, "PCM_16")
    np.testing.assert_allclose(soundfile.read(tmp_path / "a.wav")[0], np.clip(2 * tone, -1, 1), atol=1 / 2**15)
    for level in (-23.0, None):
        done = finish(1e-5 * tone, RATE, level, "a", "fp32")
        assert (done.warning, done.gain_db) == ("silent", 0)
    for bad in (math.nan, math.inf):
        with pytest.raises(InputError, match="clip a: rendered NaN or infinite"):
            finish(np.full((10, 1), bad), RATE, None, "a", "fp32")
        with pytest.raises(InputError, match=r"too large for fp16: set render.precision to fp32$"):
            finish(np.full((10, 1), bad), RATE, None, "a", "fp16")


@pytest.mark.parametrize("seconds", [0.05, 0.4, 2])
def test_loudness_of_short_and_long_clips(seconds: float) -> None:
    tone = np.sin(2 * np.pi * 997 * np.arange(round(seconds * 48000)) / 48000)[:, None]
    done = finish(0.1 * tone, 48000, -23.0, "a", "fp32")
    # ITU-R BS.1770-4: a sine of 997 Hz at full scale in one channel has -3.01 LUFS.
    assert done.gain_db == pytest.approx(0.01, abs=0.5 if seconds < 0.4 else 0.05)
    loud = finish(0.1 * tone, 48000, -1.0, "a", "fp32")
    assert loud.overs > 0 and "over full scale" in loud.warning
    assert loud.peak_dbfs == pytest.approx(-20, abs=0.1)


def test_renders_are_marked_if_the_config_says_so(base_model: Path, splits: Path, tmp_path: Path) -> None:
    pytest.importorskip("audioseal", reason="needs `uv sync --group watermark`")
    from sao.base.names import write_digests
    from sao.models import audioseal
    from sao.models.build import write_safetensors

    torch.manual_seed(0)
    file, sums = tmp_path / "weights/model.safetensors", tmp_path / "weights/checksums.sha256"
    file.parent.mkdir()
    state = audioseal.make("generator").state_dict()
    write_safetensors({key: value.clone().contiguous() for key, value in state.items()}, file)
    write_digests(sums, file.parent, [file])
    clips = tmp_path / "clips.csv"
    assert_succeeds(run_prompts(base_model, splits, clips, clips={"train": 2}))
    mark = {"method": "audioseal", "message": 5, "strength": 0.001}  # the mark of random weights is loud

    def rendered(name: str, *more: object, **settings: object) -> subprocess.CompletedProcess[str]:
        return run_script("render", *command(base_model, tmp_path / name, clips, steps=2, **settings), *more)

    assert_succeeds(rendered("plain"))
    given = ["--watermark", file, "--watermark-digest", sums]
    assert_succeeds(rendered("marked", *given, watermark=mark))
    names = listing(tmp_path / "plain")
    assert len(names) == 2 and listing(tmp_path / "marked") == names
    for name in names:
        (one, rate), (other, _) = (soundfile.read(tmp_path / folder / name) for folder in ("plain", "marked"))
        assert rate == RATE and one.shape == other.shape and 0 < np.abs(one - other).max() < 0.1
        comment = json.loads(soundfile.SoundFile(tmp_path / "marked" / name).comment)
        assert comment["watermark"] == mark
        assert "watermark" not in json.loads(soundfile.SoundFile(tmp_path / "plain" / name).comment)
    assert_fails(rendered("none", watermark=mark), "renders are to be marked, but its weights are missing")
    change(file)
    assert_fails(rendered("bad", *given, watermark=mark), file, "it changed after it was made")
