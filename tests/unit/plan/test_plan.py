"""The files and options that the plan derives from a config, without Snakemake."""

from __future__ import annotations

import argparse
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT, noise, write_wav
from hypothesis import assume, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sao.base.command import InputError
from sao.base.files import write_json
from sao.config.resolve import MOST_LEGS
from sao.config.settings import (
    CutSettings,
    DatasetSettings,
    EncodeSettings,
    InitSettings,
    ManifestSettings,
    RunningSettings,
    ScanSettings,
    SplitSettings,
    TrainingSettings,
    ValidateSettings,
    from_text,
    to_text,
)
from sao.data.corpora import resolve
from sao.evaluation.votes import FORMAT
from sao.plan.plan import Plan
from sao.plan.resources import STEP

Corpus = dict[str, Any]


def plan(**corpus: Any) -> Plan:
    """The plan of the default config with a corpus `mine`, which is a folder."""
    path = ROOT / "config.yaml"
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    config["corpora"]["mine"] = {"format": "audiofolder", "path": "sounds"} | corpus
    return Plan(resolve(config, [path]))


@pytest.mark.parametrize("path", ["sounds", "./sounds", "sounds/", "sounds/."])
def test_folder_is_read_where_it_is_by_a_path_that_snakemake_takes(path: str) -> None:
    assert plan(path=path).data.audio("mine", "train") == "sounds/train"
    drawn = plan(path=path, split={"method": "fraction"}).data
    assert drawn.audio("mine", "all") == "sounds"
    assert drawn.manifests("mine") == ["results/data/mine/manifests/all.csv"]
    options = {"caption_columns": None, "top": None, "splits": None}
    assert drawn.scan("mine", "all") == {"format": "audiofolder", "folder": "sounds", "options": options}


def test_a_corpus_that_is_cut_has_its_clips_below_results() -> None:
    split = {"method": "fraction"}
    whole, by_length, by_rows = (
        plan(split=split, cut=cut).data
        for cut in (None, {"method": "length", "seconds": 5}, {"method": "columns", "start": "onset", "end": "offset"})
    )
    assert whole.cut_pattern() == "(?!)" and by_length.cut_pattern() == "mine"
    assert (whole.facts("mine", "all"), whole.recordings("mine")) == ("results/data/mine/audio/all.csv", [])
    for here in (by_length, by_rows):
        assert here.source("mine", "all") == here.scan("mine", "all")["folder"] == "sounds"
        clips = "results/data/mine/cuts/audio/all"
        assert here.recordings("mine") == [here.audio("mine", "all")] == [clips]
        assert here.facts("mine", "all") == f"{clips}.csv"
        assert here.captions("mine", "all") == ["results/data/mine/cuts/all.csv"]
        assert here.source_captions("mine", "all") == ["results/data/mine/captions/all.csv"]
        assert here.manifest("mine", "all") == whole.manifest("mine", "all") | {"audio": clips, "cut": True}
        assert from_text(CutSettings, to_text(here.cut("mine", "all"))) == here.cut("mine", "all")
    # Other settings of a cut read no recording anew.
    assert by_length.scan("mine", "all")["options"]["segments"] is None
    assert by_rows.scan("mine", "all")["options"]["segments"] == {"start": "onset", "end": "offset"}
    assert by_length.cut("mine", "all")["cut"] == {"method": "length", "seconds": 5, "hop": None, "min_seconds": 0.5}


def test_archives_are_unpacked_and_then_cut() -> None:
    path = ROOT / "config.yaml"
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    config["corpora"]["demo"]["cut"] = {"method": "silences"}
    here = Plan(resolve(config, [path])).data
    assert here.source("demo", "validation") == "results/data/demo/audio/validation"
    assert here.audio("demo", "validation") == "results/data/demo/cuts/audio/validation"
    assert len(here.source_captions("demo", "validation")) == len(here.source_metadata("demo", "validation")) == 1
    assert here.metadata("demo", "validation") == []


