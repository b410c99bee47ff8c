"""The folder of samples has every sample and its reference, one table and one page. A real browser opens the page."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from browsers import chromium
from conftest import FORKS, assert_fails, assert_succeeds, listing, run_script, run_snakemake, write_wav
from media import write_media
from sao.base.files import sha256
from sao.base.takes import take_id
from sao.evaluation.votes import read_votes
from sao.sound.read import read_sound

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Locator, Page

RATE = 8000
# clip_id, split, prompt, seconds (no sound ends while a slow machine looks whether it plays). The last clip has no recording, and
# starts from a sound instead.
CLIPS = (
    ("b clip", "evaluation", 'Rain & "wind" <b>on</b> a roof.', 20.0),
    ("a-clip", "evaluation", "A dog barks.", 40.0),
    ("pack--c%23", "train", "Übung: ein Horn.", 30.0),
    ("z", "prompts", "A made up sound.", 20.0),
)
LEFT_OUT = [
    {"check": "leak", "path": f"audio/<train> {n}.wav", "message": f"(train) has the same sound_id {n}"}
    for n in range(25)
]
MODELS = ("base", "one", "two")
LEG = "two@step-00000001"  # which is on the page, too
SHOWN = ("base", "one", LEG, "two")
TAKES = {"a-clip": 2}  # takes of a clip that has more than one


def tone(seconds: float, frequency: float) -> np.ndarray:
    return 0.1 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * RATE)) / RATE)[:, None]


def figures(clip: str, model: str, recorded: bool) -> dict[str, object]:
    """The figures of a clip, as evaluate.py writes them."""
    number = (*MODELS, LEG).index(model)
    values = {"seconds": 1.0, "loudness_lufs": -20.0 - number, "bandwidth_hz": 4000.0, "memorised/aisfx": clip == "a-clip" and model == "two", "nearest_train/aisfx": "pack--c%23", "clap_score/laion/x": 0.1 * number}  # fmt: skip
    if recorded:
        distance = {"b clip": 1.0, "a-clip": 3.0, "pack--c%23": 2.0}[clip]
        values |= {"reference_seconds": 1.0, "reference_loudness_lufs": -10.0, "reference_bandwidth_hz": 3000.0, "log_mel_distance": distance + number}  # fmt: skip
    return values


def measure(split: str, name: str, value: float | None, difference: float | None, note: str = "") -> dict[str, object]:
    ends = {"low": None, "high": None} if value is None else {"low": value - 1, "high": value + 1}
    bounds = (None, None) if difference is None else (difference - 1, difference + 1)
    paired = {"difference": difference, "difference_low": bounds[0], "difference_high": bounds[1], "difference_n": 2}
    return {"key": f"{split}/{name}", "name": name.upper(), "measure": name, "split": split, **paired, "value": value, **ends, "n": 2, "unit": "dB", "better": "lower", "note": note}  # fmt: skip


def summary() -> dict[str, object]:
    """The summary, as compare.py writes it. The best leg of `two` is not among the models of the page."""
    runs = {
        model: {
            "corpus": "my <corpus>",
            "comparisons": 3 if number else 1,
            "leg": {"base": None, "one": "step-00000003", "two": "step-00000002", LEG: "step-00000001"}[model],
            "step": {"base": 0, "one": 3, "two": 2, LEG: 1}[model],
            "measures": [
                # `two` has a clear difference to the base, `one` has not: its interval ends at zero.
                measure(
                    "evaluation",
                    "kad",
                    10.0 - number,
                    -1.0 * number if number else None,
                    "go by KAD" if number == 2 else "",
                ),
                measure("evaluation", "silent", 0.0, 0.0 if number else None),
                measure("train", "fad", None if model == "base" else 5.0 + number, None),
            ],
            "clips": {
                take_id(clip, take): figures(clip, model, split != "prompts")
                for clip, split, _, _ in CLIPS
                for take in range(1, TAKES.get(clip, 1) + 1)
            },
        }
        for number, model in enumerate((*MODELS, LEG))
    }
    best = {
        "evaluation/kad": {"run": "two", "value": 8.0, "among": 3},
        "evaluation/silent": {"run": "base", "value": 0.0, "among": 3},
        "train/fad": {"run": "two@step-00000001", "value": 1.0, "among": 4},
    }
    kad = {"key": "evaluation/kad", "split": "evaluation", "name": "KAD", "unit": "", "better": "lower"}
    spread = [kad | {"mean": 8.5, "deviation": 0.71, "runs": 2}]
    verdicts = {"one": "no clear difference to the base: KAD −1 [−2, 0], n = 2", "two": "closer to the recordings"}
    verdicts[LEG] = "a leg is told in the picture by step"
    return {"verdicts": verdicts, "settings": {"level": 0.95}, "best": best, "runs": runs, "spreads": {"both": spread}}


def all_takes() -> list[tuple[tuple[str, str, str, float], int]]:
    return [(clip, take) for clip in CLIPS for take in range(1, TAKES.get(clip[0], 1) + 1)]


def make_inputs(root: Path) -> list[object]:
    """Make the inputs of rule collect: the renders of three models and a leg, their spectrograms, and reports."""
    arguments: dict[str, list[object]] = {"--table": [], "--render": [], "--spectrograms": []}
    for number, model in enumerate(SHOWN):
        folder = root / f"renders/{model}"
        suffix = "flac" if model == "two" else "wav"
        rows = []
        for (clip, split, prompt, seconds), take in all_takes():
            sound = take_id(clip, take)
            write_wav(folder / f"{sound}.wav", tone(seconds, 200 * (number + 1) + 10 * take), RATE)
            if suffix == "flac":
                import soundfile

                soundfile.write(folder / f"{sound}.flac", tone(seconds, 600 + 10 * take), RATE)
            reference = root / f"audio/{clip} original.wav"
            write_wav(reference, tone(seconds, 1000), RATE)
            rows.append(
                {"clip_id": sound, "split": split, "prompt": prompt, "negative_prompt": "", "seed": 1, "seconds": seconds,
                 "run": model, "model_sha256": model, "warning": "silent" if (clip, model) == ("z", "one") else "",
                 "reference": reference if split != "prompts" else "", "source": reference if split == "prompts" else "",
                 "init_noise_level": "4.0", "mask_start": "", "mask_end": "", "file": f"{sound}.{suffix}"}
            )  # fmt: skip
        table = root / f"renders/{model}.csv"
        pd.DataFrame(rows).to_csv(table, index=False)
        drawn = root / f"spectrograms/{model}"
        more = ["--beside"] if model == "base" else []
        assert_succeeds(run_script("spectrograms", "--table", table, "--renders", folder, "--output", drawn, *more))
        for key, value in (("--table", table), ("--render", folder), ("--spectrograms", drawn)):
            arguments[key].append(value)
    (root / "summary.json").write_text(json.dumps(summary()))
    data = root / "data/my corpus"
    (data / "dataset_configs/demo").mkdir(parents=True)
    report = {"corpus": "my <corpus>", "clips": {"train": 3, "evaluation": 2}, "warnings": [1], "left_out": LEFT_OUT, "licenses": {"CC0-1.0": 4, "CC-BY-3.0": 1}}  # fmt: skip
    (data / "validation.json").write_text(json.dumps(report))
    (data / "validation.html").write_text("<title>the corpus</title>")
    dropped = data / "dataset_configs/demo/dropped.csv"
    dropped.write_text("clip_id,published_split,path,check,message\nx,all,x.wav,tokens,too long\n")
    other = root / "other.csv"
    other.write_text("clip_id,published_split,path,check,message\ny,all,y.wav,tokens,of another corpus\n")
    for run in MODELS[1:]:
        folder = root / f"checkpoints/{run}"
        folder.mkdir(parents=True)
        settings = {
            "base_model": "demo",
            "corpus": "my <corpus>",
            "method": "lora",
            "adapter": {"rank": 16},
            "learning_rate": 0.1 if run == "one" else 0.2,
        }
        training = {
            "run": run,
            "settings": settings,
            "best_leg": "step-00000002",
            "validation_losses": {"step-00000002": 0.5},
            "training_clips": 3,
            "batch": 2,
        }
        (folder / "training.json").write_text(json.dumps(training))
        (folder / "loss.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg" width="20" height="10"></svg>')
    steps = root / "evaluation/two.svg"
    steps.parent.mkdir()
    shutil.copy(root / "checkpoints/two/loss.svg", steps)
    given = [part for key, values in arguments.items() for part in (key, *values)]
    return [
        "--run", *SHOWN, *given, "--evaluation", root / "summary.json", "--steps", steps,
        "--training", *(root / f"checkpoints/{run}/training.json" for run in MODELS[1:]),
        "--curve", *(root / f"checkpoints/{run}/loss.svg" for run in MODELS[1:]),
        "--rendering", json.dumps({run: {"sampling": {"steps": 50}} for run in MODELS[1:]}),
        "--report", data / "validation.json", "--dropped", dropped, other, "--corpus", "my <corpus>", "another", "--output", root / "samples",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A folder of `make_inputs`, and the arguments. Tests must not change it."""
    root = tmp_path_factory.mktemp("inputs")
    return root, [str(part) for part in make_inputs(root)]


