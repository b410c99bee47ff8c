"""The measures of one model: which sounds they compare, how they are written, and which are left out."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import assert_fails, assert_succeeds, run_script, write_wav
from sao.base.takes import take_id
from sao.evaluation.embedded import Embedded
from sao.evaluation.embeddings import find
from sao.evaluation.evaluate import Evaluation
from sao.evaluation.verdict import clearly, verdict

HERTZ = 16000
KEYS = {
    "key", "name", "measure", "embedding", "split", "difference", "difference_low", "difference_high", "difference_n", "value",
    "low", "high", "n", "n_reference", "unit", "better", "note",
}  # fmt: skip
SPLITS = {"train": 5, "validation": 8, "evaluation": 4}


def chord(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    time = np.arange(HERTZ) / HERTZ
    return 0.1 * sum(
        np.sin(2 * np.pi * f * time) * np.exp(-time * d) for f, d in rng.uniform((80, 0), (6000, 9), (5, 2))
    )


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recordings of three splits, and their embeddings as rule `embed` makes them."""
    folder = tmp_path_factory.mktemp("corpus")
    for number, (split, count) in enumerate(SPLITS.items()):
        ids = [f"{split}{i}" for i in range(count)]
        paths = [write_wav(folder / f"{clip}.wav", chord(100 * number + i), HERTZ) for i, clip in enumerate(ids)]
        pd.DataFrame({"clip_id": ids, "path": paths}).to_csv(folder / f"{split}.csv", index=False)
    tables = [folder / f"{split}.csv" for split in SPLITS]
    for name in ("log-mel", "spectrogram"):
        output = folder / f"{name}.npz"
        assert_succeeds(run_script("embed", "--embedding", json.dumps(name), "--table", *tables, "--output", output))
    return folder


def make_renders(corpus: Path, folder: Path) -> pd.DataFrame:
    """Write four new sounds for evaluation, of which one is a copy, two for train, and a silent one for a mere prompt."""
    rows = [(f"evaluation{i}", "evaluation", chord(900 + i) if i else chord(2)) for i in range(4)]
    rows += [("train0", "train", chord(0)), ("train1", "train", chord(950)), ("mine", "prompts", np.zeros(HERTZ))]
    for clip, _, audio in rows:
        write_wav(folder / f"{clip}.wav", audio, HERTZ)
    references = [corpus / f"{clip}.wav" if split != "prompts" else "" for clip, split, _ in rows]
    table = pd.DataFrame(
        {"clip_id": [r[0] for r in rows], "split": [r[1] for r in rows], "prompt": "tones", "reference": references}
    )
    table["source"] = ""
    table["file"] = table.clip_id + ".wav"
    table.to_csv(folder.with_suffix(".csv"), index=False)
    return table


def measure(renders: Path) -> None:
    """Embed the renders, and measure them and their recordings as signals."""
    given = ["--table", renders.with_suffix(".csv"), "--renders", renders]
    assert_succeeds(run_script("embed", "--embedding", '"log-mel"', *given, "--output", renders.with_suffix(".npz")))
    assert_succeeds(run_script("signals", *given, "--output", renders.with_name("signals.npz")))
    assert_succeeds(run_script("signals", *given[:2], "--output", renders.with_name("recordings.npz")))


def evaluate(corpus: Path, renders: Path, *more: object) -> subprocess.CompletedProcess[str]:
    source = {"folder": "mine", "run": "mine", "base_model": "demo", "corpus": "demo"}
    return run_script(
        "evaluate", "--run", "mine", "--source", json.dumps(source), "--table", renders.with_suffix(".csv"),
        "--embeddings", '["log-mel"]', "--embedded", renders.with_suffix(".npz"), "--recordings", corpus / "log-mel.npz",
        "--thumbnails", corpus / "spectrogram.npz", "--signals", renders.with_name("signals.npz"),
        "--recorded-signals", renders.with_name("recordings.npz"), "--bootstrap", 50, "--level", 0.9, "--seed", 0,
        "--output", renders.with_suffix(".json"), "--clips", renders.with_name("clips.csv"), *more,
    )  # fmt: skip


@pytest.fixture(scope="module")
def evaluated(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], pd.DataFrame]:
    """The outputs of evaluate.py: the JSON, and the table of clips."""
    folder = tmp_path_factory.mktemp("renders")
    make_renders(corpus, folder / "mine")
    measure(folder / "mine")
    shutil.rmtree(folder / "mine")  # rule evaluate reads no sound
    digest = folder / "export.json"
    digest.write_text('{"leg": "step-00000500"}')
    assert_succeeds(evaluate(corpus, folder / "mine", "--weights-digest", digest))
    text = (folder / "mine.json").read_text()
    found = json.loads(text, parse_constant=lambda constant: pytest.fail(f"{constant} is not JSON"))
    return found, pd.read_csv(folder / "clips.csv", index_col="clip_id")


