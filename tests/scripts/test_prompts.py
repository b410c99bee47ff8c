"""The prompts to render, of clips and from a file, are checked before anything is trained."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
from conftest import assert_fails, assert_succeeds
from hypothesis import given
from hypothesis import strategies as st
from model_configs import changed
from prompt_tables import SAMPLING, run_prompts
from sao.base.command import InputError
from sao.base.files import read_json, sha256
from sao.rendering.clips import Clip, choose, read_clips, render_seed, write_clips
from sao.rendering.named import named_sounds
from sao.rendering.prompts import Takes, read_prompts

RATE, RATIO = 16000, 1000
TAKES = Takes(window=3.0, rate=RATE, ratio=RATIO, noise=(0.3, 100), inpaints=False)
SETTINGS: dict[str, Any] = {"seconds": None, "seed": 5, "sampling": {"cfg_scale": 7, "negative_prompt": "Hiss."}}


def read(path: Path, text: str | bytes, takes: Takes = TAKES, **settings: object) -> list[Clip]:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_prompts(path, takes, SETTINGS | settings)


def test_text_file_is_a_prompt_a_line(tmp_path: Path) -> None:
    text = '\ufeff# mine\r\n\r\n  Rain, on a roof.\r\nЧайка – 雨 "x"\u2028y\n   # no prompt\nRain, on a roof.'
    clips = read(tmp_path / "p.txt", text)
    assert [clip.clip_id for clip in clips] == ["prompt-0003", "prompt-0004", "prompt-0006"]
    assert [clip.prompt for clip in clips] == ["Rain, on a roof.", 'Чайка – 雨 "x"\u2028y', "Rain, on a roof."]
    first = clips[0]
    assert (first.seconds, first.cfg_scale, first.negative_prompt, first.split) == (3.0, 7.0, "Hiss.", "prompts")
    assert first.seed == render_seed(5, "prompt-0003") != clips[2].seed and first.reference == ""
    assert read(tmp_path / "p.txt", "a", seconds=1.5)[0].seconds == 1.5


def test_table_says_what_it_wants_and_leaves_the_rest(tmp_path: Path) -> None:
    text = 'prompt,id,seconds,seed,cfg_scale,negative_prompt\n"Rain,\nwind",a.b-c_1,2.5,0,1,Cars.\n NA ,,,,,\n'
    first, second = read(tmp_path / "p.csv", text, seconds=1)
    assert first == Clip("a.b-c_1", "prompts", "Rain,\nwind", 2.5, 0, 1.0, "Cars.", "", f"{tmp_path}/p.csv, row 2")
    assert second == Clip(
        "prompt-0004", "prompts", "NA", 1, render_seed(5, "prompt-0004"), 7.0, "Hiss.", "", f"{tmp_path}/p.csv, row 4"
    )
    assert len(read(tmp_path / "p.csv", "prompt\nRain.\n")) == 1


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("p.txt", "# none\n\n", "p.txt: holds no prompt"),
        ("p.csv", "prompt\n", "p.csv: holds no prompt"),
        ("p.txt", b"a\nb\xff\n", "p.txt, row 2: is not UTF-8"),
        ("p.csv", "text\nRain\n", "column 'prompt' is missing"),
        ("p.csv", "prompt,cfg_scal\nRain,1\n", "unknown column 'cfg_scal'; did you mean 'cfg_scale'"),
        ("p.csv", "prompt,id\nRain,a\n  ,b\n", "p.csv, row 3: the prompt is empty"),
        ("p.csv", "prompt\nRain, wind\n", "p.csv, row 2: 2 fields, the header has 1"),
        ("p.csv", "prompt,id\nRain,../a\n", "p.csv, row 2: the id '../a' cannot be a file name"),
        ("p.csv", "prompt,id\nRain,-a\n", "the id '-a' cannot be a file name"),
        ("p.csv", "prompt,id\nRain,a\nWind,A\n", "p.csv, row 3: .*p.csv, row 2 has the id 'A' too"),
        ("p.csv", "prompt,id\nRain,prompt-0003\nWind,\n", "row 3: .*row 2 has the id 'prompt-0003' too"),
        ("p.csv", "prompt,seconds\nRain,long\n", "row 2: seconds is 'long', not a number above 0"),
        ("p.csv", "prompt,seconds\nRain,0\n", "seconds is '0', not a number above 0"),
        ("p.csv", "prompt,seconds\nRain,nan\n", "seconds is 'nan'"),
        ("p.csv", "prompt,seconds\nRain,3.1\n", r"seconds is 3.1, the model's window is 3.00 s"),
        ("p.csv", "prompt,seed\nRain,1.5\n", "seed is '1.5', not a whole number from 0"),
        ("p.csv", f"prompt,seed\nRain,{2**63}\n", f"seed is '{2**63}'"),
        ("p.csv", "prompt,cfg_scale\nRain,-1\n", "cfg_scale is '-1', not a number from 0"),
        ("p.csv", "prompt,cfg_scale\nRain,1e38\n", "cfg_scale is '1e38', not a number from 0 to 100"),
        ("p.csv", "prompt,cfg_scale\nRain,inf\n", "cfg_scale is 'inf'"),
        ("p.csv", 'prompt\n"Rain\rwind"\n', "row 2: holds a carriage return"),
        ("p.csv", 'prompt,negative_prompt\nRain,"a\rb"\n', "row 2: holds a carriage return"),
    ],
)
def test_wrong_row_is_named(tmp_path: Path, name: str, text: str | bytes, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        read(tmp_path / name, text)
    assert "\n" not in str(error.value)


def sound(path: Path, seconds: float, rate: int = 8000, level: float = 0.5) -> None:
    path.parent.mkdir(exist_ok=True)
    soundfile.write(path, level * np.sin(np.arange(round(seconds * rate))), rate)


def test_a_sound_starts_from_another_one(tmp_path: Path) -> None:
    sound(tmp_path / "in" / "two words.wav", 2.5)
    header = "prompt,init_audio,init_noise_level,mask_start,mask_end,seconds\n"
    rows = "A,in/two words.wav,5,,,\nB,in/two words.wav,,1,2,\nC,in/two words.wav,7,,1.5,1.5\nD,in/two words.wav,,2.5,,3\nE,,,,,\n"
    varied, filled, both, longer, plain = read(
        tmp_path / "p.csv", header + rows, dataclasses.replace(TAKES, inpaints=True)
    )
    path = (tmp_path / "in/two words.wav").as_posix()
    assert {clip.source for clip in (varied, filled, both, longer)} == {path} and plain.source == ""
    assert varied.source_sha256 == sha256(Path(path)) and plain.source_sha256 == ""
    assert (varied.seconds, varied.init_noise_level, varied.mask_start, varied.mask_end) == (2.5, 5.0, None, None)
    assert (filled.seconds, filled.init_noise_level, filled.mask_start, filled.mask_end) == (2.5, None, 1.0, 2.0)
    assert (both.seconds, both.init_noise_level, both.mask_start, both.mask_end) == (1.5, 7.0, 0.0, 1.5)
    assert (longer.seconds, longer.mask_start, longer.mask_end) == (3.0, 2.5, 3.0)
    assert (plain.seconds, plain.init_noise_level, plain.mask_start) == (3.0, None, None)


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (
            "none.wav,5,,,",
            "row 2: the init_audio '.*none.wav' does not exist: its path counts from the folder of the table",
        ),
        ("silent.wav,5,,,", "row 2: the init_audio '.*silent.wav' is silent"),
        ("text.wav,5,,,", "row 2: the init_audio '.*text.wav' cannot be read"),
        ("a.wav,,,,", "row 2: does not say what to do with its init_audio: give an init_noise_level"),
        ("a.wav,0.3,,,", "init_noise_level is '0.3', not a number above 0.3 up to 100"),
        ("a.wav,101,,,", "init_noise_level is '101', not a number above 0.3 up to 100"),
        ("a.wav,much,,,", "init_noise_level is 'much'"),
        ("long.wav,5,,,", r"the init_audio '.*long.wav' has 4 s, the model's window is 3.00 s: set seconds"),
        (",5,,,", "init_noise_level is given without an init_audio"),
        (",,0,,", "mask_start is given without an init_audio"),
        ("a.wav,,-1,,", "mask_start is '-1', not a number from 0"),
        ("a.wav,,0,nan,", "mask_end is 'nan', not a number from 0"),
        ("a.wav,,0,2.1,", "the mask from 0 to 2.1 s ends after the sound, which has 2 s"),
        ("a.wav,,1,1,", "the mask from 1 to 1 s holds no whole latent frame, which has 62 ms: make it longer"),
        ("a.wav,,1.5,1,", "the mask from 1.5 to 1 s holds no whole latent frame"),
        ("a.wav,,1.01,1.12,", "the mask from 1.01 to 1.12 s holds no whole latent frame"),
        ("a.wav,,1,2,3", "leaves a part of the sound's 3 s to an init_audio of 2 s: begin the mask before the end"),
        ("a.wav,,2.5,3,3", "leaves a part of the sound's 3 s to an init_audio of 2 s"),
    ],
)
def test_wrong_source_is_named(tmp_path: Path, cells: str, message: str) -> None:
    sound(tmp_path / "a.wav", 2)
    sound(tmp_path / "long.wav", 4)
    sound(tmp_path / "silent.wav", 1, level=0)
    (tmp_path / "text.wav").write_text("not a sound")
    text = f"prompt,init_audio,init_noise_level,mask_start,mask_end,seconds\nRain,{cells}\n"
    with pytest.raises(InputError, match=message) as error:
        read(tmp_path / "p.csv", text, dataclasses.replace(TAKES, inpaints=True))
    assert "\n" not in str(error.value) and "p.csv, row 2: " in str(error.value)


def test_a_mask_needs_a_model_that_inpaints(tmp_path: Path) -> None:
    sound(tmp_path / "a.wav", 2)
    text = "prompt,init_audio,mask_end\nRain,a.wav,1\n"
    assert read(tmp_path / "p.csv", text, dataclasses.replace(TAKES, inpaints=True))[0].mask_end == 1
    with pytest.raises(InputError, match="the mask from 0 to 1 s is for an inpainting model"):
        read(tmp_path / "p.csv", text)


def test_a_share_of_noise_for_rectified_flow(tmp_path: Path, base_model: Path) -> None:
    config = read_json(base_model / "model_config.json")
    settings: Any = SETTINGS | {"train_seconds": None, "sampling": SAMPLING}
    assert Takes.of(config, settings).noise == (SAMPLING["sigma_min"], SAMPLING["sigma_max"])
    config["model"]["diffusion"]["diffusion_objective"] = "rectified_flow"
    takes = Takes.of(config, settings)
    assert takes.noise == (0.0, 1.0) and not takes.inpaints and takes.window == pytest.approx(3.0, abs=0.1)
    assert Takes.of(config | {"model_type": "diffusion_cond_inpaint"}, settings).inpaints


def test_the_plan_finds_the_sounds_that_prompts_name(tmp_path: Path) -> None:
    sound(tmp_path / "a.wav", 1)
    table = tmp_path / "p.csv"
    table.write_bytes("\ufeffprompt,init_audio\nRain, a.wav \nWind,\nHail,a.wav\n".encode())
    assert named_sounds(table) == [tmp_path / "a.wav"]
    table.write_text("prompt,init_audio\nRain,a.wav\nHail,b.wav\n")
    with pytest.raises(InputError, match=r"p.csv, row 3: the init_audio '.*b.wav' does not exist"):
        named_sounds(table)
    table.write_text('prompt,init_audio\n"Rain,\non a roof",b.wav\n')
    with pytest.raises(InputError, match=r"p.csv, row 2: the init_audio"):
        named_sounds(table)
    for odd in (b"prompt\nRain\n", b"", b"\xff\xfe\nprompt", b'prompt,init_audio\n"Rain\n'):
        table.write_bytes(odd)
        assert named_sounds(table) == []
    assert named_sounds(tmp_path / "p.txt") == []


def test_length_in_the_config_has_to_fit_the_window(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"render.seconds is 4, the model's window is 3.00 s"):
        read(tmp_path / "p.txt", "Rain", seconds=4)


def test_prompt_that_is_understood_in_part_is_told(base_model: Path, splits: Path, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("Rain on a 屋根.\nWind.\n", encoding="utf-8")
    done = run_prompts(base_model, splits, tmp_path / "out.csv", "--prompts", tmp_path / "prompts.txt", clips={})
    assert_succeeds(done)
    (line,) = (line for line in done.stderr.splitlines() if "does not know" in line)
    assert "prompts.txt, row 1" in line and "'屋根'" in line and "(1 such)" in line


@pytest.mark.parametrize(
    ("settings", "prompts", "words"),
    [
        ({"caption": 6}, "", ["render.caption is 6", "has only 2 captions"]),
        ({"seconds": 9.5}, "prompt\nRain.\n", ["render.seconds is 9.5", "3.07 s"]),
        ({}, "prompt,seconds\nRain.,4\n", ["prompts.csv, row 2", "seconds is 4.0"]),
        ({}, f"prompt\nRain.\n{'very ' * 90}loud\n", ["prompts.csv, row 3", "the prompt has", "after 64"]),
        ({}, f"prompt,negative_prompt\nRain.,{'very ' * 90}loud\n", ["row 2", "the negative prompt has", "after 64"]),
        (
            {},
            "prompt\nRain.\n雨の音がする\n",
            ["prompts.csv, row 3", "the prompt", "nothing of it is in the vocabulary"],
        ),
        ({}, "prompt,negative_prompt\nRain.,🐶🐶 a\n", ["row 2", "the negative prompt", "little of it ('a')"]),
        ({}, "prompt\n\u200b.\n", ["prompts.csv, row 2", "the prompt is empty"]),
        ({}, "prompt,id\nRain.,{clip}\n", ["prompts.csv, row 2", "is that of clip {clip} too"]),
    ],
)
def test_text_that_the_model_cannot_take_is_named(
    base_model: Path, splits: Path, tmp_path: Path, settings: dict, prompts: str, words: list[str]
) -> None:
    clip = pd.read_csv(splits / "evaluation.csv").clip_id[0]
    (tmp_path / "prompts.csv").write_text(prompts.replace("{clip}", clip), encoding="utf-8")
    options = ["--prompts", tmp_path / "prompts.csv"] if prompts else []
    done = run_prompts(base_model, splits, tmp_path / "out.csv", *options, **settings)
    assert_fails(done, *(word.replace("{clip}", clip) for word in words))
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize(
    ("sampler", "steps", "words"), [("euler", 2, "'euler'"), ("dpmpp-3m-sde", 1, "needs 2 or more")]
)
def test_sampler_that_the_model_cannot_take_is_named(
    base_model: Path, splits: Path, tmp_path: Path, sampler: str, steps: int, words: str
) -> None:
    sampling = SAMPLING | {"sampler": sampler, "steps": steps}
    assert_fails(run_prompts(base_model, splits, tmp_path / "out.csv", sampling=sampling), words)


@pytest.mark.parametrize(
    ("scale", "sampler", "warned"), [(1, "pingpong", False), (4, "pingpong", True), (1, "euler", True)]
)
def test_settings_that_a_distilled_model_is_not_made_for_are_warned_of(
    base_model: Path, splits: Path, tmp_path: Path, scale: float, sampler: str, warned: bool
) -> None:
    (tmp_path / "hub").symlink_to(base_model / "hub")
    config = changed(("model.diffusion.diffusion_objective", "rf_denoiser"))
    (tmp_path / "model_config.json").write_text(json.dumps(config), encoding="utf-8")
    sampling = SAMPLING | {"sampler": sampler, "cfg_scale": scale, "steps": 8}
    done = run_prompts(tmp_path, splits, tmp_path / "out.csv", sampling=sampling)
    assert_succeeds(done)
    assert ("the model is distilled" in done.stderr) == warned


def test_clips_of_the_corpus_come_with_seed_length_and_recording(
    base_model: Path, splits: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine.txt").write_text("Rain.\n")
    kept = pd.concat(pd.read_csv(splits / f"{side}.csv") for side in ("train", "evaluation")).set_index("clip_id")
    gone, *_ = pd.read_csv(splits / "evaluation.csv").clip_id
    options = {"clips": {"evaluation": "all", "train": 3}, "caption": 2, "dropped": [gone]}
    done = run_prompts(base_model, splits, tmp_path / "out.csv", "--prompts", tmp_path / "mine.txt", **options)
    assert_succeeds(done)
    *clips, mine = read_clips(tmp_path / "out.csv")
    assert [clip.split for clip in clips] == ["evaluation"] + ["train"] * 3
    assert gone not in {clip.clip_id for clip in clips}
    for clip in clips:
        row = kept.loc[clip.clip_id]
        assert (clip.prompt, clip.seconds, clip.reference) == (row.caption_2, row.seconds, row.path)
        assert (clip.seed, clip.cfg_scale, clip.negative_prompt) == (render_seed(0, clip.clip_id), 1.0, None)
    assert (mine.clip_id, mine.split, mine.prompt, mine.reference) == ("prompt-0001", "prompts", "Rain.", "")


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\r\0"), min_size=1, max_size=20)


@given(
    st.lists(
        st.builds(
            Clip,
            clip_id=st.from_regex(r"[a-z][a-z0-9.-]{0,9}", fullmatch=True),
            split=st.sampled_from(["train", "prompts"]),
            prompt=TEXT,
            seconds=st.floats(1e-3, 3600),
            seed=st.integers(0, 2**63 - 1),
            cfg_scale=st.floats(0, 100),
            negative_prompt=st.none() | TEXT,
            reference=st.just("") | TEXT,
            source=st.just("") | TEXT,
            source_sha256=st.just("") | st.just("0a"),
            init_noise_level=st.none() | st.floats(0, 100),
            mask_start=st.none() | st.floats(0, 100),
            mask_end=st.none() | st.floats(0, 100),
        ),
        max_size=5,
    )
)
def test_table_of_clips_reads_as_it_was_written(tmp_path_factory: pytest.TempPathFactory, clips: list[Clip]) -> None:
    path = tmp_path_factory.getbasetemp() / "clips.csv"
    write_clips(path, clips)
    assert read_clips(path) == clips


@given(st.sets(st.text("abc", min_size=1), min_size=1, max_size=30), st.integers(1, 10), st.integers(0, 3))
def test_choice_of_clips_is_stable_when_clips_are_added(clips: set[str], count: int, seed: int) -> None:
    few = set(choose(pd.DataFrame({"clip_id": sorted(clips)}), count, seed).clip_id)
    more = set(choose(pd.DataFrame({"clip_id": [*sorted(clips), "new"]}), count, seed).clip_id)
    assert len(few) == min(count, len(clips))
    assert more - {"new"} <= few
    assert set(choose(pd.DataFrame({"clip_id": sorted(clips)}), "all", seed).clip_id) == clips


def test_sources_are_copied_beside_the_table(base_model: Path, splits: Path, tmp_path: Path) -> None:
    sound(tmp_path / "in.flac", 1.5, rate=12000)
    (tmp_path / "mine.csv").write_text(
        "prompt,id,init_audio,init_noise_level,seconds\nRain.,a,in.flac,4,1\nWind.,b,,,\n"
    )
    assert_succeeds(run_prompts(base_model, splits, tmp_path / "out.csv", "--prompts", tmp_path / "mine.csv", clips={}))
    varied, plain = read_clips(tmp_path / "out.csv")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.wav"] and plain.source == ""
    assert varied.source == (tmp_path / "out/a.wav").as_posix()
    assert varied.source_sha256 == sha256(tmp_path / "in.flac")
    copied, rate = soundfile.read(varied.source)
    assert rate == 12000 and np.array_equal(copied, soundfile.read(tmp_path / "in.flac", stop=12000)[0])


def test_takes_differ_in_id_and_seed_alone(base_model: Path, splits: Path, tmp_path: Path) -> None:
    once, often = tmp_path / "once.csv", tmp_path / "often.csv"
    assert_succeeds(run_prompts(base_model, splits, once))
    assert_succeeds(run_prompts(base_model, splits, often, takes=3))
    first, all_takes = read_clips(once), read_clips(often)
    assert all_takes[: len(first)] == first and len(all_takes) == 3 * len(first)
    for number, clip in enumerate(all_takes):
        own = first[number % len(first)]
        assert dataclasses.replace(clip, clip_id=own.clip_id, seed=own.seed) == own
    assert len({clip.seed for clip in all_takes}) == len({clip.clip_id for clip in all_takes}) == len(all_takes)