@pytest.fixture
def arguments(inputs: tuple[Path, list[str]], tmp_path: Path) -> list[str]:
    """The arguments for a folder of links to the files of `inputs`. A test may put others in their place."""
    root, given = inputs
    shutil.copytree(root, tmp_path, dirs_exist_ok=True, copy_function=os.link)
    for table in tmp_path.glob("renders/*.csv"):  # the only files with paths in them
        told = table.read_text(encoding="utf-8").replace(str(root), str(tmp_path))
        table.unlink()
        table.write_text(told, encoding="utf-8")
    return [part.replace(str(root), str(tmp_path)) for part in given]


@pytest.fixture(scope="module")
def made(inputs: tuple[Path, list[str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of samples. Tests must not change it."""
    folder = tmp_path_factory.mktemp("made") / "samples"
    assert_succeeds(run_script("collect", *inputs[1], "--output", folder))
    return folder


def test_folder_has_all_that_the_page_shows(made: Path) -> None:
    samples = pd.read_csv(made / "samples.csv", keep_default_na=False)
    sounds = [take_id(clip, take) for (clip, *_), take in all_takes()]
    assert list(samples.run) == [model for model in SHOWN for _ in sounds]
    assert list(samples["take"][: len(sounds)]) == [take for _, take in all_takes()]
    assert set(samples.corpus[samples.split == "evaluation"]) == {"my <corpus>"}
    assert set(samples.corpus[samples.split == "train"]) == {"pack"}  # a corpus of a mixture
    assert set(samples.corpus[samples.split == "prompts"]) == {""}
    wanted = {f"{row.run}/{row.file}" for row in samples.itertuples()}
    assert all(row.sha256 == sha256(made / row.run / row.file) for row in samples.itertuples())
    wanted |= {f"spectrograms/{row.run}/{row.clip_id}.webp" for row in samples.itertuples()}
    recorded = [clip for clip, split, _, _ in CLIPS if split != "prompts"]
    wanted |= {f"reference/{clip}.wav" for clip in recorded} | {f"spectrograms/reference/{c}.webp" for c in recorded}
    wanted |= {"source/z.wav", "spectrograms/source/z.webp"}
    wanted |= {"index.html", "samples.csv", "corpora/my <corpus>.html"}
    wanted |= {"curves/one-loss.svg", "curves/two-loss.svg", "curves/two-measures.svg"}
    assert listing(made) == wanted


def test_page_names_what_was_left_out_of_a_corpus(made: Path) -> None:
    text = html.unescape((made / "index.html").read_text(encoding="utf-8"))
    assert "26 left out (leak: 25, tokens: 1)" in text and "of another corpus" not in text
    for number in range(25):
        assert (f"<li>audio/<train> {number}.wav (train) has the same sound_id {number}</li>" in text) == (number < 20)
    assert "<li>leak: 5 more, in the report</li>" in text and "<li>x.wav too long</li>" in text


def test_nothing_of_an_earlier_config_stays(arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "samples/old").mkdir(parents=True)
    assert_succeeds(run_script("collect", *arguments))
    assert not (tmp_path / "samples/old").exists()


def test_interrupted_it_leaves_no_folder_that_looks_like_one(arguments: list[str], tmp_path: Path) -> None:
    votes = tmp_path / "votes.json"
    os.mkfifo(votes)  # this file is read last, and the script waits for it
    before = listing(tmp_path)
    process = FORKS[0].start("collect", *arguments, "--votes", votes, cwd=tmp_path)
    end = time.monotonic() + 60
    while not list(tmp_path.glob(".samples.part*/corpora/my <corpus>.html")):
        assert time.monotonic() < end
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)
    assert_fails(process.finish(20), "interrupted: no output is half")
    assert listing(tmp_path) == before


@pytest.mark.parametrize("folder", ["audio", "data/my corpus/audio/train"])
def test_recordings_of_ones_own_are_copied_and_links_followed(
    arguments: list[str], tmp_path: Path, folder: str
) -> None:
    """Unpacked recordings take no space twice. A user's own are copied, because nothing may write into them."""
    mine = folder == "audio"
    for path in sorted((tmp_path / "audio").glob("*.wav")):
        sound = tmp_path / folder / "elsewhere" / path.name
        sound.parent.mkdir(parents=True, exist_ok=True)
        path.rename(sound)
        path.symlink_to(os.path.relpath(sound, path.parent))
    assert_succeeds(run_script("collect", *arguments, "--output", tmp_path / "samples"))
    for clip, split, _, _ in CLIPS:
        if split != "prompts":
            sound = tmp_path / folder / "elsewhere" / f"{clip} original.wav"
            found = tmp_path / f"samples/reference/{clip}.wav"
            assert not found.is_symlink() and found.read_bytes() == sound.read_bytes()
            assert found.samefile(sound) is not mine
            rendered = tmp_path / f"renders/one/{clip}.wav"
            assert (tmp_path / f"samples/one/{clip}.wav").samefile(rendered)


def test_recordings_that_browsers_do_not_play_are_written_as_flac(arguments: list[str], tmp_path: Path) -> None:
    audio = np.random.default_rng(0).integers(-9000, 9000, (44100, 2)) / 32768
    kinds = {"b clip": write_media(tmp_path / "b.wv", audio), "a-clip": write_media(tmp_path / "a.m4a", audio)}
    for model in SHOWN:
        path = tmp_path / f"renders/{model}.csv"
        table = pd.read_csv(path, keep_default_na=False, dtype=str)
        table["reference"] = [
            str(kinds.get(clip, old)) for clip, old in zip(table.clip_id, table.reference, strict=True)
        ]
        table.to_csv(path, index=False)
    assert_succeeds(run_script("collect", *arguments))
    found = {path.name for path in (tmp_path / "samples/reference").iterdir()}
    assert found == {"b clip.flac", "a-clip.m4a", "pack--c%23.wav"}
    assert np.array_equal(read_sound(tmp_path / "samples/reference/b clip.flac")[0], audio)
    page = (tmp_path / "samples/index.html").read_text()
    assert "reference/b%20clip.flac" in page and "reference/a-clip.m4a" in page


def test_missing_wav_fails_and_names_it(arguments: list[str], tmp_path: Path) -> None:
    gone = tmp_path / "renders/one/b clip.wav"
    gone.unlink()
    assert_fails(run_script("collect", *arguments), gone, "listed in")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A browser without history and without a network. An attempt to use the network fails the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, offline=True)
    yield context
    context.close()


def open_page(context: BrowserContext, folder: Path) -> tuple[Page, list[str]]:
    """The loaded page, and a list of its errors so far: console errors, and requests outside the folder."""
    page = context.new_page()
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    # The browser breaks off a sound if it needs only its head.
    page.on("requestfailed", lambda r: None if r.failure == "net::ERR_ABORTED" else wrong.append(r.url))
    inside = folder.resolve().as_uri()
    page.on("request", lambda r: None if r.url.startswith((f"{inside}/", "data:", "blob:")) else wrong.append(r.url))
    page.goto(f"{inside}/index.html", wait_until="load")
    return page, wrong


@pytest.fixture
def page(context: BrowserContext, made: Path) -> Iterator[Page]:
    page, wrong = open_page(context, made)
    yield page
    assert wrong == []


def shown(page: Page) -> list[str]:
    return page.eval_on_selector_all(".clip", "rows => rows.filter(r => !r.hidden).map(r => r.dataset.clip)")


def cell(page: Page, clip: str, name: str) -> Locator:
    return page.locator(f".clip[data-clip='{clip}'] .cell[data-name='{name}']")


def wait_until_plays(page: Page, *sources: str) -> None:
    """Wait until these sounds play, and no other."""
    page.wait_for_function(
        """sources => { const played = [...document.querySelectorAll("audio")].filter(a => !a.paused);
        return played.map(a => a.getAttribute("src")).join() === sources.join() && played.every(a => a.currentTime > 0); }""",
        arg=list(sources),
    )


def test_page_has_every_sound_and_picture_that_it_names(made: Path, page: Page) -> None:
    """The paths of all takes and legs, also of those that are not shown at first."""
    named = page.evaluate(
        """() => [...document.querySelectorAll(".cell")].flatMap(cell => soundsOf(cell))
        .flatMap(({ sound, picture }) => [sound, picture]).map(decodeURIComponent)"""
    )
    assert len(named) == 2 * (len(SHOWN) * len(all_takes()) + len(CLIPS))  # beside each prompt: its recording or source
    assert set(named) <= listing(made)
    assert (
        page.evaluate(
            """async () => { const wrong = [];
        for (const image of document.images) { image.loading = "eager"; await image.decode().catch(() => wrong.push(image.src)); }
        return wrong; }"""
        )
        == []
    )


def test_page_says_what_was_trained_then_plays_then_tells_figures(page: Page) -> None:
    assert page.title() == page.locator("h1").inner_text() == "Sounds of one, two"
    assert page.locator(".lead").inner_text() == (
        "one (adapter lora, 3 steps of 2 clips), two (adapter lora, 2 steps of 2 clips) are the base model demo, fine-tuned on 3 "
        "clips of the corpus my <corpus>."
    )
    assert page.locator("h2").all_inner_texts() == ["Sounds", "Figures", "Provenance"]
    figures = page.locator("section", has=page.locator("#figures"))
    text = figures.inner_text()
    assert "10 [9, 11] n = 2" in text and "KAD, evaluation: go by KAD." in text
    assert "both: 2 seeds" in text and "8.5 ± 0.71 n = 2" in text
    assert "the best was chosen on these very clips" in text
    assert "3 models are compared with the base" in text and "all 3 of them hold at once with 95 %" in text
    # Bold is only a difference whose interval does not hold zero, and of it nothing but the difference.
    weights = "cells => cells.filter(c => getComputedStyle(c).fontWeight > 600).map(c => c.textContent)"
    assert page.eval_on_selector_all("td, td *", weights) == ["−2 [−3, −1]"]
    assert "−1 [−2, 0]" in text
    assert page.locator(".verdict").all_inner_texts() == [
        "one – no clear difference to the base: KAD −1 [−2, 0], n = 2.",
        "two – closer to the recordings.",
    ]
    assert "SILENT" not in text  # faults of the signal are not in the first table
    figures.locator("summary", has_text="Faults of the signal, evaluation").click()
    assert "SILENT" in figures.inner_text() and "0 [−1, 1]" in figures.inner_text()
    figures.locator("summary", has_text="Measures, train").click()
    assert "best of 4: two@step-00000001, 1" in figures.inner_text()
    origin = page.locator("section", has=page.locator("#provenance"))
    assert (
        "5 clips, 26 left out (leak: 25, tokens: 1), 1 warnings. Licences: CC0-1.0: 4, CC-BY-3.0: 1."
        in origin.inner_text()
    )
    origin.locator("summary", has_text="Left out of my <corpus>").click()
    text = origin.inner_text()
    assert "audio/<train> 19.wav (train) has the same sound_id 19" in text and "x.wav too long" in text
    assert "leak: 5 more, in the report" in text and "<train> 20.wav" not in text
    origin.locator("summary", has_text="Settings").click()
    text = origin.inner_text()
    assert re.search(r"learning_rate\s+0.1\s+0.2", text) and re.search(r"sampling.steps\s+50\s+50", text)
    with page.expect_navigation():
        page.locator("a", has_text="my <corpus>").click()
    assert page.title() == "the corpus"


def test_row_has_prompt_players_pictures_and_figures(page: Page) -> None:
    row = page.locator(".clip[data-clip='b clip']")
    assert row.locator("h3").inner_text() == 'Rain & "wind" <b>on</b> a roof.'
    assert row.locator(".track span").all_inner_texts() == ["recording", *MODELS]
    assert row.locator("dl:visible").count() == 0
    page.click("#details")
    assert "Log-mel distance" in row.inner_text() and "CLAP score (laion/x)" in row.inner_text()
    started = page.locator(".clip[data-clip='z']")
    assert started.locator(".track span").all_inner_texts() == ["source", *MODELS]
    assert "seed 1 · source noised to 4" in started.inner_text() and "noised" not in row.inner_text()
    assert "near copy of training clip pack--c%23 (aisfx)" in cell(page, "a-clip", "two").inner_text()


def position(page: Page) -> float:
    return page.evaluate("player.audio.currentTime")


def test_another_model_goes_on_at_the_same_position_and_one_sound_plays_at_a_time(page: Page) -> None:
    recording = cell(page, "a-clip", "recording")
    recording.locator(".track").click()
    wait_until_plays(page, "reference/a-clip.wav")
    recording.locator(".picture").click()  # in its middle
    wait_until_plays(page, "reference/a-clip.wav")
    page.wait_for_function("player.audio.currentTime > 19")
    cell(page, "a-clip", "two").locator(".track").click()
    wait_until_plays(page, "two/a-clip.flac")
    assert 19 < position(page) < 39
    heads = page.eval_on_selector_all(".row.current .picture i", "heads => heads.map(h => parseFloat(h.style.left))")
    assert (
        len(heads) == 4 and max(heads) - min(heads) < 0.1 and min(heads) > 47
    )  # all spectrograms show the same position
    page.locator("#play").click()
    wait_until_plays(page)
    cell(page, "a-clip", "base").locator(".picture").click(position={"x": 3, "y": 20})  # from there
    wait_until_plays(page, "base/a-clip.wav")
    assert position(page) < 15
    cell(page, "b clip", "base").locator(".track").click()  # another prompt begins at its start
    wait_until_plays(page, "base/b%20clip.wav")
    assert page.locator("#title").inner_text() == 'Rain & "wind" <b>on</b> a roof.'
    assert page.locator("audio").count() == 4  # those of the other prompt are gone


def test_level_is_that_of_the_quietest_sound_and_can_be_left_as_it_is(page: Page) -> None:
    cell(page, "a-clip", "recording").locator(".track").click()
    wait_until_plays(page, "reference/a-clip.wav")
    # The recording has -10 LUFS, and the quietest sound beside it -22 LUFS.
    assert page.evaluate("player.audio.volume") == pytest.approx(10 ** (-12 / 20), rel=1e-3)
    assert cell(page, "a-clip", "recording").locator("small").inner_text() == "−12.0 dB"
    assert page.locator("#gain").inner_text() == "recording: −12.0 dB"
    # A sound that is far below the others makes them no softer.
    page.evaluate("soundOf(player.row.querySelector('[data-name=two]')).loudness = -31")
    page.keyboard.press("m")
    page.keyboard.press("m")
    assert page.evaluate("player.audio.volume") == pytest.approx(10 ** (-11 / 20), rel=1e-3)
    assert cell(page, "a-clip", "two").locator("small").inner_text() == "too quiet"
    page.keyboard.press("m")
    assert page.evaluate("player.audio.volume") == 1 and page.locator("#gain").inner_text() == ""
    page.keyboard.press("4")
    wait_until_plays(page, "two/a-clip.flac")
    page.click("#match")
    assert page.locator("#gain").inner_text() == "two: too quiet" and page.evaluate("player.audio.volume") == 1


def test_takes_and_legs_are_chosen_in_the_player(page: Page) -> None:
    two = cell(page, "a-clip", "two")
    two.locator(".track").click()
    wait_until_plays(page, "two/a-clip.flac")
    page.locator("#takes button", has_text="2").click()
    wait_until_plays(page, "two/a-clip%40take-2.flac")
    assert two.locator("img").get_attribute("src") == "spectrograms/two/a-clip%40take-2.webp"
    page.keyboard.press("[")
    wait_until_plays(page, "two%40step-00000001/a-clip%40take-2.wav")
    assert page.locator("#legs .leg").inner_text() == "step 1"
    page.keyboard.press("t")
    page.locator("#legs input").press("ArrowRight")
    wait_until_plays(page, "two/a-clip.flac")
    page.locator("#takes button", has_text="2").click()
    page.keyboard.press("ArrowDown")
    wait_until_plays(page, "two/pack--c%2523.flac")  # a prompt with one take has that one


def test_keys_alone_play_everything(page: Page) -> None:
    page.keyboard.press(" ")
    wait_until_plays(page, "source/z.wav")
    page.keyboard.press("ArrowDown")
    wait_until_plays(page, "reference/b%20clip.wav")
    page.keyboard.press("2")
    wait_until_plays(page, "base/b%20clip.wav")
    page.keyboard.press("l")
    assert page.evaluate("player.audio.loop")
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press(" ")
    wait_until_plays(page)
    before = position(page)
    page.keyboard.press("ArrowRight")
    assert position(page) == pytest.approx(before + 1, abs=0.05)
    page.keyboard.press("ArrowUp")
    assert page.evaluate("document.activeElement.closest('.cell').dataset.name") == "base"
    assert page.evaluate("document.activeElement.closest('.clip').dataset.clip") == "z"
    page.keyboard.press("Tab")  # to the next model
    page.keyboard.press("Enter")
    wait_until_plays(page, "one/z.wav")
    page.keyboard.press(" ")
    wait_until_plays(page)
    page.get_by_role("button", name="Filter and sort").click()
    page.locator("#search").fill("rain wind")
    page.locator("#search").press(" ")  # there, the space bar types a space and plays nothing
    wait_until_plays(page)
    page.locator("#search").fill("")
    page.get_by_role("button", name="Keys", exact=True).click()
    page.click("#keys")
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("2")
    wait_until_plays(page)


def test_sort_and_filter(page: Page) -> None:
    page.get_by_role("button", name="Filter and sort").click()
    assert (
        shown(page)[0] == "z" and shown(page)[-1] == "pack--c%23"
    )  # one's own, then those of evaluation, then of train
    page.select_option("#sort", "seconds")
    page.click("#descending")
    assert shown(page)[:2] == ["a-clip", "pack--c%23"]
    page.click("#descending")
    page.select_option("#sort", label="hardest first")
    assert shown(page) == ["a-clip", "pack--c%23", "b clip", "z"]  # clips without the figure come last
    page.select_option("#sort", label="easiest first")
    assert shown(page) == ["b clip", "pack--c%23", "a-clip", "z"]
    page.select_option("#sort", label="Log-mel distance, one")
    assert shown(page) == ["b clip", "pack--c%23", "a-clip", "z"]
    page.select_option("#split", "train")
    assert shown(page) == ["pack--c%23"] and page.locator("#shown").inner_text() == "1 of 4 prompts"
    page.select_option("#split", "")
    page.select_option("#corpus", "my <corpus>")
    assert sorted(shown(page)) == ["a-clip", "b clip"]
    page.select_option("#corpus", "pack")
    assert shown(page) == ["pack--c%23"]
    page.locator(".clip:visible").get_by_text(re.compile("train · pack · pack--c%23")).wait_for()
    assert page.locator("#title").inner_text() == "Übung: ein Horn."  # the player follows what is shown
    page.select_option("#corpus", "")
    page.fill("#search", "roof RAIN")
    assert shown(page) == ["b clip"]
    page.fill("#search", "")
    page.click("#warnings")
    assert sorted(shown(page)) == ["a-clip", "z"]


def test_blind_test_hides_which_is_which_and_saves_votes_that_the_graph_reads(
    context: BrowserContext, made: Path, tmp_path: Path
) -> None:
    page, wrong = open_page(context, made)
    page.click("#blind")
    drawn = {}
    for clip, *_ in CLIPS:
        row = page.locator(f".clip[data-clip='{clip}']")
        cells = row.locator(".cell.model:visible")
        assert sorted(cells.locator(".track span").all_inner_texts()) == ["A", "B"]
        seen = row.inner_text() + " ".join(image.get_attribute("alt") for image in row.locator("img:visible").all())
        assert not any(model in re.findall(r"\w+", seen.split("seed 1")[-1]) for model in MODELS)
        assert cells.locator(".picture:visible, dl:visible, .odd:visible").count() == 0
        drawn[clip] = page.locator(f".clip[data-clip='{clip}'] .cell:has(.track span:text-is('A'))").get_attribute(
            "data-name"
        )
        row.get_by_role("button", name="A is better").click()
    assert set(drawn.values()) <= {"base", "two"}
    assert page.locator("#tally").inner_text() == "4 of 4 prompts judged. Not saved: 4."
    page, wrong_too = open_page(context, made)  # the votes are kept when the page is opened again
    assert (
        "base better" in page.locator("#tally").inner_text() and "Not saved: 4" in page.locator("#tally").inner_text()
    )
    page.click("#blind")
    for clip, name in drawn.items():
        assert (
            page.locator(f".clip[data-clip='{clip}'] .cell:has(.track span:text-is('A'))").get_attribute("data-name")
            == name
        )
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("2")  # hears A, the first of the two
    wait_until_plays(page, page.evaluate("player.rows()[0].querySelector('.cell[style*=\"order: 1\"]').shown.sound"))
    assert page.locator("#gain").inner_text() == "" and page.locator("#tracks").inner_text().split() == [
        "source",
        "A",
        "B",
    ]
    page.keyboard.press("n")
    assert page.evaluate("document.activeElement.closest('.clip').dataset.clip") == shown(page)[1]
    with page.expect_download() as download:
        page.click("#save")
    saved = tmp_path / "votes.json"
    download.value.save_as(saved)
    votes = read_votes(saved)
    assert len(votes) == 4 and [vote.better for vote in votes].count(None) == 1
    for vote in votes:
        assert vote.a.run == drawn[vote.sound]
        assert vote.b.run == ({"base", "two"} - {vote.a.run}).pop()
        for heard in (vote.a, vote.b):
            assert heard.sha256 == sha256(next((made / heard.run).glob(f"{vote.sound}.*")))
    assert "results/votes" in page.locator("#tally").inner_text()
    page.click("#blind")
    assert "neither 1×" in page.locator("#tally").inner_text()
    assert page.locator(".clip[data-clip='z'] .track span").all_inner_texts() == ["source", *MODELS]
    assert wrong + wrong_too == []


def test_votes_that_were_counted_are_told_first_and_in_the_figures(arguments: list[str], tmp_path: Path) -> None:
    pair = {"split": "evaluation", "first": "base", "second": "two", "first_better": 2, "second_better": 10, "neither": 3, "share": 10 / 12, "low": 0.55, "high": 0.95, "votes": 16, "listeners": 2}  # fmt: skip
    votes = tmp_path / "votes.json"
    votes.write_text(json.dumps({"level": 0.95, "left_out": 4, "pairs": [pair]}))
    assert_succeeds(run_script("collect", *arguments, "--votes", votes))
    text = (tmp_path / "samples/index.html").read_text(encoding="utf-8")
    told = (
        "In a blind test of 15 prompts (evaluation), two was better on 10, base on 2, neither on 3: 83 % [55 %, 95 %]"
    )
    assert text.index(told) < text.index('id="listen"') < text.index("<td>base : two</td><td>2 : 10</td><td>3</td>")
    assert "4 votes are left out" in text
    row = re.search(r"Better than base in blind tests.*?</tr>", text, re.S)[0]
    assert re.findall(r"<td.*?</td>", row) == [
        "<td></td>",
        "<td></td>",
        '<td class="better"><b>0.833 [0.55, 0.95]</b> <small>n = 12</small></td>',
    ]


@pytest.mark.parametrize(("width", "colours"), [(390, "light"), (1280, "dark")])  # no colour depends on the width
def test_page_is_accessible_in_both_colours_and_fits(page: Page, width: int, colours: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page.set_viewport_size({"width": width, "height": 844})
    page.select_option("#colours", colours)
    page.eval_on_selector_all("details", "all => all.forEach(d => { d.open = true; })")
    for button in ("Filter and sort", "Keys"):
        page.get_by_role("button", name=button, exact=True).click()
    for blind in (False, True):
        if blind:
            page.click("#blind")
        found = Axe().run(page).response["violations"]
        assert [v["id"] for v in found if v["impact"] in ("serious", "critical")] == [], found
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == (
        "rgb(255, 255, 255)" if colours == "light" else "rgb(21, 24, 28)"
    )


def test_default_runs_page_in_the_browser(finished: Path, context: BrowserContext) -> None:
    page, wrong = open_page(context, finished / "results/samples")
    assert len(shown(page)) == 10 and page.locator("#shown").inner_text() == "10 of 40 prompts"
    page.click("#every")
    assert len(shown(page)) == 40
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press(" ")
    page.wait_for_function("player.audio?.currentTime > 0")
    assert re.search(r"(recordings than|difference to) the base: KAD", page.locator("p.verdict").inner_text())
    bold = page.eval_on_selector_all("td.better b", "cells => cells.map(c => c.textContent)")
    assert bold and all(re.fullmatch(r"(\+|−)\S+ \[(−\S+, −\S+|[\d.]+, [\d.]+)\]", text) for text in bold)
    assert wrong == []


def test_report_has_the_page_the_curves_and_the_measures(finished: Path, tmp_path: Path) -> None:
    """The report needs no network. Nothing answers at the proxy of this test."""
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    done = run_snakemake("results/samples", "--report", tmp_path / "report.zip", cwd=finished, env=proxies)
    assert done.returncode == 0, done.stderr
    shutil.unpack_archive(tmp_path / "report.zip", tmp_path / "report")
    files = listing(tmp_path / "report")
    for name in ("index.html", "samples.csv", "loss.svg", "summary.csv", "validation.html"):
        assert any(file.endswith(f"/{name}") for file in files), f"{name} is not in {sorted(files)}"
    text = "".join((tmp_path / "report" / file).read_text() for file in files if file.endswith((".html", ".js")))
    for words in (
        "The same prompts and seeds rendered",
        "marks the best leg",
        "difference to the base model",
        "Samples",
        "Evaluation",
    ):
        assert words in text, words
