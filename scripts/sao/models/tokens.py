"""Count the tokens of a text, and find the parts that a model's text encoder does not know. No torch is needed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sao.base.command import InputError

from tokenizers import Tokenizer

from sao.base.placeholders import is_blank
from sao.models.config import ModelConfig, text_encoder_place

LEAST = 3  # a text with fewer known letters and digits cannot be told from others
SHARE = 2  # nor can one with more unknown characters than this per known letter or digit


@dataclass(frozen=True)
class Reading:
    """A text as a text encoder sees it."""

    tokens: int  # their number, with the end marks
    unknown: int  # number of tokens that replace parts outside the vocabulary
    lost: str  # the characters that these tokens replace
    left: str  # the known characters, with white space

    def problem(self) -> str:
        """Why the encoder cannot distinguish the text from others, to be put after its name; empty if it can."""
        letters = sum(map(str.isalnum, self.left))
        if is_blank(self.left):
            reason = "nothing of it is in" if self.lost else "it holds nothing but signs of"
        elif self.unknown and (letters < LEAST or len(self.lost) > SHARE * letters):
            reason = f"little of it ({self.left.strip()!r}) is in"
        else:
            return ""
        return (
            f"cannot be told from others: {reason} the vocabulary of the text encoder; write it in words that it knows"
        )

    def caveat(self) -> str:
        """The lost part of a text, to be put after its name; empty if nothing is lost."""
        if not self.unknown:
            return ""
        lost = "".join(dict.fromkeys(self.lost))
        return f"has {self.unknown} of {self.tokens} tokens that the text encoder does not know ({lost[:20]!r})"


class Reader:
    """The tokenizer of a model's text encoder, without truncation and padding, so that it gives true lengths."""

    def __init__(self, config: ModelConfig, hub: Path) -> None:
        """Raises InputError if the Hub cache `hub` has no tokenizer."""
        path = text_encoder_place(hub, config) / "tokenizer.json"
        if not path.is_file():
            raise InputError(
                f"{path}: missing, so the tokens of captions cannot be counted: delete {hub} and run again"
            )
        self.tokenizer = Tokenizer.from_file(str(path))
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        model = json.loads(path.read_text(encoding="utf-8"))["model"]
        # A unigram model such as T5's names its unknown token by number, others by text. Byte-level ones have none.
        unknown = model["unk_id"] if "unk_id" in model else self.tokenizer.token_to_id(model.get("unk_token") or "")
        special = {number for number, token in self.tokenizer.get_added_tokens_decoder().items() if token.special}
        self.unknown = {unknown} - {None}
        self.special = special - self.unknown
        self.marks = self.tokenizer.num_special_tokens_to_add(is_pair=False)

    def read(self, texts: Sequence[str]) -> list[Reading]:
        """Tokenize each text, and find its unknown parts."""
        readings, odd = [], self.unknown | self.special
        # Without end marks, so any special token comes from the text itself.
        for text, encoding in zip(texts, self.tokenizer.encode_batch(texts, add_special_tokens=False), strict=True):
            lost, left, unknown = "", text, 0
            if not odd.isdisjoint(encoding.ids):
                pairs = list(zip(encoding.ids, encoding.offsets, strict=True))
                # The sign for the beginning of a word has the position of the character after it.
                replaced = {at for number, span in pairs if number in odd for at in range(*span)}
                kept = {at for _, span in pairs for at in range(*span)} - replaced
                spans = [span for number, span in pairs if number in self.unknown]
                unknown = len(spans)
                lost = "".join("".join(text[start:end].split()) for start, end in spans)
                left = " ".join("".join(sign if at in kept else " " for at, sign in enumerate(text)).split())
            readings.append(Reading(len(encoding.ids) + self.marks, unknown, lost, left))
        return readings

    def read_otherwise(self, tokenizer: Any, texts: Sequence[str]) -> list[str]:
        """Those of `texts` that transformers' `tokenizer`, which the model gets, turns into other numbers than this file.

        For some architectures transformers keeps a file's vocabulary only and takes the rest from its own code, for example
        T5Tokenizer: a file that lowers capitals has them unknown there.
        """
        numbers = tokenizer(list(texts), truncation=False, padding=False)["input_ids"]
        encodings = self.tokenizer.encode_batch(list(texts))
        return [
            text for text, one, other in zip(texts, numbers, encodings, strict=True) if list(one) != list(other.ids)
        ]
