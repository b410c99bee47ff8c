"""configs/clotho.yaml as it is, on a small corpus with the oddities of Clotho v2.1, up to where the training begins."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import soundfile
import yaml
from conftest import GRAPH, ROOT, SPLITS, checksum, copy_checkout, noise, pack, run_snakemake, write_csv
from hub import serve_hub
from micro import safetensors, stable_audio_open, text_encoder
from sao.base.files import read_json
from sao.base.tables import read_table
from sao.pages.card import attribution
from sao.pages.samples import corpus_entry
from servers import serving

PRESET = ROOT / "configs/clotho.yaml"
MODEL = "stable-audio-open-1.0"
TARGET = f"results/data/clotho/dataset_configs/{MODEL}"
RATE = 44100
# The five recordings that are on two sides, and one that is twice on a side.
SHARED = {
    "development": ["137692", "86163", "130603", "130597", "130597"],
    "validation": ["86163", "130603", "66304", "86161"],
    "evaluation": ["137692", "66304", "86161"],
}
LEFT_OUT = {
    ("development", "137692"), ("development", "86163"), ("development", "130603"),
    ("validation", "66304"), ("validation", "86161"),
}  # fmt: skip
ODD = [
    " begins with a space.wav", "ends with one .wav", "it&#39;s [2] (3), 100%.wav", "&quot;two&quot;  blanks@home.wav",
    "bell.aif.wav", "Café.wav", "same name.wav",
]  # fmt: skip
LICENSES = [
    "http://creativecommons.org/licenses/by/3.0/",
    "http://creativecommons.org/publicdomain/zero/1.0/",
    "http://creativecommons.org/licenses/by-nc/3.0/",
    "http://creativecommons.org/licenses/sampling+/1.0/",
]


def names_and_ids(split: str) -> list[tuple[str, str]]:
    """`(file name, sound_id)` of the clips of a split."""
    shared = [(f"recording {sound_id} {n}.wav", sound_id) for n, sound_id in enumerate(SHARED[split])]
    first = 900_000 + 100 * list(SPLITS).index(split)
    own = [(name, str(first + n)) for n, name in enumerate(ODD if split == "development" else ODD[-2:])]
    return [*shared, *own, (f"lost in {split}.wav", "Not found")]


def wav(key: str) -> bytes:
    """Noise that is normalised to its peak, as all of Clotho is: one sample is at full scale."""
    audio = noise(key, 0.3, RATE)
    audio[len(audio) // 2] = 1
    buffer = io.BytesIO()
    soundfile.write(buffer, audio, RATE, "PCM_16", format="WAV")
    return buffer.getvalue()


def publish_clotho(folder: Path) -> None:
    """Nine files with the names of Clotho's."""
    for split in SPLITS:
        clips = names_and_ids(split)
        pack(folder / f"clotho_audio_{split}.7z", {f"{split}/{name}": wav(f"{split}/{name}") for name, _ in clips})
        captions = [
            {"file_name": name}
            | {f"caption_{i}": f"Recording {sound_id} of {split}, told in way {i}" for i in range(1, 6)}
            for name, sound_id in clips
        ]
        metadata = [
            {
                "file_name": name,
                "keywords": "noise;field",
                "sound_id": sound_id,
                "sound_link": "NA" if sound_id == "Not found" else f"https://freesound.org/people/a/sounds/{sound_id}",
                "start_end_samples": "NA" if sound_id == "Not found" else "[0, 13230]",
                "manufacturer": "NA" if sound_id == "Not found" else f"Jürgen {n}",
                "license": LICENSES[n % len(LICENSES)],
            }
            for n, (name, sound_id) in enumerate(clips)
        ]
        write_csv(folder / f"clotho_captions_{split}.csv", captions)
        write_csv(folder / f"clotho_metadata_{split}.csv", metadata, "iso-8859-1")
        for kind in ("captions", "metadata"):
            path = folder / f"clotho_{kind}_{split}.csv"
            if split != "evaluation":  # as published
                path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))


def overlay(files: Path, mirror: str) -> dict[str, Any]:
    """What of the preset is another for another corpus: the checksums, and where the files are."""
    splits = yaml.safe_load(PRESET.read_text(encoding="utf-8"))["corpora"]["clotho"]["splits"]
    for split in splits.values():
        for file in [*split["archives"], *split["captions"], *split["metadata"]]:
            file["md5"] = checksum(files / file["url"].split("/")[-1].split("?")[0])
    return {"corpora": {"clotho": {"mirror": mirror, "splits": splits}}}


