"""Put what a leg rendered into the folder of the page to listen on, and write the page anew."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from sao.base.command import log, parse, run

from sao.base.files import digest, link_or_copy, read_json, sha256, whole_folder, write_json
from sao.evaluation.signals import loudness
from sao.pages.listening import PAGE, Listened, Sound, beside, picture_of, write_page
from sao.pages.sounds import bring
from sao.pages.spectrogram import draw
from sao.rendering.listening import chosen_clip
from sao.rendering.table import BESIDE, read_renders
from sao.sound.spectra import read_sound
from sao.sound.suffixes import page_suffix


def fill(folder: Path, name: str, rows: Any, is_base: bool, made: Path) -> list[Sound]:
    """Bring the sounds of a table of renders and their pictures into `folder`, with the base model's what is beside them.

    `made` is the folder of what rules wrote. Returns the sounds, with paths that begin with `name`.
    """
    sounds = []
    for row in rows.itertuples():
        paths = {"file": Path(row.file)}
        link_or_copy(Path(row.sound), folder / row.file)
        for kind in BESIDE if is_base else ():
            if path := getattr(row, kind):
                paths[kind] = Path(kind, f"{chosen_clip(row.clip_id)}{page_suffix(Path(path).name)}")
                bring(Path(path), folder / paths[kind], made)
        for path in paths.values():
            draw(folder / path, folder / picture_of(path.as_posix()))
        there = {kind: f"{name}/{path.as_posix()}" for kind, path in paths.items()}
        sounds.append(
            Sound(
                clip_id=row.clip_id,
                split=row.split,
                prompt=row.prompt,
                negative_prompt=row.negative_prompt,
                cfg_scale=float(row.cfg_scale),
                seed=int(row.seed),
                seconds=float(row.seconds),
                warning=row.warning,
                file=there["file"],
                sha256=sha256(folder / row.file),
                reference=there.get("reference", ""),
                source=there.get("source", ""),
                loudness=loudness(*read_sound(folder / paths["file"])),
                reference_loudness=loudness_of(folder, paths.get("reference")),
                source_loudness=loudness_of(folder, paths.get("source")),
            )
        )
    return sounds


def loudness_of(folder: Path, path: Path | None) -> float | None:
    """The loudness in LUFS of a sound that may not be there."""
    return loudness(*read_sound(folder / path)) if path else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", required=True, help="base model, or leg of a run: demo@step-00000500")
    parser.add_argument("--table", type=Path, required=True, help="table of its renders")
    parser.add_argument("--renders", type=Path, required=True, help="their folder")
    parser.add_argument("--training", type=Path, nargs="?", help="training.json of the leg")
    parser.add_argument("--base", type=Path, nargs="?", help="summary of what the leg's base model rendered")
    parser.add_argument("--shown", required=True, nargs="+", help="names of all that will be on the page, in order")
    parser.add_argument("--output", type=Path, required=True, help="folder for the sounds, in that of the page")
    parser.add_argument("--summary", type=Path, required=True)
    args = parse(parser)

    rows = read_renders(args.table, args.renders)
    page = args.output.parent
    with whole_folder(args.output) as folder:
        sounds = fill(folder, args.name, rows, args.base is None, page.parent / "data")
    training = read_json(args.training) if args.training else None
    base: Listened | None = read_json(args.base) if args.base else None
    summary = Listened(
        name=args.name,
        run=training["run"] if training else "",
        leg=training["leg"] if training else "",
        steps=training["steps"] if training else 0,
        validation_loss=training["validation_loss"] if training else None,
        training=digest(training["provenance"])[:16] if training else "",
        base=base["name"] if base else args.name,
        beside=base["beside"] if base else beside(sounds),
        sounds=sounds,
    )
    write_json(args.summary, summary)
    legs = write_page(page, args.shown)
    log.info("%s: %d sounds of %s, and %d legs on the page", page / PAGE, len(sounds), args.name, legs)


if __name__ == "__main__":
    run(main)
