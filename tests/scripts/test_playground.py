"""The page to try prompts on: pairs of sounds on one seed, blind mode, history; and the page itself in Chromium."""

from __future__ import annotations

import base64
import importlib.util
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from browsers import chromium
from conftest import assert_fails, checksum, run_script, write_wav
from forks import Forks
from sao.base.command import InputError
from sao.pages.playground import Pair, Playground
from sao.pages.playground_page import free_port, is_loopback
from sao.plan.trying import models_of
from sao.rendering.trying import Request
from tried import ADAPTED, LEG, make_results


@pytest.fixture(scope="module")
def graph(base_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with models to try. It is the working directory."""
    folder = make_results(tmp_path_factory.mktemp("graph") / "checkout", base_model)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder


@pytest.fixture(scope="module")
def playground(graph: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Playground]:
    models = models_of([Path("small.yaml")], [], tmp_path_factory.mktemp("scratch"))
    made = Playground(models.find, tmp_path_factory.mktemp("sounds"))
    yield made
    made.close()


def render(
    playground: Playground, *names: str, blind: bool = False, strengths: Any = (1.0, 1.0), **request: str
) -> Pair:
    return playground.render(
        Request(**{"prompt": "Rain on a roof.", "seconds": "0.5"} | request), names, strengths, blind
    )


def heard(pair: Pair) -> list[np.ndarray]:
    return [soundfile.read(side.sound)[0] for side in pair.sides]


def test_two_models_stay_loaded_and_render_on_one_seed(playground: Playground) -> None:
    pair = render(playground, "demo", "base")
    assert [pair.title(place) for place in range(2)] == ["A: demo", "B: base"] and pair.request.seed.isdecimal()
    one, other = heard(pair)
    assert len(one) == len(other) == 8000 and not np.array_equal(one, other)
    assert all(side.picture.read_bytes()[8:12] == b"WEBP" for side in pair.sides)
    processes = {name: worker.process.pid for (name, _), worker in playground.workers.items()}
    again = render(playground, "demo", "base", seed=pair.request.seed)
    assert np.array_equal(heard(again)[0], one) and np.array_equal(heard(again)[1], other)
    assert {name: worker.process.pid for (name, _), worker in playground.workers.items()} == processes
    # Another model takes the place of one that is not asked for any more.
    third = render(playground, f"demo@{LEG}", "base", seed=pair.request.seed)
    assert np.array_equal(heard(third)[1], other) and not np.array_equal(heard(third)[0], one)
    assert {name for name, _ in playground.workers} == {f"demo@{LEG}", "base--demo--demo"}
    assert render(playground, "base").title(0) == "A: base" and len(playground.workers) == 2


def test_a_model_with_two_strengths(playground: Playground) -> None:
    assert playground.offer(ADAPTED).has_adapter and not playground.offer("base").has_adapter
    pair = render(playground, ADAPTED, ADAPTED, strengths=(1.0, 0.25))
    assert [pair.title(place) for place in range(2)] == [f"A: {ADAPTED}", f"B: {ADAPTED}, strength 0.25"]
    assert not np.array_equal(*heard(pair))
    # A model without an adapter has no strength, whatever the slider of the one before says.
    assert render(playground, "base", strengths=(0.25, 1.0)).sides[0].strength == 1


def test_blind_mode_hides_which_is_which_until_it_is_asked(playground: Playground) -> None:
    places = set()
    for number in range(12):
        pair = render(playground, "demo", "base", blind=True, seed=str(number), seconds="0.1")
        assert [pair.title(place) for place in range(2)] == ["Left", "Right"]
        told = f"{pair.line()} {pair.sides[0].sound.name} {pair.sides[1].sound.name} {playground.lines()[0]}"
        assert "demo" not in told and "base" not in told and "models hidden" in pair.line()
        places.add(pair.sides[0].letter)
        if number % 2:
            playground.reveal(pair.number, "left")
            assert pair.better == pair.sides[0].letter and f"better: model {pair.better}" in pair.line()
    assert places == {"A", "B"}  # but for one in 2,048 times
    assert pair.title(0) in ("A: demo", "B: base") and playground.score().startswith("6 answered.")
    assert playground.reveal(render(playground, "demo", "base", blind=True, seconds="0.1").number).better is None
    with pytest.raises(InputError, match="blind mode compares two models"):
        render(playground, "demo", blind=True)


def test_the_history_has_seeds_and_is_newest_first(playground: Playground) -> None:
    render(playground, "base", seed="11", seconds="0.1")
    render(playground, "base", seed="12", seconds="0.1", prompt="A bell.")
    (last, number), (before, _) = playground.lines()[:2]
    assert last == f"{number}. A bell. (seed 12, 0.1 s; base)" and "seed 11" in before
    assert playground.pairs[number - 1].sides[0].sound.is_file()


def test_a_dropped_sound_is_varied(playground: Playground, tmp_path: Path) -> None:
    source = write_wav(tmp_path / "Größe 1.wav", 0.2 * np.sin(np.arange(8000) / 9)[:, None], 16000)
    pair = render(playground, "demo", "base", seconds="", init_audio=str(source), init_noise_level="0.5", seed="1")
    assert all(len(sound) == 8000 for sound in heard(pair))
    assert {path.name for path in tmp_path.iterdir()} == {source.name}


def test_what_cannot_be_rendered_is_told_and_the_page_goes_on(playground: Playground, monkeypatch: Any) -> None:
    for names, request, message in (
        (("demos", "base"), {}, "model A: 'demos' is no model: name one of"),
        (("demo", "demo@8"), {}, "model B: .*not built yet: run `uv run snakemake"),
        (("demo", "base"), {"seed": "x"}, "model A: the request: seed is 'x'"),
        (("demo", "base"), {"prompt": ""}, "the prompt is empty"),
    ):
        with pytest.raises(InputError, match=message) as error:
            render(playground, *names, **request)
        assert "\n" not in str(error.value)
    render(playground, "base", seconds="0.1")
    *_, worker = playground.workers.values()
    os.kill(worker.process.pid, signal.SIGKILL)  # as the kernel does where memory is short
    with pytest.raises(InputError, match=r"the process with the model ended \(exit code -9\)|not"):
        worker.render(render(playground, "base", seconds="0.1").jobs[0], playground.folder)
    assert heard(render(playground, "base", seconds="0.1"))


def test_it_listens_where_it_is_told(tmp_path: Path) -> None:
    assert [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "192.168.1.5", "me")] == [
        True, True, True, False, False, False,
    ]  # fmt: skip
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(
            InputError, match=rf"127.0.0.1: cannot listen on port {port} \(.*in use.*\): choose another"
        ):
            free_port("127.0.0.1", port)
    assert free_port("127.0.0.1", 0) > 0


def test_nothing_to_try_is_told_at_the_start(graph: Path, tmp_path: Path) -> None:
    from conftest import link_checkout

    done = run_script("playground", cwd=link_checkout(tmp_path / "fresh"))
    assert_fails(done, "not built yet: run `uv run snakemake --cores all results/checkpoints/demo/model.safetensors`")


# The page in a browser.

OF_GRADIO = "Method not implemented."  # what its player warns of when a sound is dropped in

DROPPED = """data => {
  const bytes = Uint8Array.from(atob(data), sign => sign.charCodeAt(0)), dropped = new DataTransfer();
  dropped.items.add(new File([bytes], "notes 1.wav", {type: "audio/wav"}));
  return dropped;
}"""


@pytest.fixture(scope="module")
def address(graph: Path, forks: Forks) -> Iterator[str]:
    """The address of the page, which a process of its own serves."""
    if importlib.util.find_spec("gradio") is None:  # to import it takes seconds
        pytest.skip("no gradio: uv sync --group ui")
    process = forks.start("playground", "--port", 0, "--configfile", "small.yaml", cwd=graph)
    until = time.monotonic() + 120
    while not process.stderr().endswith("\n") and process.runs() and time.monotonic() < until:
        time.sleep(0.05)
    first = process.stderr()
    assert "open http://127.0.0.1:" in first, first
    yield first.split()[2]
    os.kill(process.pid, signal.SIGINT)
    done = process.finish(60)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium("--autoplay-policy=no-user-gesture-required") as browser:
        yield browser


@pytest.fixture(params=[(1280, "light"), (390, "dark")], ids=["wide-light", "narrow-dark"])
def page(browser: Any, address: str, request: pytest.FixtureRequest) -> Iterator[Any]:
    """The opened page. It may ask nobody but its own server, and must not complain."""
    width, scheme = request.param
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page, wrong = context.new_page(), []
    kinds = ("error", "warning")
    page.on("console", lambda said: wrong.append(said.text) if said.type in kinds and said.text != OF_GRADIO else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda r: None if r.url.startswith((address, "data:", "blob:")) else wrong.append(r.url))
    page.set_default_timeout(60_000)
    page.goto(address)
    page.get_by_role("button", name="Generate").wait_for()
    page.get_by_text("Nothing is rendered yet.").wait_for()
    yield page
    context.close()
    assert wrong == []


def plays(page: Any, place: str) -> None:
    """Play one of the sounds, and wait until it goes on. A press before its player has loaded it does nothing."""
    from playwright.sync_api import TimeoutError

    pair = page.locator("#pair")
    play = pair.get_by_role("button", name="Play", exact=True).nth(("left", "right").index(place))
    pause = pair.get_by_role("button", name="Pause", exact=True).first
    for _ in range(12):
        play.press("Enter")
        with suppress(TimeoutError):
            return pause.wait_for(timeout=5000)
    raise AssertionError(f"the sound on the {place} does not play")


@pytest.mark.slow
def test_a_prompt_is_typed_rendered_and_played_by_keyboard_alone(page: Any) -> None:
    page.get_by_label("Prompt", exact=True).focus()
    page.keyboard.type("Rain on a roof.")
    page.get_by_label("Seconds total").first.fill("3")
    page.get_by_label("Seed (set to -1 for random seed)").fill("123")
    page.get_by_role("button", name="Generate").focus()
    page.keyboard.press("Enter")
    page.get_by_text("seed 123: ").wait_for()
    assert page.get_by_role("img", name="Spectrogram").count() == 2
    plays(page, "left")
    # Nothing is wider than the window.
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    # Every control is reached by the tabulator key, from the first to the last.
    page.get_by_label("Prompt", exact=True).focus()
    reached = set()
    for _ in range(80):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate(
                "document.activeElement.innerText || document.activeElement.ariaLabel || document.activeElement.id"
            )
        )
    assert {"Generate", "Send left to init audio"} <= {text.strip() for text in reached if text}, reached


@pytest.mark.slow
def test_blind_mode_history_and_a_dropped_sound(page: Any, tmp_path: Path) -> None:
    page.get_by_label("Prompt", exact=True).fill("Wind in the trees.")
    page.get_by_label("Seconds total").first.fill("0.5")
    page.get_by_label("Seed (set to -1 for random seed)").fill("77")
    page.get_by_label("Blind mode").check()
    page.get_by_role("button", name="Generate").click()
    page.get_by_text("seed 77", exact=False).first.wait_for()
    page.get_by_role("button", name="Left is better").wait_for()
    assert (
        page.get_by_role("heading", name="Left").is_visible() and page.get_by_role("heading", name="Right").is_visible()
    )
    page.get_by_role("button", name="Right is better").click()
    page.get_by_role("heading", name="A: ").wait_for()
    page.get_by_text("1 answered.").or_(page.get_by_text("2 answered.")).wait_for()
    page.get_by_label("Blind mode").uncheck()
    # A sound is dropped in, and varied.
    source = write_wav(tmp_path / "notes.wav", 0.2 * np.sin(np.arange(8000) / 9)[:, None], 16000)
    data = base64.b64encode(source.read_bytes()).decode()
    dropped = page.evaluate_handle(DROPPED, data)
    page.get_by_role("button", name="Drop an audio file here").dispatch_event("drop", {"dataTransfer": dropped})
    page.locator("#settings").get_by_role("button", name="Play", exact=True).wait_for()
    page.get_by_label("Seed (set to -1 for random seed)").fill("78")
    page.get_by_role("button", name="Generate").click()
    page.get_by_text("seed 78: ").wait_for()
    # The history brings back the one before, and what was asked for.
    page.get_by_role("radio", name="seed 77").first.check()
    page.get_by_text("seed 77: ").wait_for()
    assert page.get_by_label("Prompt", exact=True).input_value() == "Wind in the trees."
    assert page.get_by_label("Seed (set to -1 for random seed)").input_value() == "77"


@pytest.mark.slow
def test_an_error_is_told_on_the_page(page: Any) -> None:
    page.get_by_label("Prompt", exact=True).fill("")
    page.get_by_role("button", name="Generate").click()
    page.get_by_role("alert").get_by_text("the prompt is empty: write one").wait_for()


def test_sounds_of_the_command_and_the_page_are_the_same(playground: Playground, graph: Path, tmp_path: Path) -> None:
    done = run_script(
        "try", "demo", "Rain on a roof.", "--configfile", "small.yaml", "--seconds", "0.5", "--seed", "5",
        "--output", tmp_path / "a.wav", cwd=graph,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    pair = render(playground, "demo", seed="5")
    assert checksum(pair.sides[0].sound) == checksum(tmp_path / "a.wav")