def snakemake(checkout: Path, target: str, **environment: str) -> None:
    configs = ["--configfile", "configs/clotho.yaml", "overlay.yaml"]
    done = run_snakemake(*GRAPH, target, *configs, cwd=checkout, env={"WANDB_API_KEY": None} | environment)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout in which the preset has come as far as the training's data. Not to be changed."""
    folder = tmp_path_factory.mktemp("clotho")
    checkout = copy_checkout(folder / "checkout")
    publish_clotho(folder / "mirror")
    preset = yaml.safe_load(PRESET.read_text(encoding="utf-8"))["base_models"][MODEL]
    model = stable_audio_open()
    repos = {
        (preset["repo"], preset["revision"]): {
            "model_config.json": json.dumps(model).encode(),
            "model.safetensors": safetensors(model),
        },
        (preset["text_encoder"]["repo"], preset["text_encoder"]["revision"]): text_encoder(),
    }
    with serving(folder / "mirror") as server, serve_hub(repos) as hub:
        hub.token = "hf_ofTheTests"
        (checkout / "overlay.yaml").write_text(yaml.safe_dump(overlay(folder / "mirror", server.url)), encoding="utf-8")
        reach = {
            "HF_ENDPOINT": hub.endpoint,
            "HF_TOKEN": hub.token,
            "HF_HUB_OFFLINE": "0",
            "HF_HOME": str(folder / "hf"),
        }
        snakemake(checkout, "downloads", **reach)
        assert len(server.asked) >= 9
    snakemake(checkout, TARGET, HF_HUB_OFFLINE="1", HF_TOKEN="")
    return checkout


def test_each_recording_stays_on_the_side_that_judges(prepared: Path) -> None:
    data = prepared / "results/data/clotho"
    sides = {side: read_table(data / f"splits/{side}.csv") for side in SPLITS.values()}
    published = {side: len(names_and_ids(split)) for split, side in SPLITS.items()}
    assert {side: len(table) for side, table in sides.items()} == {
        "train": published["train"] - 3, "validation": published["validation"] - 2, "evaluation": published["evaluation"]
    }  # fmt: skip
    for split, side in SPLITS.items():
        kept = {sound_id for _, sound_id in names_and_ids(split)} - {one for s, one in LEFT_OUT if s == split}
        assert set(sides[side].sound_id) == kept
    listed = (prepared / TARGET / "train/filelist.txt").read_text(encoding="utf-8").splitlines()
    assert len(listed) == len(sides["train"])


def test_what_is_left_out_is_named_in_the_table_the_log_and_on_the_pages(prepared: Path) -> None:
    data = prepared / "results/data/clotho"
    dropped = read_table(data / "manifests/dropped.csv")
    told = {(row.published_split, row.message.split("same sound_id ")[1].split()[0]) for row in dropped.itertuples()}
    assert told == LEFT_OUT and set(dropped.check) == {"leak"} and len(dropped) == 5
    log = (prepared / "results/logs/validate/clotho.log").read_text(encoding="utf-8")
    page = (data / "validation.html").read_text(encoding="utf-8")
    clips = sum(len(names_and_ids(split)) for split in SPLITS)
    entry = corpus_entry(
        read_json(data / "validation.json"), [read_table(prepared / TARGET / "dropped.csv")], "page.html"
    )
    assert (entry["dropped"], entry["reasons"], entry["clips"]) == (5, "leak: 5", clips - 5)
    for row in dropped.itertuples():
        line = f"{row.path} {row.message}"
        assert f"left out: {line}" in log and row.path in page and row.message in page
        assert line in entry["left_out"]


def test_nothing_is_called_clipped_and_no_word_for_nothing_is_a_credit(prepared: Path) -> None:
    data = prepared / "results/data/clotho"
    report = read_json(data / "validation.json")
    # The lost recordings, and captions that are alike because they are made up.
    assert {warning["check"] for warning in report["warnings"]} == {"sound_id", "caption"}
    assert set(report["licenses"]) == {"CC-BY-3.0", "CC0-1.0", "CC-BY-NC-3.0", "CC-Sampling+-1.0"}
    manifests = pd.concat(read_table(data / f"manifests/{split}.csv") for split in SPLITS)
    assert (manifests.peak_dbfs == 0).all() and (manifests.clipped_run == 0).all()
    credits = attribution(read_table(data / "splits/train.csv")).set_index("file_name")
    assert credits.loc["lost in development.wav", ["author", "link"]].tolist() == ["", ""]
    others = credits.drop("lost in development.wav")
    assert others.link.str.startswith("https://").all() and others.author.str.startswith("Jürgen").all()
