"""The configuration: checked against the schema, defaults filled in, references resolved. The corpora are left to `data`."""

from __future__ import annotations

import copy
import difflib
import functools
import math
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn, cast

from sao.base.command import InputError

import jsonschema
import yaml

from sao.base.files import bad_byte, local_path
from sao.config.embeddings import embedding_folder, embedding_name
from sao.config.mixtures import corpus_entry, is_named, name_corpora
from sao.config.sweeps import expanded

SCHEMA = Path(__file__).resolve().parents[3] / "schemas" / "config.schema.yaml"
ROLES = ("train", "validation", "evaluation")
SECTIONS = ("corpora", "base_models", "runs")  # whose entries have names
# Names that the graph gives to files and folders beside those that are called by a name of the config; in lower case.
TAKEN = {
    "runs": {
        "base": "the untouched base model",
        "summary": "the summary of the evaluation",
        "votes": "the votes of blind tests in results/evaluation",
        "reference": "the recordings in results/samples",
        "source": "the sounds that prompts start from in results/samples",
        "spectrograms": "the spectrograms in results/samples",
        "curves": "the curves in results/samples",
        "corpora": "the reports on the corpora in results/samples",
    },
    "splits": {"dropped": "the list of clips that are left out"},
}
# A name must not end in one of these, because `a.csv` lies beside the folder `a`.
ENDS = (".csv", ".html", ".json", ".log", ".npz", ".seen", ".sha256", ".svg", ".tsv", ".txt")
Config = dict[str, Any]
SPLIT = ("32-true", "bf16-mixed")  # precisions of a training whose weights are split
MOST_LEGS = 5000  # per training; a dry run was tested with as many, and took 38 s


def _whole_pattern(_: Any, pattern: str, text: Any, __: Any) -> Iterator[jsonschema.ValidationError]:
    """JSON Schema's `pattern`. Unlike Python's `$`, its `$` does not match before a final line break."""
    if isinstance(text, str) and not re.fullmatch(pattern, text):
        yield jsonschema.ValidationError(f"{text!r} does not match {pattern!r}")


