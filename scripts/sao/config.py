"""The configuration: checked against the schema, defaults filled in, references resolved."""

from __future__ import annotations

import copy
import difflib
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from .command import InputError

SCHEMA = Path(__file__).resolve().parents[2] / "schemas" / "config.schema.yaml"
ROLES = ("train", "validation", "evaluation")
WHOLE = "all"  # the one published split of an audiofolder that is not split by its top folders
SECTIONS = ("corpora", "base_models", "runs")  # whose entries have names
Config = dict[str, Any]
MOST_LEGS = 5000  # of a training: as many as a dry run was tried with, which took 38 s


def _whole_pattern(_: Any, pattern: str, text: Any, __: Any) -> Iterator[jsonschema.ValidationError]:
    """JSON Schema's `pattern`, whose `$` does not match before a last line break."""
    if isinstance(text, str) and not re.fullmatch(pattern, text):
        yield jsonschema.ValidationError(f"{text!r} does not match {pattern!r}")


# JSON Schema takes 3.0 for an integer and NaN for a number; range() and a learning rate do not.
Validator = jsonschema.validators.extend(
    jsonschema.Draft202012Validator,
    {"pattern": _whole_pattern},
    type_checker=jsonschema.Draft202012Validator.TYPE_CHECKER.redefine_many(
        {
            "integer": lambda _, value: isinstance(value, int) and not isinstance(value, bool),
            "number": lambda _, value: (
                isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            ),
        }
    ),
)


def resolve(config: Config, files: list[Path]) -> Config:
    """The checked config with every default filled in and `null` entries left out.

    `files` are the config files that were merged into `config`, in order; an error names the last one that has the
    key. Raises InputError with one line for the first thing wrong.
    """
    # PyYAML's own loader takes a tenth of a second for it, at every start of Snakemake.
    schema = yaml.load(SCHEMA.read_text(encoding="utf-8"), yaml.CSafeLoader)
    config = copy.deepcopy(config)
    for section in SECTIONS:
        if isinstance(config.get(section), dict):
            config[section] = {name: entry for name, entry in config[section].items() if entry is not None}
    _check(config, schema, files)
    fill_defaults(config, schema, schema)
    clips = {split: count for split, count in config["render"]["clips"].items() if count is not None}
    prompts = config["render"]["prompts"]
    if not clips and prompts is None:
        raise InputError(f"config: render.clips: names no split to render ({_where(['render', 'clips'], files)})")
    if prompts is not None and not Path(prompts).is_file():
        where = _where(["render", "prompts"], files)
        raise InputError(f"config: render.prompts: found {prompts!r}, which is no file ({where})")
    config["render"]["clips"] = clips
    _check_references(config, files)
    return config


def fill_defaults(value: Any, schema: Config, root: Config) -> None:
    """Write the schema's defaults into `value`, in place, at every depth."""
    schema = deref(schema, root)
    if not isinstance(value, dict):
        if isinstance(value, list) and "items" in schema:
            for item in value:
                fill_defaults(item, schema["items"], root)
        return
    for key, sub in schema.get("properties", {}).items():
        if key not in value and "default" in sub:
            value[key] = copy.deepcopy(sub["default"])
        if key in value:
            fill_defaults(value[key], sub, root)
    if isinstance(schema.get("additionalProperties"), dict):
        for entry in value.values():
            fill_defaults(entry, schema["additionalProperties"], root)


def deref(schema: Config, root: Config) -> Config:
    """The schema with its `$ref` followed; keys beside the reference win."""
    if "$ref" not in schema:
        return schema
    target: Any = root
    for part in schema["$ref"].removeprefix("#/").split("/"):
        target = target[part]
    return deref({**target, **{k: v for k, v in schema.items() if k != "$ref"}}, root)


def _check(config: Config, schema: Config, files: list[Path]) -> None:
    errors = sorted(Validator(schema).iter_errors(config), key=lambda e: ([str(p) for p in e.path], e.message))
    if errors:
        key, message = _explain(errors[0])
        raise InputError(f"config: {'.'.join(map(str, key)) or 'the whole'}: {message} ({_where(key, files)})")