def test_a_window_by_lengths_is_a_file_wherever_it_is_used() -> None:
    path = ROOT / "config.yaml"
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    config["render"]["own_window"] = True
    plans = {}
    for window in ("auto", 2.5, None):
        config["corpora"]["demo"]["train_seconds"] = window
        plans[window] = Plan(resolve(config, [path]))
    file = "results/data/demo/windows/demo.json"
    for window, here in plans.items():
        expected = file if window == "auto" else window
        used = [here.data.window("demo", "demo"), here.data.datasets("demo", "demo"), here.rendering.settings("demo")]
        used += [here.rendering.prompt_settings("demo", "demo"), here.publish.card("demo")]
        assert {settings["train_seconds"] for settings in used} == {expected}
        files = [
            here.data.window_files("demo", "demo"),
            here.rendering.window_files("demo"),
            here.publish.window_files("demo"),
        ]
        assert files == [[file] if window == "auto" else []] * 3
        assert here.data.validate("demo")["train_seconds"] == (2.5 if window == 2.5 else None)
    own = next(name for name in plans["auto"].runs.rendered if name.endswith("--own-window"))
    assert plans["auto"].rendering.settings(own)["train_seconds"] is None
    assert plans["auto"].rendering.window_files(own) == []


def test_table_above_the_top_folders_is_listed_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_wav(tmp_path / "in/train/a.wav", noise("a", 0.01))
    (tmp_path / "in/metadata.csv").write_text("file_name,caption\ntrain/a.wav,A.\n")
    here, later = plan(path="in").data, plan(path="in").data
    monkeypatch.chdir(tmp_path)
    key = here.folder_key("mine", "train")
    assert here.scan_mb("mine", "train") == pytest.approx(800.02)  # for two files, the sound and the table
    settings = here.scan("mine", "train")
    assert settings["folder"] == "in/train" and settings["options"]["top"] == "in"
    assert settings["options"]["splits"] == ["train", "validation", "test"]
    (tmp_path / "in/metadata.csv").write_text("file_name,caption\ntrain/a.wav,Another.\n")
    assert here.folder_key("mine", "train") == key != later.folder_key("mine", "train")
    assert not (tmp_path / "results").exists()


def test_file_that_a_base_model_lacks_is_left_to_the_script(tmp_path: Path) -> None:
    path = ROOT / "config.yaml"
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    config["base_models"]["mine"] = {"path": str(tmp_path)}
    (tmp_path / "model_config.json").write_text("{}")
    here = Plan(resolve(config, [path]))
    assert here.models.files("mine") == [f"{tmp_path}/model_config.json"]
    assert here.models.content("mine").count("missing") == 4


def test_folder_that_is_not_there_stops_no_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = plan(path="/no/such/folder").data
    monkeypatch.chdir(tmp_path)
    assert here.folder_key("mine", "train") and here.scan_mb("mine", "train") == 800


@pytest.mark.parametrize(
    ("corpus", "split"),
    [
        ({}, {"method": "official", "train": ["train"], "validation": ["validation"], "evaluation": ["test"]}),
        (
            {"split": {"method": "fraction", "seed": 7, "validation": 0.2}},
            {
                "method": "fraction",
                "train": ["all"],
                "validation": [],
                "evaluation": [],
                "seed": 7,
                "fractions": {"validation": 0.2, "evaluation": 0.1},
            },
        ),
    ],
)
def test_split_is_told_without_what_it_does_not_use(corpus: Corpus, split: dict) -> None:
    assert plan(**corpus).data.split("mine") == {"seed": None, "fractions": None} | split


def test_settings_survive_the_shell() -> None:
    odd = 'it\'s $HOME; `x` "y" é {z}'
    here = plan(
        path=f"/data/{odd}",
        caption_columns=[odd, "b"],
        split={"method": "column", "column": odd, "group": f"{odd} 2"},
        licenses={"allow": ["CC-BY", odd]},
        on_invalid="drop",
        train_seconds=2.5,
    ).data
    for kind, settings in (
        (ScanSettings, here.scan("mine", "all")),
        (ManifestSettings, here.manifest("mine", "all")),
        (ValidateSettings, here.validate("mine")),
        (SplitSettings, here.split("mine")),
        (DatasetSettings, here.datasets("mine", "demo")),
    ):
        text = shlex.split(f"x {shlex.quote(to_text(settings))}")[1]
        assert from_text(kind, text) == settings
    assert here.scan("mine", "all")["folder"] == f"/data/{odd}"
    assert here.manifest("mine", "all")["group_column"] == f"{odd} 2"
    validated = here.validate("mine")
    assert validated["licenses"] == ["CC-BY", odd] and validated["split"] == here.split("mine")
    assert (validated["on_invalid"], validated["on_leak"]) == ("drop", "fail")
    assert (validated["silence_dbfs"], validated["train_seconds"]) == (-60, 2.5)
    assert plan(on_leak="drop").data.validate("mine")["on_leak"] == "drop"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"train_seconds": 1}', "without random_crop"),
        ('{"train_seconds": 1, "random_crop": true, "crop": 1}', "has no crop"),
        ("[]", "without keys"),
        ("no/such/file.json", "neither JSON nor the path"),
        ("{", "neither JSON nor the path"),
    ],
)
def test_settings_of_another_kind_are_refused(text: str, words: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=words):
        from_text(EncodeSettings, text)


