"""The demo's corpus with latents and dataset configs, made by the scripts, for tests of trainings."""

from __future__ import annotations

import contextlib
import functools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from conftest import ROOT, SPLITS, assert_succeeds, dropped_table, official
from filelock import FileLock
from forks import Forks, Started
from sao.base.files import sha256
from sao.base.names import write_digests

DEMO = ROOT / "resources/demo/corpus"
DATASETS = ("latents", "audio_dir", "cropped_latents", "cropped_audio")


def succeed(*started: Started) -> None:
    for result in [each.finish() for each in started]:
        assert_succeeds(result)


def make_corpus(shared: Path, base_model: Path, forks: Forks) -> Path:
    """A folder with the demo's sounds, latents, encoded captions and dataset configs, made by the scripts.

    Not to be changed: all processes of pytest-xdist share it. `latents` and `audio_dir` are dataset configs of whole clips,
    and `cropped_latents` and `cropped_audio` those of parts of 1 s. `encoded` and `cropped_encoded` have the latents.
    """
    folder = shared / "corpus"
    with FileLock(folder.with_suffix(".lock")):
        if not (folder / f"{DATASETS[-1]}_captions.json").exists():  # written last
            folder.mkdir()
            _make(folder, base_model, forks)
    return folder


def _make(folder: Path, base_model: Path, forks: Forks) -> None:
    start = functools.partial(forks.start, cwd=folder)
    model = ("--model", base_model, "--model-digest", base_model / "checksums.sha256", "--code", "x")
    cropped = ("--train-seconds", 1, "--random-crop")
    sounds = {split: ("--split", split, "--facts", f"audio/{split}.csv") for split in SPLITS}
    succeed(
        *(
            start(
                "extract", *sounds[split], "--archive", DEMO / f"clotho_audio_{split}.7z", "--output", f"audio/{split}"
            )
            for split in SPLITS
        )
    )

    def manifest(split: str) -> Started:
        tables = [
            part for kind in ("captions", "metadata") for part in (f"--{kind}", DEMO / f"clotho_{kind}_{split}.csv")
        ]
        audio = ("--audio", f"audio/{split}")
        return start("manifest", *sounds[split], *audio, *tables, "--output", f"manifests/{split}.csv")

    def encode(split: str, output: str, *window: object) -> Started:
        digest = ("--output", f"{output}/{split}/0001-of-0001", "--digest", f"{output}/{split}/0001-of-0001.json")
        return start("encode", *sounds[split], "--audio", f"audio/{split}", *model, *window, *digest)

    trained = ("development", "validation")
    succeed(
        *map(manifest, SPLITS),
        *(encode(split, "encoded") for split in trained),
        *(encode(split, "cropped_encoded", *cropped) for split in trained),
    )
    (folder / "report.json").write_text("{}")
    # Two clips are enough for validation.
    clips = pd.read_csv(folder / "manifests/validation.csv").path[2:]
    dropped = dropped_table(folder / "dropped.csv", [{"path": path} for path in clips])
    manifests = [f"manifests/{split}.csv" for split in SPLITS]
    checked = ("--split", json.dumps(official()), "--validation-report", "report.json", "--dropped", dropped)
    succeed(start("split", "--manifest", *manifests, *checked, "--output", "splits"))

    def configure(name: str, *more: object) -> Started:
        given = ("--splits", "splits", "--model-config", base_model / "model_config.json", "--hub", base_model / "hub")
        outputs = ("--output", name, "--kept", f"{name}.csv", "--digest", f"{name}.sha256")
        return start("dataset_configs", *given, *more, *outputs)

    audio = ("--audio", json.dumps({split: f"audio/{split}" for split in SPLITS}))
    succeed(
        configure("latents", "--latents", "encoded"),
        configure("audio_dir", *audio),
        configure("cropped_latents", "--latents", "cropped_encoded", *cropped),
        configure("cropped_audio", *audio, *cropped),
    )
    # All have the same captions, but each summary names its own dataset configs.
    succeed(start("encode_captions", *captions(DATASETS[0], base_model)))
    encoded, summary = (folder / f"{DATASETS[0]}_captions.{end}" for end in ("safetensors", "json"))
    for name in DATASETS[1:]:
        shutil.copy(encoded, folder / f"{name}_captions.safetensors")
        made_from = json.loads(summary.read_text()) | {"datasets": sha256(folder / f"{name}.sha256")}
        (folder / f"{name}_captions.json").write_text(json.dumps(made_from))


@contextlib.contextmanager
def inside_corpus(shared: Path, base_model: Path, forks: Forks) -> Iterator[Path]:
    """The corpus as the current folder, because its dataset configs contain relative paths."""
    folder = make_corpus(shared, base_model, forks)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder


def make_initial(base_model: Path, folder: Path) -> Path:
    """The model that a training starts from, with the base model's weights, as rule init would put it into `folder`."""
    folder.mkdir()
    for name in ("model_config.json", "model.safetensors"):
        shutil.copy(base_model / name, folder)
    write_digests(folder / "checksums.sha256", folder, sorted(folder.iterdir()))
    return folder


def captions(datasets: str, model: Path) -> list[object]:
    """The options of encode_captions.py for a folder of dataset configs; the file lies beside it."""
    return [
        "--dataset-configs", datasets, "--datasets-digest", f"{datasets}.sha256", "--model", model,
        "--model-digest", model / "checksums.sha256", "--code", "x",
        "--output", f"{datasets}_captions.safetensors", "--digest", f"{datasets}_captions.json",
    ]  # fmt: skip
