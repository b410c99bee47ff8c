"""The card of an exported model names all sources, its code runs, and the Hub can read it."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from conftest import (
    FORKS,
    ROOT,
    assert_fails,
    assert_succeeds,
    checksum,
    kept_table,
    link_checkout,
    run_script,
    run_snakemake,
)
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from sao.base.names import write_digests
from sao.data.corpora import resolve
from sao.evaluation.embedded import Embedded
from sao.evaluation.embeddings import find
from sao.evaluation.evaluate import Evaluation
from sao.evaluation.printed import difference, interval
from sao.evaluation.verdict import verdict
from sao.pages.card import attribution, code, markdown, no_formula
from sao.plan.plan import Plan

LEG = "step-00000300"
DEMO = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
PLAN = Plan(resolve(DEMO, [ROOT / "config.yaml"]))
SAMPLING = PLAN.models.sampling("demo")
LOCAL = PLAN.publish.card("demo")["source"]
HUB = {
    "name": "sao",
    "repo": "stabilityai/stable-audio-open-1.0",
    "revision": "a" * 40,
    "text_encoder": {"repo": "google-t5/t5-small", "revision": "b" * 40},
}


def training(leg: str = LEG) -> dict[str, Any]:
    """training.json as rule `train` writes it."""
    moving, others = PLAN.training.settings("demo"), dict(PLAN.training.running("demo"))
    others["wandb"] = {"project": "secret-project", "mode": "online"}
    return {
        "run": "demo",
        "leg": leg,
        "steps": int(leg.split("-")[1]),
        "settings": moving | others,
        "provenance": {"settings": moving, "code": "0" * 16, "torch": "2.11.0", "stable-audio-tools": "0.0.20"},
        "training_clips": 10,
        "validation_clips": 2,
        "batch": 16,
        "moving_average": True,
        "trained_parameters": 1275648,
        "validation_loss": 0.5678,
    }


def measured(path: Path, leg: str | None, seed: int, base: bool = False) -> Path:
    """The JSON of rule `evaluate` for made-up embeddings of ten clips of evaluation and three of train."""
    splits = {"evaluation": 10, "train": 3}
    ids = [f"{split}{n}" for split, count in splits.items() for n in range(count)]
    clips = pd.DataFrame({"clip_id": ids, "split": [re.sub(r"\d", "", name) for name in ids]})
    rng = np.random.default_rng(seed)
    clips["loudness_error"], clips["silent"] = rng.uniform(1, 9, len(ids)), False
    other = clips.assign(loudness_error=rng.uniform(11, 19, len(ids))) if base else None
    found = Evaluation(clips, 50, 0, 0.9, other)
    sets = [
        Embedded(ids, clips.split.tolist(), rng.normal(size=(len(ids), 5)) + shift, None, {})
        for shift in (0, 0, 5 * base)
    ]
    found.measure_in(find("log-mel"), *sets)
    found.measure_clips()
    settings = {"bootstrap": 50, "level": 0.9, "seed": 0}
    told = {"comparisons": 1, "verdict": verdict(found.measures) if base else None}
    path.write_text(json.dumps({"name": "demo", "leg": leg, "settings": settings, **told, "measures": found.measures}))
    return path


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, base_model: Path, splits: Path) -> Path:
    """An export of the demo's base model with slightly changed diffusion weights. Tests must not change it."""
    folder = tmp_path_factory.mktemp("exported")
    torch.manual_seed(0)
    base = load_file(base_model / "model.safetensors")
    trained = {key: value for key, value in base.items() if not key.startswith("pretransform.")}
    moved = {key: v + 0.01 * torch.randn_like(v) if key.startswith("model.") else v for key, v in trained.items()}
    (folder / "weights").mkdir()
    save_file(moved, folder / "weights/model.safetensors")
    (folder / "training.json").write_text(json.dumps(training()))
    out = folder / "demo"
    listing = folder / "checksums.sha256"
    write_digests(listing, folder, [folder / "weights/model.safetensors"])
    given = ["--trained", folder / "weights", "--training", folder / "training.json", "--checksums", listing]
    given += ["--model", base_model, "--model-digest", base_model / "checksums.sha256"]
    assert_succeeds(run_script("export", *given, "--output", out, "--digest", out / "export.json"))
    measured(folder / "demo.json", LEG, 1, base=True)
    measured(folder / "base.json", None, 2)
    kept_table(splits, folder / "kept.csv")
    return folder


