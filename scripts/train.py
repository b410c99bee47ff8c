"""Train one leg: from a saved state, or the base model, to a given step or epoch; an interrupted leg goes on exactly."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from sao.base.command import parse, run

from sao.config.settings import RunningSettings, TrainingSettings, add_settings
from sao.training.checks import check_leg
from sao.training.leg import Leg


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", required=True, help="name of the run")
    parser.add_argument("--leg", required=True, help="where to end: step-00000500 or epoch-00000003")
    parser.add_argument("--last", help="the last leg of the training, that is how long its schedule has to be")
    parser.add_argument("--resume", type=Path, nargs="?", help="training state of the leg before")
    add_settings(parser, TrainingSettings)
    add_settings(parser, RunningSettings, "running")
    parser.add_argument("--dataset-configs", type=Path, required=True, help="folder of train.json and validation.json")
    parser.add_argument("--datasets-digest", type=Path, required=True, help="listing that vouches for them")
    parser.add_argument(
        "--sound-digest", type=Path, required=True, nargs="+", help="vouch for the latents or the audio"
    )
    parser.add_argument("--captions", type=Path, required=True, help="encoded captions, a safetensors file")
    parser.add_argument("--captions-digest", type=Path, required=True, help="summary that vouches for them")
    parser.add_argument(
        "--model", type=Path, required=True, help="folder of the weights to start from: the base model's"
    )
    parser.add_argument("--model-digest", type=Path, required=True)
    parser.add_argument(
        "--base-digest", type=Path, nargs="?", help="listing of the base model, if the weights are others"
    )
    parser.add_argument("--code", required=True, help="hash of the code that trains")
    parser.add_argument("--output", type=Path, required=True, help="folder of the leg")
    leg = Leg.of(parse(parser))

    check_leg(leg)
    os.environ["OMP_NUM_THREADS"] = str(leg.settings["threads"])  # torch reads it as it is loaded
    from sao.training.trainer import Trainer

    Trainer(leg).run()


if __name__ == "__main__":
    run(main)