# JSON Schema accepts 3.0 as an integer and NaN as a number, but range() and a learning rate do not.
Validator = jsonschema.validators.extend(  # type: ignore[no-untyped-call]
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


def check_config(config: Config, files: list[Path]) -> Config:
    """The config with every default filled in and `null` entries left out; all is checked but the corpora.

    `sao.data.corpora.resolve` checks those too. `files` are the config files that were merged into `config`, in order; an
    error names the last one that has the key. Raises InputError with one line for the first thing wrong.
    """
    for path in files:
        check_file(path)
    schema = read_schema()
    config = copy.deepcopy(config)
    for section in SECTIONS:
        if isinstance(config.get(section), dict):
            config[section] = {name: entry for name, entry in config[section].items() if entry is not None}
    if isinstance(config.get("runs"), dict):
        keys = schema["$defs"]["run"]["properties"]
        config["runs"] = expanded(config["runs"], {key: deref(entry, schema) for key, entry in keys.items()})
    _check(config, schema, files)
    for section in SECTIONS:
        check_names([section], config[section], files)
    fill_defaults(config, schema, schema)
    clips = {split: count for split, count in config["render"]["clips"].items() if count is not None}
    prompts = config["render"]["prompts"]
    if not clips and prompts is None:
        raise InputError(f"config: render.clips: names no split to render ({place_of(['render', 'clips'], files)})")
    if prompts is not None and not Path(prompts).is_file():
        where = place_of(["render", "prompts"], files)
        raise InputError(f"config: render.prompts: the file {prompts!r} does not exist ({where})")
    config["render"]["clips"] = clips
    _check_references(config, files)
    name_corpora(config, place_of, files)
    for run in config["runs"].values():
        if run["adapter"]["base_precision"] is None:
            run["adapter"]["base_precision"] = "bf16" if run["precision"] == "bf16-mixed" else "fp32"
    return config


@functools.cache
def read_schema() -> Config:
    """The schema of the config. Not to be changed: it is read once."""
    # The C loader: PyYAML's own takes a tenth of a second more, at every start of Snakemake.
    return cast(Config, yaml.load(SCHEMA.read_text(encoding="utf-8"), yaml.CSafeLoader))


def check_file(path: Path) -> None:
    """Raise InputError on faults that Snakemake ignores or reports badly.

    These are a duplicate key (the last would win), an alias inside itself, and text that is not UTF-8.
    """
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        line, byte = bad_byte(error)
        raise InputError(f"config: {byte} is not UTF-8: save the file as UTF-8 ({path}, line {line})") from None
    try:
        root = yaml.compose(text, yaml.CSafeLoader)
    except yaml.YAMLError:
        return  # JSON with tabs, or an error that Snakemake itself reports
    try:
        _check_node(root, [], path, [], set())
    except RecursionError:
        raise InputError(f"config: is nested too deeply ({path})") from None


def _check_node(node: yaml.Node | None, key: list[str], path: Path, above: list[yaml.Node], done: set[int]) -> None:
    """Check a node and its children. `above` are its ancestors; `done` has the `id` of every checked node."""
    if node in above:
        where = f"{path}, line {node.start_mark.line + 1}"
        raise InputError(f"config: {'.'.join(key)}: is an alias of a section around it: write it out ({where})")
    if id(node) in done:
        return
    if isinstance(node, yaml.MappingNode):
        seen: dict[tuple[str, str], yaml.Node] = {}
        for name, value in node.value:
            # There may be several `<<`. The schema refuses keys that are not text.
            if isinstance(name, yaml.ScalarNode):
                below = [*key, name.value]
                first = seen.setdefault((name.tag, name.value), name)
                if first is not name and not name.tag.endswith(":merge"):
                    lines = f"lines {first.start_mark.line + 1} and {name.start_mark.line + 1}"
                    raise InputError(
                        f"config: {'.'.join(below)}: appears twice, and only the last would count: keep one "
                        f"({path}, {lines})"
                    )
                _check_node(value, below, path, [*above, node], done)
    elif isinstance(node, yaml.SequenceNode):
        for n, value in enumerate(node.value):
            _check_node(value, [*key, str(n)], path, [*above, node], done)
    done.add(id(node))


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
    """The schema that `$ref` points to. Keys beside the reference take precedence."""
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
        raise InputError(f"config: {'.'.join(map(str, key)) or 'the whole'}: {message} ({place_of(key, files)})")


def _explain(error: jsonschema.ValidationError) -> tuple[list[Any], str]:
    """The key of an error, and a text with the value that is there and the values that are allowed."""
    key, found, wanted = list(error.absolute_path), cast(Any, error.instance), cast(Any, error.validator_value)
    schema = cast(Config, error.schema)
    if error.validator == "additionalProperties":
        allowed = sorted(schema.get("properties", {}))
        unknown = next(str(k) for k in found if k not in allowed)
        near = difflib.get_close_matches(unknown, allowed, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        return [*key, unknown], f"unknown key; {hint}allowed here: {', '.join(allowed)}"
    if error.validator == "required":
        missing = next(k for k in wanted if k not in found)
        return [*key, missing], "missing; it has no default"
    if error.validator == "oneOf" and isinstance(found, dict) and all("required" in o for o in wanted):
        options = [" + ".join(option["required"]) for option in wanted]
        return key, f"has {', '.join(sorted(map(str, found))) or 'nothing'}; needs either {', or '.join(options)}"
    if error.validator == "oneOf" and isinstance(found, dict) and (nearest := _nearest(error)):
        return _explain(nearest)
    if error.validator == "oneOf":
        return key, f"found {found!r}; allowed: {schema['description']}"
    if error.validator == "enum":
        return key, f"found {found!r}; allowed: {', '.join(map(str, wanted))}"
    if error.validator == "type":
        kinds = wanted if isinstance(wanted, list) else [wanted]
        return key, f"found {found!r}, {_type_name(found)}; allowed: {' or '.join(kinds)}"
    if error.validator == "maxLength" and "propertyNames" in error.absolute_schema_path:
        return [*key, found], f"a name of {len(found)} letters; at most {wanted} are allowed"
    if error.validator == "pattern":
        if "propertyNames" in error.absolute_schema_path:
            return [*key, found], f"not a usable name (it becomes a folder); allowed: {wanted}"
        return key, f"found {found!r}; allowed: text that matches {wanted}"
    if error.validator in ("minimum", "exclusiveMinimum", "maximum") and "maximum" in schema:
        least = schema.get("minimum", schema.get("exclusiveMinimum"))
        above = "" if "minimum" in schema else "more than "
        return key, f"{error.message}; allowed: {above}{least} to {schema['maximum']}"
    return key, error.message


def _nearest(error: jsonschema.ValidationError) -> jsonschema.ValidationError | None:
    """What is wrong with a section that has the keys of one alternative; None if it has the keys of none."""
    options: dict[Any, list[jsonschema.ValidationError]] = {}
    for each in error.context or ():
        options.setdefault(each.relative_schema_path[0], []).append(each)
    kept = [each for each in options.values() if all(e.relative_path or e.validator == "oneOf" for e in each)]
    return min(kept[0], key=lambda e: [str(part) for part in e.path]) if len(kept) == 1 else None


def _type_name(value: Any) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return "not finite"
    names = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    return names.get(type(value), "null" if value is None else type(value).__name__)


def alike(name: str) -> str:
    """One spelling for all names that a file system may confuse: they differ only in case or Unicode form."""
    return unicodedata.normalize("NFC", name).casefold()


def check_names(section: list[str], names: Iterable[str], files: list[Path]) -> None:
    """Raise InputError on a name that the graph uses itself, or that a file system may confuse with another one."""
    seen: dict[str, str] = {}
    for name in names:
        key = alike(name)
        end = next((end for end in ENDS if key.endswith(end)), None)
        if (other := seen.setdefault(key, name)) != name:
            reason = f"differs from {other!r} only in case, which some file systems ignore"
        elif key in (taken := TAKEN.get(section[-1], {})):
            reason = f"the name {name!r} is taken by {taken[key]}"
        elif section[-1] == "runs" and key.startswith("base--"):
            reason = f"the name {name!r} is taken by an untouched base model"
        elif section[-1] in ("corpora", "base_models") and "--" in name:
            reason = f"the name {name!r} has '--', which joins the names of a base model and a corpus in folder names"
        elif end:
            reason = f"the name {name!r} ends in {end}, as the name of a file of another entry may"
        else:
            continue
        where = [*section, name]
        raise InputError(f"config: {'.'.join(where)}: {reason}; choose another ({place_of(where, files)})")


def _check_references(config: Config, files: list[Path]) -> None:
    def refer(key: list[Any], name: str, allowed: Any, kind: str) -> None:
        if name not in allowed:
            raise InputError(
                f"config: {'.'.join(map(str, key))}: found {name!r}, an unknown {kind}; "
                f"allowed: {', '.join(sorted(allowed)) or 'none is defined'} ({place_of(key, files)})"
            )

    if not config["runs"]:
        raise InputError(f"config: runs: found no run; define at least one ({place_of(['runs'], files)})")
    for name, run in config["runs"].items():
        refer(["runs", name, "base_model"], run["base_model"], config["base_models"], "base model")
        if "corpus" in run and not is_named(run):
            refer(["runs", name, "corpus"], run["corpus"], config["corpora"], "corpus")
        for corpus in run["corpora"] or ():
            refer(["runs", name, "corpora", corpus], corpus, config["corpora"], "corpus")
        _check_run(name, run, config["latents"]["enabled"], files)
        _check_initial(name, config["runs"], files)
    _check_published(config["runs"], files)
    _check_embeddings(config["evaluation"]["embeddings"], files)
    for key, weights in declared_weights(config):
        _check_weights(key, weights, files)
    for name in dict.fromkeys(run["base_model"] for run in config["runs"].values()):
        sampling, key = config["base_models"][name]["sampling"], ["base_models", name, "sampling", "sigma_min"]
        if sampling["sigma_min"] >= sampling["sigma_max"]:
            raise InputError(
                f"config: {'.'.join(key)}: {sampling['sigma_min']} is not below sigma_max, {sampling['sigma_max']}: noise goes "
                f"from sigma_max down to sigma_min; lower it ({place_of(key, files)})"
            )
        entry = config["base_models"][name]
        encoder, key = entry.get("text_encoder", {}), ["base_models", name, "text_encoder", "path"]
        if "repo" in entry and "path" in encoder:
            raise InputError(
                f"config: {'.'.join(key)}: is for a model in a folder; give repo and revision ({place_of(key, files)})"
            )
        if exporting_run(entry.get("path"), config["runs"]) is None:
            _check_folder(["base_models", name, "path"], entry.get("path"), files)
        _check_folder(key, encoder.get("path"), files)
    _check_circles(config, files)


def _check_folder(key: list[Any], folder: str | None, files: list[Path]) -> None:
    if folder is not None and not Path(folder).is_dir():
        raise InputError(f"config: {'.'.join(key)}: found {folder!r}, which is no folder ({place_of(key, files)})")


def _check_run(name: str, run: Config, on_latents: bool, files: list[Path]) -> None:
    """Raise InputError on settings of a run that exclude each other, which the schema cannot express."""
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
        "strategy": (
            run["strategy"] == "fsdp" and (adapts or precision not in SPLIT or bool(run["compile"])),
            f"fsdp is for method full, precision {' or '.join(SPLIT)}, and compile false or null",
        ),
        "phase_flip": (run["phase_flip"] and on_latents, "latents have no polarity; it needs latents.enabled: false"),
    }
    unit = "steps" if "steps" in run else "epochs"
    legs = -(-run[unit] // run["checkpoint_every"])
    wrong["checkpoint_every"] = (
        legs > MOST_LEGS,
        f"{run[unit]} {unit} in legs of {run['checkpoint_every']} are {legs} jobs, and Snakemake can plan {MOST_LEGS}; "
        f"set checkpoint_every to {-(-run[unit] // MOST_LEGS)} or more",
    )
    for key, (is_wrong, message) in wrong.items():
        if is_wrong:
            where = place_of(["runs", name, key], files)
            raise InputError(f"config: runs.{name}.{key}: {message} ({where})")


def initial_run(init_from: str | None, runs: Config) -> tuple[str, str | None] | None:
    """`(run, leg or None)` if `init_from` names a run of the config, as `demo`, `demo@step-00000500` or with a slash."""
    run, _, leg = re.sub("[@/](?=(step|epoch)-[0-9]{8}$)", "\n", init_from or "").partition("\n")
    return (run, leg or None) if run in runs else None


def _check_initial(name: str, runs: Config, files: list[Path]) -> None:
    """Raise InputError unless a run starts from a run or file that there is, of the same base model, and not from itself."""
    run, key = runs[name], ["runs", name, "init_from"]

    def refuse(message: str) -> NoReturn:
        raise InputError(f"config: {'.'.join(key)}: {message} ({place_of(key, files)})")

    if run["init_from"] is None:
        return
    found = initial_run(run["init_from"], runs)
    if found is None:
        if not Path(run["init_from"]).exists():
            refuse(
                f"found {run['init_from']!r}, which is neither a run of this config ({', '.join(runs)}) nor a file or folder"
            )
        return
    other, leg = found
    if runs[other]["base_model"] != run["base_model"]:
        refuse(f"run {other!r} is of base model {runs[other]['base_model']!r}, this one of {run['base_model']!r}")
    if run["init_weights"] == "online":
        refuse(
            "a run of this config exports one set of weights; init_weights: online is for checkpoints that have both"
        )
    unit = "step" if "steps" in runs[other] else "epoch"
    end, every = runs[other][f"{unit}s"], runs[other]["checkpoint_every"]
    at = int(leg.split("-")[1]) if leg else end
    if leg and (not leg.startswith(unit) or at > end or not at or (at % every and at != end)):
        refuse(f"run {other!r} has no leg {leg!r}; its legs end at every {every} {unit}s up to {end}")


def exporting_run(folder: str | None, runs: Config) -> str | None:
    """The run of the config that exports its model, or a leg's, to a folder; None for any other folder."""
    start, _, name = os.path.normpath(folder or "").partition("results/checkpoints/")
    found = initial_run(name, runs) if not start else None
    return found[0] if found else None


def _check_circles(config: Config, files: list[Path]) -> None:
    """Raise InputError if a run starts from itself, by `init_from` or by a base model that a run exports."""
    runs = config["runs"]

    def before(run: str) -> Iterator[tuple[str, list[str]]]:
        """The runs that have to end before this one begins, with the keys that say so."""
        if found := initial_run(runs[run]["init_from"], runs):
            yield found[0], ["runs", run, "init_from"]
        base_model = runs[run]["base_model"]
        if other := exporting_run(config["base_models"][base_model].get("path"), runs):
            yield other, ["base_models", base_model, "path"]

    done: set[str] = set()

    def follow(way: list[str]) -> None:
        for run, key in before(way[-1]):
            if run in way:
                circle = " from ".join([*way[way.index(run) :], run])
                raise InputError(
                    f"config: {'.'.join(key)}: runs start from each other in a circle: {circle} ({place_of(key, files)})"
                )
            if run not in done:
                follow([*way, run])
        done.add(way[-1])

    for run in runs:
        follow([run])


def _check_embeddings(embeddings: list[Any], files: list[Path]) -> None:
    """Raise InputError on two embeddings of one name, because they would share a folder and the names of figures."""
    seen: dict[str, Any] = {}
    for entry in embeddings:
        name = embedding_name(entry)
        if seen.setdefault(alike(embedding_folder(name)), entry) != entry:
            key = ["evaluation", "embeddings"]
            raise InputError(f"config: {'.'.join(key)}: {name!r} is there twice; keep one ({place_of(key, files)})")


def declared_weights(config: Config) -> Iterator[tuple[list[Any], Config]]:
    """Each declared file of weights, after the key that declares it."""
    for number, entry in enumerate(config["evaluation"]["embeddings"]):
        if isinstance(entry, dict) and "weights" in entry:
            yield ["evaluation", "embeddings", number, "weights"], entry["weights"]
    watermark = config["render"]["watermark"]
    for part in ("generator", "detector") if isinstance(watermark, dict) else ():
        yield ["render", "watermark", part], watermark[part]


def local_weights(weights: Config) -> str | None:
    """The path of a file of weights that lies on this machine."""
    url = weights.get("url")
    return weights.get("path") or (str(path) if url and (path := local_path(url)) else None)


def _check_weights(key: list[Any], weights: Config, files: list[Path]) -> None:
    path = local_weights(weights)
    if path is not None and not Path(path).is_file():
        raise InputError(
            f"config: {'.'.join(map(str, key))}: the file {path!r} does not exist ({place_of(key, files)})"
        )


def _check_published(runs: Config, files: list[Path]) -> None:
    """Raise InputError on two runs that publish to one repository, because one would replace the other."""
    seen: dict[str, str] = {}
    for name, run in runs.items():
        repo = run["publish"]["repo"] if run["publish"] else None
        other = seen.setdefault(repo.lower(), name) if repo else name
        if other != name:
            key = ["runs", name, "publish", "repo"]
            raise InputError(
                f"config: {'.'.join(key)}: {repo!r} is that of run {other} too; give each its own ({place_of(key, files)})"
            )


def place_of(key: list[Any], files: list[Path]) -> str:
    """`file, line n` of the deepest part of `key` that a config file contains. The last file is searched first."""
    for depth in range(len(key), 0, -1):
        for path in reversed(files):
            for node_path, line in _lines(yaml.compose(path.read_text(encoding="utf-8"), yaml.CSafeLoader), []):
                if node_path == [str(k) for k in key[:depth]]:
                    return f"{path}, line {line}"
    return ", ".join(map(str, files)) or "--config"


def _lines(node: yaml.Node | None, path: list[str]) -> Iterator[tuple[list[str], int]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            child = [*path, str(key.value)]
            yield child, key.start_mark.line + 1
            yield from _lines(value, child)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            child = [*path, str(index)]
            yield child, value.start_mark.line + 1
            yield from _lines(value, child)


def renders(config: Config) -> dict[str, Config]:
    """The models to render, by the folder of their renders. Base models first.

    Each is `{label, run or None, base_model, corpus, own_window}`. The folder of a base model names model and corpus, so
    different configs can share it. Its label, which is the run's name in `samples.csv`, is `base` if there is only one base
    model. With `own_window` a base model is rendered in its own window instead of the training's.
    """
    pairs = list(dict.fromkeys((run["base_model"], run["corpus"]) for run in config["runs"].values()))
    out = {}
    for base_model, corpus in pairs:
        folder = f"base--{base_model}--{corpus}"
        label = "base" if len(pairs) == 1 else folder
        shorter = corpus_entry(config, corpus)["train_seconds"] is not None
        for own_window in (False, True) if shorter and config["render"]["own_window"] else (False,):
            more = "--own-window" if own_window else ""
            model = {"run": None, "base_model": base_model, "corpus": corpus, "own_window": own_window}
            out[f"{folder}{more}"] = {"label": f"{label}{more}", **model}
    for name, run in config["runs"].items():
        model = {"run": name, "base_model": run["base_model"], "corpus": run["corpus"], "own_window": False}
        out[name] = {"label": name, **model}
    return out
