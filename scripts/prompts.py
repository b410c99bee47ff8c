"""Choose the sounds to render, from the clips of a corpus and the user's prompts, and check all their texts."""

from __future__ import annotations

import argparse
from pathlib import Path

from sao.base.command import log, parse, run

from sao.base.tables import read_table
from sao.config.settings import PromptSettings, add_settings
from sao.models.config import check_sampler, downsampling_ratio, is_distilled, read_model_config, window_frames
from sao.models.numbers import numbers_of
from sao.rendering.clips import check_ids, check_tokens, corpus_clips, write_clips
from sao.rendering.prompts import read_prompts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kept", type=Path, required=True, help="table of the clips that the model can take")
    parser.add_argument("--prompts", type=Path, nargs="?", help="a .txt or .csv of prompts to render beside the clips")
    parser.add_argument("--model-config", type=Path, required=True)
    parser.add_argument("--hub", type=Path, required=True, help="Hub cache with the text encoder")
    add_settings(parser, PromptSettings)
    parser.add_argument("--output", type=Path, required=True, help="CSV of the sounds to render")
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
    numbers = numbers_of(config)
    clips = corpus_clips(read_table(args.kept), settings, numbers)
    if args.prompts:
        frames = window_frames(config, settings["train_seconds"])
        window = frames * downsampling_ratio(config) / config["sample_rate"]
        clips += read_prompts(args.prompts, window, settings, numbers)
        check_ids(clips)
    check_tokens(clips, config, args.hub)
    write_clips(args.output, clips)
    log.info("%s: %d sounds to render", args.output, len(clips))


if __name__ == "__main__":
    run(main)
