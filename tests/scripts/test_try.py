"""A prompt that is tried has the bytes of the graph's render of it, and what cannot be rendered is told in one line."""

from __future__ import annotations

import ast
import dataclasses
import json
import re
import runpy
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from conftest import (
    BASE_MODEL,
    ROOT,
    SCRIPTS,
    assert_fails,
    assert_succeeds,
    checksum,
    kept_table,
    link_checkout,
    run_script,
    write_wav,
)
from sao.base.command import InputError
from sao.base.files import read_json, write_json
from sao.config.files import laid_over, read_config
from sao.config.settings import to_text
from sao.plan.trying import Models, models_of
from sao.rendering.clips import read_clips
from sao.rendering.trying import Loaded, Model, Request, beside, prepare, with_random_seed
from sao.sound.spectra import log_mel, log_mel_distance, read_sound
from tried import ADAPTED, CONFIG, LEG, make_results

RENDERED = {"demo": "demo", "base": "base--demo--demo", f"demo@{LEG}": f"demo@{LEG}", ADAPTED: ADAPTED}


@pytest.fixture(scope="module")
def graph(base_model: Path, splits: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in which the graph has rendered with a run, one of its legs and the base model. It is the working directory."""
    folder = make_results(tmp_path_factory.mktemp("graph") / "checkout", base_model)
    results = folder / "results"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        models = models_of([Path("small.yaml")], [], tmp_path_factory.mktemp("scratch"))
        plan = models.plan
        table = results / "data/demo/prompts/demo.csv"
        table.parent.mkdir(parents=True)
        settings = to_text(plan.rendering.prompt_settings("demo", "demo"))
        model = ["--model-config", "results/models/demo/model_config.json", "--hub", "results/models/demo/hub"]
        given = [
            "--kept",
            kept_table(splits, results / "kept.csv"),
            "--prompts",
            "mine.csv",
            "--settings",
            settings,
            *model,
        ]
        outputs = ["--output", "results/data/demo/prompts/demo.csv", "--sources", "results/data/demo/prompts/demo"]
        assert_succeeds(run_script("prompts", *given, *outputs, cwd=folder))
        for name in RENDERED.values():
            files = {
                "--weights": plan.rendering.weights(name), "--weights-digest": plan.rendering.weights_digest(name),
                "--model": plan.models.folder(name), "--model-digest": plan.models.digest(name),
                "--clips": plan.rendering.clips(name), "--settings": to_text(plan.rendering.settings(name)),
                "--output": f"results/renders/{name}", "--table": f"results/renders/{name}.csv",
            }  # fmt: skip
            options = [part for pair in files.items() for part in pair]
            assert_succeeds(run_script("render", "--run", name, "--code", "x", *options, cwd=folder))
        yield folder


@pytest.fixture
def models(graph: Path, tmp_path: Path) -> Models:
    return models_of([Path("small.yaml")], [], tmp_path / "scratch")


def asks(models: Models, name: str = "demo", **request: Any) -> Any:
    return prepare(models.find(name), Request(**{"prompt": "Some rain."} | request))


def test_the_command_gives_the_graphs_bytes(graph: Path, tmp_path: Path) -> None:
    """A user's prompt in a batch of others, with seed, length and guidance of its row, and the base model beside it."""
    done = run_script(
        "try",
        "demo",
        "Wind.",
        "--configfile",
        "small.yaml",
        "--compare",
        "base",
        "--output",
        tmp_path / "a.wav",
        cwd=graph,
    )
    assert_succeeds(done)
    assert "Warning" not in done.stderr and len(done.stderr.splitlines()) <= 6, done.stderr
    assert "as the graph renders wind" in done.stderr
    for name, folder in (("a.wav", "demo"), ("a.base.wav", "base--demo--demo")):
        assert (tmp_path / name).read_bytes() == (graph / f"results/renders/{folder}/wind.wav").read_bytes()
    assert (tmp_path / "a.wav").read_bytes() != (tmp_path / "a.base.wav").read_bytes()


@pytest.mark.parametrize("name", list(RENDERED))
def test_every_render_of_the_graph_is_met(models: Models, graph: Path, tmp_path: Path, name: str) -> None:
    """Clips of the corpus and prompts of the user, at any place of a batch: whole ones, the last one, and one alone."""
    model = models.find(name)
    assert model.name == RENDERED[name]
    loaded = Loaded(model)
    clips = read_clips(model.table)
    assert len(clips) > 8  # more than a batch
    for clip in clips if name == "demo" else clips[-4:]:
        job = prepare(model, Request(prompt=clip.prompt, seed=str(clip.seed)))
        assert job.clip.clip_id == clip.clip_id and job.among
        row = loaded.render(job, tmp_path)
        rendered = graph / f"results/renders/{RENDERED[name]}" / row["file"]
        assert (tmp_path / row["file"]).read_bytes() == rendered.read_bytes(), clip.clip_id


def test_a_prompt_of_ones_own_is_rendered_as_in_a_file_with_it_alone(
    models: Models, graph: Path, tmp_path: Path
) -> None:
    (tmp_path / "alone.txt").write_text("Some rain.\n")
    over = {"render": {"clips": {"evaluation": None, "train": None}, "prompts": str(tmp_path / "alone.txt")}}
    (tmp_path / "alone.yaml").write_text(json.dumps(laid_over(CONFIG, over)))
    alone = models_of([tmp_path / "alone.yaml"], [], tmp_path).plan
    (clip,) = [c for c in read_clips(write_alone(alone, graph, tmp_path)) if c.split == "prompts"]
    job = asks(models)
    assert dataclasses.replace(job.clip, origin="") == clip and not job.among
    row = Loaded(models.find("demo")).render(job, tmp_path)
    settings = to_text(alone.rendering.settings("demo"))
    options = ["--clips", tmp_path / "alone.csv", "--settings", settings, "--output", tmp_path / "out"]
    options += ["--table", tmp_path / "out.csv", "--weights", "results/checkpoints/demo/model.safetensors"]
    options += ["--weights-digest", "results/checkpoints/demo/export.json", "--model", "results/models/demo"]
    options += ["--model-digest", "results/models/demo/checksums.sha256", "--run", "demo", "--code", "x"]
    assert_succeeds(run_script("render", *options, cwd=graph))
    assert (tmp_path / row["file"]).read_bytes() == (tmp_path / "out/prompt-0001.wav").read_bytes()


def write_alone(plan: Any, graph: Path, folder: Path) -> Path:
    """The table of the sounds to render where a file of prompts is all that is rendered."""
    kept = graph / "results/kept.csv"
    settings = to_text(plan.rendering.prompt_settings("demo", "demo"))
    given = [
        "--kept",
        kept,
        "--prompts",
        folder / "alone.txt",
        "--settings",
        settings,
        "--hub",
        "results/models/demo/hub",
    ]
    given += ["--model-config", "results/models/demo/model_config.json"]
    done = run_script("prompts", *given, "--output", folder / "alone.csv", "--sources", folder / "alone", cwd=graph)
    assert_succeeds(done)
    return folder / "alone.csv"


def test_options_replace_what_the_graph_has(models: Models) -> None:
    gull = asks(models, prompt="A gull over water.")
    assert (gull.clip.clip_id, gull.clip.seed, gull.clip.seconds) == ("gull", 7, 0.5) and gull.among
    other = asks(models, prompt=" A gull over water. ", seed="8")
    assert other.clip.clip_id == "gull-2" and other.among
    third = asks(
        models, prompt="A gull over water.", seed="9", seconds="0.25", cfg_scale="3", steps="4", sampler="k-heun"
    )
    assert (third.clip.clip_id, third.clip.seed, third.clip.seconds, third.clip.cfg_scale) == ("gull", 9, 0.25, 3.0)
    assert (third.sampling["steps"], third.sampling["sampler"]) == (4, "k-heun") and not third.among
    wind = asks(models, prompt="Wind.")
    assert (wind.clip.negative_prompt, wind.clip.cfg_scale) == ("A loud engine.", 4)
    assert asks(models, prompt="Wind.", negative_prompt="").clip.negative_prompt is None
    assert asks(models, prompt="Wind.", negative_prompt="Birds.").clip.negative_prompt == "Birds."


def test_a_sound_to_start_from(models: Models, graph: Path, tmp_path: Path) -> None:
    rain = asks(models, prompt="Rain.")
    assert rain.clip.init_noise_level == 5 and rain.clip.source and rain.among
    mine = asks(models, init_audio="notes.wav")
    assert mine.clip.seconds == 1 and mine.clip.init_noise_level == 8  # where stable-audio-tools' page begins
    assert mine.clip.source_sha256 == checksum(graph / "notes.wav", "sha256")
    loaded = Loaded(models.find("base"))

    def distance(level: str) -> float:
        """Of what is made of the source, to the source."""
        row = loaded.render(asks(models, init_audio="notes.wav", init_noise_level=level), tmp_path)
        mono = [audio.mean(axis=1) for audio, _ in map(read_sound, (tmp_path / row["file"], graph / "notes.wav"))]
        return log_mel_distance(*map(log_mel, mono))

    assert distance("0.4") < distance("40")  # less noise leaves more of it
    assert {path.name for path in graph.glob("*.wav")} == {"notes.wav"}  # nothing is written beside it


def test_a_model_is_found_by_each_of_its_names(models: Models, graph: Path, tmp_path: Path) -> None:
    for name in ("demo", "results/checkpoints/demo", "results/checkpoints/demo/"):
        assert models.find(name).name == "demo"
    for name in ("demo@4", f"demo@{LEG}", f"demo/{LEG}", f"results/checkpoints/demo/{LEG}"):
        assert models.find(name).name == f"demo@{LEG}"
    for name in ("base", "base--demo--demo"):
        assert models.find(name).weights == Path("results/models/demo/model.safetensors")
    assert models.names() == ["base", "demo", ADAPTED, f"demo@{LEG}"]
    # A folder from elsewhere: with its own text encoder, with that of a base model of the same form, or of a folder that is named.
    mine = shutil.copytree(
        graph / "results/checkpoints/demo", tmp_path / "mine", ignore=shutil.ignore_patterns("step-*")
    )
    assert models.find(str(mine)).base == Path("results/models/demo")
    changed = read_json(mine / "model_config.json")
    changed["model"]["diffusion"]["config"]["depth"] = 3
    write_json(mine / "model_config.json", changed)
    with pytest.raises(InputError, match=r"mine: has no text encoder, and no base model .* --text-encoder"):
        models.find(str(mine))
    encoder = BASE_MODEL / "text_encoder"
    for folder, named in ((mine, encoder), (BASE_MODEL, None)):
        found = models.find(str(folder), text_encoder=named)
        (weights,) = found.base.glob("hub/*/snapshots/*/model.safetensors")
        assert checksum(weights) == checksum(encoder / "model.safetensors")
    with pytest.raises(InputError, match=r"demo/config.json: missing; a text encoder needs"):
        models.find(str(mine), text_encoder=graph / "results/checkpoints/demo")


def test_a_folder_renders_what_its_run_does(models: Models, graph: Path, tmp_path: Path) -> None:
    mine = shutil.copytree(
        graph / "results/checkpoints/demo", tmp_path / "mine", ignore=shutil.ignore_patterns("step-*")
    )
    made = []
    for name in ("demo", str(mine)):
        model = models.find(name)
        row = Loaded(model).render(prepare(model, Request("Some rain.")), tmp_path)
        made.append(soundfile.read(tmp_path / row["file"])[0])
    assert np.array_equal(*made)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"prompt": "  "}, "the prompt is empty: write one"),
        ({"prompt": "雨の音がする"}, r"the prompt \('雨の音がする'\) cannot be told from others"),
        ({"prompt": "rain " * 99}, r"the text encoder cuts it after \d+: shorten it"),
        ({"seconds": "9"}, r"seconds is 9.0, the model's window is 3.07 s: ask for less"),
        ({"seconds": "nan"}, "seconds is 'nan', not a number above 0"),
        ({"seconds": "0"}, "seconds is '0', not a number above 0"),
        ({"seed": "1.5"}, "seed is '1.5', not a whole number from 0"),
        ({"seed": "-2"}, "seed is '-2', not a whole number from 0"),
        ({"cfg_scale": "high"}, "cfg_scale is 'high', not a number from 0 to 100"),
        ({"steps": "0"}, "steps is '0', not a whole number from 1 to 10000"),
        ({"steps": "1"}, "sampling.steps is 1; dpmpp-3m-sde needs 2 or more"),
        ({"sampler": "euler"}, "sampler is 'euler'; this model takes dpmpp-3m-sde, dpmpp-2m-sde"),
        ({"init_audio": "none.wav"}, "the init_audio 'none.wav' does not exist: correct its path"),
        ({"init_audio": "mine.csv"}, "the init_audio 'mine.csv' cannot be read"),
        ({"init_audio": "notes.wav", "init_noise_level": "0.1"}, "init_noise_level is '0.1', not a number above 0.3"),
        ({"init_noise_level": "5"}, "init_noise_level is given without an init_audio"),
        ({"mask": "1-2", "init_audio": "notes.wav"}, "mask is '1-2', not START:END in seconds"),
        ({"mask": ":", "init_audio": "notes.wav"}, "mask is ':', not START:END"),
        ({"mask": "0:1"}, "a mask needs an init_audio"),
        ({"mask": "0:1", "init_audio": "notes.wav"}, "a mask needs an inpainting model .* this one is diffusion_cond"),
        ({"strength": "half"}, "strength is 'half', not a number from 0 to 10"),
        ({"strength": "0.5"}, "demo has no adapter whose strength could be 0.5"),
        ({"numbers": {"bpm": "90"}}, "takes no number 'bpm' beside a prompt"),
        ({"prompt": "Rain.", "seconds": "0.5"}, "the graph starts it from a sound, which decides its seconds"),
    ],
)
def test_what_a_model_cannot_take_is_told(models: Models, request_: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        asks(models, **request_)
    assert str(error.value).startswith("the request: ") and "\n" not in str(error.value)


def inpainting(models: Models, folder: Path) -> Model:
    """A model of the form of the demo's, that takes a mask."""
    model = models.find("demo")
    shutil.copytree(Path("results/models/demo"), folder / "inpainting")
    config = read_json(model.base / "model_config.json") | {"model_type": "diffusion_cond_inpaint"}
    write_json(folder / "inpainting/model_config.json", config)
    return dataclasses.replace(model, base=folder / "inpainting", table=None, file=None)


def test_masks_of_inpainting_models(models: Models, tmp_path: Path) -> None:
    model = inpainting(models, tmp_path)

    def clip(**request: str) -> Any:
        return prepare(model, Request("Rain.", init_audio="notes.wav", **request)).clip

    for mask, start, end in (("0.25:0.75", 0.25, 0.75), ("0.5:", 0.5, 1.0), (":.5", 0.0, 0.5)):
        made = clip(mask=mask)
        assert (made.mask_start, made.mask_end, made.init_noise_level) == (start, end, None)
    assert clip(mask="0.5:", init_noise_level="3").init_noise_level == 3
    assert clip(mask="0.5:", seconds="2").mask_end == 2
    for mask, message in (
        ("0.5:3", "ends after the sound"),
        ("0.5:0.51", "no whole latent frame"),
        ("1.5.2:2", "mask_start"),
    ):
        with pytest.raises(InputError, match=message):
            clip(mask=mask)


def test_models_that_are_not_there_are_told_with_what_builds_them(
    models: Models, graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, message in (
        ("demos", r"'demos' is no model: name one of base, demo, light, a leg such as demo@step-00000008, or a folder"),
        ("demo@6", r"run 'demo' has no leg 'step-00000006': name one of step-00000004, step-00000008"),
        (
            "demo@8",
            r"step-00000008/model.safetensors: not built yet: run `uv run snakemake --cores all "
            r"results/checkpoints/demo/step-00000008/model.safetensors --configfile=small.yaml`",
        ),
        ("results", "results: has no model.safetensors"),
    ):
        with pytest.raises(InputError, match=message):
            models.find(name)
    (tmp_path / "empty").mkdir()
    shutil.copy(graph / "results/checkpoints/demo/model.safetensors", tmp_path / "empty")
    with pytest.raises(InputError, match=r"model_config.json: missing; a model needs its model_config.json"):
        models.find(str(tmp_path / "empty"))
    fresh = link_checkout(tmp_path / "fresh")
    monkeypatch.chdir(fresh)
    with pytest.raises(
        InputError, match=r"results/models/demo/\S+: not built yet: run .* results/models/demo/checksums.sha256`"
    ):
        models_of([], [], tmp_path).find("base")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"config.yaml: not in .*: start in the folder that has config.yaml"):
        models_of([], [], tmp_path)


def test_a_changed_model_is_refused(models: Models, graph: Path, tmp_path: Path) -> None:
    from conftest import change

    mine = shutil.copytree(
        graph / "results/checkpoints/demo", tmp_path / "demo", ignore=shutil.ignore_patterns("step-*")
    )
    change(mine / "model.safetensors")
    model = dataclasses.replace(models.find("demo"), weights=mine / "model.safetensors")
    with pytest.raises(InputError, match="it changed after it was made; delete"):
        Loaded(model)


def test_an_adapter_has_a_strength(models: Models, tmp_path: Path) -> None:
    """1 is as it was trained, 0 is the base model, and it can be changed back and forth."""

    def heard(loaded: Loaded, **request: str) -> np.ndarray:
        row = loaded.render(prepare(loaded.model, Request("Some rain.", **request)), tmp_path)
        return soundfile.read(tmp_path / row["file"])[0]

    light = Loaded(models.find(ADAPTED))
    full, half, none = heard(light), heard(light, strength="0.5"), heard(light, strength="0")
    told = json.loads(soundfile.SoundFile(tmp_path / "prompt-0001.wav").comment)
    assert told["adapter_strength"] == 0 and told["run"] == ADAPTED
    assert np.array_equal(none, heard(Loaded(models.find("base"))))
    assert np.array_equal(full, heard(light, strength="1")) and np.array_equal(half, heard(light, strength="0.5"))
    assert not np.array_equal(full, half) and not np.array_equal(half, none)


def test_two_models_have_one_seed(models: Models) -> None:
    demo, base = models.find("demo"), models.find("base")
    request = with_random_seed(Request("Some rain.", seed="-1"))
    assert request.seed.isdecimal() and with_random_seed(request) is request
    first = prepare(demo, Request("A gull over water."))
    other = dataclasses.replace(base, table=None, file=None)  # as of a folder from elsewhere
    second = beside(other, Request("A gull over water."), first)
    assert (second.clip.seed, second.clip.seconds) == (first.clip.seed, first.clip.seconds)
    assert models.find("base", demo).name == "base--demo--demo"


def test_nothing_of_a_users_is_overwritten_and_the_suffix_chooses_the_format(graph: Path, tmp_path: Path) -> None:
    mine = write_wav(tmp_path / "mine.wav", np.zeros((10, 1)))
    before = mine.read_bytes()
    shown = ("try", "base", "Rain on a roof.", "--configfile", "small.yaml", "--seconds", "0.2", "--output")
    assert_fails(run_script(*shown, mine, cwd=graph), "mine.wav: is there already, and is no render")
    assert mine.read_bytes() == before
    assert_fails(run_script(*shown, tmp_path / "a.mp3", cwd=graph), "a.mp3: sounds are written as .flac or .wav")
    assert_succeeds(run_script(*shown, tmp_path / "a.flac", cwd=graph))
    first = (tmp_path / "a.flac").read_bytes()
    assert soundfile.info(tmp_path / "a.flac").format == "FLAC"
    assert_succeeds(run_script(*shown, tmp_path / "a.flac", "--seed", 5, cwd=graph))  # a render may be replaced
    assert (tmp_path / "a.flac").read_bytes() != first
    assert {path.name for path in tmp_path.iterdir()} == {"mine.wav", "a.flac"}


def test_configs_are_read_as_snakemake_reads_them(graph: Path, tmp_path: Path) -> None:
    from snakemake.utils import update_config

    one, other = (
        {"a": {"b": 1, "c": [1, 2]}, "d": 1, "n": None},
        {"a": {"c": [3], "e": {"f": 1}}, "d": {"g": 2}, "n": {}},
    )
    merged = json.loads(json.dumps(one))
    update_config(merged, json.loads(json.dumps(other)))
    assert laid_over(one, other) == merged and one["a"]["c"] == [1, 2]
    config, files = read_config([Path("small.yaml")], ["device=cpu"])
    assert config["device"] == "cpu" and files == [Path("config.yaml"), Path("small.yaml")]
    assert config["runs"]["demo"]["steps"] == 8 and config["runs"]["demo"]["corpus"] == "demo"
    (tmp_path / "bad.yaml").write_text("runs: [")
    (tmp_path / "list.yaml").write_text("- 1")
    for files, values, message in (
        ([tmp_path / "none.yaml"], [], "none.yaml: no such file; correct --configfile"),
        ([tmp_path / "bad.yaml"], [], "bad.yaml: neither JSON nor YAML"),
        ([tmp_path / "list.yaml"], [], "list.yaml: has no keys at its top level"),
        ([], ["device"], "--config: found 'device'; it takes key=value"),
        ([], ["a={"], "--config: the value of a is not YAML"),
    ):
        with pytest.raises(InputError, match=message):
            read_config(files, values)


def test_the_commands_of_the_guide_are_ones() -> None:
    text = (ROOT / "docs/guides/trying.md").read_text(encoding="utf-8")
    options = runpy.run_path(str(SCRIPTS / "try.py"))["options"]()
    commands = [shlex.split(line) for line in re.findall(r"^uv run python scripts/try.py (.*)$", text, re.M)]
    assert len(commands) == 4 and all(options.parse_args(command).model for command in commands)
    named = {name for name in re.findall(r"`(--[a-z-]+)", text) if name not in ("--listen", "--group")}
    assert named <= {name for action in options._actions for name in action.option_strings}


def test_the_graph_never_imports_the_page() -> None:
    page = SCRIPTS / "sao/pages/playground_page.py"
    for path in SCRIPTS.rglob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        modules = {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
        assert ("gradio" in names) == (path == page), path
        assert ("sao.pages.playground_page" in modules) == (path == SCRIPTS / "playground.py"), path
