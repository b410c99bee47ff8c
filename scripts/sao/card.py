"""What a fine-tuned model was made from: its model card and the credits of the clips it was trained on."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pandas as pd

from .licenses import parse, short_name


def attribution(clips: pd.DataFrame) -> pd.DataFrame:
    """Clip, author, link and licence of every training clip."""
    return pd.DataFrame(
        {
            "clip_id": clips.clip_id,
            "file_name": clips.file_name,
            "author": clips.manufacturer,
            "link": clips.sound_link,
            "license": clips.license,
        }
    )


def model_card(training: dict[str, Any], source: dict[str, str], clips: pd.DataFrame, weights: dict[str, Any]) -> str:
    """A README.md with the Hub's front matter.

    `training` is training.json, `source` says where the base model is from, `clips` are the training clips, `weights`
    is export.json.
    """
    settings = training["settings"]
    base = source.get("repo") or settings["base_model"]
    front = ["library_name: stable-audio-tools", "pipeline_tag: text-to-audio"]
    front += [f"base_model: {base}"] if "repo" in source else []
    revision = f" at revision `{source['revision']}`" if "revision" in source else ""
    licenses = Counter(map(short_name, clips.license))
    restricted = sum(n for name, n in licenses.items() if "-NC" in parse(name)[0])
    unknown = licenses.get("unknown", 0)
    notes = []
    if restricted:
        notes.append(f"{restricted} of the clips are under non-commercial licences.")
    if unknown:
        notes.append(f"The licence of {unknown} of the clips is not known.")
    averaged = "; those of the diffusion model are moving averages" if training["moving_average"] else ""
    lines = [
        "---",
        *front,
        "---",
        "",
        f"# {training['run']}",
        "",
        f"`{base}`{revision}, fine-tuned for {training['steps']} steps on {len(clips)} clips "
        f"({clips.seconds.sum() / 3600:.2f} h) of the corpus `{settings['corpus']}` with stable-audio-tools. "
        f"SHA-256 of `model.safetensors`: `{weights['sha256']}`; {weights['keys']} tensors, of which "
        f"{weights['changed_keys']} differ from the base model{averaged}.",
        "",
        "## Training data",
        "",
        "`ATTRIBUTION.csv` names author, link and licence of every clip that it was trained on.",
        *([" ".join(notes)] if notes else []),
        "The licence of the base model applies to this model too.",
        "",
        "| Licence | Clips |",
        "| --- | ---: |",
        *(f"| {name} | {count} |" for name, count in sorted(licenses.items())),
        "",
        "## Settings",
        "",
        "| Setting | Value |",
        "| --- | --- |",
        *(f"| {key} | {value} |" for key, value in settings.items()),
        "",
    ]
    return "\n".join(lines)