def test_settings_are_read_from_a_file(tmp_path: Path) -> None:
    settings: EncodeSettings = {"train_seconds": None, "random_crop": True}
    (tmp_path / "x.json").write_text(to_text(settings))
    assert from_text(EncodeSettings, str(tmp_path / "x.json")) == settings


def test_every_setting_of_a_run_has_its_place() -> None:
    """Each key of the schema either decides weights or does not. It is in one of the types of settings, or listed here."""
    schema = yaml.safe_load((ROOT / "schemas/config.schema.yaml").read_text(encoding="utf-8"))
    elsewhere = {
        "steps",
        "epochs",
        "checkpoint_every",
        "keep_states",
        "checkpoint",
        "exports",
        "publish",
        "seconds_per_step",
    }
    elsewhere |= {"corpora", *InitSettings.__annotations__}  # a training is told the name of the mixture
    kinds = TrainingSettings.__annotations__.keys(), RunningSettings.__annotations__.keys() - {"scratch"}
    assert not kinds[0] & kinds[1]
    assert set(schema["$defs"]["run"]["properties"]) == {*kinds[0], *kinds[1], *elsewhere}


def test_corpora_are_unpacked_or_read_where_they_lie() -> None:
    here = plan().data
    assert re.fullmatch(here.pattern(in_place=True), "mine") and not re.fullmatch(here.pattern(in_place=True), "demo")
    assert re.fullmatch(here.pattern(in_place=False), "demo")


def training(**run: Any) -> Plan:
    """The plan of the default config with other settings of its run."""
    path = ROOT / "config.yaml"
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    entry = {"base_model": "demo", "corpus": "demo", "checkpoint_every": 500} | run
    return Plan(resolve(config | {"runs": {"demo": entry}}, [path]))


@pytest.mark.parametrize(
    ("run", "legs"),
    [
        ({"steps": 1000}, ["step-00000500", "step-00001000"]),
        ({"steps": 1200}, ["step-00000500", "step-00001000", "step-00001200"]),
        ({"steps": 20}, ["step-00000020"]),
        ({"epochs": 3, "checkpoint_every": 2}, ["epoch-00000002", "epoch-00000003"]),
    ],
)
def test_legs_form_a_chain(run: dict[str, int], legs: list[str]) -> None:
    here = training(**run)
    assert here.runs.legs("demo") == legs == sorted(legs)
    states = [here.training.state_before("demo", leg) for leg in legs]
    assert states == [[], *([f"results/checkpoints/demo/{leg}/state.ckpt"] for leg in legs[:-1])]


@hypothesis_settings(max_examples=25)  # each example reads the whole config twice
@given(st.integers(1, 5000), st.integers(1, 900), st.integers(0, 3000))
def test_a_longer_training_repeats_no_leg_that_stands_on_the_grid(steps: int, every: int, more: int) -> None:
    assume(steps + more <= MOST_LEGS * every)
    before, after = (training(steps=n, checkpoint_every=every) for n in (steps, steps + more))
    on_grid = [leg for leg in before.runs.legs("demo") if int(leg.split("-")[1]) % every == 0]
    assert after.runs.legs("demo")[: len(on_grid)] == on_grid
    added = [leg for leg in after.runs.legs("demo") if leg not in before.runs.legs("demo")]
    # The state from which the first added leg continues was kept.
    for state in after.training.state_before("demo", added[0]) if added else []:
        assert re.fullmatch(
            before.training.kept_states(), state.removeprefix("results/checkpoints/").removesuffix("/state.ckpt")
        )


def test_states_are_kept_as_asked_for() -> None:
    def kept(**run: Any) -> list[str]:
        here = training(steps=1200, **run)
        return [leg for leg in here.runs.legs("demo") if re.fullmatch(here.training.kept_states(), f"demo/{leg}")]

    assert kept() == ["step-00001000", "step-00001200"]
    assert kept(keep_states="all") == ["step-00000500", "step-00001000", "step-00001200"]


