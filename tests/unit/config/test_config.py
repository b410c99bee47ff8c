from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from sao.base.command import InputError
from sao.config.layers import stand_alone
from sao.config.mixtures import mixture_name, mixtures
from sao.config.resolve import ROLES, SCHEMA, check_file, deref, renders
from sao.data.corpora import published_splits, resolve
from sao.data.formats.clotho import file_name
from snakemake.utils import update_config

Config = dict[str, Any]
Key = tuple[str, ...]

DEMO, CLOTHO = ROOT / "config.yaml", ROOT / "configs" / "clotho.yaml"
SCHEMA_TREE = yaml.load(SCHEMA.read_text(encoding="utf-8"), yaml.CSafeLoader)
COMMIT, MD5 = "0" * 40, "0" * 32
HUB = {"repo": "a/b", "revision": COMMIT, "text_encoder": {"repo": "t5-base", "revision": COMMIT}}
FILE = {"url": "x.csv", "md5": MD5}
RUN = {"base_model": "demo", "corpus": "demo", "steps": 1}
FOLDER = {"format": "audiofolder", "path": "sounds"}
WEIGHTED = {"name": "vggish"}
MISSING = {"path": "no.pth", "sha256": "0" * 64}
WATERMARK = {"method": "audioseal", "generator": MISSING, "detector": MISSING}
DATA_SET = {"format": "hub", "repo": "someone/sounds", "revision": COMMIT}


def load(*files: Path) -> Config:
    """The config that Snakemake itself merges from these files."""
    config: Config = {}
    for path in files:
        update_config(config, yaml.load(path.read_text(encoding="utf-8"), yaml.CSafeLoader))
    return config


def put(config: Config, key: str, value: Any) -> Config:
    """A copy with `a.b.0.c` set to a value. `...` removes the key."""
    *parents, last = key.split(".")
    changed = copy.deepcopy(config)
    node: Any = changed
    for part in parents:
        node = node[int(part)] if isinstance(node, list) else node.setdefault(part, {})
    if value is ...:
        del node[last]
    else:
        node[int(last) if isinstance(node, list) else last] = value
    return changed


def complaint(config: Config, *files: Path) -> str:
    """The one line of the error about a config."""
    with pytest.raises(InputError) as error:
        resolve(config, list(files or [DEMO]))
    assert "\n" not in str(error.value)
    return str(error.value)


def line_of(start: str) -> int:
    """The number of the first line of the default config with this beginning."""
    lines = DEMO.read_text(encoding="utf-8").splitlines()
    return next(number for number, line in enumerate(lines, start=1) if line.startswith(start))


def full() -> Config:
    """The default config with every optional mapping written out, so that a test can spoil each."""
    config = load(DEMO)
    config = put(config, "base_models.hub", HUB | {"sampling": {"steps": 10}})
    config = put(config, "corpora.folder", FOLDER | {"split": {"seed": 1}, "licenses": {"allow": ["CC0"]}})
    config = put(config, "corpora.folder.cut", {"method": "silences"})
    config = put(config, "runs.demo.adapter", {"rank": 4})
    config = put(config, "runs.demo.publish", {"repo": "a/b"})
    return put(put(config, "runs.demo.wandb", {"project": "p"}), "latents", {"shards": 2})


def mappings(value: Any, schema: Config, key: Key = ()) -> Iterator[tuple[Key, Config]]:
    """`(key, schema)` of every mapping in a config whose keys are fixed."""
    schema = deref(schema, SCHEMA_TREE)
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from mappings(item, schema.get("items", {}), (*key, str(index)))
    if not isinstance(value, dict):
        return
    if schema.get("additionalProperties") is False:
        yield key, schema["properties"]
    for name, entry in value.items():
        sub = schema.get("properties", {}).get(name) or schema.get("additionalProperties")
        if isinstance(sub, dict):
            yield from mappings(entry, sub, (*key, name))


def at(config: Config, key: Key) -> Any:
    node: Any = config
    for part in key:
        node = node[int(part)] if isinstance(node, list) else node[part]
    return node


FULL = full()
MAPPINGS = list(mappings(FULL, SCHEMA_TREE))


@pytest.mark.parametrize("files", [[DEMO], [CLOTHO]], ids=["default", "clotho"])
def test_shipped_configs_resolve(files: list[Path]) -> None:
    config = resolve(load(*files), files)
    run = "demo" if files == [DEMO] else "clotho"
    assert list(config["runs"]) == [run]
    assert config["runs"][run]["captions"] == "random"
    corpus = config["corpora"][config["runs"][run]["corpus"]]
    assert [len(corpus[role]) for role in ROLES] == [1, 1, 1]
    assert [entry["label"] for entry in renders(config).values()] == ["base", run]


def test_preset_stands_alone() -> None:
    merged = resolve(stand_alone(load(DEMO, CLOTHO), load(CLOTHO), DEMO), [DEMO, CLOTHO])
    assert set(merged["corpora"]) == {"demo", "clotho"} and set(merged["runs"]) == {"clotho"}
    assert merged["corpora"]["clotho"]["train_seconds"] == 30
    # The published corpus has leaks. A first run needs no account for its log.
    assert merged["corpora"]["clotho"]["on_leak"] == "drop"
    assert merged["runs"]["clotho"]["wandb"]["mode"] == "offline"
    assert merged["render"]["clips"] == {"train": 32, "evaluation": "all"}


def test_defaults_are_filled_in_at_every_depth_and_values_kept() -> None:
    config = put(put(FULL, "render", ...), "base_models.demo.sampling", ...)
    resolved = resolve(config, [DEMO])
    for key, properties in MAPPINGS:
        assert {name for name, schema in properties.items() if "default" in schema} <= set(at(resolved, key)), key
    render = {
        "clips": {"evaluation": "all"},
        "caption": 1,
        "seed": 0,
        "prompts": None,
        "seconds": None,
        "loudness": None,
    }
    assert resolved["render"] == render | {
        "own_window": False,
        "takes": 1,
        "templates": False,
        "format": "wav16",
        "precision": "auto",
        "watermark": None,
        "batch_size": None,
        "shards": 1,
    }
    assert resolved["base_models"]["demo"]["sampling"]["sampler"] == "dpmpp-3m-sde"
    assert resolved["base_models"]["hub"]["sampling"]["steps"] == 10
    assert resolved["runs"]["demo"]["wandb"] == {"project": "p", "mode": "online"}
    assert resolved["runs"]["demo"]["steps"] == config["runs"]["demo"]["steps"]
    assert resolved["corpora"]["demo"]["train_seconds"] is None


