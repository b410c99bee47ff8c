"""Custom metadata module for stable-audio-tools: gives every latent its caption.

A copy lies beside the `captions.json` of each dataset config. It raises on a clip without a caption. Mind that
stable-audio-tools' own dataset classes swallow what a hook raises and train on another clip; this project's do not.
"""

import functools
import json
import random
from pathlib import Path


@functools.cache
def captions_by_clip() -> dict[str, list[str]]:
    return json.loads(Path(__file__).with_name("captions.json").read_text(encoding="utf-8"))


def get_custom_metadata(info: dict, audio: object) -> dict:
    """`{"prompt": caption}` of `info["clip_id"]`.

    `info["caption_index"]` chooses the caption; the stock train.py does not set it and gets one at random.
    """
    captions = captions_by_clip()[info["clip_id"]]
    index = info["caption_index"] if "caption_index" in info else random.randrange(len(captions))
    if not captions[index].strip():
        raise ValueError(f"caption {index + 1} of clip {info['clip_id']} is empty")
    return {"prompt": captions[index]}
