"""Check the corpora of a config for errors that the schema cannot find, and fill in their three sides."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sao.base.command import InputError

from sao.base.placeholders import is_blank
from sao.config.mixtures import members
from sao.config.resolve import ROLES, Config, check_config, check_names, place_of
from sao.data.cuts import check_cut
from sao.data.formats import FORMATS
from sao.data.formats.base import Problem, Sides, first
from sao.data.templates import OWN, fields_of

# The values of the metadata column that name the sides, if the config does not list any.
COLUMN_SIDES: Sides = {
    "train": ["train"],
    "validation": ["validation", "val", "dev"],
    "evaluation": ["evaluation", "test"],
}


def resolve(config: Config, files: list[Path]) -> Config:
    """Check a config, fill in every default and leave out `null` entries.

    `files` are the config files that were merged into `config`, in order. An error names the last one that has the key.
    Raises InputError with one line on the first error.
    """
    config = check_config(config, files)
    for name, corpus in config["corpora"].items():
        _fill_sides(corpus)
        _fill_templates(corpus)
        _refuse(name, _problems(corpus), files)
        check_names(["corpora", name, "splits"], corpus.get("splits") or published_splits(corpus), files)
    for name in used_corpora(config):
        corpus = config["corpora"][name]
        _refuse(name, FORMATS[corpus["format"]].missing(corpus), files)
    _check_rendered(config, files)
    return config


def _check_rendered(config: Config, files: list[Path]) -> None:
    """Raise InputError if templates are to be rendered, and there are none, or another caption than theirs is."""
    render = config["render"]
    without = all(config["corpora"][name]["prompts"] is None for name in used_corpora(config))
    problem = "no run's corpus has prompts; set them, or leave templates false" if without else ""
    if not problem and render["caption"] != 1:
        problem = f"renders the first text of the templates, so caption: {render['caption']} has no effect; remove one of them"
    if render["templates"] and problem:
        raise InputError(f"config: render.templates: {problem} ({place_of(['render', 'templates'], files)})")


def used_corpora(config: Config) -> list[str]:
    """The corpora that the runs train on, those of their mixtures among them."""
    return list(dict.fromkeys(name for run in config["runs"].values() for name in members(run)))


def published_splits(corpus: Config) -> list[str]:
    """The published splits that are used, each with a manifest of its own."""
    return FORMATS[corpus["format"]].splits(corpus)


def _refuse(name: str, problems: Iterator[Problem], files: list[Path]) -> None:
    """Raise InputError on the first problem of a corpus."""
    if problem := first(problems):
        key = ["corpora", name, *problem[0]]
        raise InputError(f"config: {'.'.join(map(str, key))}: {problem[1]} ({place_of(key, files)})")


def _fill_sides(corpus: Config) -> None:
    by_column = corpus["split"]["method"] == "column"
    sides = COLUMN_SIDES if by_column else FORMATS[corpus["format"]].sides(corpus)
    for role in ROLES:
        corpus.setdefault(role, list(sides[role]))


def _fill_templates(corpus: Config) -> None:
    """Give every template a weight."""
    if (prompts := corpus["prompts"]) and "templates" in prompts:
        entries = ({"text": entry} if isinstance(entry, str) else entry for entry in prompts["templates"])
        prompts["templates"] = [{"weight": 1} | entry for entry in entries]


def _problems(corpus: Config) -> Iterator[Problem]:
    form, method = corpus["format"], corpus["split"]["method"]
    needed = FORMATS[form].key
    if needed not in corpus:
        yield [needed], f"missing; format {form} needs it"
        return
    own = {needed, *FORMATS[form].more}
    for foreign in sorted({key for other in FORMATS.values() for key in (other.key, *other.more)} - own):
        if foreign in corpus:
            yield [foreign], f"format {form} does not use it; remove it"
    for role in ROLES:
        if not corpus[role] and (role == "train" or method != "fraction"):
            yield [role], f"missing; split.method {method} needs it"
    if corpus["tags"] and not FORMATS[form].in_place:
        yield ["tags"], f"format {form} does not use it; remove it"
    yield from FORMATS[form].problems(corpus)
    yield from _shared(corpus)
    yield from _shares(corpus)
    yield from check_cut(corpus)
    yield from _prompts(corpus["prompts"])


def _prompts(prompts: Config | None) -> Iterator[Problem]:
    """Problems of templates and of a hook."""
    if prompts is None:
        return
    if ("hook" in prompts) == ("templates" in prompts):
        yield ["prompts"], "needs either templates or a hook"
        return
    if "hook" in prompts:
        if prompts["tags"]:
            yield ["prompts", "tags"], "is for templates; a hook makes its texts from the columns itself"
        if not Path(prompts["hook"]).is_file():
            yield ["prompts", "hook"], f"the file {prompts['hook']!r} does not exist"
        return
    names: list[str] = []
    for number, entry in enumerate(prompts["templates"]):
        key: list[Any] = ["prompts", "templates", number]
        try:
            fields = fields_of(entry["text"])
        except ValueError as error:
            yield key, f"found {entry['text']!r}: {error}"
            continue
        if not fields and is_blank(entry["text"]):
            yield key, f"found {entry['text']!r}, which says nothing"
        names += fields
    for name in prompts["tags"]:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            yield ["prompts", "tags", name], f"no template names it; {hint}they name {', '.join(names) or 'no column'}"
        elif name in OWN:
            yield ["prompts", "tags", name], "is no column of tags"
    if prompts["columns"]:
        yield ["prompts", "columns"], "is for a hook; templates name their columns themselves"


def _shared(corpus: Config) -> Iterator[Problem]:
    """Problems with splits that two sides name."""
    used: dict[str, str] = {}
    for role in ROLES:
        for split in corpus[role]:
            if split in used:
                yield [role], f"{split!r} is already used for {used[split]}: its clips would leak; name each once"
            used[split] = role


def _shares(corpus: Config) -> Iterator[Problem]:
    """Problems with fractions that leave a side without a clip."""
    drawn = {role: corpus["split"][role] for role in ROLES[1:] if not corpus[role]}
    for role, share in drawn.items():
        if share == 0:
            yield ["split", role], f"0 leaves no clip for it; set a share, or name the split as `{role}`"
    if sum(drawn.values()) >= 1:
        yield ["split"], "the fractions leave no clip to train on; they must sum to less than 1"