def test_resolving_changes_nothing_that_was_handed_over_and_is_stable() -> None:
    config = copy.deepcopy(FULL)
    resolved = resolve(config, [DEMO])
    assert config == FULL
    assert resolve(resolved, [DEMO]) == resolved


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "fp32"), ({"precision": "16-mixed"}, "fp32"), ({"precision": "bf16-mixed"}, "bf16"),
        ({"precision": "bf16-mixed", "adapter": {"base_precision": "fp32"}}, "fp32"),
    ],
)  # fmt: skip
def test_frozen_weights_follow_the_precision(changes: dict[str, Any], expected: str) -> None:
    config = resolve(put(FULL, "runs.demo", RUN | {"method": "lora"} | changes), [DEMO])
    assert config["runs"]["demo"]["adapter"]["base_precision"] == expected


def test_every_default_is_allowed() -> None:
    """The schema accepts a resolved config."""
    jsonschema.Draft202012Validator.check_schema(SCHEMA_TREE)
    jsonschema.validate(resolve(FULL, [DEMO]), SCHEMA_TREE)


@pytest.mark.parametrize("section", ["corpora", "base_models", "runs"])
def test_null_entry_is_left_out(section: str) -> None:
    config = put(load(DEMO), f"{section}.unwanted", None)
    assert list(resolve(config, [DEMO])[section]) == ["demo"]


@pytest.mark.parametrize(("key", "allowed"), MAPPINGS, ids=[".".join(key) or "top" for key, _ in MAPPINGS])
def test_unknown_key_is_named_with_what_is_allowed(key: Key, allowed: Config) -> None:
    message = complaint(put(FULL, ".".join((*key, "unknown_one")), 1))
    assert message.startswith(f"config: {'.'.join((*key, 'unknown_one'))}: unknown key;")
    assert f"allowed here: {', '.join(sorted(allowed))} (" in message


@settings(max_examples=50)
@given(st.data())
def test_any_unknown_key_anywhere_is_named(data: st.DataObject) -> None:
    key, allowed = data.draw(st.sampled_from(MAPPINGS))
    names = st.text(min_size=1, max_size=20) | st.integers() | st.sampled_from([f"{name}s" for name in allowed])
    unknown = data.draw(names.filter(lambda name: str(name).isprintable() and name not in allowed))
    config = copy.deepcopy(FULL)
    at(config, key)[unknown] = data.draw(st.sampled_from([None, 1, "x", [], {}, {"url": "x"}]))
    assert f"config: {'.'.join((*key, str(unknown)))}: unknown key;" in complaint(config)


def test_misspelt_key_is_guessed_and_found() -> None:
    message = complaint(put(load(DEMO), "runs.demo.learning_rat", 1))
    assert "did you mean 'learning_rate'?" in message


