"""Custom metadata module for stable-audio-tools: gives every clip its caption, its numbers, and the second at which it starts.

A copy lies beside the `captions.json` of each dataset config, beside `weights.json` if templates make the captions, and beside
`numbers.json` if the model's conditioners take numbers. It raises on a clip without a caption. Mind that stable-audio-tools'
own dataset classes swallow what a hook raises and train on another clip; this project's do not.
"""

import functools
import json
import random
from pathlib import Path


@functools.cache
def captions_by_clip() -> dict[str, list[str]]:
    return json.loads(Path(__file__).with_name("captions.json").read_text(encoding="utf-8"))


@functools.cache
def weights_by_clip() -> dict[str, list[float]]:
    path = Path(__file__).with_name("weights.json")
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


@functools.cache
def numbers_by_clip() -> dict[str, dict[str, float]]:
    path = Path(__file__).with_name("numbers.json")
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def get_custom_metadata(info: dict, audio: object) -> dict:
    """`{"prompt": caption, "seconds_start": s, …}` of the clip that `info["clip_id"]` (latents) or `["relpath"]` names.

    `info["caption_index"]` chooses the caption; the stock train.py does not set it and gets one at random. It leaves
    `seconds_start` at 0 for latents that it cropped at random; what is right follows from where it cropped.
    """
    captions = captions_by_clip()
    if "clip_id" not in info and info["relpath"] not in captions:
        return {"__reject__": True}  # stable-audio-tools reads the whole folder, other sides of the split included
    name = info["clip_id"] if "clip_id" in info else info["relpath"]
    given, weights = captions[name], weights_by_clip().get(name)
    index = info["caption_index"] if "caption_index" in info else random.choices(range(len(given)), weights)[0]
    if not given[index].strip():
        raise ValueError(f"caption {index + 1} of clip {name} is empty")
    told = {"prompt": given[index]} | numbers_by_clip().get(name, {})
    if "latent_crop_start" in info:
        told["seconds_start"] = info["latent_crop_start"] * info["samples_per_frame"] // info["sample_rate"]
    return told
