"""What a model's text encoder takes in of a text. tokenizers only, no torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sao.base.command import InputError

from tokenizers import Tokenizer

from sao.base.placeholders import is_blank
from sao.models.config import ModelConfig, snapshot_folder, text_encoder_name

LEFT = 3  # letters and digits, fewer of which are little
SHARE = 2  # unknown characters to a known letter or digit, more of which leave little


@dataclass(frozen=True)
class Reading:
    """A text as a text encoder gets it."""

    tokens: int  # those included that mark the end
    unknown: int  # tokens that stand for anything the vocabulary lacks
    lost: str  # the characters behind them
    left: str  # the characters that are known, white space included

    def problem(self) -> str:
        """Why the encoder cannot tell the text from others, to go on with after its name; empty where it can."""
        if is_blank(self.left):
            known = "nothing of it is in" if self.lost else "it holds nothing but signs of"
        elif self.unknown and ((known := sum(map(str.isalnum, self.left))) < LEFT or len(self.lost) > SHARE * known):
            known = f"little of it ({self.left.strip()!r}) is in"
        else:
            return ""
        return (
            f"cannot be told from others: {known} the vocabulary of the text encoder; write it in words that it knows"
        )

    def caveat(self) -> str:
        """What is lost of a text, to go on with after its name; empty where nothing is."""
        if not self.unknown:
            return ""
        lost = "".join(dict.fromkeys(self.lost))
        return f"has {self.unknown} of {self.tokens} tokens that the text encoder does not know ({lost[:20]!r})"


class Reader:
    """The tokenizer of a model's text encoder, with truncation and padding off, so that lengths are true."""

    def __init__(self, config: ModelConfig, hub: Path) -> None:
        """Raises InputError where the Hub cache `hub` holds no tokenizer."""
        path = snapshot_folder(hub, text_encoder_name(config)) / "tokenizer.json"
        if not path.is_file():
            raise InputError(f"{path}: missing: the length of captions in tokens cannot be checked without it")
        self.tokenizer = Tokenizer.from_file(str(path))
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        model = json.loads(path.read_text(encoding="utf-8"))["model"]
        # A unigram model, T5's say, has the number of its unknown token, any other the token; byte-level ones have none.
        unknown = model["unk_id"] if "unk_id" in model else self.tokenizer.token_to_id(model.get("unk_token") or "")
        special = {number for number, token in self.tokenizer.get_added_tokens_decoder().items() if token.special}
        self.unknown = {unknown} - {None}
        self.special = special - self.unknown
        self.marks = self.tokenizer.num_special_tokens_to_add(is_pair=False)

    def read(self, texts: Sequence[str]) -> list[Reading]:
        """How each of the texts is read."""
        readings, odd = [], self.unknown | self.special
        # Without the marks of the end: special tokens among the rest are written in the text itself.
        for text, encoding in zip(texts, self.tokenizer.encode_batch(texts, add_special_tokens=False), strict=True):
            lost, left, unknown = "", text, 0
            if not odd.isdisjoint(encoding.ids):
                pairs = list(zip(encoding.ids, encoding.offsets, strict=True))
                # The sign for a word's beginning has a place in the text too: that of what follows it.
                taken = {at for number, span in pairs if number in odd for at in range(*span)}
                known = {at for _, span in pairs for at in range(*span)} - taken
                spans = [span for number, span in pairs if number in self.unknown]
                unknown = len(spans)
                lost = "".join("".join(text[start:end].split()) for start, end in spans)
                left = " ".join("".join(sign if at in known else " " for at, sign in enumerate(text)).split())
            readings.append(Reading(len(encoding.ids) + self.marks, unknown, lost, left))
        return readings
