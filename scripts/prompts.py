"""Choose the sounds to render, from the clips of a corpus and the user's prompts, and check all that they are made from."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from sao.base.command import log, parse, run

from sao.base.files import whole_folder
from sao.base.tables import read_table
from sao.config.settings import PromptSettings, add_settings
from sao.models.config import check_sampler, is_distilled, read_model_config
from sao.models.numbers import numbers_of
from sao.rendering.clips import check_ids, check_tokens, corpus_clips, with_takes, write_clips
from sao.rendering.prompts import Takes, read_prompts
from sao.rendering.sources import copy_source


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kept", type=Path, required=True, help="table of the clips that the model can take")
    parser.add_argument("--prompts", type=Path, nargs="?", help="a .txt or .csv of prompts to render beside the clips")
    parser.add_argument("--model-config", type=Path, required=True)
    parser.add_argument("--hub", type=Path, required=True, help="Hub cache with the text encoder")
    add_settings(parser, PromptSettings)
    parser.add_argument("--output", type=Path, required=True, help="CSV of the sounds to render")
    parser.add_argument("--sources", type=Path, required=True, help="folder for the sounds that prompts start from")
    args = parse(parser)
    settings: PromptSettings = args.settings

    config = read_model_config(args.model_config)
    check_sampler(config, settings["sampling"]["sampler"], settings["sampling"]["steps"])
    sampling = settings["sampling"]
    if is_distilled(config) and (sampling["sampler"], sampling["cfg_scale"]) != ("pingpong", 1):
        log.warning(
            "warning: the model is distilled (diffusion_objective rf_denoiser): it is made for sampler pingpong, about 8 steps "
            "and cfg_scale 1, and the config has %s, %d and %g",
            sampling["sampler"],
            sampling["steps"],
            sampling["cfg_scale"],
        )
    clips = corpus_clips(read_table(args.kept), settings, numbers_of(config))
    if args.prompts:
        clips += read_prompts(args.prompts, Takes.of(config, settings), settings)
        check_ids(clips)
    check_tokens(clips, config, args.hub)
    with whole_folder(args.sources) as folder:
        for clip in clips:
            if clip.source:
                copy_source(clip, folder / f"{clip.clip_id}.wav")
    kept = {clip.clip_id: (args.sources / f"{clip.clip_id}.wav").as_posix() for clip in clips if clip.source}
    clips = [dataclasses.replace(clip, source=kept.get(clip.clip_id, "")) for clip in clips]
    sounds = with_takes(clips, settings.get("takes", 1))
    write_clips(args.output, sounds)
    log.info("%s: %d sounds to render", args.output, len(sounds))


if __name__ == "__main__":
    run(main)