def _explain(error: jsonschema.ValidationError) -> tuple[list[Any], str]:
    """`(key, what was found and what is allowed)` for one error."""
    key, found = list(error.absolute_path), error.instance
    if error.validator == "additionalProperties":
        allowed = sorted(error.schema.get("properties", {}))
        unknown = next(str(k) for k in found if k not in allowed)
        near = difflib.get_close_matches(unknown, allowed, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        return [*key, unknown], f"unknown key; {hint}allowed here: {', '.join(allowed)}"
    if error.validator == "required":
        missing = next(k for k in error.validator_value if k not in found)
        return [*key, missing], "missing; it has no default"
    if error.validator == "oneOf" and isinstance(found, dict) and all("required" in o for o in error.validator_value):
        options = [" + ".join(option["required"]) for option in error.validator_value]
        return key, f"has {', '.join(sorted(map(str, found))) or 'nothing'}; needs either {', or '.join(options)}"
    if error.validator == "oneOf":
        return key, f"found {found!r}; allowed: {error.schema['description']}"
    if error.validator == "enum":
        return key, f"found {found!r}; allowed: {', '.join(map(str, error.validator_value))}"
    if error.validator == "type":
        wanted = error.validator_value if isinstance(error.validator_value, list) else [error.validator_value]
        return key, f"found {found!r}, {_type_name(found)}; allowed: {' or '.join(wanted)}"
    if error.validator == "not":
        model = "the summary of the evaluation" if found == "summary" else "the untouched base model"
        taken = "the list of left out clips" if "splits" in key else model
        return [*key, found], f"the name {found!r} is taken by {taken}; choose another"
    if error.validator == "pattern":
        if "propertyNames" in error.absolute_schema_path:
            return [*key, found], f"not a usable name (it becomes a folder); allowed: {error.validator_value}"
        return key, f"found {found!r}; allowed: text that matches {error.validator_value}"
    if error.validator in ("minimum", "exclusiveMinimum", "maximum") and "maximum" in error.schema:
        least = error.schema.get("minimum", error.schema.get("exclusiveMinimum"))
        above = "" if "minimum" in error.schema else "more than "
        return key, f"{error.message}; allowed: {above}{least} to {error.schema['maximum']}"
    return key, error.message


def _type_name(value: Any) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return "not finite"
    names = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    return names.get(type(value), "null" if value is None else type(value).__name__)


def _check_references(config: Config, files: list[Path]) -> None:
    def refer(key: list[Any], found: str, allowed: Any, what: str) -> None:
        if found not in allowed:
            raise InputError(
                f"config: {'.'.join(map(str, key))}: found {found!r}, an unknown {what}; "
                f"allowed: {', '.join(sorted(allowed)) or 'none is defined'} ({_where(key, files)})"
            )

    if not config["runs"]:
        raise InputError(f"config: runs: found no run; define at least one ({_where(['runs'], files)})")
    for name, run in config["runs"].items():
        refer(["runs", name, "base_model"], run["base_model"], config["base_models"], "base model")
        refer(["runs", name, "corpus"], run["corpus"], config["corpora"], "corpus")
        _check_run(name, run, config["latents"]["enabled"], files)
    _check_published(config["runs"], files)
    for name, corpus in config["corpora"].items():
        _check_corpus(name, corpus, files, refer)
    for name in dict.fromkeys(run["corpus"] for run in config["runs"].values()):
        _check_folder(["corpora", name, "path"], config["corpora"][name].get("path"), files)
        _check_top_folders(name, config["corpora"][name], files)
    for name in dict.fromkeys(run["base_model"] for run in config["runs"].values()):
        sampling, key = config["base_models"][name]["sampling"], ["base_models", name, "sampling", "sigma_min"]
        if sampling["sigma_min"] >= sampling["sigma_max"]:
            raise InputError(
                f"config: {'.'.join(key)}: {sampling['sigma_min']} is not below sigma_max, {sampling['sigma_max']}: noise goes "
                f"from sigma_max down to sigma_min; lower it ({_where(key, files)})"
            )
        _check_folder(["base_models", name, "path"], config["base_models"][name].get("path"), files)


def _check_folder(key: list[Any], folder: str | None, files: list[Path]) -> None:
    if folder is not None and not Path(folder).is_dir():
        raise InputError(f"config: {'.'.join(key)}: found {folder!r}, which is no folder ({_where(key, files)})")


def _check_top_folders(name: str, corpus: Config, files: list[Path]) -> None:
    """Of an audiofolder that is split by its top folders."""
    if "path" not in corpus or corpus["split"]["method"] == "column":
        return
    for role in ROLES:
        for split in corpus[role]:
            if split != WHOLE and not Path(corpus["path"], split).is_dir():
                key = ["corpora", name, role]
                raise InputError(
                    f"config: {'.'.join(key)}: names {split!r}, which is no folder in {corpus['path']} "
                    f"({_where(key, files)})"
                )


def _check_run(name: str, run: Config, on_latents: bool, files: list[Path]) -> None:
    """What the schema cannot say of a run: settings that exclude each other."""
    adapts, precision = run["method"] != "full", run["precision"]
    wrong = {
        "ema": (precision == "bf16-true" and run["ema"], "a moving average in bfloat16 does not move; set it to false"),
        "precision": (
            precision == "bf16-true" and adapts,
            f"bf16-true is for method full; for {run['method']} set bf16-mixed, and adapter.base_precision to bf16",
        ),
        "adapter": (
            adapts and run["adapter"]["base_precision"] == "bf16" and precision != "bf16-mixed",
            f"base_precision bf16 needs precision bf16-mixed, not {precision}",
        ),
        "phase_flip": (run["phase_flip"] and on_latents, "latents have no polarity; it needs latents.enabled: false"),
    }
    unit = "steps" if "steps" in run else "epochs"
    legs = -(-run[unit] // run["checkpoint_every"])
    wrong["checkpoint_every"] = (
        legs > MOST_LEGS,
        f"{run[unit]} {unit} in legs of {run['checkpoint_every']} are {legs} jobs, more than Snakemake can plan, "
        f"{MOST_LEGS}; set checkpoint_every to {-(-run[unit] // MOST_LEGS)} or more",
    )
    for key, (is_wrong, message) in wrong.items():
        if is_wrong:
            where = _where(["runs", name, key], files)
            raise InputError(f"config: runs.{name}.{key}: {message} ({where})")


def _check_published(runs: Config, files: list[Path]) -> None:
    """No repository may be that of two runs: one would replace the other."""
    seen: dict[str, str] = {}
    for name, run in runs.items():
        repo = run["publish"]["repo"] if run["publish"] else None
        other = seen.setdefault(repo.lower(), name) if repo else name
        if other != name:
            key = ["runs", name, "publish", "repo"]
            raise InputError(
                f"config: {'.'.join(key)}: {repo!r} is that of run {other} too; give each its own ({_where(key, files)})"
            )


def _check_corpus(name: str, corpus: Config, files: list[Path], refer: Callable[..., None]) -> None:
    """What the schema cannot say of a corpus; fills in the lists of its three sides."""
    here = ["corpora", name]

    def wrong(key: list[Any], message: str) -> InputError:
        return InputError(f"config: {'.'.join(map(str, here + key))}: {message} ({_where(here + key, files)})")

    form, method = corpus["format"], corpus["split"]["method"]
    needed, foreign = ("splits", "path") if form == "clotho" else ("path", "splits")
    if needed not in corpus:
        raise wrong([needed], f"missing; format {form} needs it")
    if foreign in corpus:
        raise wrong([foreign], f"format {form} does not use it; remove it")
    defaults: dict[str, list[str]] = {role: [] for role in ROLES}
    if method == "column":
        defaults = {
            "train": ["train"],
            "validation": ["validation", "val", "dev"],
            "evaluation": ["evaluation", "test"],
        }
    elif form == "audiofolder":
        whole = method == "fraction" and not any(role in corpus for role in ROLES)
        defaults = {"train": [WHOLE] if whole else ["train"], "validation": [], "evaluation": []}
        if method == "official":
            defaults |= {"validation": ["validation"], "evaluation": ["test"]}
    used: dict[str, str] = {}
    for role in ROLES:
        corpus.setdefault(role, defaults[role])
        if not corpus[role] and (role == "train" or method != "fraction"):
            raise wrong([role], f"missing; split.method {method} needs it")
        for split in corpus[role]:
            if form == "clotho" and method != "column":
                refer([*here, role], split, corpus["splits"], "split")
            if form == "audiofolder" and method != "column":
                if not re.fullmatch(r"[^/.{}][^/{}]*", split):
                    raise wrong([role], f"{split!r} is not the name of a top folder")
                if split == "dropped" or (split == WHOLE and method == "official"):
                    raise wrong([role], f"the name {split!r} is taken; call the folder something else")
            if split in used:
                raise wrong(
                    [role], f"{split!r} is already used for {used[split]}: its clips would leak; name each once"
                )
            used[split] = role
    drawn = {role: corpus["split"][role] for role in ROLES[1:] if not corpus[role]}
    if none := [role for role, share in drawn.items() if share == 0]:
        raise wrong(["split", none[0]], f"0 leaves no clip for it; set a share, or name the split as `{none[0]}`")
    if sum(drawn.values()) >= 1:
        raise wrong(["split"], "the fractions leave no clip to train on; they must sum to less than 1")
    seen: dict[str, str] = {}
    for split, entry in corpus.get("splits", {}).items():
        for file in [*entry["archives"], *entry["captions"], *entry["metadata"]]:
            base = file_name(file["url"])
            if base in ("", ".", "..") or "/" in base or len(base.splitlines()) != 1:
                raise wrong(["splits", split], f"the URL {file['url']!r} ends in no file name")
            if seen.setdefault(base, file["url"]) != file["url"]:
                raise wrong(
                    ["splits", split],
                    f"two files are called {base!r} ({seen[base]} and {file['url']}); rename one",
                )


def file_name(url: str) -> str:
    """The name a download is kept under: the last part of the URL's path, or nothing for no URL."""
    from urllib.parse import unquote, urlsplit

    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    return unquote(Path(parts.path if parts.scheme in ("http", "https", "file") else url).name)


def _where(key: list[Any], files: list[Path]) -> str:
    """`file, line n` of the deepest part of `key` that is written in a config file, the last file first."""
    for depth in range(len(key), 0, -1):
        for path in reversed(files):
            for node_path, line in _lines(yaml.compose(path.read_text(encoding="utf-8")), []):
                if node_path == [str(k) for k in key[:depth]]:
                    return f"{path}, line {line}"
    return ", ".join(map(str, files)) or "--config"


def _lines(node: yaml.Node | None, path: list[str]) -> Iterator[tuple[list[str], int]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = [*path, str(key.value)]
            yield here, key.start_mark.line + 1
            yield from _lines(value, here)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            here = [*path, str(index)]
            yield here, value.start_mark.line + 1
            yield from _lines(value, here)


def published_splits(corpus: Config) -> list[str]:
    """The published splits that are used, each with a manifest of its own, in the order of the three sides."""
    if corpus["split"]["method"] == "column":
        return list(corpus["splits"]) if corpus["format"] == "clotho" else [WHOLE]
    return [split for role in ROLES for split in corpus[role]]


def renders(config: Config) -> dict[str, Config]:
    """What is rendered: `{folder: {label, run or None, base_model, corpus}}`, base models first.

    The folder of a base model's render names model and corpus, so that configs share it; its label, the run's name
    in `samples.csv`, is `base` wherever there is only one.
    """
    pairs = list(dict.fromkeys((run["base_model"], run["corpus"]) for run in config["runs"].values()))
    out = {}
    for base_model, corpus in pairs:
        folder = f"base--{base_model}--{corpus}"
        label = "base" if len(pairs) == 1 else folder
        out[folder] = {"label": label, "run": None, "base_model": base_model, "corpus": corpus}
    for name, run in config["runs"].items():
        out[name] = {"label": name, "run": name, "base_model": run["base_model"], "corpus": run["corpus"]}
    return out
