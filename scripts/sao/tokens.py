"""How long a text is for a model's text encoder. tokenizers only, no torch."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer

from .command import InputError
from .model_config import ModelConfig, snapshot_folder, text_encoder_name


def load_tokenizer(config: ModelConfig, hub: Path) -> Tokenizer:
    """The text encoder's tokenizer in the Hub cache `hub`, with truncation and padding off, so that lengths are true."""
    path = snapshot_folder(hub, text_encoder_name(config)) / "tokenizer.json"
    if not path.is_file():
        raise InputError(f"{path}: missing: the length of captions in tokens cannot be checked without it")
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
