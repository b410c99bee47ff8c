"""The texts that each clip of a corpus may be trained with: its captions, or what templates or a hook make of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sao.base.command import progress

import pandas as pd

from sao.base.placeholders import is_placeholder
from sao.base.tables import caption_columns, records
from sao.data.findings import Findings
from sao.data.hooks import load_hook
from sao.data.hooks import texts_of as hooked
from sao.data.templates import FIELD, Prompts, Source, Weighted, columns_of, texts_of

Texts = dict[str, list[Weighted]]  # by clip_id
Maker = Callable[[dict[str, Any], list[str]], list[Weighted]]


def texts_by_clip(tables: dict[str, pd.DataFrame], prompts: Prompts | None, findings: Findings) -> Texts:
    """The texts of every clip of the three sides. A clip of which nothing can be made is found, and has none."""
    make = maker(prompts)
    texts: Texts = {}
    for table in tables.values():
        columns = caption_columns(table)
        rows = zip(table.itertuples(), records(table), strict=True)
        for row, record in progress(rows, "making prompts", len(table), "clips") if prompts else rows:
            try:
                texts[record["clip_id"]] = make(
                    record, [record[column] for column in columns[: record["caption_count"]]]
                )
            except ValueError as error:
                findings.error("prompt", row, str(error))
                texts[record["clip_id"]] = []
    for column in columns_of(prompts) if prompts and "templates" in prompts else []:
        blank = sum(is_placeholder(cell) for table in tables.values() for cell in table[f"{FIELD}{column}"])
        if blank:
            findings.remark(
                "prompt", f"{column!r} is blank for {blank} of {len(texts)} clips: templates with it are passed over"
            )
    return texts


def maker(prompts: Prompts | None) -> Maker:
    """What makes the texts of a clip from its row and its captions. It raises ValueError, with the reason, if it cannot."""
    if prompts is None:
        return lambda row, captions: [(caption, 1.0) for caption in captions]
    if "templates" in prompts:
        return lambda row, captions: templated(Source.of(row, captions), prompts)
    hook = load_hook(Path(prompts["hook"]))

    def by_hook(row: dict[str, Any], captions: list[str]) -> list[Weighted]:
        source = Source.of(row, captions)
        return hooked(hook, source, told(source, row), prompts["variants"])

    return by_hook


def templated(source: Source, prompts: Prompts) -> list[Weighted]:
    """The texts of a clip by templates. Raises ValueError if every template has a field that is blank for it."""
    if texts := texts_of(source, prompts):
        return texts
    blank = ", ".join(sorted(column for column, cell in source.fields.items() if not cell)) or "file, folder or caption"
    raise ValueError(
        f"every template has a field that is blank for it ({blank}): fill it in, or add a template without it"
    )


def told(source: Source, row: dict[str, Any]) -> dict[str, Any]:
    """What a hook is told of a clip: what stable-audio-tools tells it of an audio file, and captions and columns."""
    facts = {"path": row["path"], "relpath": row["file_name"], "seconds_start": 0, "seconds_total": row["seconds"]}
    return dict(source.fields) | facts | {"clip_id": source.clip_id, "captions": list(source.captions)}
