"""The folder of samples has every sample and its reference, one table and one page. A real browser opens the page."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from conftest import SCRIPTS, assert_fails, assert_succeeds, listing, run_script, write_wav
from media import write_media
from sao.sound.read import read_sound
from settings import as_options

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

RATE = 8000
# clip_id, split, prompt, seconds. The last clip has no recording, and starts from a sound instead.
CLIPS = (
    ("b clip", "evaluation", 'Rain & "wind" <b>on</b> a roof.', 1.0),
    ("a-clip", "evaluation", "A dog barks.", 2.0),
    ("c%23", "train", "Übung: ein Horn.", 1.5),
    ("z", "prompts", "A made up sound.", 1.0),
)
LEFT_OUT = [
    {"check": "leak", "path": f"audio/<train> {n}.wav", "message": f"(train) has the same sound_id {n}"}
    for n in range(25)
]
MODELS = ("base", "one", "two")


def tone(seconds: float, frequency: float) -> np.ndarray:
    return 0.1 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * RATE)) / RATE)[:, None]


def figures(clip: str, model: str, recorded: bool) -> dict[str, object]:
    """The figures of a clip, as evaluate.py writes them."""
    number = MODELS.index(model)
    values = {"seconds": 1.0, "loudness_lufs": -20.0 - number, "bandwidth_hz": 4000.0, "memorised/aisfx": clip == "a-clip" and model == "two", "nearest_train/aisfx": "c%23", "clap_score/laion/x": 0.1 * number}  # fmt: skip
    if recorded:
        distance = {"b clip": 1.0, "a-clip": 3.0, "c%23": 2.0}[clip]
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
            "comparisons": 3 if number else 1,
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
            "clips": {clip: figures(clip, model, split != "prompts") for clip, split, _, _ in CLIPS},
        }
        for number, model in enumerate(MODELS)
    }
    best = {
        "evaluation/kad": {"run": "two", "value": 8.0, "among": 3},
        "evaluation/silent": {"run": "base", "value": 0.0, "among": 3},
        "train/fad": {"run": "two@step-00000001", "value": 1.0, "among": 4},
    }
    kad = {"key": "evaluation/kad", "split": "evaluation", "name": "KAD", "unit": "", "better": "lower"}
    spread = [kad | {"mean": 8.5, "deviation": 0.71, "runs": 2}]
    verdicts = {"one": "no clear difference to the base: KAD −1 [−2, 0], n = 2", "two": "closer to the recordings"}
    return {"verdicts": verdicts, "settings": {"level": 0.95}, "best": best, "runs": runs, "spreads": {"both": spread}}


def make_inputs(root: Path) -> list[object]:
    """Make the inputs of rule collect: the renders of three models, their spectrograms, and reports."""
    arguments: dict[str, list[object]] = {"--table": [], "--render": [], "--spectrograms": []}
    for number, model in enumerate(MODELS):
        folder = root / f"renders/{model}"
        suffix = "flac" if model == "two" else "wav"
        rows = []
        for clip, split, prompt, seconds in CLIPS:
            write_wav(folder / f"{clip}.wav", tone(seconds, 200 * (number + 1)), RATE)
            if suffix == "flac":
                import soundfile

                soundfile.write(folder / f"{clip}.flac", tone(seconds, 600), RATE)
            reference = root / f"audio/{clip} original.wav"
            write_wav(reference, tone(seconds, 1000), RATE)
            rows.append(
                {"clip_id": clip, "split": split, "prompt": prompt, "negative_prompt": "", "seed": 1, "seconds": seconds,
                 "run": model, "model_sha256": model, "warning": "silent" if (clip, model) == ("z", "one") else "",
                 "reference": reference if split != "prompts" else "", "source": reference if split == "prompts" else "",
                 "init_noise_level": "4.0", "mask_start": "", "mask_end": "", "file": f"{clip}.{suffix}"}
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
        settings = {"base_model": "demo", "adapter": {"rank": 16}, "learning_rate": 0.1 if run == "one" else 0.2}
        training = {
            "run": run,
            "settings": settings,
            "best_leg": "step-00000002",
            "validation_losses": {"step-00000002": 0.5},
        }
        (folder / "training.json").write_text(json.dumps(training))
        (folder / "loss.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg" width="20" height="10"></svg>')
    steps = root / "evaluation/two.svg"
    steps.parent.mkdir()
    shutil.copy(root / "checkpoints/two/loss.svg", steps)
    given = [part for key, values in arguments.items() for part in (key, *values)]
    return [
        "--run", *MODELS, *given, "--evaluation", root / "summary.json", "--steps", steps,
        "--training", *(root / f"checkpoints/{run}/training.json" for run in MODELS[1:]),
        "--curve", *(root / f"checkpoints/{run}/loss.svg" for run in MODELS[1:]),
        "--rendering", json.dumps({run: {"sampling": {"steps": 50}} for run in MODELS[1:]}),
        "--report", data / "validation.json", "--dropped", dropped, other, "--corpus", "my <corpus>", "another", "--output", root / "samples",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of samples. Tests must not change it."""
    root = tmp_path_factory.mktemp("collect")
    assert_succeeds(run_script("collect", *make_inputs(root)))
    return root / "samples"


