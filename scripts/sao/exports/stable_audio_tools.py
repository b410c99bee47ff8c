"""The adapter in stable-audio-tools' own form, `lora.safetensors`, which Stable Audio 3's tools load too."""

from __future__ import annotations

import json
from pathlib import Path

from sao.exports.form import Form, Source, Weights, anything


def write(source: Source, precision: str, folder: Path) -> Weights:
    """Write the adapter, and return the weights that it changes."""
    from sao.exports.precision import stored
    from sao.models.build import read_safetensors, write_safetensors
    from sao.training.forms import FILE, merged_form, read_header

    assert source.adapter is not None
    weights = stored(read_safetensors(source.adapter), precision)
    write_safetensors(weights, folder / FILE, ("lora_config", json.dumps(read_header(source.adapter))))
    merged = merged_form(source.base, folder / FILE)
    return {key: value for key, value in merged.items() if value is not source.base[key]}


FORM = Form(of_adapter=True, refusal=anything, write=write)