WRONG = [
    ("runs", None, "found None, null; allowed: object"),
    ("runs", ..., "missing"),
    ("runs", {"demo": None}, "found no run"),
    ("runs.demo.steps", ..., "needs either steps, or epochs"),
    ("runs.demo.epochs", 3, "needs either steps, or epochs"),
    ("runs.demo.corpus", ..., "missing"),
    ("runs.demo.steps", "many", "found 'many', string; allowed: integer"),
    ("runs.demo.steps", True, "found True, boolean; allowed: integer"),
    ("runs.demo.steps", 1200.0, "found 1200.0, number; allowed: integer"),
    ("runs.demo.steps", 0, "0 is less than the minimum of 1"),
    ("runs.demo.accumulate", 1_000_000_000, "greater than the maximum of 10000; allowed: 1 to 10000"),
    ("runs.demo.threads", 100_000, "greater than the maximum of 512; allowed: 1 to 512"),
    ("runs.demo.batch_size", 0, "less than the minimum of 1; allowed: 1 to 10000"),
    ("runs.demo.learning_rate", 1e38, "greater than the maximum of 100; allowed: more than 0 to 100"),
    ("runs.demo.seed", 2**64, "allowed: 0 to 9223372036854775807"),
    ("latents.shards", 9999, "greater than the maximum of 1000; allowed: 1 to 1000"),
    ("render.shards", 9999, "greater than the maximum of 1000; allowed: 1 to 1000"),
    ("base_models.demo.sampling.cfg_scale", 1e38, "greater than the maximum of 100; allowed: 0 to 100"),
    ("base_models.demo.sampling.sigma_min", 500, "500 is not below sigma_max, 100: "),
    ("base_models.demo.sampling.sigma_min", 100, "100 is not below sigma_max, 100: "),
    ("runs.demo.learning_rate", "1e-3", "found '1e-3', string; allowed: number or null"),
    ("runs.demo.learning_rate", math.nan, "found nan, not finite; allowed: number or null"),
    ("runs.demo.learning_rate", 0, "minimum of 0"),
    ("runs.demo.captions", "frist", "found 'frist'; allowed: first, random, all"),
    ("runs.demo.base_model", "other", "found 'other', an unknown base model; allowed: demo"),
    ("runs.demo.corpus", "other", "found 'other', an unknown corpus; allowed: demo"),
    ("runs.demo.wandb", {}, "missing"),
    ("runs.demo.wandb", {"project": "p", "mode": "on"}, "found 'on'; allowed: online, offline, disabled"),
    ("runs.demo.publish", {}, "missing"),
    ("runs.demo.publish", {"repo": "model"}, "found 'model'; allowed: text that matches"),
    ("runs.demo.publish", {"repo": "https://huggingface.co/a/b"}, "allowed: text that matches"),
    ("runs.demo.publish", {"repo": "a/b", "private": "yes"}, "found 'yes', string; allowed: boolean"),
    ("runs.demo.publish", {"repo": "a/b", "public": True}, "publish.public: unknown key"),
    ("runs.demo.accumulate", "all", "found 'all'; allowed: "),
    ("runs.demo.accumulate", 0, "minimum of 1"),
    ("runs.demo.method", "lokr", "found 'lokr'; allowed: full, lora, dora"),
    ("runs.demo.precision", "16", "found '16'; allowed: 32-true, 16-mixed, bf16-mixed, bf16-true"),
    ("runs.demo.keep_states", "best", "found 'best'; allowed: last, all"),
    ("runs.demo.strategy", "deepspeed", "found 'deepspeed'; allowed: auto, ddp, fsdp"),
    ("runs.demo.devices", 0, "minimum of 1"),
    ("runs.demo.optimizer", {"config": {}}, "missing"),
    ("runs.demo.adapter", {"rank": 0}, "minimum of 1"),
    ("runs.demo.adapter", {"target_modules": []}, "found []; allowed: "),
    ("runs.demo.adapter", {"target_modules": "to_q"}, "found 'to_q'; allowed: "),
    ("runs.demo.phase_flip", True, "latents have no polarity; it needs latents.enabled: false"),
    ("runs.demo", RUN | {"precision": "bf16-true", "ema": True}, "runs.demo.ema: a moving average in bfloat16 does not move"),
    ("runs.demo", RUN | {"precision": "bf16-true", "method": "lora"}, "runs.demo.precision: bf16-true is for method full"),
    ("runs.demo", RUN | {"method": "dora", "adapter": {"base_precision": "bf16"}}, "needs precision bf16-mixed, not 32-true"),
    ("runs.demo", RUN | {"strategy": "fsdp", "method": "lora"}, "runs.demo.strategy: fsdp is for method full, precision 32-true"),
    ("runs.demo", RUN | {"strategy": "fsdp", "precision": "16-mixed"}, "fsdp is for method full, precision 32-true or bf16-mixed"),
    ("runs.demo", RUN | {"strategy": "fsdp", "compile": True}, "and compile false or null"),
    ("latents", {"shards": 0}, "minimum of 1"),
    ("runs.a/b", {}, "not a usable name"),
    ("runs..hidden", {}, "not a usable name"),
    ("corpora.demo", None, "found 'demo', an unknown corpus; allowed: none is defined"),
    ("base_models.demo", None, "found 'demo', an unknown base model; allowed: none is defined"),
    ("corpora.demo.format", "zip", "found 'zip'; allowed: clotho"),
    ("corpora.demo.train", [], "[] should be non-empty"),
    ("corpora.demo.train", ["dev"], "found 'dev', an unknown split; allowed: development, evaluation, validation"),
    ("corpora.demo.evaluation", ["validation"], "'validation' is already used for validation: its clips would leak"),
    ("corpora.demo.train_seconds", math.inf, "found inf, not finite"),
    ("corpora.demo.train_seconds", 0, "minimum of 0"),
    ("corpora.demo.train_seconds", "longest", "found 'longest'; allowed: text that matches ^auto$"),
    ("corpora.demo.cut", {}, "cut.method: missing"),
    ("corpora.demo.cut", {"seconds": 5}, "cut.method: missing"),
    ("corpora.demo.cut", {"method": "beats"}, "found 'beats'; allowed: length, silences, columns"),
    ("corpora.demo.cut", {"method": "length"}, "corpora.demo.cut.seconds: missing; method length needs it"),
    ("corpora.demo.cut", {"method": "length", "seconds": 0.05}, "minimum of 0.1"),
    ("corpora.demo.cut", {"method": "length", "seconds": 5, "min_seconds": 0.01}, "minimum of 0.1"),
    ("corpora.demo.cut", {"method": "length", "seconds": 5, "hop": 0}, "minimum of 0"),
    ("corpora.demo.cut", {"method": "silences", "silence_dbfs": 3}, "maximum of 0"),
    ("corpora.demo.cut", {"method": "columns", "seconds": 3}, "corpora.demo.cut.seconds: the column of `end`"),
    ("corpora.demo.cut", {"method": "columns", "start": None}, "found None, null; allowed: string"),
    ("corpora.demo.splits.validation.captions.0.md5", ..., "has url; needs either md5, or sha256"),
    ("corpora.demo.splits.validation.captions.0.sha256", "0" * 64, "has md5, sha256, url; needs either md5, or sha256"),
    ("corpora.demo.splits.validation.captions.0.md5", "ABC", "found 'ABC'; allowed: text that matches ^[0-9a-f]{32}$"),
    ("corpora.demo.splits.validation.archives.0.url", 3, "found 3, integer; allowed: string"),
    ("corpora.demo.splits.validation.captions", [FILE | {"url": "y/clotho_captions_development.csv"}], "two files"),
    ("corpora.demo.splits.validation.captions", FILE, "object; allowed: array"),
    ("corpora.demo.splits.validation.captions", [], "non-empty"),
    ("corpora.demo.splits.dropped", {"archives": [FILE], "captions": [FILE]}, "'dropped' is taken"),
    ("corpora.demo.train", ..., "missing; split.method official needs it"),
    ("corpora.demo.validation", ..., "missing; split.method official needs it"),
    ("corpora.demo.evaluation", ..., "missing; split.method official needs it"),
    ("corpora.demo.path", "sounds", "format clotho does not use it; remove it"),
    ("corpora.demo.splits", ..., "missing; format clotho needs it"),
    ("corpora.demo.format", "audiofolder", "missing; format audiofolder needs it"),
    ("corpora.demo.caption_columns", [], "non-empty"),
    ("corpora.demo.on_invalid", "ignore", "found 'ignore'; allowed: fail, drop"),
    ("corpora.demo.on_leak", "keep", "found 'keep'; allowed: fail, drop"),
    ("corpora.demo.licenses", ["CC0"], "allowed: object or null"),
    ("corpora.demo.licenses", {}, "missing"),
    ("corpora.demo.licenses", {"allow": []}, "non-empty"),
    ("corpora.demo.licenses", {"allow": ["CC0", ""]}, "non-empty"),
    ("corpora.demo.split", {"method": "random"}, "found 'random'; allowed: official, fraction, column"),
    ("corpora.demo.split", {"seed": -1}, "less than the minimum of 0"),
    ("corpora.demo.split", {"validation": 1}, "maximum of 1"),
    ("corpora.demo.split", {"fraction": 0.1}, "unknown key"),
    ("corpora.folder", FOLDER | {"split": {"method": "fraction", "validation": 0.5, "evaluation": 0.5}}, "no clip to train on"),
    ("corpora.folder", FOLDER | {"split": {"method": "fraction", "validation": 0}}, "corpora.folder.split.validation: 0 leaves no clip"),
    ("corpora.folder", FOLDER | {"split": {"method": "fraction", "evaluation": 0.0}, "validation": ["v"]}, "folder.split.evaluation: 0 leaves no clip"),
    ("corpora.demo.silence_dbfs", 1, "maximum of 0"),
    ("corpora.folder", FOLDER | {"splits": {"x": {"archives": [FILE], "captions": [FILE]}}}, "format audiofolder does not use it"),
    ("corpora.set", DATA_SET | {"revision": "main"}, "corpora.set.revision: found 'main', which may change: give a commit"),
    ("corpora.set", DATA_SET | {"revision": COMMIT + "0"}, "corpora.set.revision: found '0000"),
    ("corpora.set", {key: DATA_SET[key] for key in ("format", "repo")}, "corpora.set.revision: missing; format hub needs it"),
    ("corpora.set", {key: DATA_SET[key] for key in ("format", "revision")}, "corpora.set.repo: missing; format hub needs it"),
    ("corpora.set", DATA_SET | {"repo": "sounds"}, "corpora.set.repo: found 'sounds'; allowed: text that matches"),
    ("corpora.set", DATA_SET | {"path": "sounds"}, "corpora.set.path: format hub does not use it"),
    ("corpora.set", FOLDER | {"audio_column": "audio"}, "corpora.set.audio_column: format audiofolder does not use it"),
    ("corpora.set", DATA_SET | {"train": ["a/b"]}, "corpora.set.train: 'a/b' is not the name of a split"),
    ("corpora.demo.tags", True, "corpora.demo.tags: format clotho does not use it"),
    ("corpora.demo.tags", "yes", "allowed: boolean"),
    ("corpora.folder", FOLDER | {"train": ["a/b"]}, "'a/b' is not the name of a top folder"),
    ("corpora.folder", FOLDER | {"train": ["../x"]}, "'../x' is not the name of a top folder"),
    ("corpora.folder", FOLDER | {"train": ["{x}"]}, "'{x}' is not the name of a top folder"),
    ("corpora.folder", FOLDER | {"train": ["dropped"]}, "the name 'dropped' is taken"),
    ("corpora.folder", FOLDER | {"train": ["all"]}, "the name 'all' is taken"),
    ("corpora.folder", FOLDER | {"train": ["test"]}, "'test' is already used for train"),
    ("corpora.folder", FOLDER | {"split": {"method": "column"}, "train": ["dev"]}, "'dev' is already used for train"),
    ("base_models.demo.path", ..., "needs either path, or repo + revision + text_encoder"),
    ("base_models.demo.repo", "a/b", "has path, repo, sampling; needs either path, or repo"),
    ("base_models.hub", {"repo": "a/b"}, "has repo; needs either path, or repo + revision + text_encoder"),
    ("base_models.hub", HUB | {"revision": "v1"}, "found 'v1'; allowed: text that matches ^([0-9a-f]{40}|main)$"),
    ("base_models.hub", HUB | {"text_encoder": {"repo": "t5-base"}}, "needs either repo + revision, or path"),
    ("base_models.demo.sampling.sampler", "eular", "found 'eular'; allowed: dpmpp-3m-sde"),
    ("render.clips", {}, "non-empty"),
    ("evaluation.embeddings", ["mert"], "evaluation.embeddings.0: found 'mert'; allowed: `aisfx`, `log-mel`"),
    ("evaluation.embeddings", [WEIGHTED | {"weights": {"path": "no.pth", "sha256": "0" * 64}}],
     "evaluation.embeddings.0.weights: the file 'no.pth' does not exist"),
    ("evaluation.embeddings", [WEIGHTED | {"weights": {"url": "file:///no.pth", "sha256": "0" * 64}}], "'/no.pth' does not exist"),
    ("evaluation.embeddings", [WEIGHTED | {"weights": {"path": "config.yaml"}}],
     "evaluation.embeddings.0.weights: has path; needs either url + sha256, or path + sha256, or repo + revision + file"),
    ("evaluation.embeddings", [WEIGHTED | {"weights": {"path": "config.yaml", "sha256": "0"}}],
     "evaluation.embeddings.0.weights.sha256: found '0'; allowed: text that matches"),
    ("evaluation.embeddings", [{"repo": "a/b", "revision": "main"}], "evaluation.embeddings.0.revision: found 'main'"),
    ("render.watermark", "audiosael", "render.watermark: found 'audiosael'; allowed: text that matches ^audioseal$"),
    ("render.watermark", {"method": "audioseal"}, "render.watermark.generator: missing"),
    ("render.watermark", WATERMARK | {"message": 65536}, "render.watermark.message: 65536 is greater"),
    ("render.watermark", WATERMARK | {"strength": 0}, "allowed: more than 0 to 10"),
    ("render.watermark", WATERMARK, "render.watermark.generator: the file 'no.pth' does not exist"),
    ("listen.clips", 0, "less than the minimum of 1"),
    ("listen.cfg_scales", [], "non-empty"),
    ("listen.cfg_scales", [7, 7], "non-unique elements"),
    ("listen.cfg_scales", [101], "allowed: 0 to 100"),
    ("render.clips.train", "some", "found 'some'; allowed: `all`, a number of clips, or `null`"),
    ("render.clips.train", 0, "found 0; allowed: `all`, a number of clips, or `null`"),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value", "words"), WRONG, ids=[f"{key}={value}" for key, value, _ in WRONG])
def test_wrong_value_is_named_with_what_is_allowed(key: str, value: Any, words: str) -> None:
    message = complaint(put(load(DEMO), key, value))
    assert words in message
    assert message.startswith("config: ") and str(DEMO) in message


@pytest.mark.parametrize(
    ("run", "words"),
    [
        ({"corpora": {"demo": 1, "none": 1}}, "corpora.none: found 'none', an unknown corpus"),
        ({"corpora": {"demo": 1, "mine": 0}}, "corpora.mine: 0"),
        ({"corpora": {"demo": 1, "mine": -1}}, "corpora.mine: -1"),
        ({"corpora": {"demo": 1}}, "corpora: {'demo': 1}"),
        (
            {"corpora": {"demo": 1, "short": 1}},
            "corpora: the clips of a batch have one window, and train_seconds differs",
        ),
        ({"corpora": {"auto": 1, "own": 1}}, "train_seconds: auto gives each corpus a window of its own"),
        ({"corpora": {"demo": 1, "mine": 1}, "corpus": "demo"}, "has corpus and corpora; keep one"),
        ({}, "corpus: missing; a run needs it, or corpora"),
    ],
)
def test_corpora_that_cannot_be_mixed_are_named(run: Config, words: str) -> None:
    config = put(load(DEMO), "corpora.mine", FOLDER | {"path": str(ROOT)})
    config = put(config, "corpora.short", config["corpora"]["mine"] | {"train_seconds": 1})
    for name in ("auto", "own"):
        config = put(config, f"corpora.{name}", config["corpora"]["mine"] | {"train_seconds": "auto"})
    line = complaint(put(config, "runs.both", {"base_model": "demo", "steps": 1} | run))
    assert line.startswith("config: runs.both") and words in line


def test_runs_on_several_corpora_share_a_mixture() -> None:
    config = put(load(DEMO), "corpora.mine", load(DEMO)["corpora"]["demo"])
    both = {"base_model": "demo", "steps": 1}
    runs = {
        "x": both | {"corpora": {"mine": 3, "demo": 0.5}},
        "y": both | {"corpora": {"demo": 0.5, "mine": 3}, "seed": 1},
    }
    resolved = resolve(put(config, "runs", runs), [DEMO])
    assert {run["corpus"] for run in resolved["runs"].values()} == {"demo-0.5+mine-3"} == set(mixtures(resolved))
    assert resolve(resolved, [DEMO]) == resolved
    assert list(renders(resolved)) == ["base--demo--demo-0.5+mine-3", "x", "y"]
    assert mixture_name({f"corpus-{n}": n + 1 for n in range(9)}) != mixture_name(
        {f"corpus-{n}": n + 2 for n in range(9)}
    )
    assert len(mixture_name({f"corpus-{n}": 1 for n in range(9)})) == 64


@pytest.mark.parametrize(
    ("prompts", "words"),
    [
        ({"templates": ["{caption}"], "hook": "mine.py"}, "prompts: needs either templates or a hook"),
        ({}, "prompts: needs either templates or a hook"),
        ({"templates": ["{caption", "x"]}, "prompts.templates.0: found '{caption'"),
        (
            {"templates": ["x", "{caption:>9}"]},
            "prompts.templates.1: found '{caption:>9}': a field is a name in braces",
        ),
        ({"templates": ["- -"]}, "prompts.templates.0: found '- -', which says nothing"),
        ({"templates": [{"text": "x", "weight": 0}]}, "prompts.templates.0.weight: 0"),
        ({"templates": [{"text": "x", "weight": -1}]}, "prompts.templates.0.weight: -1"),
        ({"templates": [{"weight": 1}]}, "prompts.templates.0.text: missing"),
        ({"templates": []}, "prompts.templates: []"),
        (
            {"templates": ["{keywords}"], "tags": {"keyword": {}}},
            "prompts.tags.keyword: no template names it; did you mean 'keywords'?",
        ),
        ({"templates": ["{caption}"], "tags": {"caption": {}}}, "prompts.tags.caption: is no column of tags"),
        ({"templates": ["{x}"], "tags": {"x": {"drop": 1}}}, "prompts.tags.x.drop: 1"),
        ({"templates": ["{x}"], "columns": ["y"]}, "prompts.columns: is for a hook"),
        ({"hook": "no_such.py"}, "prompts.hook: the file 'no_such.py' does not exist"),
        ({"hook": str(ROOT / "docs/make_cards.py"), "tags": {"x": {}}}, "prompts.tags: is for templates"),
    ],
)
def test_prompts_that_cannot_be_made_are_named(prompts: Config, words: str) -> None:
    assert complaint(put(load(DEMO), "corpora.demo.prompts", prompts)).startswith(f"config: corpora.demo.{words}")


def test_templates_are_rendered_only_where_there_are_some() -> None:
    config = put(load(DEMO), "render.templates", True)
    assert "no run's corpus has prompts" in complaint(config)
    config = put(config, "corpora.demo.prompts", {"templates": ["{caption}", {"text": "x {caption}", "weight": 3}]})
    templates = resolve(config, [DEMO])["corpora"]["demo"]["prompts"]["templates"]
    assert templates == [{"text": "{caption}", "weight": 1}, {"text": "x {caption}", "weight": 3}]
    assert "caption: 2 has no effect" in complaint(put(config, "render.caption", 2))


def test_two_runs_are_not_published_to_one_repository() -> None:
    config = put(load(DEMO), "runs.demo.publish", {"repo": "someone/Model"})
    config = put(config, "runs.other", RUN | {"publish": {"repo": "someone/model"}})
    assert "runs.other.publish.repo: 'someone/model' is that of run demo too" in complaint(config)
    config = put(config, "runs.other.publish.repo", "someone/other")
    found = resolve(config, [DEMO])["runs"]
    assert found["other"]["publish"] == {"repo": "someone/other", "private": True, "send": ["model"]}


def test_folder_that_is_used_must_be_there(tmp_path: Path) -> None:
    config = put(load(DEMO), "corpora.folder", FOLDER | {"path": str(tmp_path / "sounds")})
    resolve(config, [DEMO])
    config = put(config, "runs.demo.corpus", "folder")
    message = complaint(config)
    assert message.startswith("config: corpora.folder.path: found ") and "which is no folder" in message
    (tmp_path / "sounds").mkdir()
    for split, role in (("train", "train"), ("validation", "validation"), ("test", "evaluation")):
        message = complaint(config)
        assert message.startswith(f"config: corpora.folder.{role}: names {split!r}, which is no folder in {tmp_path}")
        (tmp_path / "sounds" / split).mkdir()
    resolve(config, [DEMO])
    drawn = {"path": str(tmp_path), "split": {"method": "fraction"}}
    resolve(put(config, "corpora.folder", FOLDER | drawn), [DEMO])
    by_column = drawn | {"split": {"method": "column"}}
    resolve(put(config, "corpora.folder", FOLDER | by_column), [DEMO])


def test_a_side_that_is_given_needs_no_share() -> None:
    given = {"split": {"method": "fraction", "validation": 0}, "validation": ["v"], "train": ["t"]}
    resolve(put(load(DEMO), "corpora.folder", FOLDER | given), [DEMO])


def test_base_model_that_is_used_must_be_there(tmp_path: Path) -> None:
    config = put(load(DEMO), "base_models.mine", {"path": str(tmp_path / "model")})
    resolve(config, [DEMO])
    config = put(config, "runs.demo.base_model", "mine")
    assert complaint(config).startswith(f"config: base_models.mine.path: found '{tmp_path}/model', which is no folder")
    (tmp_path / "model").mkdir()
    resolve(config, [DEMO])


def test_prompts_are_a_file_and_may_be_all_that_is_rendered(tmp_path: Path) -> None:
    config = put(load(DEMO), "render.prompts", str(tmp_path / "mine.txt"))
    config = put(config, "render.clips", {"train": None, "evaluation": None})
    message = complaint(config)
    assert message.startswith("config: render.prompts: the file ") and "does not exist" in message
    (tmp_path / "mine.txt").write_text("Rain.\n")
    assert resolve(config, [DEMO])["render"]["clips"] == {}
    assert "names no split to render" in complaint(put(config, "render.prompts", None))
    assert "text that matches" in complaint(put(config, "render.prompts", "mine.json"))


@pytest.mark.parametrize(
    ("corpus", "sides", "published"),
    [
        ({}, [["train"], ["validation"], ["test"]], ["train", "validation", "test"]),
        ({"evaluation": ["eval"]}, [["train"], ["validation"], ["eval"]], ["train", "validation", "eval"]),
        ({"split": {"method": "fraction"}}, [["all"], [], []], ["all"]),
        ({"split": {"method": "fraction"}, "evaluation": ["test"]}, [["train"], [], ["test"]], ["train", "test"]),
        ({"split": {"method": "column"}}, [["train"], ["validation", "val", "dev"], ["evaluation", "test"]], ["all"]),
        ({"split": {"method": "column", "column": "fold"}, "train": ["1", "2"], "validation": ["3"], "evaluation": ["4"]},
         [["1", "2"], ["3"], ["4"]], ["all"]),
    ],
)  # fmt: skip
def test_sides_of_a_folder(corpus: Config, sides: list[list[str]], published: list[str]) -> None:
    resolved = resolve(put(load(DEMO), "corpora.folder", FOLDER | corpus), [DEMO])["corpora"]["folder"]
    assert [resolved[role] for role in ROLES] == sides and published_splits(resolved) == published
    assert {key: resolved["split"][key] for key in ("validation", "evaluation", "seed", "group")} == {
        "validation": 0.1,
        "evaluation": 0.1,
        "seed": 42,
        "group": None,
    }
    assert (resolved["licenses"], resolved["caption_columns"]) == (None, None)
    assert (resolved["on_invalid"], resolved["on_leak"]) == ("fail", "fail")


def test_sides_of_published_splits() -> None:
    demo = load(DEMO)["corpora"]["demo"]
    config = put(load(DEMO), "corpora.demo", {**demo, "split": {"method": "column", "column": "fold"}})
    assert published_splits(resolve(config, [DEMO])["corpora"]["demo"]) == ["development", "validation", "evaluation"]
    drawn = {key: demo[key] for key in ("format", "splits")} | {"split": {"method": "fraction"}}
    corpus = resolve(put(load(DEMO), "corpora.demo", drawn | {"train": ["development"]}), [DEMO])["corpora"]["demo"]
    assert [corpus[role] for role in ROLES] == [["development"], [], []]
    assert published_splits(corpus) == ["development"]
    assert "corpora.demo.train: missing" in complaint(put(load(DEMO), "corpora.demo", drawn))


@pytest.mark.parametrize(
    "name",
    """base Base base--demo--demo BASE--x summary reference Reference spectrograms curves corpora samples.csv index.html
    demo.csv a.JSON a.svg a.log a.tsv""".split(),
)
def test_names_of_ours_are_no_runs(name: str) -> None:
    config = load(DEMO)
    found = complaint(config | {"runs": config["runs"] | {name: config["runs"]["demo"]}})
    assert found.startswith(f"config: runs.{name}: the name {name!r} ") and "choose another" in found


@pytest.mark.parametrize("name", ["based", "summary.v2", "references", "v1.2", "a--b", "a" * 64])
def test_names_that_meet_none_of_ours_are_allowed(name: str) -> None:
    config = load(DEMO)
    assert name in resolve(config | {"runs": config["runs"] | {name: config["runs"]["demo"]}}, [DEMO])["runs"]


@pytest.mark.parametrize(
    ("section", "name", "words"),
    [
        ("runs", "Demo", "differs from 'demo' only in case"),
        ("runs", "a" * 65, "at most 64"),
        ("corpora", "DEMO", "differs from 'demo' only in case"),
        ("corpora", "x--demo", "has '--'"),
        ("base_models", "demo--x", "has '--'"),
        ("base_models", "demo.sha256", "ends in .sha256"),
        ("base_models", "dEmo", "differs from 'demo' only in case"),
    ],
)
def test_names_that_share_a_folder_are_refused(section: str, name: str, words: str) -> None:
    config = load(DEMO)
    found = complaint(config | {section: config[section] | {name: config[section]["demo"]}})
    assert found.startswith(f"config: {section}.{name}: ") and words in found


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("development.csv", "ends in .csv"),
        ("Dropped", "is taken by the list"),
        ("Development", "differs from 'development'"),
    ],
)
def test_splits_that_share_a_file_are_refused(name: str, words: str) -> None:
    config = load(DEMO)
    splits = config["corpora"]["demo"]["splits"]
    found = complaint(put(config, "corpora.demo.splits", splits | {name: splits["validation"]}))
    assert found.startswith(f"config: corpora.demo.splits.{name}: ") and words in found


