"""The merged model in stable-audio-tools' own form: `model.safetensors` and `model_config.json`. ComfyUI loads it too."""

from __future__ import annotations

from pathlib import Path

from sao.base.files import copy_file
from sao.exports.form import Form, Source, Weights, anything


def write(source: Source, precision: str, folder: Path) -> Weights:
    from sao.exports.precision import stored
    from sao.models.build import write_safetensors

    weights = stored(source.model, precision)
    write_safetensors({key: value.contiguous() for key, value in weights.items()}, folder / "model.safetensors")
    copy_file(source.config_file, folder / "model_config.json")
    return weights


FORM = Form(of_adapter=False, refusal=anything, write=write)
