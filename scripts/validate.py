"""Check everything about a corpus that would corrupt a training, and warn of what a person should know."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from sao.command import InputError, log, parse, run
from sao.files import write_json
from sao.tables import caption_columns, read_table

ODD_DC_OFFSET = 0.05  # of full scale
CLIPPED_DBFS = -0.01  # a peak at or above this is at full scale


@dataclass
class Findings:
    errors: list[dict[str, str]] = field(default_factory=list)
    warnings: list[dict[str, str]] = field(default_factory=list)

    def error(self, check: str, row: pd.Series, message: str) -> None:
        self.errors.append({"check": check, "clip_id": row.clip_id, "path": row.path, "message": message})

    def warning(self, check: str, row: pd.Series, message: str) -> None:
        self.warnings.append({"check": check, "clip_id": row.clip_id, "path": row.path, "message": message})


def known_sound_id(sound_id: str) -> bool:
    """Freesound's ids are numbers; Clotho writes words where it does not know one."""
    return sound_id.isdigit()


def check_clips(table: pd.DataFrame, silence_dbfs: float, window_seconds: float | None, found: Findings) -> None:
    """What one row alone can tell."""
    captions = caption_columns(table)
    for _, row in table.iterrows():
        if row.problem:
            found.error("audio", row, row.problem)
            continue
        if row.peak_dbfs < silence_dbfs:
            found.error("silent", row, f"is silent: its peak is {row.peak_dbfs} dBFS, below {silence_dbfs} dBFS")
        if window_seconds is not None and row.seconds > window_seconds:
            found.error("duration", row, f"lasts {row.seconds:.2f} s, longer than window_seconds = {window_seconds} s")
        for column in captions:
            if not row[column].strip():
                found.error("caption", row, f"{column} is empty")
        if row.peak_dbfs >= CLIPPED_DBFS:
            found.warning("clipping", row, f"peaks at {row.peak_dbfs} dBFS: probably clipped")
        if row.dc_offset > ODD_DC_OFFSET:
            found.warning("dc_offset", row, f"has a DC offset of {row.dc_offset}")
        if not known_sound_id(row.sound_id):
            found.warning("sound_id", row, f"has no sound_id ({row.sound_id!r}): leaks by recording cannot be seen")


def check_pairs(table: pd.DataFrame, found: Findings) -> None:
    """What only shows between clips: duplicates anywhere, and leaks from one role into another."""
    for _, row in table[table.clip_id.duplicated(keep=False)].iterrows():
        found.error("clip_id", row, f"shares its clip_id {row.clip_id}")
    sound_id = table.sound_id.where(table.sound_id.map(known_sound_id), "")
    for what, key in (("sha256", table.sha256), ("sound_id", sound_id)):
        for value, group in table[key != ""].groupby(key[key != ""], sort=True):
            if len(group) == 1:
                continue
            first, label = group.iloc[0], "audio" if what == "sha256" else f"sound_id {value}"
            for _, row in group.iloc[1:].iterrows():
                if row.role != first.role:
                    found.error(
                        "leak",
                        row,
                        f"({row.role}) has the same {label} as {first.path} ({first.role}): it would leak into training "
                        "or evaluation; remove one",
                    )
                elif what == "sha256":
                    found.warning("duplicate", row, f"has the same audio as {first.path}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--manifest", type=Path, required=True, nargs="+")
    parser.add_argument("--roles", required=True, help="JSON: published split -> train, validation or evaluation")
    parser.add_argument("--silence-dbfs", type=float, required=True)
    parser.add_argument("--window-seconds", type=float)
    parser.add_argument("--output", type=Path, required=True)
    args = parse(parser)

    tables = {path: read_table(path) for path in args.manifest}
    columns = {path: caption_columns(table) for path, table in tables.items()}
    for path, names in columns.items():
        if names != columns[args.manifest[0]]:
            raise InputError(f"{path}: has {len(names)} caption columns, {args.manifest[0]} has another number")
    table = pd.concat(tables.values(), ignore_index=True)
    table["role"] = table.published_split.map(json.loads(args.roles))

    found = Findings()
    check_clips(table, args.silence_dbfs, args.window_seconds, found)
    check_pairs(table, found)
    for finding in found.warnings:
        log.warning("warning: %s %s", finding["path"], finding["message"])
    if found.errors:
        for finding in found.errors[1:]:
            log.error("error: %s %s", finding["path"], finding["message"])
        first, more = found.errors[0], len(found.errors) - 1
        others = f" (and {more} more, listed above)" if more else ""
        raise InputError(f"{first['path']} {first['message']}{others}: mend or remove it, and its row in the captions")
    write_json(
        args.output,
        {
            "clips": {role: int(n) for role, n in table.role.value_counts(sort=False).items()},
            "seconds": round(float(table.seconds.sum()), 3),
            "captions": int(len(table) * len(columns[args.manifest[0]])),
            "warnings": found.warnings,
        },
    )
    log.info("%d clips, %.1f s: no error, %d warnings", len(table), table.seconds.sum(), len(found.warnings))


if __name__ == "__main__":
    run(main)
