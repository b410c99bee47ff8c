"""Make the page of prompts as epochs draw them, to be read before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence

from sao.pages.document import document, escape

Drawn = tuple[str, str, str, int]  # a clip's file, the prompt that was drawn, which of its texts that is, its tokens


def page(corpus: str, drawn: Sequence[Drawn], limit: int) -> str:
    """HTML that needs no other file. `limit` is the number of tokens that the text encoder takes."""
    rows = "".join(
        f'<tr><td class="path">{escape(file)}</td><td>{escape(prompt)}</td><td>{which}</td><td class="n">{tokens}</td></tr>'
        for file, prompt, which, tokens in drawn
    )
    about = (
        f"Training clips, chosen by lot, each with the prompt that a run with seed 0 and captions: random draws for it when it "
        f"comes for the first time, or the next. The text encoder takes {limit} tokens."
    )
    head = "<tr><th>Clip</th><th>Prompt</th><th>Text</th><th>Tokens</th></tr>"
    return document("Prompts", f"<h1>Prompts of {escape(corpus)}</h1><p>{about}</p><table>{head}{rows}</table>")