@pytest.mark.parametrize("names", [["Train", "train"], ["n\u00e4he", "na\u0308he"], ["a", "b.csv"], ["a", "DROPPED"]])
def test_top_folders_that_share_a_file_are_refused(names: list[str]) -> None:
    folder = FOLDER | {"train": [names[0]], "validation": [names[1]], "evaluation": ["z"]}
    assert f"corpora.folder.splits.{names[1]}: " in complaint(put(load(DEMO), "corpora.folder", folder))


@pytest.mark.parametrize("url", ["x/checksums", "x/Clotho_captions_development.csv"])
def test_files_of_a_corpus_that_share_a_name_are_refused(url: str) -> None:
    found = complaint(put(load(DEMO), "corpora.demo.splits.validation.captions", [FILE | {"url": url}]))
    assert "corpora.demo.splits.validation: " in found and (
        "rename" in found or "call the file something else" in found
    )


def test_two_commits_of_an_embedding_share_a_folder() -> None:
    entry = {"repo": "laion/clap-htsat-unfused", "revision": "0" * 40}
    for entries in (["laion/clap-htsat-unfused", entry], [entry, entry | {"revision": "1" * 40}]):
        assert "'laion/clap-htsat-unfused' is there twice" in complaint(
            put(load(DEMO), "evaluation", {"embeddings": entries})
        )


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        ("runs.demo.steps", "many", "    steps:"),
        ("corpora.demo.splits.development.archives.0.md5", "x", "            md5:"),
        ("render.clips.trane", 1, "  clips:"),
        ("render.clipz", 1, "render:"),
    ],
)
def test_line_is_that_of_the_key_or_of_what_holds_it(key: str, value: Any, line: str) -> None:
    assert complaint(put(load(DEMO), key, value)).endswith(f"({DEMO}, line {line_of(line)})")