def test_folder_has_all_that_the_page_shows(made: Path) -> None:
    samples = pd.read_csv(made / "samples.csv", keep_default_na=False)
    assert list(samples.run) == [model for model in MODELS for _ in CLIPS]
    wanted = {f"{row.run}/{row.file}" for row in samples.itertuples()}
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


def test_nothing_of_an_earlier_config_stays(tmp_path: Path) -> None:
    arguments = make_inputs(tmp_path)
    (tmp_path / "samples/old").mkdir(parents=True)
    assert_succeeds(run_script("collect", *arguments))
    assert not (tmp_path / "samples/old").exists()


def test_interrupted_it_leaves_no_folder_that_looks_like_one(tmp_path: Path) -> None:
    arguments = make_inputs(tmp_path)
    (tmp_path / "summary.json").unlink()
    os.mkfifo(tmp_path / "summary.json")  # this file is read last, and the script waits for it
    before = listing(tmp_path)
    command = [sys.executable, SCRIPTS / "collect.py", *as_options("collect", [str(part) for part in arguments])]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 60
    while not list(tmp_path.glob(".samples.part*/corpora/my <corpus>.html")):
        assert time.monotonic() < end
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=20)
    assert_fails(subprocess.CompletedProcess(command, process.returncode, "", stderr), "interrupted: no output is half")
    assert listing(tmp_path) == before


@pytest.mark.parametrize("folder", ["audio", "data/my corpus/audio/train"])
def test_recordings_of_ones_own_are_copied_and_links_followed(tmp_path: Path, folder: str) -> None:
    """Unpacked recordings take no space twice. A user's own are copied, because nothing may write into them."""
    arguments, mine = make_inputs(tmp_path), folder == "audio"
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


def test_recordings_that_browsers_do_not_play_are_written_as_flac(tmp_path: Path) -> None:
    arguments = make_inputs(tmp_path)
    audio = np.random.default_rng(0).integers(-9000, 9000, (44100, 2)) / 32768
    kinds = {"b clip": write_media(tmp_path / "b.wv", audio), "a-clip": write_media(tmp_path / "a.m4a", audio)}
    for model in MODELS:
        path = tmp_path / f"renders/{model}.csv"
        table = pd.read_csv(path, keep_default_na=False, dtype=str)
        table["reference"] = [
            str(kinds.get(clip, old)) for clip, old in zip(table.clip_id, table.reference, strict=True)
        ]
        table.to_csv(path, index=False)
    assert_succeeds(run_script("collect", *arguments))
    found = {path.name for path in (tmp_path / "samples/reference").iterdir()}
    assert found == {"b clip.flac", "a-clip.m4a", "c%23.wav"}
    assert np.array_equal(read_sound(tmp_path / "samples/reference/b clip.flac")[0], audio)
    page = (tmp_path / "samples/index.html").read_text()
    assert "reference/b%20clip.flac" in page and "reference/a-clip.m4a" in page


def test_missing_wav_fails_and_names_it(tmp_path: Path) -> None:
    arguments = make_inputs(tmp_path)
    gone = tmp_path / "renders/one/b clip.wav"
    gone.unlink()
    assert_fails(run_script("collect", *arguments), gone, "listed in")


@pytest.fixture(scope="module")
def browser() -> Iterator:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium on PATH: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()


@pytest.fixture
def context(browser) -> Iterator[BrowserContext]:
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
    page.on("request", lambda r: None if r.url.startswith((f"{inside}/", "data:")) else wrong.append(r.url))
    page.goto(f"{inside}/index.html", wait_until="load")
    page.wait_for_function("document.querySelectorAll('.cells template').length === 0")
    return page, wrong


@pytest.fixture
def page(context: BrowserContext, made: Path) -> Iterator[Page]:
    page, wrong = open_page(context, made)
    yield page
    assert wrong == []


def shown(page: Page) -> list[str]:
    return page.eval_on_selector_all(".clip", "rows => rows.filter(r => !r.hidden).map(r => r.dataset.clip)")


def wait_until_plays(page: Page, *sources: str) -> None:
    """Wait until these sounds play, and no other."""
    page.wait_for_function(
        """sources => { const played = [...document.querySelectorAll("audio")].filter(a => !a.paused);
        return played.map(a => a.getAttribute("src")).join() === sources.join() && played.every(a => a.currentTime > 0); }""",
        arg=list(sources),
    )