def test_every_measure_explains_itself(evaluated: tuple[dict[str, Any], pd.DataFrame]) -> None:
    found, _ = evaluated
    assert (found["name"], found["leg"], found["step"], found["corpus"]) == ("mine", "step-00000500", 500, "demo")
    assert found["settings"] == {"bootstrap": 50, "level": 0.9, "seed": 0}
    assert found["embeddings"][0]["name"] == "log-mel" and found["embeddings"][0]["dim"] == 192
    for measure in found["measures"]:
        assert set(measure) == KEYS and not measure["difference_n"]
        of_recordings = measure["measure"].startswith("reference_")  # what neither model makes better
        assert measure["better"] in (("",) if of_recordings else ("higher", "lower"))
        if measure["value"] is None:  # of two training captions
            assert measure["measure"] == "memorised" and measure["note"].startswith("cannot be told")
            continue
        assert measure["n"] >= 1
        if measure["low"] is not None:
            assert measure["low"] <= measure["value"] <= measure["high"]
    by_key = {measure["key"]: measure for measure in found["measures"]}
    # Of 4 clips none is silent: the exact interval of level 0.9. A single clip, or equal ones, tell no interval; nor does FAD.
    silent = by_key["evaluation/silent"]
    assert (silent["value"], silent["low"], silent["high"]) == (0, 0, pytest.approx(0.5271, abs=1e-4))
    for key in ("prompts/dc_offset", "evaluation/clipped", "evaluation/fad/log-mel"):
        assert by_key[key]["value"] is not None and (by_key[key]["low"], by_key[key]["high"]) == (None, None)
    assert "rewards the average" in by_key["evaluation/log_mel_distance"]["note"]
    keys = [measure["key"] for measure in found["measures"]]
    assert len(keys) == len(set(keys))


def test_sets_are_compared_split_by_split_with_what_was_recorded(
    evaluated: tuple[dict[str, Any], pd.DataFrame],
) -> None:
    by_key = {measure["key"]: measure for measure in evaluated[0]["measures"]}
    kad, fad = by_key["evaluation/kad/log-mel"], by_key["evaluation/fad/log-mel"]
    assert (kad["name"], kad["n"], kad["n_reference"], kad["note"]) == ("KAD (log-mel)", 4, 4, "")
    assert fad["name"] == "FAD∞ (log-mel)" and "Go by KAD" in fad["note"] and "of the plain FAD of" in fad["note"]
    assert by_key["train/kad/log-mel"]["n_reference"] == SPLITS["train"]
    # A prompt has no recordings and no reference to be compared with. Its signal is measured all the same.
    mere = {key for key in by_key if key.startswith("prompts/")}
    assert mere == {
        "prompts/silent", "prompts/clipped", "prompts/dc_offset", "prompts/memorised/log-mel",
        "prompts/memorised/spectrogram", "prompts/clicks", "prompts/dropouts",
    }  # fmt: skip
    assert by_key["prompts/silent"]["value"] == 1 and by_key["evaluation/silent"]["value"] == 0


def test_copy_of_a_training_clip_is_told(evaluated: tuple[dict[str, Any], pd.DataFrame]) -> None:
    found, clips = evaluated
    for space in ("log-mel", "spectrogram"):
        entry = next(entry for entry in found["memorisation"] if entry["space"] == space)
        assert "evaluation0" in entry["flagged"] and entry["n_train"] == 5 and entry["n_held_out"] == 12
        assert entry["judged"]["evaluation"]  == {
            "value": entry["judged"]["evaluation"]["value"], "rate": pytest.approx(1 / 13, rel=1e-4), "n": 12, "left_out": 0,
        }  # fmt: skip
        # Two renders of training captions are too few to judge by.
        assert entry["judged"]["train"]["value"] is None and pd.isna(clips.loc["train0", f"memorised/{space}"])
    by_key = {measure["key"]: measure for measure in found["measures"]}
    assert by_key["train/memorised/spectrogram"]["value"] is None
    assert by_key["train/memorised/spectrogram"]["note"].startswith(
        "cannot be told with 2 renders of training captions"
    )
    assert clips.loc["evaluation0", "nearest_train/spectrogram"] == "train2"
    assert clips.loc["train0", "log_mel_distance"] < 0.01 < clips.loc["train1", "log_mel_distance"]