def test_file_that_was_laid_over_last_is_named(tmp_path: Path) -> None:
    over = tmp_path / "over.yaml"
    over.write_text("# A comment.\nruns:\n  demo:\n    seed: 3\n    steps: none\n")
    message = complaint(load(DEMO, over), DEMO, over)
    assert message.endswith(f"({over}, line 5)") and "runs.demo.steps" in message
    over.write_text("runs:\n  demo:\n    seed: 3\n")
    message = complaint(put(load(DEMO, over), "runs.demo.batch_size", 0), DEMO, over)
    assert message.endswith(f"({DEMO}, line {line_of('    batch_size:')})")


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://example.org/files/a%20b.7z?download=1#x", "a b.7z"),
        ("file:///data/a%20b.7z", "a b.7z"),
        ("data/Choir, one.7z", "Choir, one.7z"),
    ],
)
def test_download_is_kept_under_the_name_of_its_url(url: str, name: str) -> None:
    assert file_name(url) == name


def test_one_base_render_a_pair_of_model_and_corpus() -> None:
    config = load(DEMO)
    run = config["runs"]["demo"]
    config = put(config, "runs.again", run | {"seed": 1})
    assert [entry["label"] for entry in renders(resolve(config, [DEMO])).values()] == ["base", "demo", "again"]
    config = put(config, "corpora.other", config["corpora"]["demo"])
    config = put(config, "runs.third", run | {"corpus": "other"})
    labels = [entry["label"] for entry in renders(resolve(config, [DEMO])).values()]
    assert labels == ["base--demo--demo", "base--demo--other", "demo", "again", "third"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("runs:\n  demo:\n    steps: 3\n    seed: 1\n    steps: 4\n", ["runs.demo.steps", "lines 3 and 5"]),
        ("runs: {}\nrender: {}\n'runs': {}\n", ["config: runs:", "lines 1 and 3"]),
        ("runs: {demo: {steps: 1, steps: 2}}\n", ["runs.demo.steps", "lines 1 and 1"]),
        ('{"runs": {"a": 1,\n "a": 2}}', ["runs.a", "lines 1 and 2"]),
        ("corpora: {c: {train: [{a: 1}, {b: 1, b: 1}]}}", ["corpora.c.train.1.b"]),
        ("runs: &a\n  demo: *a\n", ["runs.demo", "alias", "line 1"]),
        ("corpora: {c: {train: &a [*a]}}\n", ["corpora.c.train.0", "alias", "line 1"]),
        ("runs: " + "[" * 3000 + "]" * 3000, ["nested too deeply"]),
    ],
)
def test_what_snakemake_reads_without_a_word_is_refused(tmp_path: Path, text: str, words: list[str]) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    message = complaint(load(DEMO), DEMO, path)
    assert all(word in message for word in [*words, str(path)]), message


