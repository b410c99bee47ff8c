"""The file of prompts: what a row says, what it leaves to the config, and what is wrong with it, by row."""

from __future__ import annotations

from pathlib import Path

import pytest
from sao.base.command import InputError
from sao.rendering.prompts import Clip, read_prompts, render_seed

WINDOW = 3.0
RENDER = {"seconds": None, "seed": 5}
SAMPLING = {"cfg_scale": 7, "negative_prompt": "Hiss."}


def read(path: Path, text: str | bytes, **render: object) -> list[Clip]:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_prompts(path, WINDOW, RENDER | render, SAMPLING)


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
    ],
)
def test_wrong_row_is_named(tmp_path: Path, name: str, text: str | bytes, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        read(tmp_path / name, text)
    assert "\n" not in str(error.value)


def test_length_in_the_config_has_to_fit_the_window(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"render.seconds is 4, the model's window is 3.00 s"):
        read(tmp_path / "p.txt", "Rain", seconds=4)