def test_page_loads_all_pictures_and_can_play_every_sound(page: Page) -> None:
    broken = page.evaluate(
        """async () => { const wrong = [];
        for (const image of document.images) { image.loading = "eager"; await image.decode().catch(() => wrong.push(image.src)); }
        for (const audio of document.querySelectorAll("audio")) {
            audio.preload = "metadata"; audio.load();
            await new Promise((done) => { audio.onloadedmetadata = done; audio.onerror = () => { wrong.push(audio.src); done(); }; });
        }
        return wrong; }"""
    )
    assert broken == []
    assert page.locator("audio").count() == len(CLIPS) * (
        len(MODELS) + 1
    )  # beside each stands its recording or its source


def test_summary_tells_measures_settings_and_corpus(page: Page) -> None:
    text = page.locator("section").first.inner_text()
    assert "10 [9, 11] n = 2" in text and "KAD, evaluation: go by KAD." in text
    assert "both: 2 seeds" in text and "8.5 ± 0.71 n = 2" in text
    assert "the best was chosen on these very clips" in text
    assert "one: no clear difference to the base: KAD −1 [−2, 0], n = 2\n\ntwo: closer to the recordings\n" in text
    assert "3 models are compared with the base" in text and "all 3 of them hold at once with 95 %" in text
    # Bold is only a difference whose interval does not hold zero, and of it nothing but the difference.
    weights = "cells => cells.filter(c => getComputedStyle(c).fontWeight > 600).map(c => c.textContent)"
    assert page.eval_on_selector_all("td, td *", weights) == ["−2 [−3, −1]"]
    assert "−1 [−2, 0]" in text and "0 [−1, 1]" in text
    assert "5 clips, 26 left out (leak: 25, tokens: 1), 1 warnings. Licences: CC0-1.0: 4, CC-BY-3.0: 1." in text
    assert "0.wav" not in text
    page.locator("summary", has_text="Left out of my <corpus>").click()
    text = page.locator("section").first.inner_text()
    assert "audio/<train> 19.wav (train) has the same sound_id 19" in text and "x.wav too long" in text
    assert "leak: 5 more, in the report" in text and "<train> 20.wav" not in text
    page.locator("summary", has_text="Settings").click()
    page.locator("summary", has_text="train").click()
    text = page.locator("section").first.inner_text()
    assert re.search(r"learning_rate\s+0.1\s+0.2", text) and re.search(r"sampling.steps\s+50\s+50", text)
    assert "best of 4: two@step-00000001, 1" in text
    with page.expect_navigation():
        page.locator("a", has_text="my <corpus>").click()
    assert page.title() == "the corpus"


def test_row_has_prompt_players_pictures_and_figures(page: Page) -> None:
    row = page.locator(".clip[data-clip='b clip']")
    assert row.locator("h3").inner_text() == 'Rain & "wind" <b>on</b> a roof.'
    assert row.locator("h4").all_inner_texts() == ["recording", *MODELS]
    assert "Log-mel distance" in row.inner_text() and "CLAP score (laion/x)" in row.inner_text()
    started = page.locator(".clip[data-clip='z']")
    assert started.locator("h4").all_inner_texts() == ["source", *MODELS]
    assert "seed 1 · source noised to 4" in started.inner_text() and "noised" not in row.inner_text()
    copy = page.locator(".clip[data-clip='a-clip'] .cell[data-name='two']")
    assert "near copy of training clip c%23 (aisfx)" in copy.inner_text()


def test_click_plays_and_only_one_sound_at_a_time(page: Page) -> None:
    first = page.locator(".clip[data-clip='b clip'] .cell[data-name='base']")
    first.evaluate("cell => cell.scrollIntoView({ block: 'center' })")
    page.wait_for_function("cell => cell.querySelector('audio').controls", arg=first.element_handle())
    box = first.locator("audio").bounding_box()
    page.mouse.click(box["x"] + 22, box["y"] + box["height"] / 2)  # the button of the control itself
    wait_until_plays(page, "base/b%20clip.wav")
    other = page.locator(".clip[data-clip='a-clip'] .cell[data-name='two'] .picture")
    other.click(position={"x": 30, "y": 20})  # the sound plays from there
    wait_until_plays(page, "two/a-clip.flac")
    assert page.evaluate("document.querySelector('[src=\"two/a-clip.flac\"]').currentTime") > 0.1


def test_keys_move_and_play(page: Page) -> None:
    page.keyboard.press(" ")
    wait_until_plays(page, "reference/a-clip.wav")
    for key in ("ArrowRight", "ArrowDown", " "):
        page.keyboard.press(key)
    wait_until_plays(page, "base/b%20clip.wav")
    page.keyboard.press(" ")
    wait_until_plays(page)
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowUp")
    assert page.evaluate("document.activeElement.getAttribute('src')") == "reference/a-clip.wav"
    page.locator("#search").fill("rain wind")  # there, the space bar types a space and plays nothing
    wait_until_plays(page)


