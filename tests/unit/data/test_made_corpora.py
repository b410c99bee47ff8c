"""What resources/base makes of a corpus: captions, sounds played backwards, a base model. Here the corpus is of tones."""

from __future__ import annotations

import csv
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import py7zr
import pytest
import soundfile
from conftest import FORKS, ROOT, assert_succeeds

RATE, INSTRUMENTS = 8000, 44
COLUMNS = (
    "file", "package", "source", "kind", "instrument", "bank", "program", "keys", "velocity", "held_s", "seconds", "licence",
    "holder",
)  # fmt: skip
OTHERS = {
    "drum": {
        "instrument": "Jazz Kit 2",
        "bank": "128",
        "program": "0",
        "keys": "38",
        "velocity": "90",
        "held_s": "0.2",
    },
    "recording": {"source": "data/sfx/animals/dog_bark2.wav"},
    "speech": {"source": "slt/arctic_a0001.wav"},
}
SPLITS = ("development", "validation", "evaluation")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Decaying tones, one per instrument, and four parts each of a drum, a recording and a speaker."""
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "train").mkdir()
    time = np.arange(2 * RATE) / RATE
    rows = []
    for program in range(INSTRUMENTS):
        rows.append(
            {"kind": "note", "program": program, "bank": 0, "keys": 40 + program, "velocity": 90, "held_s": 1.2}
        )
    for kind, row in OTHERS.items():
        rows += [{"kind": kind} | row for _ in range(4)]
    for number, row in enumerate(rows):
        tone = np.exp(-(1 + number % 4) * time) * np.sin(2 * np.pi * (100 + 60 * number) * time)
        row |= {
            "file": f"{number:05}.flac",
            "package": "made-here",
            "seconds": 2.0,
            "licence": "CC0-1.0",
            "holder": "Zoë",
        }
        soundfile.write(folder / "train" / row["file"], np.stack([tone, tone], axis=1) / 2, RATE)
    with (folder / "train.csv").open("w", encoding="utf-8", newline="") as handle:
        table = csv.DictWriter(handle, COLUMNS, restval="")
        table.writeheader()
        table.writerows(rows)
    return folder


def make(script: str, corpus: Path, out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    given = ["--corpus", corpus, "--out", out, *more]
    return FORKS[0].program(ROOT / "resources/base" / script, *given, cwd=corpus).finish()


def tables(folder: Path, split: str) -> tuple[dict[str, list[str]], dict[str, dict[str, str]]]:
    """Captions and metadata of a split by file name, which have to name the files in the archive."""
    with (folder / f"clotho_captions_{split}.csv").open(encoding="utf-8", newline="") as handle:
        captions = {row["file_name"]: [row[f"caption_{n}"] for n in range(1, 6)] for row in csv.DictReader(handle)}
    with (folder / f"clotho_metadata_{split}.csv").open(encoding="iso-8859-1", newline="") as handle:
        metadata = {row["file_name"]: row for row in csv.DictReader(handle)}
    with py7zr.SevenZipFile(folder / f"clotho_audio_{split}.7z") as archive:
        names = {Path(name).name for name in archive.getnames() if name.endswith(".wav")}
    assert names == set(captions) == set(metadata)
    return captions, metadata


@pytest.fixture(scope="module")
def made(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The corpora that the scripts make, by script: twice, with the same bytes."""
    found = {}
    for script, more in {"make_captions.py": [], "make_backwards.py": ["--train", "12"]}.items():
        folders = [tmp_path_factory.mktemp("made") for _ in range(2)]
        for folder in folders:
            assert_succeeds(make(script, corpus, folder, *more))
        first, second = ({path.name: path.read_bytes() for path in folder.iterdir()} for folder in folders)
        assert len(first) == 9 and first == second
        found[script] = folders[0]
    return found


@pytest.mark.parametrize("script", ["make_captions.py", "make_backwards.py"])
def test_every_clip_has_five_captions_and_a_source(made: dict[str, Path], script: str) -> None:
    sources: list[set[str]] = []
    for split in SPLITS:
        captions, metadata = tables(made[script], split)
        for name, five in captions.items():
            assert len(set(five)) == 5 and all(8 <= len(caption.split()) <= 20 for caption in five), five
            about = metadata[name]
            assert (about["manufacturer"], about["license"]) == ("Zoë", "CC0-1.0") and "made-here" in about[
                "sound_link"
            ]
        sources.append({about["sound_id"] for about in metadata.values()})
    assert sum(map(len, sources)) == len(set().union(*sources)), "a sound is in two splits"


def test_parts_of_a_recording_stay_together(made: dict[str, Path]) -> None:
    folder = made["make_captions.py"]
    found = [{about["sound_id"] for about in tables(folder, split)[1].values()} for split in SPLITS]
    for first in (INSTRUMENTS + 4, INSTRUMENTS + 8):  # recording and speaker; each drum is a sound of its own
        parts = {f"{number:05}" for number in range(first, first + 4)}
        assert sum(bool(parts & split) for split in found) == 1 and any(parts <= split for split in found)


