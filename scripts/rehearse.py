"""Build a base model without its weights, and make ready the runs that train it, before gigabytes are fetched."""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from sao.command import InputError, log, parse, run

from sao.files import write_json
from sao.model_config import ModelConfig, read_model_config
from sao.safetensors_header import Shapes, assert_same_weights, tensor_shapes


def local(args: argparse.Namespace) -> tuple[ModelConfig, Shapes]:
    """Config and shapes of a model in a folder."""
    config, weights = args.path / args.model_config, args.path / args.weights
    for path in (config, weights):
        if not path.is_file():
            raise InputError(
                f"{path}: missing; a local base model needs {args.model_config}, {args.weights} and text_encoder/"
            )
    read = read_model_config(config)
    if weights.suffix == ".safetensors":
        return read, tensor_shapes(weights)
    from sao.model import read_pickled  # it takes torch

    return read, {key: tuple(weight.shape) for key, weight in read_pickled(weights).items()}


def remote(args: argparse.Namespace) -> tuple[ModelConfig, Shapes | None]:
    """The same of a model on the Hub, of whose weights the header alone is fetched; no shapes where they are pickled."""
    # Imported here: a local model needs neither the Hub client nor its start-up time.
    from sao.hub import describe, fetch, remote_shapes

    described = describe(args.repo, args.revision, args.model_config)
    with tempfile.TemporaryDirectory() as folder:
        fetch([described], Path(folder))
        config = read_model_config(described.path(Path(folder)), f"{args.repo}: {args.model_config}")
    if not args.weights.endswith(".safetensors"):
        return config, None
    return config, remote_shapes(args.repo, args.revision, args.weights)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--path", type=Path, help="local folder")
    source.add_argument("--repo", help="owner/name on the Hub")
    parser.add_argument("--revision", help="commit of --repo")
    parser.add_argument("--model-config", default="model_config.json", help="name of that file")
    parser.add_argument("--weights", default="model.safetensors", help="name of that file")
    parser.add_argument("--trainings", type=json.loads, required=True, help="JSON: settings of the runs, by name")
    parser.add_argument("--output", type=Path, required=True, help="JSON: shapes of the model's weights, by key")
    args = parse(parser)

    config, shapes = local(args) if args.path else remote(args)
    from sao.rehearsal import rehearse  # once all has been said that takes no torch

    place = f"{args.path}/" if args.path else f"{args.repo}: "
    expected = rehearse(config, f"{place}{args.model_config}", args.trainings)
    if shapes is not None:
        assert_same_weights(shapes, expected, config, f"{place}{args.weights}")
    write_json(args.output, expected)
    log.info(
        "%s%s: builds and runs, %d weights; runs: %s",
        place,
        args.model_config,
        len(expected),
        ", ".join(args.trainings) or "none",
    )


if __name__ == "__main__":
    run(main)
