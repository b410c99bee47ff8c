"""The whole graph on little: every rule runs, a killed training goes on, and a second start has nothing to do."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import networks
import numpy as np
import pandas as pd
import pytest
import soundfile
from conftest import FORKS, GRAPH, assert_succeeds, checksum, copy_checkout, forked_jobs, listing, run_script, write_wav
from forks import Started
from sao.evaluation.votes import FORMAT
from tones import write_tones

SMALL: dict[str, Any] = {
    "base_models": {"demo": {"sampling": {"steps": 2}}},
    "runs": {
        "demo": {
            "corpus": "tones",
            "steps": 8,
            "checkpoint_every": 4,
            "validate_every": 4,
            "batch_size": 4,
            "threads": 1,
        }
    },
    "render": {"clips": {"evaluation": 2, "train": None}, "prompts": "mine.csv", "takes": 2},
    "evaluation": {"embeddings": ["log-mel", {"name": "vggish", "weights": {}}], "bootstrap": 10},
}


PROMPTS = (
    "id,prompt,init_audio,init_noise_level\nplain,Rain.,,\nodd,Rain.,my sounds/a {b}.wav,5\nlow,Rain.,low.flac,20\n"
)


def write_sources(checkout: Path) -> None:
    """Prompts of which two start from sounds. Snakemake takes no path with braces as an input."""
    (checkout / "mine.csv").write_text(PROMPTS)
    write_wav(checkout / "my sounds/a {b}.wav", 0.2 * np.sin(np.arange(8000))[:, None], 8000)
    soundfile.write(checkout / "low.flac", 0.2 * np.sin(0.01 * np.arange(44100)), 44100)


def start(checkout: Path, *target: str) -> Started:
    return FORKS[0].snakemake(*GRAPH, "--configfile=small.yaml", *target, cwd=checkout, env=forked_jobs())


def snakemake(checkout: Path, *target: str) -> tuple[int, str]:
    """The exit code of a Snakemake that has ended, and all that it said."""
    done = start(checkout, *target).finish()
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout in which the graph ran to its end, after Snakemake and the training were killed in the second leg."""
    checkout = copy_checkout(tmp_path_factory.mktemp("small") / "checkout")
    SMALL["evaluation"]["embeddings"][1]["weights"] = networks.declared(
        networks.write(checkout / "vggish.pth", "vggish")
    )
    SMALL["corpora"] = {"tones": write_tones(checkout / "tones")}
    (checkout / "small.yaml").write_text(json.dumps(SMALL))
    write_sources(checkout)
    run = checkout / "results/checkpoints/demo"
    killed = start(checkout, "results/checkpoints/demo/model.safetensors")
    while killed.runs() and not (run / "step-00000004/training.json").is_file():
        time.sleep(0.05)
    os.killpg(killed.pid, signal.SIGKILL)
    assert killed.finish().returncode == -signal.SIGKILL
    assert not (run / "model.safetensors").exists()
    code, said = snakemake(checkout, "--unlock")
    assert code == 0, said
    code, said = snakemake(checkout, "results/samples")
    assert code == 0, said[-6000:]
    return checkout


def test_the_page_lists_what_was_rendered(small: Path) -> None:
    samples = pd.read_csv(small / "results/samples/samples.csv", keep_default_na=False)
    assert sorted(samples.run) == ["base"] * 10 + ["demo"] * 10 and set(samples.split) == {"evaluation", "prompts"}
    assert sorted(samples["take"]) == [1] * 10 + [2] * 10 and samples.sha256.nunique() == 20
    files = listing(small / "results/samples")
    assert "index.html" in files and {f"{row.run}/{row.file}" for row in samples.itertuples()} <= files
    assert set(samples.model_sha256[samples.run == "demo"]) == {
        checksum(small / "results/checkpoints/demo/model.safetensors", "sha256")
    }


def test_declared_weights_measure_each_set_of_sounds_once(small: Path) -> None:
    """The recordings of a corpus, the base model's renders and the run's renders: each is read once in each form."""
    kinds = {"corpora/tones.npz", "renders/base--demo--tones.npz", "renders/demo.npz"}
    assert listing(small / "results/embeddings/vggish") == kinds
    assert listing(small / "results/signals") == {"recordings/tones.npz"} | {
        kind for kind in kinds if "renders" in kind
    }
    for jobs in ("embed/vggish", "signals"):
        assert len(listing(small / "results/benchmarks" / jobs)) == 3, jobs
    keys = {measure["key"] for measure in json.loads((small / "results/evaluation/demo.json").read_text())["measures"]}
    assert {"evaluation/fd/vggish", "evaluation/kad/vggish", "evaluation/clicks", "evaluation/reference_clicks"} <= keys
    assert "evaluation/fad/vggish" not in keys and listing(small / "results/weights/vggish") == {
        "checksums.sha256", "model.safetensors",
    }  # fmt: skip