def test_instruments_swell_to_the_end(made: dict[str, Path], tmp_path: Path) -> None:
    folder = made["make_backwards.py"]
    counts = {split: len(tables(folder, split)[0]) for split in SPLITS}
    assert counts == {"development": 12, "validation": 8, "evaluation": 24}
    for split in SPLITS:
        with py7zr.SevenZipFile(folder / f"clotho_audio_{split}.7z") as archive:
            archive.extractall(tmp_path / "audio")
    for path in (tmp_path / "audio").rglob("*.wav"):
        audio, rate = soundfile.read(path, always_2d=True)
        energy = (audio**2).sum(axis=1)
        assert rate == RATE and (energy * np.linspace(0, 1, len(energy))).sum() / energy.sum() > 0.6
        assert 0.9 < np.abs(audio).max() / 10 ** (-6 / 20) < 1.001  # the fade at the end takes a little


def test_too_few_instruments_are_told(corpus: Path, tmp_path: Path) -> None:
    result = make("make_backwards.py", corpus, tmp_path, "--train", "13")
    assert result.returncode == 2 and "has 44 instruments that show their direction" in result.stderr


@pytest.fixture
def maker(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """resources/base/make_base_model.py, whose text encoder learns for one step."""
    spec = importlib.util.spec_from_file_location("make_base_model", ROOT / "resources/base/make_base_model.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name, value in {"TEXT_STEPS": 1, "GLOSSES": 4, "PIECES": 200}.items():
        monkeypatch.setattr(module, name, value)
    return module


def test_a_base_model_is_started_and_finished(
    made: dict[str, Path], maker: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from huggingface_hub import constants
    from safetensors.torch import load_file
    from sao.models.autoencoder import moments
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer

    for name in ("HF_HUB_CACHE", "HF_HUB_OFFLINE"):  # the script sets them; afterwards they are as they were
        monkeypatch.setattr(constants, name, getattr(constants, name))
    wordnet = tmp_path / "wordnet"
    wordnet.mkdir()
    for kind, words in {
        "noun": "dog 0 domestic_dog",
        "verb": "bark 0 yelp",
        "adj": "loud 0 noisy",
        "adv": "out 0 forth",
    }.items():
        line = f'00001740 03 n 02 {words} 0 000 | what is meant; "an example"  \n'
        (wordnet / f"data.{kind}").write_text(f"  1 This is the licence.  \n{line}", encoding="utf-8")
    assert 'dog, domestic dog: what is meant; "an example"' in maker.read_glosses(wordnet)

    start, captions = tmp_path / "start", made["make_captions.py"]
    monkeypatch.setattr(sys, "argv", f"make start --captions {captions} --wordnet {wordnet} --out {start}".split())
    maker.main()
    shipped = ROOT / "resources/demo/base_model/text_encoder/tokenizer.json"
    assert (start / "text_encoder/tokenizer.json").read_bytes() == shipped.read_bytes()
    text = "Café, a LOUD piano"
    read = AutoTokenizer.from_pretrained(start / "text_encoder", local_files_only=True)(text)["input_ids"]
    assert read == Tokenizer.from_file(str(shipped)).encode("cafe, a loud piano").ids and 2 not in read
    config = json.loads((start / "model_config.json").read_text())
    model = maker.create(config, start / "text_encoder")
    model.load_state_dict({key: value.float() for key, value in load_file(start / "model.safetensors").items()})
    # Of the same clips, by the way that a training's latents go.
    means = []
    with py7zr.SevenZipFile(captions / "clotho_audio_development.7z") as archive:
        archive.extractall(tmp_path)
    for path in sorted(tmp_path.rglob("*.wav")):
        audio = torch.from_numpy(soundfile.read(path, dtype="float32", always_2d=True)[0].T)
        window = torch.nn.functional.pad(audio, (0, config["sample_size"] - audio.shape[1]))
        with torch.inference_mode():
            means.append(moments(model.pretransform.model, window)[0])
    assert config["model"]["pretransform"]["scale"] == pytest.approx(torch.stack(means).std().item(), abs=1e-3)

    trained = tmp_path / "trained"
    trained.mkdir()
    for name in ("model_config.json", "model.safetensors"):  # what a training of no step would export
        (trained / name).write_bytes((start / name).read_bytes())
    out = tmp_path / "base_model"
    monkeypatch.setattr(
        sys, "argv", f"make finish --trained {trained} --start {start / 'text_encoder'} --out {out}".split()
    )
    maker.main()
    names = sorted(path.relative_to(start) for path in start.rglob("*") if path.is_file())
    assert names == sorted(path.relative_to(out) for path in out.rglob("*") if path.is_file())
    assert all((start / name).read_bytes() == (out / name).read_bytes() for name in names)


def test_a_new_tokenizer_reads_any_ascii(maker: ModuleType) -> None:
    tokenizer = maker.train_tokenizer([["A dog barks twice", "Two barks of a dog"]], ["dog: it barks", "loud: noisy"])
    assert 2 not in tokenizer.encode("".join(map(chr, range(32, 127)))).ids