@pytest.mark.parametrize("encoding", ["utf-16", "iso-8859-1"])
def test_config_file_that_is_not_utf8_is_named(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes("render: {caption: 1}\n# é\n".encode(encoding))
    assert "save the file as UTF-8" in complaint(load(DEMO), DEMO, path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\ufeffrender: {caption: 1}",
        "a: &x {b: 1}\nc: *x\nd: [*x, *x]\ne: {<<: *x, b: 2}",
        '{\n\t"a": 1}',
        "1: a\n'1': b",
    ],
)
def test_file_with_each_key_once_is_not_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    check_file(path)


@pytest.mark.parametrize("section", ["runs", "corpora", "base_models"])
def test_name_that_is_longer_than_a_folder_may_be_is_refused(section: str) -> None:
    entry = {"runs": RUN, "corpora": FOLDER, "base_models": HUB}[section]
    resolve(put(load(DEMO), f"runs.{'ab' * 32}", RUN), [DEMO])
    message = complaint(put(load(DEMO), f"{section}.{'ab' * 125}", entry))
    assert f"{section}.{'ab' * 125}: a name of 250 letters; at most 64" in message


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("checksums", "taken"),
        (".partial", "hidden"),
        ("{x}.csv", "brace"),
        ("a\\b.csv", "backslash"),
        ("a%FF.csv", "not UTF-8"),
        ("é" * 101, "200 bytes"),
    ],
)
def test_file_that_cannot_be_kept_under_its_name_is_refused(name: str, word: str) -> None:
    config = put(load(DEMO), "corpora.demo.splits.development.captions.0.url", f"https://x.org/{name}")
    assert word in complaint(config)


