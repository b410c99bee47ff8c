"""Which files and options a config asks for, without Snakemake."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT, noise, write_wav
from hypothesis import given
from hypothesis import strategies as st
from sao.base.command import InputError
from sao.base.files import write_json
from sao.config.resolve import resolve
from sao.plan.plan import Plan
from sao.plan.resources import STEP

Corpus = dict[str, Any]


def plan(**corpus: Any) -> Plan:
    """The plan of the default config with a corpus `mine`, a folder."""
    path = ROOT / "config.yaml"
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    config["corpora"]["mine"] = {"format": "audiofolder", "path": "sounds"} | corpus
    return Plan(resolve(config, [path]))


def arguments(options: str) -> dict[str, str]:
    """What a script would be handed, through a shell, by option."""
    parts = shlex.split(options)
    flat = [p for part in parts for p in (part.split("=", 1) if part.startswith("--silence") else [part])]
    return dict(zip(flat[::2], flat[1::2], strict=True))


@pytest.mark.parametrize("path", ["sounds", "./sounds", "sounds/", "sounds/."])
def test_folder_is_read_where_it_is_by_a_path_that_snakemake_takes(path: str) -> None:
    assert plan(path=path).audio("mine", "train") == "sounds/train"
    drawn = plan(path=path, split={"method": "fraction"})
    assert drawn.audio("mine", "all") == "sounds"
    assert drawn.manifests("mine") == ["results/data/mine/manifests/all.csv"]
    assert arguments(drawn.scan_options("mine", "all")) == {"--folder": "sounds"}


def test_table_above_the_top_folders_is_listed_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_wav(tmp_path / "in/train/a.wav", noise("a", 0.01))
    (tmp_path / "in/metadata.csv").write_text("file_name,caption\ntrain/a.wav,A.\n")
    here = plan(path="in")
    monkeypatch.chdir(tmp_path)
    lines = Path(here.listing("mine", "train")).read_text().splitlines()
    assert [line.split(" ", 2)[2] for line in lines] == ["a.wav", "../metadata.csv"]
    told = arguments(here.scan_options("mine", "train"))
    assert json.loads(told.pop("--splits")) == ["train", "validation", "test"]
    assert told == {"--folder": "in/train", "--top": "in"}


def test_file_that_a_base_model_lacks_is_left_to_the_script(tmp_path: Path) -> None:
    path = ROOT / "config.yaml"
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    config["base_models"]["mine"] = {"path": str(tmp_path)}
    (tmp_path / "model_config.json").write_text("{}")
    here = Plan(resolve(config, [path]))
    assert here.base_model_files("mine") == [f"{tmp_path}/model_config.json"]
    assert here.base_model_content("mine").count("missing") == 4


def test_folder_that_is_not_there_stops_no_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = plan(path="/no/such/folder")
    monkeypatch.chdir(tmp_path)
    assert Path(here.listing("mine", "train")).read_text() == ""


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
    assert json.loads(plan(**corpus).split("mine")) == split


def test_options_survive_the_shell() -> None:
    odd = 'it\'s $HOME; `x` "y" é'
    here = plan(
        path=f"/data/{odd}",
        caption_columns=[odd, "b"],
        split={"method": "column", "column": odd, "group": f"{odd} 2"},
        licenses={"allow": ["CC-BY", odd]},
        on_invalid="drop",
        train_seconds=2.5,
    )
    scanned = arguments(here.scan_options("mine", "all"))
    assert scanned["--folder"] == f"/data/{odd}" and json.loads(scanned["--caption-columns"]) == [odd, "b"]
    joined = arguments(here.manifest_options("mine", "all"))
    assert joined == {"--audio": f"/data/{odd}", "--split-column": odd, "--group-column": f"{odd} 2"}
    validated = arguments(here.validate_options("mine"))
    assert json.loads(validated.pop("--licenses")) == ["CC-BY", odd]
    assert json.loads(validated.pop("--split")) == json.loads(here.split("mine"))
    policies = {"--on-invalid": "drop", "--on-leak": "fail"}
    assert validated == policies | {"--silence-dbfs": "-60", "--train-seconds": "2.5"}
    assert arguments(plan(on_leak="drop").validate_options("mine"))["--on-leak"] == "drop"


def test_corpora_by_format() -> None:
    assert re.fullmatch(plan().with_format("audiofolder"), "mine")
    assert not re.fullmatch(plan().with_format("audiofolder"), "demo")
    assert re.fullmatch(plan().with_format("clotho"), "demo")


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
    assert here.legs("demo") == legs == sorted(legs)
    states = [here.leg_state("demo", leg) for leg in legs]
    assert states == [[], *([f"results/checkpoints/demo/{leg}/state.ckpt"] for leg in legs[:-1])]


@given(st.integers(1, 5000), st.integers(1, 900), st.integers(0, 3000))
def test_a_longer_training_repeats_no_leg_that_stands_on_the_grid(steps: int, every: int, more: int) -> None:
    before, after = (training(steps=n, checkpoint_every=every) for n in (steps, steps + more))
    on_grid = [leg for leg in before.legs("demo") if int(leg.split("-")[1]) % every == 0]
    assert after.legs("demo")[: len(on_grid)] == on_grid
    added = [leg for leg in after.legs("demo") if leg not in before.legs("demo")]
    # What the first added leg goes on from is among the states that were kept.
    for state in after.leg_state("demo", added[0]) if added else []:
        assert re.fullmatch(
            before.kept_states(), state.removeprefix("results/checkpoints/").removesuffix("/state.ckpt")
        )


def test_states_are_kept_as_asked_for() -> None:
    def kept(**run: Any) -> list[str]:
        here = training(steps=1200, **run)
        return [leg for leg in here.legs("demo") if re.fullmatch(here.kept_states(), f"demo/{leg}")]

    assert kept() == ["step-00001000", "step-00001200"]
    assert kept(keep_states="all") == ["step-00000500", "step-00001000", "step-00001200"]


def test_any_step_can_be_asked_for_in_the_unit_of_the_run() -> None:
    here = training(steps=1000)
    for name in ("step-00000500", "step-00000123", "step-00099999"):
        assert re.fullmatch(here.legs_pattern(), f"demo/{name}")
    for name in ("step-00000000", "epoch-00000001", "step-500", "state"):
        assert not re.fullmatch(here.legs_pattern(), f"demo/{name}")
    assert here.leg_state("demo", "step-00000623") == ["results/checkpoints/demo/step-00000500/state.ckpt"]
    assert here.weights("demo@step-00000500") == "results/checkpoints/demo/step-00000500/model.safetensors"


def test_export_takes_the_last_leg_the_best_or_a_given_one() -> None:
    def legs(exported: str, **run: Any) -> list[str]:
        return [Path(path).parent.name for path in training(steps=1000, **run).to_export(exported, "weights")]

    assert legs("demo") == ["step-00001000"]
    assert legs("demo", checkpoint="best") == ["step-00000500", "step-00001000"]
    assert legs("demo/step-00000500", checkpoint="best") == ["step-00000500"]


def rendering(**render: Any) -> Plan:
    """The plan of the default config with other settings of its renders."""
    path = ROOT / "config.yaml"
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    return Plan(resolve(config | {"render": render}, [path]))


def test_shards_of_a_render_are_gathered_under_its_name() -> None:
    whole, shards = rendering(), rendering(shards=2)
    folder = "results/renders/.shards/demo@step-00000500"
    assert shards.render_shards("demo@step-00000500") == [f"{folder}/0001-of-0002", f"{folder}/0002-of-0002"]
    for name in ("demo", "demo@step-00000500", "base--demo--demo"):
        assert re.fullmatch(whole.rendered_pattern(shards=False), name)
        assert re.fullmatch(shards.rendered_pattern(shards=True), name)
        assert not re.fullmatch(whole.rendered_pattern(shards=True), name)
        assert not re.fullmatch(shards.rendered_pattern(shards=False), name)


def test_what_changes_no_sound_renders_nothing_anew(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("Rain.\n")
    settings = rendering().render_settings()
    for change in ({"shards": 3}, {"batch_size": 2}, {"prompts": str(tmp_path / "mine.txt")}):
        assert rendering(**change).render_settings() == settings
    assert rendering(seed=1).render_settings() != settings != rendering(format="flac").render_settings()
    assert rendering(batch_size=2).batch_options() == "--batch-size 2" and rendering().batch_options() == ""
    assert rendering(prompts=str(tmp_path / "mine.txt")).prompts() == [str(tmp_path / "mine.txt")]


def test_what_moves_no_weight_retrains_nothing() -> None:
    settings = json.loads(training(steps=1000).leg_settings("demo"))
    for change in (
        {"steps": 2000},
        {"workers": 3},
        {"wandb": {"project": "p"}},
        {"keep_states": "all"},
        {"tensorboard": True},
        {"publish": {"repo": "a/b"}},
    ):
        assert json.loads(training(**{"steps": 1000} | change).leg_settings("demo")) == settings
    assert json.loads(training(steps=1000, seed=1).leg_settings("demo")) != settings
    aside = json.loads(training(steps=1000, workers=3).leg_settings("demo", moving=False))
    assert aside["workers"] == 3 and not aside.keys() & settings.keys()


def test_publishing_is_no_setting_of_a_training() -> None:
    plain, published = training(steps=9), training(steps=9, publish={"repo": "me/it", "private": False})
    assert published.leg_settings("demo", moving=False) == plain.leg_settings("demo", moving=False)
    assert published.base_model_source("demo") == plain.base_model_source("demo")


def test_runs_that_are_published() -> None:
    assert training(steps=9).uploads() == [] and training(steps=9).upload_pattern() == "(?!)"
    private, public = (training(steps=9, publish={"repo": "me/demo", "private": p}) for p in (True, False))
    assert private.uploads() == ["results/published/demo.json"] and private.upload_pattern() == "demo"
    assert private.upload_options("demo") == "--repo me/demo"
    assert public.upload_options("demo") == "--repo me/demo --public"


def test_a_card_tells_of_the_run_or_leg_and_its_base_model() -> None:
    here = training(steps=9)
    base = "results/evaluation/base--demo--demo.json"
    assert here.card_measures("demo") == ["results/evaluation/demo.json", base]
    assert here.card_measures("demo/step-00000003") == ["results/evaluation/demo@step-00000003.json", base]
    assert here.card("demo") == "results/checkpoints/demo/README.md"


def test_trained_on_shards_of_latents_or_on_audio() -> None:
    path = ROOT / "config.yaml"
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    sharded = Plan(resolve(config | {"latents": {"shards": 2}}, [path]))
    folder = "results/latents/demo/demo"
    assert sharded.sounds("demo") == [
        f"{folder}/{split}/{shard}"
        for split in ("development", "validation")
        for shard in ("0001-of-0002", "0002-of-0002")
    ]
    audio = Plan(resolve(config | {"latents": {"enabled": False}}, [path]))
    assert audio.sounds("demo") == ["results/data/demo/audio/development", "results/data/demo/audio/validation"]
    assert "--latents" not in audio.dataset_options("demo", "demo")


def scheduled(walltime: int | None = None, gpus: int = 1, **run: Any) -> Plan:
    """The plan of the default config with the demo run changed."""
    path = ROOT / "config.yaml"
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    config["base_models"]["demo"]["gpus"] = gpus
    config["runs"]["demo"] |= run
    config["cluster"] = {"walltime": walltime}
    return Plan(resolve(config, [path]))


def test_a_leg_asks_for_the_time_of_its_own_steps() -> None:
    legs = scheduled(steps=1100, checkpoint_every=500, seconds_per_step=6)
    # 6 s, half as much again, and 10 minutes; the last leg has 100 steps.
    asked = [legs.leg_minutes("demo", leg) for leg in legs.legs("demo")]
    assert asked == pytest.approx([10 + 75, 10 + 75, 10 + 15])
    assert [legs.minutes(asked[0], attempt) for attempt in (1, 2, 3)] == [85, 128, 170]
    assert scheduled(100, steps=1100, seconds_per_step=6).minutes(asked[0], 3) == 100


def test_a_leg_asks_for_the_time_that_others_took(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = scheduled(steps=1500, checkpoint_every=500)
    monkeypatch.chdir(tmp_path)
    assert here.seconds_per_step("demo") == STEP
    settings = json.loads(here.leg_settings("demo"))
    other = settings | {"batch_size": 1}
    for number, (seconds, measured) in enumerate(
        [(0.2, settings), (0.3, settings), (None, settings), (9, other)], start=1
    ):
        write_json(
            tmp_path / f"results/checkpoints/demo/step-{500 * number:08d}/speed.json",
            {"seconds_per_step": seconds, "device": "cpu", "settings": measured},
        )
    assert here.seconds_per_step("demo") == 0.3
    assert here.leg_minutes("demo", "step-00001500") == pytest.approx(10 + 500 * 0.3 * 1.5 / 60)
    configured = here.runs["demo"] | {"seconds_per_step": 7}
    monkeypatch.setitem(here.runs, "demo", configured)
    assert here.seconds_per_step("demo") == 7


def test_an_epoch_asks_for_its_clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = ROOT / "config.yaml"
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    del config["runs"]["demo"]["steps"]
    config["runs"]["demo"] |= {"epochs": 4, "checkpoint_every": 2, "seconds_per_step": 6}
    here = Plan(resolve(config, [path]))
    monkeypatch.chdir(tmp_path)
    assert here.leg_minutes("demo", "epoch-00000002") == 10
    splits = tmp_path / "results/data/demo/splits"
    splits.mkdir(parents=True)
    (splits / "train.csv").write_text("clip_id\n" + "".join(f"{n}\n" for n in range(33)), encoding="utf-8")
    assert here.leg_minutes("demo", "epoch-00000002") == pytest.approx(10 + 2 * 3 * 9 / 60)  # 3 batches of 16


def test_a_leg_that_cannot_fit_is_one_line() -> None:
    scheduled(85, steps=1100, seconds_per_step=6).check_walltime()
    with pytest.raises(
        InputError, match=r"runs\.demo: a leg of 500 steps .* 85 min .* 60 min: set checkpoint_every to 333 or"
    ) as error:
        scheduled(60, steps=1100, seconds_per_step=6).check_walltime()
    assert "\n" not in str(error.value)
    scheduled(60, steps=1100, seconds_per_step=6, checkpoint_every=333).check_walltime()
    with pytest.raises(InputError, match="raise walltime"):
        scheduled(10, steps=1100, seconds_per_step=6).check_walltime()


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
    plan = scheduled(workers=1, **changes)
    assert {key: plan.resources("demo", key) for key in ASKED} == dict.fromkeys(ASKED) | usual | expected


def test_processes_of_a_training_are_started_by_srun_in_a_job() -> None:
    assert scheduled(workers=1).launcher("demo") == ""
    command = scheduled(workers=1, devices=2, num_nodes=2).launcher("demo")
    unset = "env -u SLURM_NTASKS_PER_GPU -u SLURM_GPUS_PER_TASK -u SLURM_TRES_PER_TASK -u SLURM_GPU_BIND"
    started = "srun --kill-on-bad-exit --nodes=2 --ntasks=4 --ntasks-per-node=2 --cpus-per-task=3 --job-name=train"
    for job, expected in ((None, ""), ("7", f"{unset} {started} ")):
        env = {"PATH": os.environ["PATH"]} | ({"SLURM_JOB_ID": job} if job else {})
        said = subprocess.run(["bash", "-uc", f"echo {command}x"], env=env, capture_output=True, text=True, check=True)
        assert said.stdout == f"{expected}x\n"


def test_rendering_asks_for_the_clips_that_are_rendered() -> None:
    # All of train and evaluation; 20 s each, and 10 minutes.
    assert scheduled().render_minutes({"train": 50, "evaluation": 8}, prompts=2) == pytest.approx(30)