def test_what_starts_from_a_sound_is_near_it_and_made_anew_with_it(small: Path, tmp_path: Path) -> None:
    page = (small / "results/samples/index.html").read_text(encoding="utf-8")
    assert html.unescape(page).count('"sound": "source/') == 2 and "source noised to 5" in page
    again = shutil.copytree(small, tmp_path / "again", symlinks=True)
    for name, others in (("my sounds/a {b}.wav", "odd"), ("low.flac", "low")):
        soundfile.write(again / name, 0.3 * np.sin(0.02 * np.arange(30000)), 44100, "PCM_16")
        code, said = snakemake(again, "results/renders/base--demo--tones")
        assert code == 0, said[-3000:]
        before, after = (
            pd.read_csv(folder / "results/renders/base--demo--tones.csv").set_index("clip_id")
            for folder in (small, again)
        )
        assert after.source_sha256[others] == checksum(again / name, "sha256") != before.source_sha256[others]
        assert after.seconds[others] == pytest.approx(30000 / 44100, abs=1e-4)
    (again / "low.flac").unlink()
    code, said = snakemake(again, "-n", "results/samples")
    assert code == 1 and "mine.csv, row 4: the init_audio 'low.flac' does not exist" in said
    assert "Traceback" not in said


def test_a_tried_prompt_has_the_bytes_of_the_graphs_render(small: Path, tmp_path: Path) -> None:
    """A plain one in a batch with clips, and one that starts from a sound."""
    for model, folder, clip in (("demo", "demo", "plain"), ("base", "base--demo--tones", "odd")):
        rendered = small / "results/renders" / folder
        seed = pd.read_csv(rendered.with_suffix(".csv")).set_index("clip_id").seed[clip]
        given = ["--configfile", "small.yaml", "--seed", seed, "--output", tmp_path / "out.wav"]
        assert_succeeds(run_script("try", model, "Rain.", *given, cwd=small))
        assert (tmp_path / "out.wav").read_bytes() == (rendered / f"{clip}.wav").read_bytes()


def test_everything_is_what_it_was_made_as(small: Path) -> None:
    for target, words in (("results/samples", "Nothing to be done"), ("verify", "all match their digests")):
        code, said = snakemake(small, target)
        assert code == 0 and words in said, said[-3000:]


def test_votes_come_back_to_the_page_and_a_file_that_holds_none_stops_at_the_start(small: Path, tmp_path: Path) -> None:
    again = shutil.copytree(small, tmp_path / "again", symlinks=True)
    samples = pd.read_csv(again / "results/samples/samples.csv", keep_default_na=False)
    heard = {(row.clip_id, row.run): {"run": row.run, "sha256": row.sha256} for row in samples.itertuples()}
    clips = sorted(set(samples.clip_id[samples.split == "evaluation"]))
    votes = [{"clip_id": c, "a": heard[c, "demo"], "b": heard[c, "base"], "better": "a"} for c in clips]
    file = again / "results/votes/mine.json"
    file.parent.mkdir()
    file.write_text("{}")
    code, said = snakemake(again, "-n", "results/samples")
    assert code == 1 and "results/votes/mine.json: is not a file of votes" in said and "Traceback" not in said
    file.write_text(json.dumps({"format": FORMAT, "session": "x", "saved": "2026-01-01", "votes": votes}))
    code, said = snakemake(again, "results/samples")
    assert code == 0 and dict(re.findall(r"^(votes|collect|render|evaluate) +(\d+)$", said, re.M)) == {
        "votes": "1",
        "collect": "1",
    }
    assert len(votes) == 4 and "demo was better on 2, base on 0, neither on 0: 100 %" in said  # takes of two prompts
    page = (again / "results/samples/index.html").read_text(encoding="utf-8")
    assert "In a blind test of 2 prompts (evaluation), demo was better on 2" in page
    file.unlink()
    code, said = snakemake(again, "results/samples")
    assert code == 0 and "In a blind test" not in (again / "results/samples/index.html").read_text(encoding="utf-8")