def test_training_of_too_many_legs_is_told_what_to_set() -> None:
    config = put(put(load(DEMO), "runs.demo.steps", 5000), "runs.demo.checkpoint_every", 1)
    resolve(config, [DEMO])
    message = complaint(put(config, "runs.demo.steps", 15_001))
    assert "15001 steps in legs of 1 are 15001 jobs" in message and "set checkpoint_every to 4 or more" in message
    resolve(put(put(config, "runs.demo.steps", 15_001), "runs.demo.checkpoint_every", 4), [DEMO])


def numbers(node: Any, key: str = "") -> Iterator[tuple[str, Config]]:
    """The schema of every number, by key."""
    if isinstance(node, dict):
        kinds = node.get("type")
        if kinds in ("integer", "number") or (isinstance(kinds, list) and {"integer", "number"} & set(kinds)):
            yield key, node
        for name, value in node.items():
            yield from numbers(value, f"{key}.{name}")


def test_every_number_has_a_largest_one() -> None:
    """Absurd numbers are refused, except for sizes, counts of clips and fractions, which are checked elsewhere."""
    free = {key for key, node in numbers(SCHEMA_TREE) if "maximum" not in node and "exclusiveMaximum" not in node}
    assert {key.split(".")[-1] for key in free} <= {"size", "validation", "evaluation", "count", "sigma_max"}, free