def test_any_step_can_be_asked_for_in_the_unit_of_the_run() -> None:
    here = training(steps=1000)
    for name in ("step-00000500", "step-00000123", "step-00099999"):
        assert re.fullmatch(here.runs.legs_pattern(), f"demo/{name}")
    for name in ("step-00000000", "epoch-00000001", "step-500", "state"):
        assert not re.fullmatch(here.runs.legs_pattern(), f"demo/{name}")
    assert here.training.state_before("demo", "step-00000623") == ["results/checkpoints/demo/step-00000500/state.ckpt"]
    assert here.rendering.weights("demo@step-00000500") == "results/checkpoints/demo/step-00000500/model.safetensors"


def test_export_takes_the_last_leg_the_best_or_a_given_one() -> None:
    def legs(exported: str, **run: Any) -> list[str]:
        return [Path(path).parent.name for path in training(steps=1000, **run).training.exported_weights(exported)]

    assert legs("demo") == ["step-00001000"]
    assert legs("demo", checkpoint="best") == ["step-00000500", "step-00001000"]
    assert legs("demo/step-00000500", checkpoint="best") == ["step-00000500"]


def rendering(**render: Any) -> Plan:
    """The plan of the default config with other settings of its renders."""
    path = ROOT / "config.yaml"
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    return Plan(resolve(config | {"render": render}, [path]))


def test_shards_of_a_render_are_gathered_under_its_name() -> None:
    whole, shards = rendering().rendering, rendering(shards=2).rendering
    folder = "results/renders/.shards/demo@step-00000500"
    assert shards.shards("demo@step-00000500") == [f"{folder}/0001-of-0002", f"{folder}/0002-of-0002"]
    for name in ("demo", "demo@step-00000500", "base--demo--demo"):
        assert re.fullmatch(whole.pattern(shards=False), name)
        assert re.fullmatch(shards.pattern(shards=True), name)
        assert not re.fullmatch(whole.pattern(shards=True), name)
        assert not re.fullmatch(shards.pattern(shards=False), name)