def test_another_device_makes_nothing_anew_and_one_that_is_not_there_is_told(small: Path, tmp_path: Path) -> None:
    again = shutil.copytree(small, tmp_path / "again", symlinks=True)
    code, said = snakemake(again, "-n", "results/samples", "--config", "device=cpu")
    assert code == 0 and "Nothing to be done" in said, said[-3000:]
    shutil.rmtree(again / "results/encoded_captions")
    code, said = snakemake(again, "results/encoded_captions/demo/tones.safetensors", "--config", "device=mps")
    assert code == 1 and "device is 'mps', and PyTorch" in said.rstrip().splitlines()[-1], said[-3000:]
    *_, last = (again / "results/logs/encode_captions/demo/tones.log").read_text(encoding="utf-8").splitlines()
    assert " again: " in last and "&& SAO_DEVICE=mps " in last


def test_wrong_prompts_are_known_before_anything_slow_and_retrain_nothing(small: Path, tmp_path: Path) -> None:
    """A job that failed has no output any more, which must not make a training outdated."""
    again = shutil.copytree(small, tmp_path / "again", symlinks=True)
    (again / "small.yaml").write_text(json.dumps(SMALL | {"render": SMALL["render"] | {"prompts": "mine.txt"}}))
    (again / "mine.txt").write_text("Rain.\n雨の音がする\n", encoding="utf-8")
    code, said = snakemake(again, "results/samples")
    assert code == 1 and "mine.txt, row 2: the prompt" in said.rstrip().splitlines()[-1], said[-3000:]
    assert "Render the prompts" not in said
    (again / "mine.txt").write_text("Rain.\n")
    code, said = snakemake(again, "-n", "results/samples")
    jobs = dict(re.findall(r"^(prompts|render|encode|train|train_last|export) +(\d+)$", said, re.M))
    assert jobs == {"prompts": "1", "render": "2"}, said[-3000:]


@pytest.mark.slow
def test_legs_are_heard_as_they_land_and_change_no_result(small: Path, tmp_path: Path) -> None:
    """With one GPU, a leg is rendered before the next one is trained."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    again = shutil.copytree(small, tmp_path / "again", symlinks=True)
    shutil.rmtree(again / "results/checkpoints")
    run = SMALL["runs"]["demo"] | {"tensorboard": True}
    config = SMALL | {"base_models": {"demo": {"sampling": {"steps": 2}, "gpus": 1}}, "runs": {"demo": run}}

    def listen(**more: object) -> None:
        settings = {"clips": 2, "cfg_scales": [1, 4]} | more
        (again / "small.yaml").write_text(json.dumps(config | {"listen": settings}))

    listen()
    page = "results/listen/index.html"
    code, said = snakemake(again, page)
    assert code == 0, said[-4000:]
    started = re.findall(r"^Job \d+: (Train|Export|Render) .*?(step-0000000[48])", said, re.M)
    legs = ("step-00000004", "step-00000008")
    assert started == [(rule, leg) for leg in legs for rule in ("Train", "Export", "Render")]
    text = (again / page).read_text(encoding="utf-8")
    assert "demo: 2 of 2 legs" in text and "(no prompt)" in text and "data-training>" not in text
    named = set(re.findall(r'"(?:sound|picture)": "([^"]+)"', html.unescape(text)))
    assert len(named) == 2 * (3 * 2 * 3 + 1)  # sounds and pictures: of models, scales and prompts, and of a recording
    assert all((again / "results/listen" / path.replace("%40", "@")).is_file() for path in named)
    events = EventAccumulator(str(again / "results/checkpoints/demo/tensorboard/audio")).Reload()
    assert [event.step for event in events.Tensors("_empty-prompt/cfg-4")] == [0, 4, 8]
    # The whole models of the legs are gone, and the trained weights are those of a training that nobody listened to, and that was
    # killed between.
    assert not list((again / "results/checkpoints/.listen").rglob("*.safetensors"))
    weights = "results/checkpoints/demo/step-00000008/weights/model.safetensors"
    assert checksum(again / weights) == checksum(small / weights)
    code, said = snakemake(again, "-n", page)
    assert code == 0 and "Nothing to be done" in said, said[-3000:]
    code, said = snakemake(again, "verify")
    assert code == 0 and "all match their digests" in said, said[-3000:]
    # The flag makes the page with all samples, and none of the files that are there is made anew.
    listen(enabled=True)
    code, said = snakemake(again, "-n", "results/samples")
    assert code == 0 and not re.search(r"^(train|train_last|render_listened|listen\w*) +\d+$", said, re.M), said[-3000:]
    # Other scales render the legs again and train nothing.
    listen(cfg_scales=[7])
    code, said = snakemake(again, "-n", page)
    jobs = dict(re.findall(r"^(train|train_last|listen_prompts|render_listened|listen|log_audio) +(\d+)$", said, re.M))
    assert jobs == {"listen_prompts": "1", "render_listened": "3", "listen": "3", "log_audio": "2"}, said[-3000:]
