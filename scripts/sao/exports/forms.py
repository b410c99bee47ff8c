"""The registry of forms of export. A new one is a module with a `FORM`, a line here, and its name in the schema."""

from __future__ import annotations

from sao.exports import comfyui, merged, pipeline, stable_audio_tools
from sao.exports.form import Form
from sao.models.config import ModelConfig

FORMS: dict[str, Form] = {
    "model": merged.FORM,
    "stable_audio_tools": stable_audio_tools.FORM,
    "comfyui": comfyui.FORM,
    "diffusers": pipeline.FORM,
}


def refusal(form: str, method: str) -> str | None:
    """What speaks against a form of export for a run trained with a method, or None."""
    if FORMS[form].of_adapter and method == "full":
        return (
            f"{form} is the form of an adapter, and method full trains none: set a method such as lora, or take the form model, "
            "which stable-audio-tools and ComfyUI load"
        )
    return None


def model_refusal(form: str, config: ModelConfig) -> str | None:
    """What of a model a form cannot express, or None."""
    reason = FORMS[form].refusal(config)
    return f"{form} cannot express this model: {reason}; take another form" if reason else None