def test_clips_are_told_in_table_and_json_alike(evaluated: tuple[dict[str, Any], pd.DataFrame]) -> None:
    found, clips = evaluated
    assert set(found["clips"]) == set(clips.index)
    for clip, figures in found["clips"].items():
        for key, value in figures.items():
            assert clips.loc[clip, key] == (pytest.approx(value, rel=1e-4) if isinstance(value, float) else value)
    assert "log_mel_distance" not in found["clips"]["mine"] and found["clips"]["mine"]["silent"] is True


def test_further_takes_are_told_beside_their_sounds_and_change_no_measure(
    corpus: Path, tmp_path: Path, evaluated: tuple[dict[str, Any], pd.DataFrame]
) -> None:
    """Takes of one prompt are no independent clips."""
    renders = tmp_path / "mine"
    table = make_renders(corpus, renders)
    more = table[:6].assign(clip_id=[take_id(clip, 2) for clip in table.clip_id[:6]])  # of evaluation and train
    more["file"] = more.clip_id + ".wav"
    for number, name in enumerate(more.file):
        write_wav(renders / name, chord(700 + number), HERTZ)
    pd.concat([table, more]).to_csv(tmp_path / "mine.csv", index=False)
    measure(renders)
    assert_succeeds(evaluate(corpus, renders))
    found = json.loads((tmp_path / "mine.json").read_text())
    assert found["measures"] == evaluated[0]["measures"]
    assert [space["judged"] for space in found["memorisation"]] == [
        space["judged"] for space in evaluated[0]["memorisation"]
    ]
    second = found["clips"]["evaluation0@take-2"]
    assert second["log_mel_distance"] != found["clips"]["evaluation0"]["log_mel_distance"]
    assert second["reference_loudness_lufs"] == found["clips"]["evaluation0"]["reference_loudness_lufs"]


def test_missing_clip_and_file_of_another_kind_are_named(corpus: Path, tmp_path: Path) -> None:
    renders = tmp_path / "mine"
    table = make_renders(corpus, renders)
    measure(renders)
    more = table[["clip_id"]].assign(clip_id="new", split="evaluation", prompt="x", reference="", file="new.wav")[:1]
    pd.concat([table, more]).to_csv(tmp_path / "mine.csv", index=False)
    write_wav(renders / "new.wav", chord(7), HERTZ)
    assert_fails(evaluate(corpus, renders), "signals.npz", "clip new")
    given = ["--table", tmp_path / "mine.csv", "--renders", renders, "--output", tmp_path / "signals.npz"]
    assert_succeeds(run_script("signals", *given))
    assert_fails(evaluate(corpus, renders), "mine.npz", "clip new")
    (tmp_path / "mine.npz").write_bytes(b"no zip")
    assert_fails(evaluate(corpus, renders), "mine.npz", "not a file of embeddings")
    (tmp_path / "signals.npz").write_bytes(b"no zip")
    assert_fails(evaluate(corpus, renders), "signals.npz", "not a file of signals")


def test_clap_score_is_the_cosine_of_caption_and_sound_between_floor_and_ceiling() -> None:
    ids = ["a", "b", "c"]
    clips = pd.DataFrame({"clip_id": ids, "split": "evaluation"})
    vectors, text = np.array([[1, 0], [0, 2], [1, 0]]), np.array([[1, 0], [3, 4], [1, 0]])  # a and c have one caption
    found = Evaluation(clips, 50, 0, 0.95)
    renders = Embedded(ids, ["evaluation"] * 3, vectors.astype(np.float32), text.astype(np.float32), {})
    recordings = Embedded(["b", "x"], ["evaluation", "train"], np.array([[3, 4], [1, 0]], np.float32), None, {})
    space = "laion/clap-htsat-unfused"
    found.measure_in(find(space), renders, recordings)
    assert found.clips[f"clap_score/{space}"].tolist() == pytest.approx([1, 0.8, 1])
    assert found.clips[f"clap_floor/{space}"].tolist() == pytest.approx([0.6, 0, 0.6])  # captions of other texts
    assert found.clips[f"clap_ceiling/{space}"].tolist() == pytest.approx([np.nan, 1, np.nan], nan_ok=True)
    figures = {m["measure"]: m for m in found.measures if m["embedding"] == space and m["measure"].startswith("clap")}
    assert [(m["value"], m["n"], m["better"]) for m in figures.values()] == [
        (pytest.approx(2.8 / 3), 3, "higher"), (pytest.approx(1), 1, ""), (pytest.approx(0.4), 3, ""),
    ]  # fmt: skip
    assert figures["clap_score"]["name"] == f"CLAP score ({space})" and figures["clap_score"]["low"] < 2.8 / 3
    before = len(found.measures)
    found.measure_in(find("aisfx"), Embedded(ids, ["evaluation"] * 3, vectors, None, {}), recordings.of_splits("none"))
    assert len(found.measures) == before


