"""Log what a leg rendered to Weights & Biases and TensorBoard; with the first leg also the base model and the recordings."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from sao.base.command import log, parse, run

from sao.base.files import digest, read_json, write_json
from sao.config.settings import AudioLogSettings, add_settings
from sao.pages.listening import BESIDE, NO_PROMPT, Listened
from sao.rendering.listening import chosen_clip, text_of
from sao.training.audio_log import Heard, log_to_tensorboard, log_to_wandb
from sao.training.loggers import kept


def heard(entry: Listened, page: Path) -> Iterator[Heard]:
    """The sounds of a leg or of a base model, and what lies beside them. `page` is the folder that paths count from.

    A prompt has one tag for all legs, and the base model is step 0.
    """
    name = entry["leg"] or "base"
    for sound in entry["sounds"]:
        prompt, clip, scale = sound["prompt"] or NO_PROMPT, chosen_clip(sound["clip_id"]), text_of(sound["cfg_scale"])
        model = f"{name}, cfg scale {scale}"
        yield Heard(f"{clip}/cfg-{scale}", entry["steps"], prompt, model, page / sound["file"])
        for kind in BESIDE.values():
            if path := sound[kind]:  # type: ignore[literal-required]
                yield Heard(f"{clip}/{kind}", entry["steps"], prompt, "", page / path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--leg", type=Path, required=True, help="summary of what the leg rendered, in the folder of the page"
    )
    parser.add_argument("--base", type=Path, nargs="?", help="the same of the base model, to log it too")
    add_settings(parser, AudioLogSettings)
    parser.add_argument("--folder", type=Path, required=True, help="folder of the run, with its logs")
    parser.add_argument("--output", type=Path, required=True, help="JSON that says what was logged, and where")
    args = parse(parser)
    settings: AudioLogSettings = args.settings

    leg: Listened = read_json(args.leg)
    entries: list[Listened] = [*([read_json(args.base)] if args.base else []), leg]
    # Of one recording there is one sound, however many scales its caption is rendered with.
    sounds = list({(s.tag, s.step): s for entry in entries for s in heard(entry, args.leg.parent)}.values())
    summary = {"leg": leg["name"], "sounds": len(sounds), "tensorboard": settings["tensorboard"], "wandb": None}
    if settings["tensorboard"]:
        log_to_tensorboard(args.folder / "tensorboard", sounds, leg["leg"])
    wandb = settings["wandb"]
    if wandb is not None and wandb["mode"] != "disabled":
        identity = f"{digest(leg['training'], leg['beside'])[:16]}-audio"
        failure = log_to_wandb(leg["run"], leg["leg"], wandb, identity, args.folder, sounds)
        if failure:
            log.warning("warning: %s", kept(f"the sounds of {leg['name']}", failure, args.folder))
        summary["wandb"] = wandb | {"id": identity, "sent": wandb["mode"] == "online" and not failure}
    write_json(args.output, summary)
    log.info("%s: %d sounds logged", leg["name"], len(sounds))


if __name__ == "__main__":
    run(main)