def write_card(
    exported: Path,
    base_model: Path,
    splits: Path,
    output: Path,
    source: dict = LOCAL,
    sampling: dict = SAMPLING,
    **other,
) -> subprocess.CompletedProcess[str]:
    """Run model_card.py on the files of `exported`, or on others in their place."""
    given = {
        "--export": exported / "demo/export.json",
        "--training": exported / "training.json",
        "--model-config": exported / "demo/model_config.json",
        "--model-digest": base_model / "checksums.sha256",
        "--model-source": base_model / "source.json",
        "--kept": exported / "kept.csv",
        "--measures": exported / "demo.json",
        "--base-measures": exported / "base.json",
    } | {f"--{key.replace('_', '-')}": value for key, value in other.items()}
    return run_script(
        "model_card", *(p for k, v in given.items() for p in (k, *(v if isinstance(v, list) else [v]))), "--source", json.dumps(source),
        "--sampling", json.dumps(sampling), "--card", output / "README.md", "--attribution", output / "ATTRIBUTION.csv",
    )  # fmt: skip


def card_text(*args: Any, **kwargs: Any) -> str:
    assert_succeeds(write_card(*args, **kwargs))
    return (args[3] / "README.md").read_text(encoding="utf-8")


def code_of(card: str) -> list[str]:
    """The blocks of Python code in a card."""
    return re.findall(r"^```python\n(.*?)^```$", card, re.M | re.S)


def run_code(code: str, folder: Path, hub: Path) -> subprocess.CompletedProcess[str]:
    """Run Python code in the folder, as a user would paste it, with the text encoder where the card says."""
    env = {"HF_HUB_CACHE": str(hub), "HF_HUB_OFFLINE": "1", "PYTHONPATH": ""}
    return FORKS[0].code(code, cwd=folder, env=env).finish(600)


LOOK = """
import json
sound, rate = soundfile.read("sound.wav", always_2d=True)
print("found", json.dumps({
    "shape": list(audio.shape), "finite": bool(torch.isfinite(audio).all()), "peak": float(audio.abs().max()),
    "wav": list(sound.shape), "rate": rate,
}))
"""