def test_what_changes_no_sound_renders_nothing_anew(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("Rain.\n")
    settings = rendering().rendering.settings("demo")
    for change in ({"shards": 3}, {"batch_size": 2}, {"prompts": str(tmp_path / "mine.txt")}):
        assert rendering(**change).rendering.settings("demo") == settings
    assert rendering(format="flac").rendering.settings("demo") != settings
    prompts = rendering().rendering.prompt_settings("demo", "demo")
    assert rendering(format="flac").rendering.prompt_settings("demo", "demo") == prompts
    assert rendering(seed=1).rendering.prompt_settings("demo", "demo") != prompts
    assert rendering(batch_size=2).rendering.batch_size() == [2] and rendering().rendering.batch_size() == []
    assert rendering(prompts=str(tmp_path / "mine.txt")).rendering.prompts() == [str(tmp_path / "mine.txt")]


def test_what_moves_no_weight_retrains_nothing() -> None:
    settings = training(steps=1000).training.settings("demo")
    for change in (
        {"steps": 2000},
        {"workers": 3},
        {"wandb": {"project": "p"}},
        {"keep_states": "all"},
        {"tensorboard": True},
        {"publish": {"repo": "a/b"}},
        {"exports": {"forms": ["model"], "precision": "float16"}},
    ):
        assert training(**{"steps": 1000} | change).training.settings("demo") == settings
    assert training(steps=1000, seed=1).training.settings("demo") != settings
    aside = training(steps=1000, workers=3).training.running("demo")
    assert aside["workers"] == 3 and not aside.keys() & settings.keys()


def test_publishing_is_no_setting_of_a_training() -> None:
    plain, published = training(steps=9), training(steps=9, publish={"repo": "me/it", "private": False})
    assert published.training.running("demo") == plain.training.running("demo")
    assert published.publish.card("demo") == plain.publish.card("demo")


def test_runs_that_are_published() -> None:
    nothing = training(steps=9).publish
    assert nothing.uploads() == [] and nothing.pattern() == "(?!)"
    private, public = (training(steps=9, publish={"repo": "me/demo", "private": p}).publish for p in (True, False))
    assert private.uploads() == ["results/published/demo.json"] and private.pattern() == "demo"
    assert private.repo("demo") == "me/demo" and private.visibility("demo") == []
    assert public.visibility("demo") == ["--public"]


def test_a_card_tells_of_the_run_or_leg_and_its_base_model() -> None:
    here = training(steps=9).publish
    base = "results/evaluation/base--demo--demo.json"
    assert here.measures("demo") == ["results/evaluation/demo.json", base]
    assert here.measures("demo/step-00000003") == ["results/evaluation/demo@step-00000003.json", base]
    assert training(steps=9).pages.cards() == ["results/checkpoints/demo/README.md"]


def test_trained_on_shards_of_latents_or_on_audio() -> None:
    path = ROOT / "config.yaml"
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    sharded = Plan(resolve(config | {"latents": {"shards": 2}}, [path]))
    folder = "results/latents/demo/demo"
    assert sharded.training.sounds("demo") == [
        f"{folder}/{split}/{shard}"
        for split in ("development", "validation")
        for shard in ("0001-of-0002", "0002-of-0002")
    ]
    audio = Plan(resolve(config | {"latents": {"enabled": False}}, [path]))
    assert audio.training.sounds("demo") == [
        "results/data/demo/audio/development",
        "results/data/demo/audio/validation",
    ]
    assert audio.data.datasets("demo", "demo")["latents"] is None


def scheduled(walltime: int | None = None, gpus: int = 1, **run: Any) -> Plan:
    """The plan of the default config with the demo run changed."""
    path = ROOT / "config.yaml"
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    config["base_models"]["demo"]["gpus"] = gpus
    config["runs"]["demo"] |= {"threads": 2, "batch_size": 16, "checkpoint_every": 500} | run
    config["cluster"] = {"walltime": walltime}
    return Plan(resolve(config, [path]))


def test_a_leg_asks_for_the_time_of_its_own_steps() -> None:
    legs = scheduled(steps=1100, checkpoint_every=500, seconds_per_step=6)
    # A step of 6 s with half as much again, and 10 minutes. The last leg has 100 steps.
    asked = [legs.training.leg_minutes("demo", leg) for leg in legs.runs.legs("demo")]
    assert asked == pytest.approx([10 + 75, 10 + 75, 10 + 15])
    assert [legs.minutes(asked[0], attempt) for attempt in (1, 2, 3)] == [85, 128, 170]
    assert scheduled(100, steps=1100, seconds_per_step=6).minutes(asked[0], 3) == 100


def test_a_leg_asks_for_the_time_that_others_took(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = scheduled(steps=1500, checkpoint_every=500)
    monkeypatch.chdir(tmp_path)
    assert here.training.seconds_per_step("demo") == STEP
    settings = here.training.settings("demo")
    other = settings | {"batch_size": 1}
    for number, (seconds, measured) in enumerate(
        [(0.2, settings), (0.3, settings), (None, settings), (9, other)], start=1
    ):
        write_json(
            tmp_path / f"results/checkpoints/demo/step-{500 * number:08d}/speed.json",
            {"seconds_per_step": seconds, "device": "cpu", "settings": measured},
        )
    assert here.training.seconds_per_step("demo") == 0.3
    assert here.training.leg_minutes("demo", "step-00001500") == pytest.approx(10 + 500 * 0.3 * 1.5 / 60)
    configured = here.runs.runs["demo"] | {"seconds_per_step": 7}
    monkeypatch.setitem(here.runs.runs, "demo", configured)
    assert here.training.seconds_per_step("demo") == 7


def test_an_epoch_asks_for_its_clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = ROOT / "config.yaml"
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    del config["runs"]["demo"]["steps"]
    config["runs"]["demo"] |= {"epochs": 4, "checkpoint_every": 2, "seconds_per_step": 6, "batch_size": 16}
    here = Plan(resolve(config, [path]))
    monkeypatch.chdir(tmp_path)
    assert here.training.leg_minutes("demo", "epoch-00000002") == 10
    splits = tmp_path / "results/data/demo/splits"
    splits.mkdir(parents=True)
    (splits / "train.csv").write_text("clip_id\n" + "".join(f"{n}\n" for n in range(33)), encoding="utf-8")
    assert here.training.leg_minutes("demo", "epoch-00000002") == pytest.approx(10 + 2 * 3 * 9 / 60)  # 3 batches of 16


def test_a_leg_that_cannot_fit_is_one_line() -> None:
    scheduled(85, steps=1100, seconds_per_step=6)
    with pytest.raises(
        InputError, match=r"runs\.demo: a leg of 500 steps .* 85 min .* 60 min: set checkpoint_every to 333 or"
    ) as error:
        scheduled(60, steps=1100, seconds_per_step=6)
    assert "\n" not in str(error.value)
    scheduled(60, steps=1100, seconds_per_step=6, checkpoint_every=333)
    with pytest.raises(InputError, match="raise walltime"):
        scheduled(10, steps=1100, seconds_per_step=6)


ASKED = ("mem_mb", "gpu", "gres", "threads", "tasks", "tasks_per_node", "tasks_per_gpu", "cpus_per_task")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {"gpu": 1, "tasks_per_gpu": None, "cpus_per_task": None}),
        ({"devices": 2}, {"mem_mb": 8000, "gpu": 2, "threads": 6, "tasks_per_node": 2}),
        ({"devices": 2, "gpus": 2}, {"mem_mb": 8000, "gpu": 4, "threads": 6, "tasks_per_node": 2}),
        ({"devices": 2, "gpus": 0}, {"mem_mb": 8000, "gpu": 0, "threads": 6, "tasks_per_node": 2}),
        ({"num_nodes": 3}, {"gres": "gpu:1", "tasks": 3}),
        ({"num_nodes": 3, "gpus": 2}, {"gres": "gpu:2", "tasks": 3}),
        ({"num_nodes": 3, "gpus": 0}, {"tasks": 3}),
        (
            {"devices": 4, "num_nodes": 2},
            {"mem_mb": 16000, "gres": "gpu:4", "threads": 12, "tasks_per_node": 4},
        ),
    ],
    ids=str,
)
def test_a_training_asks_for_each_node(changes: dict[str, Any], expected: dict[str, Any]) -> None:
    usual = {"mem_mb": 4000, "threads": 3, "tasks_per_gpu": 0, "cpus_per_task": 3}
    asked = scheduled(workers=1, **changes).training
    found = {key: getattr(asked, "mb" if key == "mem_mb" else key)("demo") for key in ASKED}
    assert found == dict.fromkeys(ASKED) | usual | expected