def test_sort_and_filter(page: Page) -> None:
    assert shown(page) == ["a-clip", "b clip", "z", "c%23"]
    page.select_option("#sort", "seconds")
    page.click("#descending")
    assert shown(page)[:2] == ["a-clip", "c%23"]
    page.select_option("#sort", label="Log-mel distance, two")
    assert shown(page) == ["a-clip", "c%23", "b clip", "z"]  # clips without the figure come last
    page.click("#descending")
    assert shown(page) == ["b clip", "c%23", "a-clip", "z"]
    page.select_option("#split", "train")
    assert shown(page) == ["c%23"] and page.locator("#shown").inner_text() == "1 of 4 prompts"
    page.select_option("#split", "")
    page.fill("#search", "roof RAIN")
    assert shown(page) == ["b clip"]
    page.fill("#search", "")
    page.click("#warnings")
    assert sorted(shown(page)) == ["a-clip", "z"]


def test_blind_comparison_hides_which_is_which_and_keeps_a_tally(context: BrowserContext, made: Path) -> None:
    page, wrong = open_page(context, made)
    page.click("#blind")
    drawn = []
    for clip, *_ in CLIPS:
        row = page.locator(f".clip[data-clip='{clip}']")
        cells = row.locator(".cell.model:visible")
        assert sorted(cells.locator("h4").all_inner_texts()) == ["A", "B"]
        seen = row.inner_text() + " ".join(a.get_attribute("aria-label") for a in cells.locator("audio").all())
        assert not any(model in re.findall(r"\w+", seen.split("seed 1")[-1]) for model in MODELS)
        assert cells.locator(".picture:visible, dl:visible, .odd:visible").count() == 0
        drawn.append(row.locator(".drawn h4:has-text('A')").locator("..").get_attribute("data-name"))
        row.get_by_role("button", name="A is better").click()
    assert page.locator("#tally").inner_text() == "4 judged"
    page.click("#blind")
    page, wrong_too = open_page(context, made)  # the votes are kept when the page is opened again
    tally = page.locator("#tally").inner_text()
    assert {run: int(n) for run, n in re.findall(r"(\w+) better (\d+)×", tally) if int(n)} == {
        run: drawn.count(run) for run in drawn
    }
    page.click("#blind")
    page.keyboard.press("0")
    assert page.evaluate("document.activeElement.closest('.clip').dataset.clip") == "b clip"
    page.click("#blind")
    assert "neither 1×" in page.locator("#tally").inner_text()
    assert page.locator(".clip[data-clip='z'] h4").all_inner_texts() == ["source", *MODELS]
    page.click("#forget")
    assert page.locator("#tally").inner_text() == ""
    assert wrong + wrong_too == []


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("colours", ["light", "dark"])
def test_page_is_accessible_in_both_colours_and_fits(page: Page, width: int, colours: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page.set_viewport_size({"width": width, "height": 844})
    page.select_option("#colours", colours)
    page.eval_on_selector_all("details", "all => all.forEach(d => { d.open = true; })")
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
    assert len(shown(page)) == 40 and page.locator("audio").count() == 120
    page.keyboard.press(" ")
    wait_until_plays(page, page.locator("audio").first.get_attribute("src"))
    assert page.locator("p.verdict").inner_text().startswith("demo: ")
    bold = page.eval_on_selector_all("td.better b", "cells => cells.map(c => c.textContent)")
    assert bold and all(re.fullmatch(r"(\+|−)\S+ \[(−\S+, −\S+|[\d.]+, [\d.]+)\]", text) for text in bold)
    assert wrong == []


def test_report_has_the_page_the_curves_and_the_measures(finished: Path, tmp_path: Path) -> None:
    """The report needs no network. Nothing answers at the proxy of this test."""
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    done = subprocess.run(
        ["snakemake", "results/samples", "--report", tmp_path / "report.zip"], cwd=finished, env=os.environ | proxies,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    shutil.unpack_archive(tmp_path / "report.zip", tmp_path / "report")
    files = listing(tmp_path / "report")
    for name in ("index.html", "samples.csv", "loss.svg", "summary.csv", "validation.html"):
        assert any(file.endswith(f"/{name}") for file in files), f"{name} is not in {sorted(files)}"
    text = "".join((tmp_path / "report" / file).read_text() for file in files if file.endswith((".html", ".js")))
    for words in (
        "The same prompts and seeds rendered",
        "marks the best leg",
        "bootstrap interval",
        "Samples",
        "Evaluation",
    ):
        assert words in text, words
