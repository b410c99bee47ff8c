"""Build a base model without its weights and try the optimisers of its runs, before gigabytes are fetched."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from sao.base.command import InputError, log, parse, run

from sao.base.files import write_json
from sao.config.settings import ModelSource, TrainingSettings, add_settings
from sao.exports.forms import model_refusal
from sao.models.config import ModelConfig, is_distilled, read_model_config
from sao.models.header import Shapes, assert_same_weights, tensor_shapes
from sao.models.source import Source


def local(source: Source, folder: Path) -> tuple[ModelConfig, Shapes]:
    """Config and shapes of a model in a folder."""
    config, weights = folder / source.model_config, folder / source.weights
    for path in (config, weights):
        if not path.is_file():
            raise InputError(
                f"{path}: missing; a local base model needs {source.model_config}, {source.weights} and text_encoder/"
            )
    model_config = read_model_config(config)
    if weights.suffix == ".safetensors":
        return model_config, tensor_shapes(weights)
    from sao.models.build import read_pickled  # imported here, because it needs torch

    return model_config, {key: tuple(weight.shape) for key, weight in read_pickled(weights).items()}


def remote(source: Source) -> tuple[ModelConfig, Shapes | None]:
    """Config and shapes of a model on the Hub. Only the header of the weights is fetched. Pickled ones give no shapes."""
    # Imported here: a local model needs neither the Hub client nor its start-up time.
    from sao.hub.fetch import describe, fetch, remote_shapes

    described = describe(source.repo, source.revision, source.model_config)
    with tempfile.TemporaryDirectory() as folder:
        fetch([described], Path(folder))
        config = read_model_config(described.path(Path(folder)), source.name(source.model_config))
    if not source.weights.endswith(".safetensors"):
        return config, None
    return config, remote_shapes(source.repo, source.revision, source.weights)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_settings(parser, ModelSource)
    add_settings(parser, dict[str, TrainingSettings], "trainings", "settings of the runs, by name")
    add_settings(parser, dict[str, list[str]], "exports", "forms of export of the runs, by name")
    parser.add_argument("--output", type=Path, required=True, help="JSON: shapes of the model's weights, by key")
    args = parse(parser)
    source = Source.of(args.settings)

    config, shapes = local(source, source.path) if source.path else remote(source)
    for name, forms in args.exports.items():
        for form in forms:
            if reason := model_refusal(form, config):
                raise InputError(f"{source.name(source.model_config)}: runs.{name}: {reason}")
    from sao.training.rehearsal import rehearse  # imported after all checks that need no torch

    expected = rehearse(config, source.name(source.model_config), args.trainings)
    if shapes is not None:
        assert_same_weights(shapes, expected, source.name(source.weights))
    if is_distilled(config) and args.trainings:
        log.warning(
            "warning: %s: is a distilled model (diffusion_objective rf_denoiser), and the runs %s train it with the loss of its "
            "base: that undoes the distillation; take the base model",
            source.name(source.model_config),
            ", ".join(args.trainings),
        )
    write_json(args.output, expected)
    log.info(
        "%s: the model builds and runs, with %d weights; runs: %s",
        source.name(source.model_config),
        len(expected),
        ", ".join(args.trainings) or "none",
    )


if __name__ == "__main__":
    run(main)