def test_processes_of_a_training_are_started_by_srun_in_a_job() -> None:
    assert scheduled(workers=1).training.launcher("demo") == []
    assert shlex.join(scheduled(workers=1, devices=2, num_nodes=2).training.launcher("demo")) == (
        "env -u SLURM_NTASKS_PER_GPU -u SLURM_GPUS_PER_TASK -u SLURM_TRES_PER_TASK -u SLURM_GPU_BIND "
        "srun --kill-on-bad-exit --nodes=2 --ntasks=4 --ntasks-per-node=2 --cpus-per-task=3 --job-name=train"
    )


def test_rendering_asks_for_the_clips_that_are_rendered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = rendering().rendering
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError):
        here.minutes("demo")
    table = tmp_path / "results/data/demo/prompts/demo.csv"
    table.parent.mkdir(parents=True)
    table.write_text("clip_id\n" * 61)
    # 20 s per clip, and 10 minutes.
    assert here.minutes("demo") == pytest.approx(30)


def test_legs_are_listened_to_in_order_each_after_its_base_model() -> None:
    here = training(steps=900, checkpoint_every=400).listening
    base, *legs = here.shown()
    assert base == "base--demo--demo"
    assert legs == ["demo@step-00000400", "demo@step-00000800", "demo@step-00000900"]
    assert all(re.fullmatch(here.pattern(), name) for name in (base, *legs, "demo@step-00000500"))
    assert not any(re.fullmatch(here.pattern(), name) for name in ("demo", "index.html", "other@step-00000400"))
    assert here.before(legs[0]) == here.before(base) == [] == here.base(base) == here.training(base)
    assert here.before(legs[2]) == [f"results/listen/{legs[1]}.json"] and here.base(legs[2]) == [
        f"results/listen/{base}.json"
    ]
    assert here.weights(legs[0]) == "results/checkpoints/.listen/demo/step-00000400/model.safetensors"
    assert here.weights(base) == "results/models/demo/model.safetensors"


def test_only_legs_of_runs_with_loggers_are_logged_and_the_base_model_once() -> None:
    nothing = training(steps=900, wandb={"project": "p", "mode": "disabled"}).listening
    assert nothing.logged() == [] and not re.fullmatch(nothing.logged_pattern(), "demo@step-00000500")
    here = training(steps=900, tensorboard=True).listening
    first, second = "demo@step-00000500", "demo@step-00000900"
    assert here.logged() == [f"results/listen/logged/{name}.json" for name in (first, second)]
    assert here.logged_base(first) == here.base(first) and here.logged_base(second) == []
    assert here.logged_before(second) == here.logged()[:1] and here.logged_before(first) == []
    assert here.folders(first) == [f"results/listen/{first}", "results/listen/base--demo--demo"]
    assert here.folders(second) == [f"results/listen/{second}"]
    assert here.logging(first) == {"wandb": None, "tensorboard": True}


