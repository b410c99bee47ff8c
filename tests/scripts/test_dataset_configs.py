from __future__ import annotations

import json
import runpy
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from conftest import (
    BASE_MODEL,
    DROPPED,
    assert_fails,
    assert_succeeds,
    checksum,
    edit_table,
    error_lines,
    listing,
    run_script,
)
from sao.base.names import read_digests, shard_name, shard_of
from sao.base.tables import read_table
from sao.models.tokens import Reader

ROLES = ("train", "validation")
FILES = {f"{role}/{name}" for role in ROLES for name in ("filelist.txt", "captions.json", "metadata.py")}
DIGESTED = FILES | {f"{role}.json" for role in ROLES}
OUTPUTS = DIGESTED | {"dropped.csv", "prompts.html"}

MODEL = json.loads((BASE_MODEL / "model_config.json").read_text(encoding="utf-8"))
RATIO = MODEL["model"]["pretransform"]["config"]["downsampling_ratio"]
WINDOW = MODEL["sample_size"] / MODEL["sample_rate"]  # s
TOKENS = MODEL["model"]["conditioning"]["configs"][0]["config"]["max_length"]


def configure(
    folder: Path, splits: Path, base_model: Path, *more: object, model_config: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Write `results/datasets` in `folder` with relative paths, as the rule does."""
    files = ["--splits", splits, "--model-config", model_config or base_model / "model_config.json"]
    files += ["--hub", base_model / "hub", "--latents", "results/latents/demo/tiny"]
    files += ["--output", "results/datasets", "--digest", "results/datasets.sha256", "--kept", "results/datasets.csv"]
    return run_script("dataset_configs", *files, *more, cwd=folder)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, splits: Path, base_model: Path) -> Path:
    folder = tmp_path_factory.mktemp("datasets")
    assert_succeeds(configure(folder, splits, base_model))
    return folder


@pytest.fixture
def spoilt(tmp_path: Path, splits: Path) -> Callable[[str, str, str], tuple[Path, str]]:
    """`(splits, path)`: splits with another value in the second clip of a side, and the path of that clip."""

    def copy(role: str, column: str, value: str) -> tuple[Path, str]:
        names: list[str] = []

        def edit(table: pd.DataFrame) -> None:
            table.loc[1, column] = value
            names.append(table.path[1])

        for path in splits.glob("*.csv"):
            edit_table(path, tmp_path / "splits" / path.name, edit if path.stem == role else lambda table: None)
        return tmp_path / "splits", names[0]

    return copy


def hook_of(module: Path) -> Callable[[dict, object], dict]:
    return runpy.run_path(str(module))["get_custom_metadata"]


def rows(splits: Path, role: str) -> list[dict[str, str]]:
    return pd.read_csv(splits / f"{role}.csv", dtype=str, keep_default_na=False).to_dict("records")


def test_outputs_and_their_digest(made: Path) -> None:
    assert listing(made / "results/datasets") == OUTPUTS
    digests = {name: checksum(made / "results/datasets" / name, "sha256") for name in DIGESTED}
    assert read_digests(made / "results/datasets.sha256") == digests
    assert (made / "results/datasets/dropped.csv").read_text() == ",".join(DROPPED) + "\n"


def test_every_clip_is_kept_as_it_was_with_its_side(made: Path, splits: Path) -> None:
    kept = pd.read_csv(made / "results/datasets.csv", dtype=str, keep_default_na=False).to_dict("records")
    sides = (*ROLES, "evaluation")
    assert kept == [{**row, "role": side} for side in sides for row in rows(splits, side)]


@pytest.mark.parametrize("role", ROLES)
def test_config_is_one_that_stable_audio_tools_reads(made: Path, splits: Path, role: str) -> None:
    config = json.loads((made / f"results/datasets/{role}.json").read_text())
    assert config["dataset_type"] == "pre_encoded" and config["random_crop"] is False
    assert config["latent_crop_length"] == MODEL["sample_size"] // RATIO
    assert config["drop_last"] is (role == "train")
    (dataset,) = config["datasets"]
    assert dataset["id"] == role and dataset["path"] == f"results/datasets/{role}"
    # PreEncodedDataset joins each line to `path`. It runs the hook of the dataset whose `path` is in the joined one.
    lines = (made / dataset["path"] / "filelist.txt").read_text().splitlines()
    latents = [(made / dataset["path"] / line).resolve() for line in lines]
    expected = [f"{row['published_split']}/0001-of-0001/{row['clip_id']}.npy" for row in rows(splits, role)]
    assert [path.relative_to(made / "results/latents/demo/tiny").as_posix() for path in latents] == expected


@pytest.mark.parametrize("role", ROLES)
def test_hook_gives_every_clip_its_captions(
    made: Path, splits: Path, role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(made)
    config = json.loads(Path(f"results/datasets/{role}.json").read_text())
    hook = hook_of(Path(config["datasets"][0]["custom_metadata_module"]))
    for row in rows(splits, role):
        captions = [row["caption_1"], row["caption_2"]]
        chosen = [hook({"clip_id": row["clip_id"], "caption_index": n}, None)["prompt"] for n in (0, 1)]
        assert chosen == captions
        assert hook({"clip_id": row["clip_id"]}, None)["prompt"] in captions
    with pytest.raises(KeyError, match="no such clip"):
        hook({"clip_id": "no such clip"}, None)


@pytest.mark.parametrize("caption", ["", " \n"])
def test_hook_raises_on_an_empty_caption(made: Path, tmp_path: Path, caption: str) -> None:
    hook = (made / "results/datasets/train/metadata.py").read_text()
    (tmp_path / "metadata.py").write_text(hook)
    (tmp_path / "captions.json").write_text(json.dumps({"x": ["full", caption]}))
    get = hook_of(tmp_path / "metadata.py")
    assert get({"clip_id": "x", "caption_index": 0}, None) == {"prompt": "full"}
    with pytest.raises(ValueError, match="caption 2 of clip x is empty"):
        get({"clip_id": "x", "caption_index": 1}, None)


def test_window_shortens_the_crop_and_again_gives_the_same(tmp_path: Path, splits: Path, base_model: Path) -> None:
    digests = []
    for _ in range(2):
        assert_succeeds(configure(tmp_path, splits, base_model, "--train-seconds", 0.5))
        digests.append((tmp_path / "results/datasets.sha256").read_text())
    config = json.loads((tmp_path / "results/datasets/train.json").read_text())
    assert config["latent_crop_length"] == -(-round(0.5 * MODEL["sample_rate"]) // RATIO)
    assert digests[0] == digests[1]


@pytest.mark.parametrize("role", ["train", "validation", "evaluation"])
def test_caption_longer_than_the_text_encoder_takes_is_named(
    tmp_path: Path, spoilt: Callable[[str, str, str], tuple[Path, str]], base_model: Path, role: str
) -> None:
    splits, clip = spoilt(role, "caption_2", "rain " * 200)
    line = assert_fails(
        configure(tmp_path, splits, base_model), f"{clip} caption_2", f"after {TOKENS}", "shorten", "on_invalid: drop"
    )
    tokens = int(line.split(" tokens")[0].split()[-1])
    assert tokens > 200
    assert not (tmp_path / "results/datasets.sha256").exists() and listing(tmp_path / "results") == set()


def test_caption_of_the_greatest_length_is_taken(
    tmp_path: Path, spoilt: Callable[[str, str, str], tuple[Path, str]], base_model: Path, splits: Path
) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(next(base_model.glob("hub/*/snapshots/*/tokenizer.json"))))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    words = next(n for n in range(200) if len(tokenizer.encode("a " * n + "a").ids) == TOKENS)
    changed, _ = spoilt("train", "caption_1", "a " * words + "a")
    result = configure(tmp_path, changed, base_model)
    assert_succeeds(result)
    assert f"{TOKENS} of {TOKENS} tokens" in result.stderr


def test_clip_that_was_cut_shorter_than_a_latent_frame_is_named(tmp_path: Path, splits: Path, base_model: Path) -> None:
    """Other clips may be as short."""
    least = RATIO / MODEL["sample_rate"]
    shutil.copytree(splits, tmp_path / "splits")
    for cut, fails in ((False, False), (True, True)):
        for role in ("train", "validation", "evaluation"):
            table = pd.read_csv(splits / f"{role}.csv", dtype=str, keep_default_na=False)
            table.loc[0, "seconds"] = str(0.9 * least if role == "train" else least)
            if cut:
                table["source_file"] = "a.wav"
            table.to_csv(tmp_path / f"splits/{role}.csv", index=False)
        done = configure(tmp_path, tmp_path / "splits", base_model)
        if fails:
            assert_fails(
                done, f"lasts {0.9 * least:g} s, less than a latent frame of {least:g} s: raise cut.min_seconds"
            )
        else:
            assert_succeeds(done)


@pytest.mark.parametrize(
    ("column", "value", "options", "words"),
    [
        ("caption_1", "", [], ["caption_1 is empty"]),
        ("seconds", f"{WINDOW + 0.1}", [], [f"{WINDOW + 0.1:g} s", f"of {WINDOW:g} s, which is the model's own"]),
        (
            "seconds",
            "0.8",
            ["--train-seconds", 0.5],
            ["lasts 0.8 s", f"raise train_seconds (null is the model's own {WINDOW:g} s)"],
        ),
        ("seconds", "0.1", ["--train-seconds", 60], ["train_seconds = 60", f"{WINDOW:g} s"]),
    ],
)
def test_clip_that_does_not_fit_is_named(
    tmp_path: Path,
    spoilt: Callable[[str, str, str], tuple[Path, str]],
    base_model: Path,
    column: str,
    value: str,
    options: list[object],
    words: list[str],
) -> None:
    splits, clip = spoilt("train", column, value)
    line = assert_fails(configure(tmp_path, splits, base_model, *options), *words)
    assert clip in line or "train_seconds = 60" in line
    assert listing(tmp_path / "results") == set()


def test_truncation_set_in_the_tokenizer_hides_no_long_caption(
    tmp_path: Path, spoilt: Callable[[str, str, str], tuple[Path, str]], base_model: Path
) -> None:
    from tokenizers import Tokenizer

    model = shutil.copytree(base_model, tmp_path / "model")
    path = next(model.glob("hub/*/snapshots/*/tokenizer.json"))
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=9)
    tokenizer.save(str(path))
    splits, clip = spoilt("train", "caption_1", "rain " * 200)
    assert_fails(configure(tmp_path, splits, model), clip, f"after {TOKENS}")


def test_clip_that_was_put_on_a_second_side_by_hand_is_named(tmp_path: Path, splits: Path, base_model: Path) -> None:
    shutil.copytree(splits, tmp_path / "splits")
    judged, *_ = rows(splits, "evaluation")
    train = pd.DataFrame([*rows(splits, "train"), judged])
    train.to_csv(tmp_path / "splits/train.csv", index=False)
    result = configure(tmp_path, tmp_path / "splits", base_model)
    assert_fails(
        result, tmp_path / "splits", judged["clip_id"], "both in train and in evaluation", "would leak", "delete"
    )


def test_clips_that_do_not_fit_are_dropped_and_listed(tmp_path: Path, splits: Path, base_model: Path) -> None:
    """On each side, one clip is dropped for its tokens and one for its length, but never the last clip."""

    def spoil(table: pd.DataFrame) -> None:
        table.loc[0, "caption_2"] = "rain " * 200
        if len(table) > 2:
            table.loc[3, "seconds"] = f"{WINDOW + 1}"

    for path in splits.glob("*.csv"):
        edit_table(path, tmp_path / "splits" / path.name, spoil)
    lines = error_lines(configure(tmp_path, tmp_path / "splits", base_model))
    assert len(lines) == 4 and "3 more, listed above" in lines[-1] and listing(tmp_path / "results") == set()
    result = configure(tmp_path, tmp_path / "splits", base_model, "--on-invalid", "drop")
    assert_succeeds(result)
    dropped = read_table(tmp_path / "results/datasets/dropped.csv")
    before = {role: rows(splits, role) for role in (*ROLES, "evaluation")}
    expected = {before["train"][3]["path"]: "duration"} | {table[0]["path"]: "tokens" for table in before.values()}
    assert dict(zip(dropped.path, dropped.check, strict=True)) == expected
    assert dropped.message[dropped.check == "tokens"].str.contains("caption_2").all()
    gone = set(dropped.clip_id)
    for role in ROLES:
        kept = [row["clip_id"] for row in before[role] if row["clip_id"] not in gone]
        lines = (tmp_path / f"results/datasets/{role}/filelist.txt").read_text().splitlines()
        assert [Path(line).stem for line in lines] == kept
        assert list(json.loads((tmp_path / f"results/datasets/{role}/captions.json").read_text())) == kept
    kept = read_table(tmp_path / "results/datasets.csv")
    assert kept.path.tolist() == [
        row["path"] for table in before.values() for row in table if row["clip_id"] not in gone
    ]
    assert "402 of" not in result.stderr


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ("雨の音がする", ["nothing of it is in the vocabulary"]),
        ("🐶🐶", ["nothing of it is in the vocabulary"]),
        ("Дождь.", ["nothing of it is in the vocabulary"]),
        ("a 🐶", ["little of it ('a')"]),
        ("Дождь в Москве, in it", ["little of it"]),
        ("雨 2", ["little of it ('2')"]),
        ("</s>", ["nothing but signs"]),
        ("\u200b\u200d", ["caption_2 is empty"]),
        ("?!", ["caption_2 is empty"]),
    ],
)
def test_caption_that_the_text_encoder_cannot_tell_from_others_is_named(
    tmp_path: Path,
    spoilt: Callable[[str, str, str], tuple[Path, str]],
    base_model: Path,
    caption: str,
    words: list[str],
) -> None:
    splits, clip = spoilt("train", "caption_2", caption)
    assert_fails(configure(tmp_path, splits, base_model), f"{clip} caption_2", *words)
    assert_succeeds(configure(tmp_path, splits, base_model, "--on-invalid", "drop"))
    assert read_table(tmp_path / "results/datasets/dropped.csv").path.tolist() == [clip]


def test_words_that_the_text_encoder_lacks_are_counted(
    tmp_path: Path, spoilt: Callable[[str, str, str], tuple[Path, str]], base_model: Path
) -> None:
    splits, clip = spoilt("train", "caption_2", "rain 雨 and 犬 rain")
    result = configure(tmp_path, splits, base_model)
    assert_succeeds(result)
    (line,) = (line for line in result.stderr.splitlines() if "warning" in line)
    assert clip in line and "caption_2" in line and "has 2 of " in line and "'雨犬'" in line
    warnings = read_table(tmp_path / "results/datasets/warnings.csv")
    assert warnings.path.tolist() == [clip] and warnings.check.tolist() == ["unknown"]
    assert "warnings.csv" not in (tmp_path / "results/datasets.sha256").read_text()


@pytest.mark.parametrize("text", ["440", "rain", "A dog's bark - near!", "ok"])
def test_plain_text_is_read_whole(base_model: Path, text: str) -> None:
    (reading,) = Reader(MODEL, base_model / "hub").read([text])
    assert (reading.unknown, reading.lost, reading.problem(), reading.caveat()) == (0, "", "", "")
    assert reading.left == text


@pytest.mark.parametrize(
    "model",
    [
        {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 9,
            "vocab": {"[UNK]": 0, "rain": 1},
        },
        {"type": "WordLevel", "unk_token": "[UNK]", "vocab": {"[UNK]": 0, "rain": 1}},
        {"type": "BPE", "unk_token": None, "vocab": {"r": 0}, "merges": []},
    ],
)
def test_unknown_token_of_any_kind_of_tokenizer_is_known(tmp_path: Path, model: dict) -> None:
    folder = tmp_path / "models--t5-small/snapshots/x"
    folder.mkdir(parents=True)
    saved = {"version": "1.0", "model": model, "pre_tokenizer": {"type": "Whitespace"}, "added_tokens": []}
    (folder / "tokenizer.json").write_text(json.dumps(saved))
    (tmp_path / "models--t5-small/refs").mkdir()
    (tmp_path / "models--t5-small/refs/main").write_text("x")
    config = json.loads(json.dumps(MODEL).replace("t5-base", "t5-small"))
    (reading,) = Reader(config, tmp_path).read(["rain storm"])
    if model["type"] == "BPE":
        assert reading.unknown == 0 and reading.tokens == 2
    else:
        assert (reading.unknown, reading.lost, reading.left, reading.tokens) == (1, "storm", "rain", 2)


def test_side_of_which_nothing_fits_fails(
    tmp_path: Path, spoilt: Callable[[str, str, str], tuple[Path, str]], base_model: Path
) -> None:
    splits, _ = spoilt("validation", "seconds", "99")
    edit_table(splits / "validation.csv", splits / "validation.csv", lambda table: table.iloc[1:])
    result = configure(tmp_path, splits, base_model, "--on-invalid", "drop")
    assert_fails(result, splits / "validation.csv", "no clip fits")
    assert listing(tmp_path / "results") == set()


def test_clips_keep_the_captions_they_have(tmp_path: Path, splits: Path, base_model: Path) -> None:
    def shorten(table: pd.DataFrame) -> None:
        table.loc[1, "caption_count"], table.loc[1, "caption_2"] = "1", ""

    for path in splits.glob("*.csv"):
        edit_table(path, tmp_path / "splits" / path.name, shorten)
    assert_succeeds(configure(tmp_path, tmp_path / "splits", base_model))
    captions = json.loads((tmp_path / "results/datasets/train/captions.json").read_text())
    table = rows(splits, "train")
    assert captions[table[1]["clip_id"]] == [table[1]["caption_1"]]
    assert captions[table[0]["clip_id"]] == [table[0]["caption_1"], table[0]["caption_2"]]


@pytest.mark.parametrize(
    ("captions", "batch_size", "fits"),
    [("first", 10, True), ("first", 11, False), ("random", 11, False), ("all", 20, True), ("all", 21, False)],
)
def test_run_whose_batch_is_never_full_is_named(
    tmp_path: Path, splits: Path, base_model: Path, captions: str, batch_size: int, fits: bool
) -> None:
    runs = {"small": {"captions": "first", "batch": 1}, "mine": {"captions": captions, "batch": batch_size}}
    result = configure(tmp_path, splits, base_model, "--runs", json.dumps(runs))
    if fits:
        assert_succeeds(result)
    else:
        items = 20 if captions == "all" else 10
        assert_fails(result, "run mine", f"{items} training clips", f"batch of {batch_size}", "batch_size")
        assert listing(tmp_path / "results") == set()


def test_longer_clips_are_taken_where_they_are_cropped(tmp_path: Path, splits: Path, base_model: Path, spoilt) -> None:
    changed, path = spoilt("train", "seconds", f"{WINDOW + 0.1}")
    assert_fails(configure(tmp_path, changed, base_model), path, "set random_crop")
    assert_succeeds(configure(tmp_path, changed, base_model, "--random-crop"))
    config = json.loads((tmp_path / "results/datasets/train.json").read_text())
    assert config["random_crop"] is True and len(rows(splits, "train")) == len(
        (tmp_path / "results/datasets/train/filelist.txt").read_text().splitlines()
    )


def test_clips_lie_in_the_shard_that_they_are_encoded_in(tmp_path: Path, splits: Path, base_model: Path) -> None:
    assert_succeeds(configure(tmp_path, splits, base_model, "--shards", 3))
    lines = (tmp_path / "results/datasets/train/filelist.txt").read_text().splitlines()
    for line in lines:
        assert f"/{shard_name(shard_of(Path(line).stem, 3), 3)}/" in line
    assert len({Path(line).parent.name for line in lines}) > 1


@pytest.mark.parametrize("role", ROLES)
def test_stock_factory_loads_every_clip(
    tmp_path: Path, made: Path, splits: Path, role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import numpy as np
    from stable_audio_tools.data.dataset import create_dataloader_from_config

    shutil.copytree(made / "results", tmp_path / "results")
    frames = MODEL["sample_size"] // RATIO
    table = rows(splits, role)
    for number, row in enumerate(table):
        folder = tmp_path / "results/latents/demo/tiny" / row["published_split"] / "0001-of-0001"
        latents = folder / f"{row['clip_id']}.npy"
        latents.parent.mkdir(parents=True, exist_ok=True)
        np.save(latents, np.full((4, frames), number, dtype=np.float32))
        info = {"clip_id": row["clip_id"], "padding_mask": [1] * frames, "seconds_start": 0, "seconds_total": 1}
        info |= {"samples_per_frame": RATIO, "sample_rate": MODEL["sample_rate"]}
        latents.with_suffix(".json").write_text(json.dumps(info))
    monkeypatch.chdir(tmp_path)
    config = json.loads(Path(f"results/datasets/{role}.json").read_text())
    loader = create_dataloader_from_config(
        config, 1, MODEL["sample_size"], MODEL["sample_rate"], 2, num_workers=1, shuffle=False
    )
    seen = {}
    for latents, infos in loader:
        assert latents.shape == (1, 4, frames)
        seen[infos[0]["clip_id"]] = (int(latents[0, 0, 0]), infos[0]["prompt"])
    assert set(seen) == {row["clip_id"] for row in table}
    for number, row in enumerate(table):
        place, prompt = seen[row["clip_id"]]
        assert place == number and prompt in (row["caption_1"], row["caption_2"])


def test_missing_tokenizer_is_named(tmp_path: Path, splits: Path, base_model: Path) -> None:
    config = json.loads((base_model / "model_config.json").read_text())
    config["model"]["conditioning"]["configs"][0]["config"]["t5_model_name"] = "t5-none"
    (tmp_path / "model_config.json").write_text(json.dumps(config))
    result = configure(tmp_path, splits, base_model, model_config=tmp_path / "model_config.json")
    assert_fails(result, "models--t5-none")
    assert listing(tmp_path / "results") == set()


def templates(*entries: str | tuple[str, float], **more: object) -> list[object]:
    """The option for a corpus's prompts."""
    texts = [(entry, 1) if isinstance(entry, str) else entry for entry in entries]
    prompts = {"templates": [{"text": text, "weight": weight} for text, weight in texts], "tags": {}, "columns": []}
    return ["--prompts", json.dumps(prompts | {"variants": 3} | more)]


@pytest.fixture
def tagged(tmp_path: Path, splits: Path) -> Path:
    """Splits with a column `mood`, blank for the second clip of each side."""

    def add(table: pd.DataFrame) -> None:
        table["field_mood"] = [("unknown" if at == 1 else f"calm;dark;m{at}") for at in range(len(table))]

    for path in splits.glob("*.csv"):
        edit_table(path, tmp_path / "splits" / path.name, add)
    return tmp_path / "splits"


def test_templates_give_every_clip_its_texts_and_their_weights(
    tmp_path: Path, tagged: Path, base_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tags = {"mood": {"separator": None, "shuffle": True, "drop": 0.0, "join": ", "}}
    options = templates(("zxq, {caption}", 3), "{caption}: {mood}", tags=tags)
    result = configure(tmp_path, tagged, base_model, *options)
    assert_succeeds(result)
    assert "'mood' is blank for" in result.stderr and "longest prompt:" in result.stderr
    monkeypatch.chdir(tmp_path)
    folder = Path("results/datasets/train")
    captions, weights = (json.loads((folder / name).read_text()) for name in ("captions.json", "weights.json"))
    first, second, *_ = rows(tagged, "train")
    own = [first["caption_1"], first["caption_2"]]
    texts = captions[first["clip_id"]]
    assert texts[:2] == [f"zxq, {caption}" for caption in own]
    assert {text.split(": ")[0] for text in texts[2:]} == set(own) and len(texts) > 4
    assert sum(weights[first["clip_id"]][:2]) == pytest.approx(0.75) and sum(
        weights[first["clip_id"]]
    ) == pytest.approx(1)
    assert captions[second["clip_id"]] == [f"zxq, {second['caption_1']}", f"zxq, {second['caption_2']}"]
    hook = hook_of(folder / "metadata.py")
    assert {hook({"clip_id": first["clip_id"]}, None)["prompt"] for _ in range(60)} <= set(texts)
    kept = read_table(Path("results/datasets.csv"))
    assert kept.prompt[kept.clip_id == first["clip_id"]].item() == texts[0]
    assert "weights.json" in Path("results/datasets.sha256").read_text()
    page = Path("results/datasets/prompts.html").read_text()
    assert (
        page.count("<tr>") == 51
        and page.count("zxq, ") > 20
        and "prompts.html" not in Path("results/datasets.sha256").read_text()
    )
    digest = Path("results/datasets.sha256").read_text()
    assert_succeeds(configure(tmp_path, tagged, base_model, *options))
    assert Path("results/datasets.sha256").read_text() == digest


def test_every_text_that_templates_can_give_is_checked(tmp_path: Path, tagged: Path, base_model: Path) -> None:
    long = templates(("{caption}", 1000), ("{caption} " + "rain " * 200, 0.001))
    path = rows(tagged, "train")[0]["path"]
    lines = error_lines(configure(tmp_path, tagged, base_model, *long))
    assert len(lines) == 28 and f"{path} prompt_3 has" in lines[-1] and f"after {TOKENS}" in lines[-1]
    lines = error_lines(configure(tmp_path, tagged, base_model, *templates("{mood}", "{caption}, {mood}")))
    path = rows(tagged, "train")[1]["path"]
    words = f"{path} every template has a field that is blank for it (mood): fill it in, or add a template without it"
    assert len(lines) == 3 and words in lines[-1]
    assert_succeeds(configure(tmp_path, tagged, base_model, *templates("{mood}"), "--on-invalid", "drop"))
    assert path in read_table(tmp_path / "results/datasets/dropped.csv").path.tolist()


HOOK = """
import random

def get_custom_metadata(info, audio):
    assert audio is None
    if info["clip_id"] == REJECTED:
        return {"__reject__": True}
    return {"prompt": random.choice(["loud", "soft"]) + " " + info["captions"][0] + ", " + info["mood"]}
"""


def test_a_hook_gives_prompts_that_are_known_before_the_training(
    tmp_path: Path, tagged: Path, base_model: Path
) -> None:
    table = rows(tagged, "train")
    (tmp_path / "mine.py").write_text(HOOK.replace("REJECTED", repr("none")))
    prompts = {"hook": str(tmp_path / "mine.py"), "tags": {}, "columns": ["mood"], "variants": 6}
    run = ["--prompts", json.dumps(prompts)]
    assert_succeeds(configure(tmp_path, tagged, base_model, *run))
    captions = json.loads((tmp_path / "results/datasets/train/captions.json").read_text())
    assert sorted({text.split()[0] for texts in captions.values() for text in texts}) == ["loud", "soft"]
    assert all(text.endswith(f"{table[0]['caption_1']}, calm;dark;m0") for text in captions[table[0]["clip_id"]])
    digest = (tmp_path / "results/datasets.sha256").read_text()
    assert_succeeds(configure(tmp_path, tagged, base_model, *run))
    assert (tmp_path / "results/datasets.sha256").read_text() == digest

    (tmp_path / "mine.py").write_text(HOOK.replace("REJECTED", repr(table[2]["clip_id"])))
    assert_fails(configure(tmp_path, tagged, base_model, *run), table[2]["path"], "the hook rejected the clip")
    for text, words in (
        (
            "def get_custom_metadata(info, audio): return {'prompt': info['colour']}",
            "the hook failed (KeyError: 'colour')",
        ),
        ("def get_custom_metadata(info, audio): return 'rain'", "the hook gave no prompt, but 'rain'"),
        ("def get_custom_metadata(info, audio): return {'prompt': ' '}", "prompt_1 is empty"),
        ("import no_such_module", "cannot be loaded (ModuleNotFoundError"),
        ("x = 1", "has no function get_custom_metadata(info, audio)"),
    ):
        (tmp_path / "mine.py").write_text(text)
        assert words in error_lines(configure(tmp_path, tagged, base_model, *run))[-1]