@pytest.mark.parametrize("objective", ["v", "rectified_flow"])
@pytest.mark.slow
def test_code_blocks_load_the_model_and_make_a_sound(
    exported: Path, base_model: Path, splits: Path, tmp_path: Path, objective: str
) -> None:
    folder = shutil.copytree(exported / "demo", tmp_path / "handed on")
    config = json.loads((folder / "model_config.json").read_text())
    sampling = SAMPLING
    if objective != "v":
        config["model"]["diffusion"]["diffusion_objective"] = objective
        (folder / "model_config.json").write_text(json.dumps(config))
        sampling = SAMPLING | {"sampler": "euler", "steps": 4, "sigma_max": 1, "negative_prompt": 'no "noise"'}
    card = card_text(
        exported,
        base_model,
        splits,
        folder,
        sampling=sampling,
        model_config=folder / "model_config.json",
        train_seconds=1.5,
    )
    blocks = code_of(card)
    assert len(blocks) == 2 and len(blocks[0].splitlines()) == 3
    done = run_code("".join(blocks) + LOOK, folder, base_model / "hub")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.split("found ")[1])
    row = pd.read_csv(splits / "train.csv").iloc[0]
    frames = -(-round(1.5 * 16000) // 1024)
    assert found["shape"] == [1, 2, frames * 1024] and found["finite"] and found["peak"] > 0
    assert found["wav"] == [round(row.seconds * 16000), 2] and found["rate"] == 16000
    assert json.dumps(row.caption_1) in blocks[1] and f"steps={sampling['steps']}" in blocks[1]


def test_three_lines_refuse_weights_that_do_not_fit(
    exported: Path, base_model: Path, splits: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(exported / "demo", tmp_path / "demo")
    load = code_of(card_text(exported, base_model, splits, folder))[0]
    state = load_file(folder / "model.safetensors")
    del state[next(key for key in state if key.startswith("model."))]
    save_file(state, folder / "model.safetensors")
    done = run_code(load, folder, base_model / "hub")
    assert done.returncode != 0 and "Missing key(s)" in done.stderr, done.stderr


def front_of(card: str) -> dict[str, Any]:
    return yaml.safe_load(card.split("---\n")[1])


def test_the_hub_reads_what_it_is_and_what_was_measured(
    exported: Path, base_model: Path, splits: Path, tmp_path: Path
) -> None:
    front = front_of(card_text(exported, base_model, splits, tmp_path, source=HUB))
    assert (front["library_name"], front["pipeline_tag"]) == ("stable-audio-tools", "text-to-audio")
    assert front["base_model"] == HUB["repo"] and "stable-audio-tools" in front["tags"]
    assert (front["license"], front["license_link"]) == ("other", f"https://huggingface.co/{HUB['repo']}")
    measures = json.loads((exported / "demo.json").read_text())["measures"]
    wanted = {m["name"]: m["value"] for m in measures if m["split"] == "evaluation"}
    assert len(wanted) == 5
    # The Hub's own client loads it in a separate process, because it reads its settings only once.
    code = (
        "import json, sys; from huggingface_hub import ModelCard\n"
        "data = ModelCard.load(sys.argv[1]).data\n"
        "print(json.dumps([data.model_name, [vars(r) for r in data.eval_results]]))\n"
    )
    done = FORKS[0].code(code, tmp_path / "README.md", cwd=tmp_path).finish()
    assert_succeeds(done)
    name, results = json.loads(done.stdout)
    assert name == "demo" and {r["metric_name"]: r["metric_value"] for r in results} == wanted
    assert {(r["task_type"], r["dataset_name"], r["dataset_split"]) for r in results} == {
        ("text-to-audio", "demo", "evaluation")
    }


def test_local_base_model_is_named_without_a_place_on_a_machine(
    exported: Path, base_model: Path, splits: Path, tmp_path: Path
) -> None:
    card = card_text(exported, base_model, splits, tmp_path)
    assert not {"base_model", "license", "license_link"} & set(front_of(card))
    assert "The base model `demo` (folder `resources/demo/base_model`)" in card
    assert "`HF_HUB_CACHE` to the folder `hub` that was made with it (`results/models/demo/hub`)" in card
    encoder = next(base_model.glob("hub/models--t5-small/snapshots/*/model.safetensors"))
    assert checksum(encoder, "sha256") in card
    card = card_text(exported, base_model, splits, tmp_path, source=LOCAL | {"path": "/home/jane/models/mine"})
    assert "(folder `mine`)" in card and "/home" not in card


def test_base_model_on_the_hub_is_pinned(exported: Path, base_model: Path, splits: Path, tmp_path: Path) -> None:
    card = card_text(exported, base_model, splits, tmp_path, source=HUB)
    told = json.loads((exported / "demo/export.json").read_text())
    for text in (
        f"[{HUB['repo']}](https://huggingface.co/{HUB['repo']}) at revision `{'a' * 40}`",
        f"`google-t5/t5-small` at revision `{'b' * 40}`",
        "for 300 steps on 10 clips of the corpus `demo`",
        f"SHA-256 of `model.safetensors`: `{checksum(exported / 'demo/model.safetensors', 'sha256')}`",
        f"Of its {told['keys']} tensors {told['changed_keys']} differ",
        "those of the diffusion model are moving averages",
        f"base model's weights: `{checksum(base_model / 'model.safetensors', 'sha256')}`",
        "stable-audio-tools 0.0.20 and torch 2.11.0",
    ):
        assert text in card, card


def test_model_with_clap_says_what_it_needs(exported: Path, base_model: Path, splits: Path, tmp_path: Path) -> None:
    config = json.loads((exported / "demo/model_config.json").read_text())
    config["model"]["conditioning"]["configs"][0] |= {"type": "clap_text"}
    (tmp_path / "model_config.json").write_text(json.dumps(config))
    digests = (base_model / "checksums.sha256").read_text() + f"{'c' * 64}  hub/clap.pt\n"
    (tmp_path / "checksums.sha256").write_text(digests)
    clap = {"repo": "lukewys/laion_clap", "revision": "d" * 40, "file": "clap.pt"}
    files = {"model_config": tmp_path / "model_config.json", "model_digest": tmp_path / "checksums.sha256"}
    card = card_text(exported, base_model, splits, tmp_path, source=HUB | {"clap": clap}, **files)
    assert f"`clap.pt` of `lukewys/laion_clap` at revision `{'d' * 40}`" in card and "c" * 64 in card
    assert "loads `roberta-base`" in card and "`clap_ckpt_path`" in card
    card = card_text(
        exported, base_model, splits, tmp_path, source=HUB | {"clap": {"path": "/home/jane/c.pt"}}, **files
    )
    assert "that of the base model" in card and "/home" not in card


def test_clips_licences_and_settings_are_told(exported: Path, base_model: Path, splits: Path, tmp_path: Path) -> None:
    table = pd.read_csv(splits / "train.csv", dtype=str, keep_default_na=False)
    table["license"] = "http://creativecommons.org/publicdomain/zero/1.0/"
    table.loc[0, "license"] = "http://creativecommons.org/licenses/by-nc/3.0/"
    table.loc[1, "license"] = ""
    table.loc[2, "license"] = "mine | not\nyours"
    table.loc[3, "license"] = "Attribution-NonCommercial-NoDerivs"
    table.loc[0, "caption_1"] = 'Say "```" \\ then\nline | two, naïve – 雨.'
    table["seconds"] = "1800"
    table["role"] = "train"
    table.loc[table.index[-1], "role"] = "evaluation"
    table.to_csv(tmp_path / "kept.csv", index=False)
    card = card_text(exported, base_model, splits, tmp_path, kept=tmp_path / "kept.csv")
    for text in (
        "9 clips of the corpus `demo`, 4.50 h; 2 more to validate on",
        "| CC-BY-NC-3.0 | 1 |\n",
        "| CC-BY-NC-ND | 1 |\n",
        "| CC0-1.0 | 5 |\n",
        "| missing | 1 |\n",
        "| unknown licence: mine \\| not yours | 1 |\n",
        "2 of the clips are under non-commercial licences. 1 of the clips are under licences that forbid derivatives. "
        "1 of the clips are under licences that are not known. The licence of 1 of the clips is missing.",
        "| batch_size | 8 |\n",
        f"| leg | {LEG} |\n",
        "| validation loss | 0.5678 |\n",
    ):
        assert text in card, card
    assert "secret-project" not in card
    # Any caption gives valid code that contains it.
    blocks = code_of(card)
    assert len(blocks) == 2
    line = next(line for line in blocks[1].splitlines() if line.startswith("prompt, seconds = "))
    scope: dict[str, Any] = {}
    exec(line, scope)
    # A clip that is longer than the model's window is trained on in crops.
    assert (scope["prompt"], scope["seconds"]) == (table.loc[0, "caption_1"], 49152 / 16000)
    credits = pd.read_csv(tmp_path / "ATTRIBUTION.csv", dtype=str, keep_default_na=False)
    assert list(credits.columns) == ["clip_id", "file_name", "author", "link", "license"]
    kept = table.iloc[:-1]
    for column, source in (
        ("clip_id", "clip_id"),
        ("author", "manufacturer"),
        ("link", "sound_link"),
        ("license", "license"),
    ):
        assert list(credits[column]) == list(kept[source])


def test_text_of_others_is_text_in_the_card_and_in_spreadsheets(
    exported: Path, base_model: Path, splits: Path, tmp_path: Path
) -> None:
    table = pd.read_csv(splits / "train.csv", dtype=str, keep_default_na=False)
    evil = '<script>alert("1")</script> & [x](javascript:y) *a* _b_ `c` | d'
    table.loc[0, ["license", "manufacturer", "file_name"]] = evil, "=1+1|cmd", "-dash.wav"
    table.loc[1, ["manufacturer", "license"]] = "@SUM(A1)", "+1"
    table.loc[2, "manufacturer"] = "Jürgen = me"
    table.assign(role="train").to_csv(tmp_path / "kept.csv", index=False)
    source = LOCAL | {"path": "/home/x/a `b` <i>"}
    card = card_text(exported, base_model, splits, tmp_path, source=source, kept=tmp_path / "kept.csv")
    line = next(line for line in card.splitlines() if "script" in line)
    escaped = r"&lt;script&gt;alert(\"1\")&lt;/script&gt; &amp; \[x\](javascript:y) \*a\* \_b\_ \`c\` \| d".replace(
        '\\"', '"'
    )
    assert line == f"| unknown licence: {escaped} | 1 |"
    assert "(folder ``a `b` <i>``)" in card
    credits = pd.read_csv(tmp_path / "ATTRIBUTION.csv", dtype=str, keep_default_na=False)
    assert credits.author.tolist()[:3] == ["'=1+1|cmd", "'@SUM(A1)", "Jürgen = me"]
    assert (credits.file_name[0], credits.license[1], credits.license[0]) == ("'-dash.wav", "'+1", evil)


def test_attribution_says_where_a_clip_was_cut() -> None:
    columns = {"manufacturer": "Ann", "sound_link": "", "license": "CC0"}
    clips = pd.DataFrame([{"clip_id": f"{n}", "file_name": f"{n}.wav"} | columns for n in range(2)])
    cut = clips.assign(source_file="=a.wav", source_start=["0", "2.0"], source_end=["2.0", "4.25"])
    assert attribution(cut).cut_from.tolist() == ["'=a.wav, 0 to 2 s", "'=a.wav, 2 to 4.25 s"]
    assert "cut_from" not in attribution(clips)


@given(st.text())
def test_no_cell_begins_a_formula(text: str) -> None:
    shown = no_formula(text)
    assert shown in (text, f"'{text}") and not re.match(r"[=+\-@\t\r\n＝＋－＠]", shown)


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_no_mark_of_html_is_left(text: str) -> None:
    shown = markdown(text)
    assert "<" not in shown and ">" not in shown
    assert html.unescape(re.sub(r"\\([\\`*_\[\]~$#!])", r"\1", shown)) == text


@pytest.mark.parametrize("text", ["", "a", "`", "a``b", "` x"])
def test_code_has_more_backticks_around_than_within(text: str) -> None:
    marks = re.match("`+", code(text))[0]
    assert code(text).endswith(marks) and (not text or marks not in text) and text in code(text)


def test_measures_stand_beside_those_of_the_base_model(
    exported: Path, base_model: Path, splits: Path, tmp_path: Path
) -> None:
    card = card_text(exported, base_model, splits, tmp_path)
    found, base = (json.loads((exported / f"{name}.json").read_text())["measures"] for name in ("demo", "base"))
    shown = [
        line.strip("| ").split(" | ")
        for line in card.split("## Measures")[1].split("##")[0].splitlines()
        if line[:1] == "|"
    ]
    assert shown[0] == ["Split", "Measure", "Better", "Difference", "Base model", "This model", "n"]
    rows = {(split, name): rest for split, name, *rest in shown[2:]}
    assert len(rows) == len(shown) - 2 == len(found) == 10
    assert [row[0] for row in shown[2:]] == ["evaluation"] * 5 + ["train"] * 5
    for mine, other in zip(found, base, strict=True):
        unit = f" ({mine['unit']})" if mine["unit"] else ""
        texts = [difference(mine, 4), *(interval(m, 4) for m in (other, mine))]
        assert rows[mine["split"], mine["name"] + unit] == [mine["better"], *texts, str(mine["n"])]
    # The verdict comes first, and a difference without its interval is marked nowhere.
    told = card.split("## Measures\n\n")[1]
    assert told.startswith(
        "Of the split `evaluation`, whose clips were held out: closer to the recordings than the base: KAD"
    )
    assert "**" not in told.split("##")[0]
    assert "(level 0.9)" in card
    assert "- FAD∞ (log-mel), evaluation: " in card and "is the bias of so few clips" in card


def test_measure_without_a_value_is_a_dash(exported: Path, base_model: Path, splits: Path, tmp_path: Path) -> None:
    told = json.loads((exported / "demo.json").read_text())
    told["measures"][0] |= {"value": None, "low": None, "high": None, "note": "needs two clips and two recordings"}
    (tmp_path / "demo.json").write_text(json.dumps(told))
    base = json.loads((exported / "base.json").read_text())
    base["measures"] = base["measures"][:1]
    (tmp_path / "base.json").write_text(json.dumps(base))
    card = card_text(
        exported, base_model, splits, tmp_path, measures=tmp_path / "demo.json", base_measures=tmp_path / "base.json"
    )
    assert len(front_of(card)["model-index"][0]["results"][0]["metrics"]) == 4
    first = card.split("| KAD (log-mel) | lower | ")[1].splitlines()[0]
    assert first.endswith("] | – | 10 |") and "| FAD∞ (log-mel) | lower | " in card
    told["measures"] = []
    (tmp_path / "demo.json").write_text(json.dumps(told))
    card = card_text(exported, base_model, splits, tmp_path, measures=tmp_path / "demo.json")
    assert "model-index" not in front_of(card) and "None was taken." in card


def test_what_is_of_another_leg_is_refused(exported: Path, base_model: Path, splits: Path, tmp_path: Path) -> None:
    other = measured(tmp_path / "demo.json", "step-00001000", 1)
    assert_fails(
        write_card(exported, base_model, splits, tmp_path / "out", measures=other), other, "step-00001000", LEG
    )
    (tmp_path / "training.json").write_text(json.dumps(training("step-00001000")))
    trained = tmp_path / "training.json"
    assert_fails(write_card(exported, base_model, splits, tmp_path / "out", training=trained), trained, LEG)
    assert not (tmp_path / "out").exists()


def test_of_several_legs_the_exported_one_is_told(
    exported: Path, base_model: Path, splits: Path, tmp_path: Path
) -> None:
    (tmp_path / "later.json").write_text(json.dumps(training("step-00001000")))
    legs = [tmp_path / "later.json", exported / "training.json"]
    card = card_text(exported, base_model, splits, tmp_path, training=legs)
    assert "for 300 steps" in card and f"| leg | {LEG} |" in card


def test_run_and_leg_ask_for_what_the_card_tells(tmp_path: Path) -> None:
    link_checkout(tmp_path)

    def planned(*target: str) -> dict[str, int]:
        done = run_snakemake("-n", *target, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return {
            name: int(count)
            for name, count in re.findall(r"^(\w+) +(\d+)$", done.stdout + done.stderr, re.M)
            if name in ("model_card", "export", "evaluate", "render", "train", "train_last", "upload")
        }

    leg = planned(f"results/checkpoints/demo/{LEG}/README.md")
    assert leg == {"model_card": 1, "export": 1, "evaluate": 2, "render": 2, "train": 1}
    run = {"model_card": 1, "export": 1, "evaluate": 2, "render": 2, "train": 1, "train_last": 1}
    assert planned("results/checkpoints/demo/ATTRIBUTION.csv") == run
    assert planned() == run  # rule `all`