def test_all_samples_include_the_page_to_listen_only_if_asked() -> None:
    path = ROOT / "config.yaml"
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert Plan(resolve(config, [path])).listening.page() == []
    listening = Plan(resolve(config | {"listen": {"enabled": True}}, [path])).listening
    assert listening.page() == ["results/listen/index.html"]
    assert listening.settings() == {"clips": 4, "cfg_scales": None, "empty_prompt": True}


def test_a_changed_hook_is_another_key(tmp_path: Path) -> None:
    hook = tmp_path / "mine.py"
    hook.write_text("def get_custom_metadata(info, audio): return {'prompt': 'x'}\n")
    here = plan(prompts={"hook": str(hook)}, split={"method": "fraction"}).data
    assert here.hooks("mine") == [str(hook)] and here.hooks("demo") == []
    assert here.datasets("mine", "demo")["prompts"]["hook"] == str(hook)
    before = here.hook_content("mine")
    hook.write_text("def get_custom_metadata(info, audio): return {'prompt': 'y'}\n")
    assert here.hook_content("mine") != before


def test_one_take_is_no_setting_and_more_are(tmp_path: Path) -> None:
    path = ROOT / "config.yaml"
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    once = Plan(resolve(config, [path]))
    assert "takes" not in once.rendering.prompt_settings("demo", "demo")
    assert "takes" not in once.pages.rendering_settings()["demo"]["render"]
    config["render"]["takes"] = 3
    often = Plan(resolve(config, [path]))
    assert often.rendering.prompt_settings("demo", "demo")["takes"] == 3
    assert often.rendering.settings("demo") == once.rendering.settings("demo")  # takes are in the table of sounds


def test_page_has_legs_if_they_are_measured() -> None:
    path = ROOT / "config.yaml"
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert Plan(resolve(config, [path])).pages.labels() == ["base", "demo"]
    config["evaluation"] = {"legs": True}
    pages = Plan(resolve(config, [path])).pages
    assert pages.shown() == ["base--demo--demo", "demo@step-00000300", "demo"]
    assert pages.labels() == ["base", "demo@step-00000300", "demo"]


def test_votes_are_looked_for_and_read_before_anything_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = ROOT / "config.yaml"
    config = resolve(yaml.safe_load(path.read_text(encoding="utf-8")), [path])
    monkeypatch.chdir(tmp_path)
    assert Plan(config).pages.counted() == []
    file = tmp_path / "results/votes/mine.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"format": FORMAT, "session": "x", "saved": "y", "votes": []}))
    (file.parent / ".mine.json").write_text("left by an editor")
    pages = Plan(config).pages
    assert pages.votes() == ["results/votes/mine.json"] and pages.counted() == ["results/evaluation/votes.json"]
    file.write_text("{}")
    with pytest.raises(InputError, match=r"^results/votes/mine\.json: is not a file of votes"):
        Plan(config)


def with_weights(folder: Path, watermark: bool = False, **evaluation: Any) -> Plan:
    """The plan of the default config, with embeddings or a watermark whose weights are declared."""
    path = ROOT / "config.yaml"
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    (folder / "my.pth").touch()
    mine = {"path": str(folder / "my.pth"), "sha256": "0" * 64}
    if watermark:
        config["render"]["watermark"] = {"method": "audioseal", "generator": mine, "detector": mine, "message": 9}
    config["evaluation"] = evaluation
    return Plan(resolve(config, [path]))


