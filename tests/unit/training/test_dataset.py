"""In the training data, every clip has its own sound, captions and timing, from latents and from audio."""

from __future__ import annotations

import json
import logging
import random
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from conftest import BASE_MODEL
from demo_corpus import inside_corpus
from forks import Forks
from hypothesis import given
from hypothesis import strategies as st
from sao.base.command import InputError
from sao.base.files import read_json
from sao.training.captions import EncodedCaptions
from sao.training.dataset import (
    VALIDATION_TIMESTEPS,
    Clips,
    TrainingClips,
    ValidationClips,
    collate,
    positions,
)
from sao.training.scratch import on_scratch

MODEL = read_json(BASE_MODEL / "model_config.json")
RATIO, RATE, FRAMES = 1024, 16000, 48
SOURCES = ("latents", "audio_dir", "cropped_latents", "cropped_audio")


@pytest.fixture(scope="module")
def corpus(shared: Path, base_model: Path, forks: Forks) -> Iterator[Path]:
    with inside_corpus(shared, base_model, forks) as folder:
        yield folder


@pytest.fixture
def copy(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the data and dataset configs, which a test may spoil."""
    for name in (*SOURCES, "audio", "encoded", "cropped_encoded"):
        shutil.copytree(corpus / name, tmp_path / name)
    for path in corpus.glob("*_captions.*"):
        shutil.copy(path, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def clips(source: str, role: str = "train") -> Clips:
    return Clips(Path(source, f"{role}.json"), MODEL, EncodedCaptions(Path(f"{source}_captions.safetensors")))


def dataset(
    source: str = "latents", captions: str = "random", seed: int = 0, training: dict | None = None, flip: bool = False
) -> TrainingClips:
    return TrainingClips(clips(source), captions, seed, training or {}, flip)


def epoch(data: TrainingClips, number: int = 0) -> Iterator[dict]:
    """All items of an epoch."""
    return (data[position] for position in range(number * len(data), (number + 1) * len(data)))


def table(role: str = "train") -> pd.DataFrame:
    return pd.read_csv(f"splits/{role}.csv").set_index("clip_id")


def hooks(source: str) -> list[Path]:
    return [Path(entry["custom_metadata_module"]) for entry in read_json(Path(source, "train.json"))["datasets"]]


@pytest.mark.parametrize("source", ["latents", "audio_dir"])
def test_exception_in_the_hook_is_raised_with_the_clip(copy: Path, source: str) -> None:
    for hook in hooks(source):
        hook.write_text("def get_custom_metadata(info, audio):\n    raise KeyError('prompt')\n")
    with pytest.raises(InputError, match=r"\.(npy|wav): the metadata hook failed \(KeyError: 'prompt'\)$"):
        dataset(source)[0]


@pytest.mark.parametrize("source", ["latents", "audio_dir"])
@pytest.mark.parametrize("prompt", ["None", "''", "'  '", "3"])
def test_hook_without_a_prompt_is_refused(copy: Path, source: str, prompt: str) -> None:
    for hook in hooks(source):
        hook.write_text(f"def get_custom_metadata(info, audio):\n    return {{'prompt': {prompt}}}\n")
    with pytest.raises(InputError, match=r"\.(npy|wav): the metadata hook gave no prompt"):
        dataset(source)[0]


def test_empty_caption_is_refused(copy: Path) -> None:
    data = dataset("latents", "first")
    (module,) = hooks("latents")
    captions = module.with_name("captions.json")
    victim = data.clips.clips[2]
    captions.write_text(json.dumps(read_json(captions) | {victim.clip_id: [" "] * 5}))
    with pytest.raises(InputError, match=f"{victim.clip_id}.* is empty"):
        list(epoch(dataset("latents", "first")))


def test_clip_without_captions_is_refused(copy: Path) -> None:
    (module,) = hooks("latents")
    captions = read_json(module.with_name("captions.json"))
    victim, _ = captions.popitem()
    module.with_name("captions.json").write_text(json.dumps(captions))
    with pytest.raises(InputError, match=f"captions.json: clip {victim} has no caption"):
        clips("latents")


@pytest.mark.parametrize("end", [".npy", ".std"])
@pytest.mark.parametrize("spoil", ["nan", "short", "missing", "garbage", "pickle", "empty"])
def test_bad_latents_are_never_replaced_by_another_clip(copy: Path, end: str, spoil: str) -> None:
    data = dataset()
    good = {item["info"]["clip_id"] for item in epoch(data)}
    victim = data.clips.clips[2]
    path = victim.path.with_suffix(end)
    latents = np.load(path)
    with path.open("wb") as handle:
        match spoil:
            case "nan":
                latents[3, 5] = np.nan
                np.save(handle, latents)
            case "short":
                np.save(handle, latents[:, :-1])
            case "garbage":
                handle.write(b"not an array")
            case "pickle":
                np.save(handle, np.array([{}], dtype=object))
    if spoil == "missing":
        path.unlink()
    seen = set()
    with pytest.raises(InputError, match=victim.path.name):
        for item in epoch(dataset()):
            seen.add(item["info"]["clip_id"])
    assert seen < good - {victim.clip_id}


@pytest.mark.parametrize("spoil", ["missing", "garbage", "silent"])
def test_bad_audio_is_never_replaced_by_another_clip(copy: Path, spoil: str) -> None:
    victim = dataset("audio_dir").clips.clips[2]
    match spoil:
        case "missing":
            victim.path.unlink()
        case "garbage":
            victim.path.write_bytes(b"no sound")
        case "silent":
            soundfile.write(victim.path, np.zeros(8000), 8000)
    with pytest.raises(InputError, match=victim.path.name):
        list(epoch(dataset("audio_dir")))


def test_facts_that_cannot_be_read_are_refused(copy: Path) -> None:
    path = dataset().clips.clips[2].path.with_suffix(".json")
    path.write_text(path.read_text()[:-9])
    with pytest.raises(InputError, match=f"{path.stem}.* cannot be read"):
        list(epoch(dataset()))


@pytest.mark.parametrize("source", ["latents", "audio_dir"])
def test_every_clip_comes_with_its_own_sound_and_captions(corpus: Path, source: str) -> None:
    told, data = table(), dataset(source)
    assert len(data) == len(told) == 16
    seen: dict[str, set[str]] = {}
    for number in range(30 if source == "latents" else 1):
        names = []
        for item in epoch(data, number):
            row = told.loc[item["info"]["clip_id"]]
            names.append(row.name)
            assert item["info"]["prompt"] in row[[f"caption_{n}" for n in range(1, 6)]].tolist()
            assert item["info"]["seconds_start"] == 0 and item["info"]["seconds_total"] == int(np.ceil(row.seconds))
            seen.setdefault(row.name, set()).add(item["info"]["prompt"])
            if source == "latents":
                stored = Path(f"encoded/{row.published_split}/0001-of-0001/{row.name}.npy")
                noise = (item["latents"].numpy() - np.load(stored)) / np.load(stored.with_suffix(".std"))
                assert abs(noise.mean()) < 0.1 and 0.9 < noise.std() < 1.1  # 3072 numbers drawn from the posterior
            else:
                sound, rate = soundfile.read(f"audio/{row.published_split}/{row.file_name}", always_2d=True)
                heard = item["audio"][:, : round(len(sound) * RATE / rate)]
                power = [np.square(x).mean() for x in (sound, heard.numpy())]
                assert item["start"] == 0 and 0.1 < power[1] / power[0] < 1.01  # resampling removes the highest pitches
                assert (item["audio"][:, heard.shape[1] + 1 :] == 0).all()
        assert sorted(names) == sorted(told.index)
    if source == "latents":
        assert {clip: len(prompts) for clip, prompts in seen.items()} == {clip: 5 for clip in told.index}


def test_order_and_captions_are_a_function_of_the_seed(corpus: Path) -> None:
    def told(data: TrainingClips, at: range) -> list[tuple]:
        items = [data[position] for position in at]
        return [(item["info"]["clip_id"], item["info"]["prompt"], item["t"]) for item in items]

    at = range(100, 140)
    expected = told(dataset(seed=1), at)
    backwards = dataset(seed=1)
    [backwards[position] for position in reversed(range(0, 150, 7))]
    assert told(backwards, at) == expected
    other = told(dataset(seed=2), at)
    assert all(len({pair[n] for pair in (a, b)}) for n in range(3) for a, b in zip(expected, other, strict=True))
    assert other != expected and {clip for clip, *_ in other} == {clip for clip, *_ in expected}


def test_caption_modes(corpus: Path) -> None:
    told = table()
    first = [item["info"] for number in range(5) for item in epoch(dataset("latents", "first"), number)]
    assert all(info["prompt"] == told.caption_1[info["clip_id"]] for info in first)
    every = dataset("latents", "all")
    pairs = [(item["info"]["clip_id"], item["info"]["prompt"]) for item in epoch(every)]
    assert len(every) == 80
    assert sorted(pairs) == sorted((clip, row[f"caption_{n}"]) for clip, row in told.iterrows() for n in range(1, 6))


def test_collated_batch_has_one_entry_an_item(corpus: Path) -> None:
    items = [dataset()[n] for n in range(3)]
    batch = collate(items)
    assert batch["latents"].shape == batch["noise"].shape == (3, 64, FRAMES)
    assert batch["t"].dtype == torch.float32 and batch["t"].tolist() == pytest.approx([item["t"] for item in items])
    assert batch["keep"].tolist() == [item["keep"] for item in items]
    assert batch["text"].shape == (3, 64, 512) and batch["text_mask"].shape == (3, 64)
    assert {name: values.tolist() for name, values in batch["numbers"].items()} == {
        name: [item["info"][name] for item in items] for name in ("seconds_start", "seconds_total")
    }
    assert "info" not in batch and all(length <= FRAMES + 20 for length in batch["length"].tolist())
    heard = collate([dataset("audio_dir")[n] for n in range(3)])
    assert len(heard["audio"]) == 3 and heard["posterior"].shape == (3, 64, FRAMES) and heard["start"] == [0, 0, 0]


def test_share_of_dropped_captions_and_of_one_shots(corpus: Path) -> None:
    def items(**training: float) -> list[dict]:
        data = dataset(training=training)
        return [data[position] for position in range(600)]

    default = items()
    assert 0.07 < np.mean([not item["keep"] for item in default]) < 0.13  # 0.1 and five standard deviations
    assert max(item["t"] for item in default) < 1
    changed = items(cfg_dropout_prob=0.5, p_one_shot=0.25)
    assert 0.4 < np.mean([not item["keep"] for item in changed]) < 0.6
    assert 0.17 < np.mean([item["t"] == 1 for item in changed]) < 0.33


@pytest.mark.parametrize("source", ["cropped_latents", "cropped_audio"])
def test_crop_knows_where_it_is(corpus: Path, source: str) -> None:
    told, data = table(), dataset(source)
    frames = -(-RATE // RATIO)
    starts: dict[str, set[int]] = {}
    for position in range(20 * len(data) if "latents" in source else 2 * len(data)):
        item = data[position]
        info, row = item["info"], told.loc[item["info"]["clip_id"]]
        valid = -(-round(row.seconds * RATE) // RATIO)
        start = info["latent_crop_start"]
        assert 0 <= start <= max(valid - frames, 0)
        assert info["seconds_start"] == int(start * RATIO / RATE)
        assert info["seconds_total"] == int(np.ceil(row.seconds))
        mask = info["padding_mask"][0]
        assert mask.shape == (frames,) and mask.tolist() == [start + n < valid for n in range(frames)]
        assert item["noise"].shape == (64, frames)
        starts.setdefault(row.name, set()).add(start)
        if "latents" in source:
            stored = Path(f"cropped_encoded/{row.published_split}/0001-of-0001/{row.name}.npy")
            here = (slice(None), slice(start, start + frames))
            noise = (item["latents"].numpy() - np.load(stored)[here]) / np.load(stored.with_suffix(".std"))[here]
            assert abs(noise.mean()) < 0.15 and 0.9 < noise.std() < 1.1
        else:
            assert item["start"] == start
    assert len({clip for clip, found in starts.items() if len(found) > 1}) > 10
    seconds = [int(start * RATIO / RATE) for found in starts.values() for start in found]
    assert {0, 1} <= set(seconds)


def test_crop_reaches_both_ends(corpus: Path) -> None:
    source = clips("cropped_latents")
    for clip in source.clips:
        valid = sum(read_json(clip.path.with_suffix(".json"))["padding_mask"])
        last = max(valid - source.frames, 0)
        assert source.read(clip, 0, 0.0)[1]["latent_crop_start"] == 0
        assert source.read(clip, 0, np.nextafter(1, 0))[1]["latent_crop_start"] == last
    assert last > 0


def test_long_clip_without_random_crop_is_refused(copy: Path) -> None:
    path = Path("cropped_latents/train.json")
    path.write_text(json.dumps(read_json(path) | {"random_crop": False}))
    with pytest.raises(InputError, match="longer than the training window: set random_crop"):
        list(epoch(dataset("cropped_latents")))


@pytest.mark.parametrize("source", SOURCES)
def test_what_stays_in_memory_is_what_is_on_the_disk(
    corpus: Path, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clips and captions of a small corpus are read once, and no item changes what the next one gets."""
    monkeypatch.chdir(corpus)
    with monkeypatch.context() as patch:
        patch.setattr("sao.training.dataset.IN_MEMORY", 0)
        patch.setattr("sao.training.captions.IN_MEMORY", 0)
        read = dataset(source)
    staying = dataset(source)
    assert staying.clips.stays == (source == "latents") and staying.clips.captions.stays
    assert not read.clips.stays and not read.clips.captions.stays
    for number in (0, 1, 0):
        for one, other in zip(epoch(read, number), epoch(staying, number), strict=True):
            assert one.keys() == other.keys()
            for key in one.keys() - {"info"}:
                assert torch.equal(torch.as_tensor(one[key]), torch.as_tensor(other[key])) if key != "numbers" else True
            assert one["numbers"] == other["numbers"] and str(one["info"]) == str(other["info"])
    assert not read.clips.read_before and not read.clips.captions.read_before
    assert len(staying.clips.read_before) == (len(staying.clips.clips) if source == "latents" else 0)


@pytest.fixture(scope="module")
def objective(base_model: Path) -> torch.nn.Module:
    from sao.models.build import build, load_weights
    from sao.training.objective import Objective

    model = build(read_json(base_model / "model_config.json"), base_model / "hub")
    load_weights(model, base_model / "model.safetensors")
    return Objective(model, {})


@pytest.mark.parametrize(("latents", "audio"), [("latents", "audio_dir"), ("cropped_latents", "cropped_audio")])
@pytest.mark.parametrize("role", ["train", "validation"])
def test_latents_and_audio_give_the_same(
    corpus: Path, objective: torch.nn.Module, latents: str, audio: str, role: str
) -> None:
    stored, heard = (
        dataset(source, seed=5) if role == "train" else ValidationClips(clips(source, role))
        for source in (latents, audio)
    )
    assert len(stored) == len(heard) and len(stored.clips.clips) == (16 if role == "train" else 2)
    at = range(20, 26) if role == "train" else range(0, len(stored), 3)
    one, two = (collate([data[position] for position in at]) for data in (stored, heard))
    torch.testing.assert_close(objective.latents(two), one["latents"], rtol=1e-4, atol=1e-4)
    assert torch.equal(one["noise"], two["noise"]) and torch.equal(one["t"], two["t"])
    assert torch.equal(one["keep"], two["keep"])
    assert one["numbers"].keys() == two["numbers"].keys() and torch.equal(one["text"], two["text"])
    for left, right in zip(*([data[position]["info"] for position in at] for data in (stored, heard)), strict=True):
        same = ("clip_id", "prompt", "seconds_start", "seconds_total", "latent_crop_start", "caption_index")
        assert [left[key] for key in same] == [right[key] for key in same]
        assert torch.equal(left["padding_mask"][0], right["padding_mask"][0])


def test_validation_clips_have_their_own_noise(corpus: Path) -> None:
    data = ValidationClips(clips("latents", "validation"))
    items = [data[index] for index in range(len(data))]
    assert [item["t"] for item in items] == list(VALIDATION_TIMESTEPS) * 2 and all(item["keep"] for item in items)
    assert len({item["noise"].numpy().tobytes() for item in items}) == len(items)
    assert len({item["latents"].numpy().tobytes() for item in items}) == 2
    told = table("validation")
    assert all(item["info"]["prompt"] == told.caption_1[item["info"]["clip_id"]] for item in items)
    again = ValidationClips(clips("latents", "validation"))[7]
    assert torch.equal(again["noise"], items[7]["noise"])


def test_phase_flip_turns_half_the_clips(corpus: Path) -> None:
    plain, flipped = (dataset("audio_dir", seed=9, flip=flip) for flip in (False, True))
    turned = []
    for position in range(48):
        left, right = plain[position]["audio"], flipped[position]["audio"]
        turned.append(torch.equal(right, -left))
        assert turned[-1] or torch.equal(right, left)
    assert 12 <= sum(turned) <= 36  # three and a half standard deviations
    # Clips are drawn again in each epoch, so not always the same ones are turned.
    assert len({tuple(turned[n : n + 16]) for n in (0, 16, 32)}) == 3


@given(st.integers(0, 50), st.integers(0, 20), st.integers(1, 9), st.integers(1, 5))
def test_ranks_partition_the_positions(start: int, steps: int, size: int, world: int) -> None:
    shares = [positions(start, start + steps, size, rank, world) for rank in range(world)]
    assert all(len(share) == steps and all(len(batch) == size for batch in share) for share in shares)
    # At each step, all ranks together have the positions of one device with one large batch.
    together = [sorted(position for share in shares for position in share[step]) for step in range(steps)]
    assert together == positions(start, start + steps, size * world)
    flat = [position for batch in together for position in batch]
    assert flat == list(range(start * size * world, (start + steps) * size * world))


def stock_configs(source: str, role: str = "train") -> list:
    from sao.training.dataset import load_hook
    from stable_audio_tools.data.dataset import LatentDatasetConfig, LocalDatasetConfig

    kind = LocalDatasetConfig if source == "audio_dir" else LatentDatasetConfig
    return [
        kind(id=entry["id"], path=entry["path"], custom_metadata_fn=load_hook(Path(entry["custom_metadata_module"])))
        for entry in read_json(Path(source, f"{role}.json"))["datasets"]
    ]


@pytest.mark.parametrize("source", ["latents", "cropped_latents"])
def test_stock_dataset_of_latents_reads_it(corpus: Path, capsys: pytest.CaptureFixture, source: str) -> None:
    from stable_audio_tools.data.dataset import PreEncodedDataset

    config, told = read_json(Path(source, "train.json")), table()
    stock = PreEncodedDataset(
        stock_configs(source), latent_crop_length=config["latent_crop_length"], random_crop=config["random_crop"]
    )
    random.seed(0)
    items = [stock[index] for _ in range(4) for index in range(len(stock))]
    assert "Couldn't load" not in capsys.readouterr().out
    assert [info["clip_id"] for _, info in items] == 4 * told.index.tolist()
    for latents, info in items:
        row = told.loc[info["clip_id"]]
        assert latents.shape == (64, config["latent_crop_length"])
        assert info["prompt"] in row[[f"caption_{n}" for n in range(1, 6)]].tolist()
        assert info["seconds_start"] == int(info["latent_crop_start"] * RATIO / RATE)
        assert info["seconds_total"] == int(np.ceil(row.seconds))
    assert max(info["seconds_start"] for _, info in items) == (0 if source == "latents" else 1)
    assert len({info["prompt"] for _, info in items}) > len(told)


def test_stock_dataset_of_audio_reads_it_and_leaves_other_sides_out(copy: Path, capsys: pytest.CaptureFixture) -> None:
    from stable_audio_tools.data.dataset import SampleDataset

    class WithSoundfile(SampleDataset):
        """Reads with soundfile, because torchaudio's own reader needs FFmpeg's libraries."""

        def load_file(self, filename: str) -> torch.Tensor:
            data, rate = soundfile.read(filename, dtype="float32", always_2d=True)
            assert rate == self.sr
            return torch.from_numpy(data.T.copy())

    (module,) = hooks("audio_dir")
    captions = read_json(module.with_name("captions.json"))
    other_side = sorted(captions)[::3]
    module.with_name("captions.json").write_text(
        json.dumps({name: told for name, told in captions.items() if name not in other_side})
    )
    stock = WithSoundfile(stock_configs("audio_dir"), sample_size=3 * RATE, sample_rate=RATE, random_crop=False)
    random.seed(0)
    items = [stock[index] for _ in range(3) for index in range(len(stock))]
    assert "Couldn't load" not in capsys.readouterr().out
    assert len(stock) == 16 and len(other_side) == 6
    assert {info["relpath"] for _, info in items} == set(captions) - set(other_side)
    for audio, info in items:
        assert audio.shape == (2, 3 * RATE) and info["prompt"] in captions[info["relpath"]]


@pytest.mark.parametrize("source", ["latents", "audio_dir"])
def test_clips_are_read_from_the_copy_on_scratch_while_there_is_one(
    copy: Path, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(copy / "scratch"))
    (copy / "scratch").mkdir()
    data, other = dataset(source), clips(source, "validation")
    before = list(epoch(data))
    sounds = Path("encoded" if source == "latents" else "audio")
    with on_scratch([data.clips, other], "name", True, lambda: None):
        sounds.rename("elsewhere")
        for item, same in zip(before, epoch(data), strict=True):
            assert item["info"]["prompt"] == same["info"]["prompt"]
            for key in {"latents", "audio", "noise"} & set(item):
                assert torch.equal(item[key], same[key])
        assert other.read(other.clips[0], 0, 0.0)
        Path("elsewhere").rename(sounds)
        assert len(list((copy / "scratch").iterdir())) == 1
    assert list((copy / "scratch").iterdir()) == []
    assert torch.equal(before[0]["noise"], data[0]["noise"])


def test_scratch_without_room_is_a_warning_and_the_same_clips(
    copy: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(copy))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 1))
    data = dataset()
    monkeypatch.setattr(logging.getLogger("sao"), "propagate", True)
    with on_scratch([data.clips], "name", True, lambda: None):
        assert data.clips.places == {} and "latents" in data[0]
    assert re.search(r"read where they are: no copy in .*: [\d.]+ MB are needed, 0.0 MB are free", caplog.text)
    assert not list(copy.glob("sao-*"))


def test_copies_of_two_trainings_do_not_meet(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(copy))
    one, two = dataset().clips, dataset().clips
    with on_scratch([one], "one", True, lambda: None):
        with on_scratch([two], "two", True, lambda: None):
            assert set(one.places.values()).isdisjoint(two.places.values())
        assert all(place.is_dir() for place in one.places.values())