def evaluation(base: pd.DataFrame | None, sets: np.ndarray, comparisons: int = 1, **columns: object) -> Evaluation:
    """The figures of 12 clips with these columns, whose vectors lie at `sets[0]`, the base model's at `sets[1]`."""
    ids = [f"{n}" for n in range(12)]
    found = Evaluation(pd.DataFrame({"clip_id": ids, "split": "evaluation"} | columns), 200, 0, 0.95, base, comparisons)
    splits = ["evaluation"] * 12
    renders, others, recordings = (Embedded(ids, splits, vectors, None, {}) for vectors in sets)
    found.measure_in(find("log-mel"), renders, recordings, others)
    found.measure_clips()
    return found


def test_difference_to_the_base_is_paired_and_leads() -> None:
    rng = np.random.default_rng(0)
    captions = rng.standard_normal((12, 8))
    sets = captions + rng.standard_normal((3, 12, 8)) * [[[0.1]], [[0.1]], [[0.1]]] + [[[0.1]], [[1]], [[0]]]
    errors = rng.uniform(1, 20, 12)  # which differ far more between clips than between the models
    base = pd.DataFrame(
        {
            "clip_id": [f"{n}" for n in range(11, -1, -1)],
            "split": "evaluation",
            "loudness_error": errors[::-1],
            "silent": True,
        }
    )
    given = {"loudness_error": errors - 0.5 + 0.1 * rng.standard_normal(12), "silent": [False] * 11 + [True]}
    found = {m["key"]: m for m in evaluation(base, sets, **given).measures}
    kad, error, silent = (found[f"evaluation/{key}"] for key in ("kad/log-mel", "loudness_error", "silent"))
    assert kad["difference"] < kad["difference_low"] + 100 and kad["difference_high"] < 0
    assert clearly(kad) == clearly(error) == clearly(silent) == "better"
    assert error["high"] - error["low"] > 5 > 0.3 > error["difference_high"] - error["difference_low"]
    assert (silent["difference"], silent["difference_n"]) == (pytest.approx(-11 / 12, rel=1e-5), 12)
    fad = found["evaluation/fad/log-mel"]
    assert fad["difference"] is not None and fad["difference_low"] is None and clearly(fad) == ""
    told = verdict(list(found.values()))
    assert re.fullmatch(
        r"closer to the recordings than the base: KAD \(log-mel\) −[\d.]+ \[−[\d.]+, −[\d.]+\], n = 12", told
    )
    swapped = evaluation(base, sets[[1, 0, 2]], **given).measures
    assert verdict(swapped).startswith("farther from the recordings than the base: KAD (log-mel) +")
    alike = evaluation(base, sets[[1, 1, 2]] + [[[1e-3]], [[0]], [[0]]] * rng.standard_normal((3, 12, 8)), **given)
    assert verdict(alike.measures).startswith("no clear difference to the base: KAD (log-mel) ")


def test_several_models_have_wider_intervals_of_differences() -> None:
    rng = np.random.default_rng(1)
    errors = rng.uniform(0, 1, (2, 12))
    base = pd.DataFrame({"clip_id": [f"{n}" for n in range(12)], "split": "evaluation", "loudness_error": errors[1]})
    sets = rng.standard_normal((3, 12, 8))
    one, ten = (
        {m["measure"]: m for m in evaluation(base, sets, count, loudness_error=errors[0]).measures} for count in (1, 10)
    )
    for key in ("kad", "loudness_error"):
        width = [m["difference_high"] - m["difference_low"] for m in (one[key], ten[key])]
        assert width[0] * 1.4 < width[1] and one[key]["low"] == ten[key]["low"]
        assert one[key]["difference"] == ten[key]["difference"]


def test_without_held_out_clips_there_is_no_verdict() -> None:
    assert verdict([]).startswith("not compared with the base: no clip of the split `evaluation`")
    few = Evaluation(pd.DataFrame({"clip_id": ["a"], "split": "evaluation", "silent": False}), 50, 0, 0.95)
    few.measure_clips()
    assert "1 clips" not in verdict(few.measures) and "too few" in verdict(few.measures)


def test_one_clip_is_too_few_for_a_set() -> None:
    found = Evaluation(pd.DataFrame({"clip_id": ["a"], "split": "evaluation"}), 50, 0, 0.95)
    one = Embedded(["a"], ["evaluation"], np.ones((1, 3), np.float32), None, {})
    found.measure_in(find("aisfx"), one, one)
    assert [(m["value"], m["low"], m["n"]) for m in found.measures] == [(None, None, 1)] * 2
    assert all("needs two" in m["note"] for m in found.measures)