def test_declared_weights_come_from_a_url_the_hub_or_a_path(tmp_path: Path) -> None:
    mine = {"path": str(tmp_path / "my.pth"), "sha256": "0" * 64}
    far = {"url": "https://example.org/a%20b/Cnn14%3D1.pth?download=1", "sha256": "1" * 64}
    hub = {"repo": "a/b", "revision": "c" * 40, "file": "x.safetensors"}
    entries = [
        "aisfx",
        {"name": "vggish", "weights": mine},
        {"name": "panns-cnn14", "weights": far},
        {"name": "passt", "weights": hub},
    ]
    here = with_weights(tmp_path, embeddings=entries)
    weights, evaluation = here.weights, here.evaluation
    assert weights.files("vggish") == [mine["path"]] and len(weights.content("vggish")) == 1
    assert weights.files("panns-cnn14") == ["results/weights/panns-cnn14/downloaded/Cnn14_1.pth"]
    assert re.fullmatch(weights.file_names(), "Cnn14_1.pth")
    assert (weights.url("panns-cnn14"), weights.sha256("panns-cnn14")) == (far["url"], "1" * 64)
    assert weights.files("passt") == weights.content("passt") == []
    assert weights.settings("passt") == {"sha256": None, **hub}
    assert weights.settings("vggish") == {"sha256": "0" * 64}
    digests = [f"results/weights/{name}/checksums.sha256" for name in ("vggish", "panns-cnn14", "passt")]
    assert here.downloads()[-3:] == digests and evaluation.fetched_pattern() == "(?!)"
    assert evaluation.hubs("vggish") == ["results/weights/vggish/model.safetensors"]
    # Where the weights come from decides no vector: their hash does, and rule weights knows it.
    assert evaluation.embed("vggish") == {"embedding": "vggish", "windows": ["evaluation", "train"]}
    assert evaluation.embed("passt") == {"embedding": "passt"} and evaluation.embed("aisfx") == {"embedding": "aisfx"}
    assert evaluation.settings("demo")["embeddings"] == ["aisfx", "vggish", "panns-cnn14", "passt"]


def test_embedding_without_its_weights_is_told_where_they_are(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"'vggish' needs its weights: download https://github.com/.*vggish-10086976.pth"
    ):
        with_weights(tmp_path, embeddings=["vggish"])
    path = ROOT / "config.yaml"
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    config["render"]["watermark"] = "audioseal"
    with pytest.raises(InputError, match=r"'audioseal' needs its weights: download generator_base.pth"):
        Plan(resolve(config, [path]))


def test_watermark_adds_its_detector_and_changes_nothing_while_it_is_off(tmp_path: Path) -> None:
    off, on = with_weights(tmp_path), with_weights(tmp_path, watermark=True)
    for here, text in ((off, ""), (on, "watermark")):
        given = [to_text(here.rendering.settings("demo")), to_text(here.publish.card("demo"))]
        given += [to_text(here.pages.rendering_settings())]
        assert all(("watermark" in each) == bool(text) for each in given)
    assert on.rendering.settings("demo")["watermark"] == {"method": "audioseal", "message": 9, "strength": 1}
    assert off.rendering.watermark() == [] and off.evaluation.embeddings() == ["aisfx"]
    assert on.rendering.watermark() == ["results/weights/audioseal-generator/model.safetensors"]
    assert on.evaluation.embeddings() == ["aisfx", "audioseal"] and re.fullmatch(
        on.weights.pattern(), "audioseal-generator"
    )
    assert on.evaluation.settings("demo")["embeddings"] == ["aisfx", "audioseal"]
    # Named by the config too, it is there once.
    mine = {"path": str(tmp_path / "my.pth"), "sha256": "0" * 64}
    both = with_weights(tmp_path, watermark=True, embeddings=[{"name": "audioseal", "weights": mine}])
    assert both.evaluation.embeddings() == ["audioseal"]


def test_recordings_of_a_corpus_are_measured_once_for_all_base_models(tmp_path: Path) -> None:
    path = ROOT / "config.yaml"
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    config["base_models"]["other"] = config["base_models"]["demo"]
    config["runs"] |= {"more": config["runs"]["demo"], "third": config["runs"]["demo"] | {"base_model": "other"}}
    config["evaluation"] = {"legs": True}
    here = Plan(resolve(config, [path])).evaluation
    models = here.evaluated()
    assert {"demo", "more", "third", "demo@step-00000300", "base--demo--demo", "base--other--demo"} <= set(models)
    assert {here.recorded_signals(model) for model in models} == {"results/signals/recordings/demo.npz"}
    assert {tuple(here.embedded_recordings(model)) for model in models} == {
        ("results/embeddings/aisfx/corpora/demo.npz",)
    }
    assert here.signal_tables("recordings", "demo") == [
        "results/data/demo/prompts/demo.csv",
        "results/data/demo/prompts/other.csv",
    ]
    # Each model's renders have files of their own, and no two models share one.
    assert len({here.signals(model) for model in models}) == len(models)