CHAINED = {"base_model": "demo", "corpus": "demo", "steps": 9, "batch_size": 4, "checkpoint_every": 4}


def chained(**runs: dict[str, object]) -> dict[str, Any]:
    return load(DEMO) | {"runs": {name: CHAINED | run for name, run in runs.items()}}


@pytest.mark.parametrize(
    "given", ["a", "a@step-00000004", "a/step-00000008", "a@step-00000009", str(DEMO), str(DEMO.parent)]
)
def test_a_run_starts_from_a_run_a_leg_or_a_file(given: str) -> None:
    assert resolve(chained(a={}, b={"init_from": given}), [DEMO])["runs"]["b"]["init_from"] == given


@pytest.mark.parametrize(
    ("runs", "words"),
    [
        ({"a": {}, "b": {"init_from": "c"}}, "'c', which is neither a run of this config (a, b) nor a file or folder"),
        ({"a": {}, "b": {"init_from": "a@step-00000003"}}, "run 'a' has no leg 'step-00000003'; its legs end at every 4 steps"),
        ({"a": {}, "b": {"init_from": "a@step-00000000"}}, "run 'a' has no leg 'step-00000000'"),
        ({"a": {}, "b": {"init_from": "a@step-00000012"}}, "run 'a' has no leg 'step-00000012'"),
        ({"a": {}, "b": {"init_from": "a@epoch-00000004"}}, "run 'a' has no leg 'epoch-00000004'"),
        ({"a": {}, "b": {"init_from": "b"}}, "in a circle: b from b"),
        ({"a": {"init_from": "b@step-00000004"}, "b": {"init_from": "a"}}, "in a circle: a from b from a"),
        ({"a": {}, "b": {"init_from": "a", "init_weights": "online"}}, "exports one set of weights"),
    ],
)  # fmt: skip
def test_a_run_that_cannot_start_is_one_line(runs: dict[str, dict[str, object]], words: str) -> None:
    found = complaint(chained(**runs))
    assert found.startswith("config: runs.") and ".init_from: " in found and words in found, found


def test_a_run_starts_from_one_of_its_base_model() -> None:
    config = chained(a={}, b={"base_model": "other", "init_from": "a"})
    config["base_models"] = config["base_models"] | {"other": config["base_models"]["demo"]}
    assert "run 'a' is of base model 'demo', this one of 'other'" in complaint(config)


def with_base(path: str, **more: object) -> dict[str, Any]:
    """Run `b` of a base model in a folder, beside run `a` of the demo's."""
    config = chained(a={}, b={"base_model": "mine"})
    return config | {"base_models": config["base_models"] | {"mine": {"path": path, "sampling": {"steps": 2}, **more}}}


def test_a_run_is_a_base_model_before_it_is_trained() -> None:
    for path in ("results/checkpoints/a", "./results/checkpoints/a/", "results/checkpoints/a/step-00000004"):
        resolve(with_base(path, text_encoder={"path": str(DEMO.parent)}), [DEMO])
    assert "found 'results/checkpoints/c', which is no folder" in complaint(with_base("results/checkpoints/c"))
    assert "in a circle: b from b" in complaint(with_base("results/checkpoints/b"))
    encoder = {"text_encoder": {"path": "nowhere"}}
    assert "text_encoder.path: found 'nowhere', which is no folder" in complaint(with_base(str(DEMO.parent), **encoder))


def test_a_local_text_encoder_is_for_a_local_model() -> None:
    config = chained(a={}, b={"base_model": "hub"})
    hub = {"repo": "a/b", "revision": "0" * 40, "text_encoder": {"path": str(DEMO.parent)}}
    found = complaint(config | {"base_models": config["base_models"] | {"hub": hub}})
    assert "base_models.hub.text_encoder.path: is for a model in a folder; give repo and revision" in found


SWEEP = {"learning_rate": [1e-5, 5e-5], "method": "lora", "adapter": {"rank": [8, 16], "target_modules": ["to_qkv"]}}


def test_a_run_with_lists_is_a_family_of_runs() -> None:
    """What takes a list anyway, as target_modules does, is no sweep."""
    runs = resolve(chained(a=SWEEP, b={"seed": [0, 1]}, c={}), [DEMO])["runs"]
    assert list(runs) == [
        "a--learning_rate-1e-05--rank-8",
        "a--learning_rate-1e-05--rank-16",
        "a--learning_rate-5e-05--rank-8",
        "a--learning_rate-5e-05--rank-16",
        "b--seed-0",
        "b--seed-1",
        "c",
    ]
    one = runs["a--learning_rate-5e-05--rank-8"]
    assert (one["learning_rate"], one["adapter"]["rank"], one["adapter"]["target_modules"]) == (5e-5, 8, ["to_qkv"])
    assert [runs[name]["seed"] for name in ("b--seed-0", "b--seed-1")] == [0, 1]
    assert resolve(chained(a={"init_from": "b--seed-1"}, b={"seed": [0, 1]}), [DEMO])["runs"]["a"]


@pytest.mark.parametrize(
    ("run", "words"),
    [
        ({"seed": []}, "runs.a.seed: found an empty list"),
        ({"seed": [1, 1]}, "runs.a.seed: found a value twice"),
        ({"learning_rate": [1e-5, "high"]}, "runs.a--learning_rate-high.learning_rate: found 'high'"),
        ({"seed": [[1]]}, "runs.a--seed-.1..seed: found [1], array"),
        ({"publish": {"repo": ["a/b", "a/c"]}}, "runs.a.publish.repo: found ['a/b', 'a/c']"),
        ({"captions": ["random", "first"], "method": ["full", "x" * 50]}, "letters; at most 64"),
    ],
)  # fmt: skip
def test_a_sweep_that_cannot_be_is_one_line(run: dict[str, object], words: str) -> None:
    assert words in complaint(chained(a=run, b={}))


def test_a_family_may_not_take_the_name_of_a_run() -> None:
    assert "'a--seed-1' is there twice" in complaint(chained(**{"a--seed-1": {}, "a": {"seed": [1, 2]}}))
