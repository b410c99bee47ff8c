"""The real graph on the built-in default, from archives to samples, and what reruns when."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from conftest import run_snakemake
from retrieval import louder_when_quiet, top1

# What follows from another model, from other settings of the rendering, and from a training.
PAGES = {"compare": 1, "model_card": 1, "collect": 1}
EXPORTED = {"render": 1, "embed": 1, "signals": 1, "spectrograms": 1, "evaluate": 1} | PAGES
RENDERED = {"render": 2, "embed": 2, "signals": 3, "spectrograms": 2, "evaluate": 2} | PAGES
TRAINED = EXPORTED | {"curves": 1, "export": 1}
CAPTIONS = "resources/demo/corpus/clotho_captions_development.csv"


def planned(checkout: Path, *args: str, target: str = "results/samples") -> dict[str, int]:
    """Jobs by rule that a dry run would run; empty when nothing is to be done."""
    done = run_snakemake("-n", target, *args, cwd=checkout)
    assert done.returncode == 0, done.stderr
    if "Nothing to be done" in done.stdout + done.stderr:
        return {}
    table = re.search(r"^job +count\n-+ +-+\n(.*?)^total", done.stdout + done.stderr, re.M | re.S)
    assert table, done.stderr
    return {line.split()[0]: int(line.split()[1]) for line in table[1].splitlines()}


def reasons(checkout: Path, *args: str) -> str:
    done = run_snakemake("-n", "results/samples", *args, cwd=checkout)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def samples(finished: Path) -> pd.DataFrame:
    return pd.read_csv(finished / "results/samples/samples.csv", keep_default_na=False)


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    """The finished checkout under another name, its files in place to be changed."""
    return shutil.copytree(finished, tmp_path / "renamed checkout", symlinks=True)


def test_outputs_lie_where_a_person_looks(finished: Path) -> None:
    results = finished / "results"
    for path in (
        "data/demo/archives/clotho_audio_development.7z",
        "data/demo/audio/development",
        "data/demo/manifests/development.csv",
        "data/demo/splits/train.csv",
        "data/demo/dataset_configs/demo/train.json",
        "models/demo/model_config.json",
        "models/demo/model.safetensors",
        "latents/demo/demo/development/0001-of-0001",
        "checkpoints/demo/step-00000300/weights/model.safetensors",
        "checkpoints/demo/step-00000600/weights/model.safetensors",
        "checkpoints/demo/step-00000600/state.ckpt",
        "checkpoints/demo/loss.svg",
        "checkpoints/demo/model.safetensors",
        "checkpoints/demo/model_config.json",
        "samples/samples.csv",
        "samples/index.html",
    ):
        assert (results / path).exists(), path
    # Removed once the next leg stood.
    assert not (results / "checkpoints/demo/step-00000300/state.ckpt").exists()


def test_outputs_may_be_read_by_whom_other_new_files_may(finished: Path, tmp_path: Path) -> None:
    """Libraries make some files for their owner alone: a colleague, or another account of a cluster, could not read them."""
    (tmp_path / "new").touch()
    usual = (tmp_path / "new").stat().st_mode
    files = [path for path in (finished / "results").rglob("*") if path.is_file()]
    assert [path for path in files if path.stat().st_mode != usual] == []


def test_samples_table_and_wavs_agree(finished: Path, samples: pd.DataFrame) -> None:
    assert {"clip_id", "split", "prompt", "seed", "seconds", "run", "checkpoint"} <= set(samples.columns)
    assert set(samples.run) == {"base", "demo"}
    assert samples.groupby(["run", "split"]).size().to_dict() == {
        (run, split): n for run in ("base", "demo") for split, n in (("evaluation", 24), ("train", 16))
    }
    assert (samples.prompt.str.len() > 0).all()
    for row in samples.itertuples():
        assert (finished / "results/samples" / row.run / f"{row.clip_id}.wav").is_file()
        assert (finished / row.checkpoint).is_file()
    # Same prompt, same seed, same length in every run: that is what makes them comparable.
    pairs = samples.pivot(index="clip_id", columns="run", values=["prompt", "seed", "seconds"])
    for column in ("prompt", "seed", "seconds"):
        assert (pairs[column, "base"] == pairs[column, "demo"]).all()


def test_fine_tuning_taught_the_captions(finished: Path, samples: pd.DataFrame) -> None:
    """Fails when prompts are empty, weights never load, EMA is lost, latents are shuffled, or nothing is learned."""
    tuned, references = top1(samples, finished, "demo", "train")
    base, _ = top1(samples, finished, "base", "train")
    print(f"top-1 retrieval among {references}: base {base:.2f}, fine-tuned {tuned:.2f}, chance {1 / references:.2f}")
    assert tuned >= 0.8
    assert base <= 0.25


def test_held_out_clips_come_nearer_and_nothing_hums(finished: Path, samples: pd.DataFrame) -> None:
    runs = json.loads((finished / "results/evaluation/summary.json").read_text(encoding="utf-8"))["runs"]
    held_out = samples[samples.split == "evaluation"].clip_id.unique()
    distance = pd.DataFrame({n: {c: r["clips"][c]["log_mel_distance"] for c in held_out} for n, r in runs.items()})
    gain = distance.base - distance.demo  # dB, paired
    assert len(gain) == 24 and gain.mean() > 2 * gain.sem()
    kad = {name: next(m for m in run["measures"] if m["key"] == "evaluation/kad/aisfx") for name, run in runs.items()}
    assert kad["demo"]["high"] < kad["base"]["low"]
    for split in ("train", "evaluation"):
        assert louder_when_quiet(samples, finished, "demo", split) <= 6, split


def test_nothing_is_left_to_do(finished: Path) -> None:
    assert planned(finished) == {}


def test_time_stamps_names_and_comments_rerun_nothing(copy: Path) -> None:
    files = [path for path in copy.rglob("*") if not path.is_symlink()]
    for number, path in enumerate(sorted(files, key=lambda path: str(hash(path)))):
        os.utime(path, (1_900_000_000 + number, 1_900_000_000 + number))
    for path in [*copy.glob("scripts/*.py"), *copy.glob("scripts/sao/**/*.py")]:
        path.write_text("# A comment.\n" + path.read_text())
    assert planned(copy) == {}


def test_changed_caption_reruns_what_depends_on_it_and_encodes_no_audio(copy: Path) -> None:
    path = copy / CAPTIONS
    old = hashlib.md5(path.read_bytes()).hexdigest()
    path.write_text(path.read_text().replace("A tuba played backwards", "A tuba turned backwards"))
    config = copy / "config.yaml"
    config.write_text(config.read_text().replace(old, hashlib.md5(path.read_bytes()).hexdigest()))
    assert planned(copy) == {
        "download": 1,
        "manifest": 1,
        "validate": 1,
        "split": 1,
        "dataset_configs": 1,
        "prompts": 1,
        "encode_captions": 1,
        "train": 1,
        "train_last": 1,
        "curves": 1,
        "export": 1,
    } | RENDERED | {"embed": 4}
    assert old in reasons(copy)  # says why


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("learning_rate: 3.0e-3", "learning_rate: 1.0e-3", TRAINED | {"train": 1, "train_last": 1}),
        ("steps: 600", "steps: 1200", TRAINED | {"train": 1, "train_last": 1}),
        ("steps: 600", "steps: 600\n    checkpoint: best", EXPORTED | {"export": 1}),
        ("steps: 600", "steps: 600\n    workers: 2\n    tensorboard: true", {}),
        ("evaluation: all", "evaluation: 2", RENDERED | {"prompts": 1}),
        ("cfg_scale: 1", "cfg_scale: 3", RENDERED | {"prompts": 1}),
    ],
)
def test_changed_config_reruns_what_depends_on_it(copy: Path, old: str, new: str, expected: dict[str, int]) -> None:
    config = copy / "config.yaml"
    assert old in config.read_text()
    config.write_text(config.read_text().replace(old, new))
    assert planned(copy) == expected


def test_changed_code_reruns_what_it_made(copy: Path) -> None:
    with (copy / "scripts/export.py").open("a") as script:
        script.write("\nNEW = 1\n")
    assert planned(copy) == EXPORTED | {"export": 1}


def test_what_a_failed_job_was_to_renew_is_not_up_to_date(copy: Path) -> None:
    """Snakemake removes the outputs of a job that fails, and misses no file between others."""
    config = copy / "config.yaml"
    old = hashlib.md5((copy / CAPTIONS).read_bytes()).hexdigest()
    config.write_text(config.read_text().replace(old, "f" * 32))
    failed = run_snakemake("--cores", "2", "results/samples", cwd=copy)
    assert failed.returncode == 1 and f"MD5 is {old}, the config says {'f' * 32}" in failed.stderr, failed.stderr
    # What went wrong is the last that one reads.
    last = failed.stderr.rstrip().splitlines()[-1]
    assert last.startswith("error: ") and "MD5 is" in last and last.endswith(".log)"), last
    again = planned(copy)
    assert again["download"] == again["manifest"] == again["train_last"] == again["collect"] == 1


def test_second_run_shares_data_latents_and_base(copy: Path) -> None:
    more = copy / "more.yaml"
    more.write_text("runs:\n  demo: {}\n  longer: {base_model: demo, corpus: demo, steps: 5000, batch_size: 8}\n")
    # Two runs are compared with the base model, so the intervals of the first are wider.
    again = {"evaluate": 2, "model_card": 2}
    assert planned(copy, "--configfile", "more.yaml") == TRAINED | {"train": 9, "train_last": 1} | again


def test_any_step_can_be_asked_for(finished: Path) -> None:
    exported = "results/checkpoints/demo/step-00000300/model.safetensors"
    assert planned(finished, target=exported) == {"export": 1}
    assert planned(finished, target="results/renders/demo@step-00000300") == {"export": 1, "render": 1}
    # Between two legs: from the one before, whose state is made again.
    assert planned(finished, target="results/checkpoints/demo/step-00000700/weights") == {"train": 1}
    assert planned(finished, target="results/checkpoints/demo/step-00000400/weights") == {"train": 2}
    epoch = "results/checkpoints/demo/epoch-00000001/weights"
    assert run_snakemake("-n", epoch, cwd=finished).returncode != 0


def test_clotho_dry_run_reads_as_a_plan(finished: Path) -> None:
    jobs = planned(finished, "--configfile", "configs/clotho.yaml")
    assert jobs == RENDERED | {
        "download": 9,
        "extract": 3,
        "manifest": 3,
        "validate": 1,
        "split": 1,
        "rehearse": 1,
        "base_model": 1,
        "dataset_configs": 1,
        "prompts": 1,
        "encode": 2,
        "encode_captions": 1,
        "train": 4,
        "train_last": 1,
        "curves": 1,
        "export": 1,
        "embed": 4,
    }
    assert "Train run clotho to step-00010000" in reasons(finished, "--configfile", "configs/clotho.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("runs: {demo: {stepz: 3}}", r"runs\.demo\.stepz: unknown key; did you mean 'steps'\?.*bad\.yaml, line 1"),
        ("runs: {demo: {corpus: nope}}", r"runs\.demo\.corpus: found 'nope', an unknown corpus; allowed: demo"),
        ("runs: {demo: {steps: many}}", r"runs\.demo\.steps: found 'many', string; allowed: integer"),
    ],
)
def test_bad_config_is_one_clear_line(finished: Path, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    done = subprocess.run(
        ["snakemake", "-n", "--configfile", tmp_path / "bad.yaml"], cwd=finished, capture_output=True, text=True
    )
    assert done.returncode == 1
    said = done.stdout + done.stderr
    assert re.search(message, said), said
    assert "Traceback" not in said
