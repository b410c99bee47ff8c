"""The page of the playground, in gradio, and the server that only this machine reaches unless it is told otherwise."""

from __future__ import annotations

import base64
import html
import ipaddress
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sao.base.command import InputError, log

from sao.pages.playground import Offer, Pair, Playground
from sao.rendering.sources import facts_of
from sao.rendering.trying import ORIGIN, Request

NONE = "(none)"  # the choice of no model B
LOOPBACK = "127.0.0.1"
PORT = 7860  # as stable-audio-tools' own page
MOST = 10.0  # highest strength of an adapter on the sliders
SYSTEM = ("system-ui", "sans-serif")  # fonts of the machine: none is fetched
CSS = """
#rooms { display: grid; grid-template: "ask pair" auto "settings pair" 1fr / minmax(0, 1fr) minmax(0, 1fr); }
#ask { grid-area: ask; } #pair { grid-area: pair; } #settings { grid-area: settings; }
@media (max-width: 800px) { #rooms { grid-template: "ask" auto "pair" auto "settings" auto / minmax(0, 1fr); } }
#pair img { width: 100%; height: 6rem; display: block; border-radius: 4px; image-rendering: auto; }
#pair figure, #status p { margin: 0; } #pair figcaption { font-size: .8rem; }
#status p.bad { font-weight: 600; } #status p.bad::before { content: "Error: "; }
#history .wrap { flex-direction: column; flex-wrap: nowrap; max-height: 20rem; overflow-y: auto; }
#history label { width: 100%; overflow-wrap: anywhere; }
"""
HEAD = '<meta name="referrer" content="no-referrer">'


def said(text: str, bad: bool = False) -> str:
    """A line about what goes on, which screen readers tell."""
    return f'<p role="{"alert" if bad else "status"}" class="{"bad" if bad else ""}">{html.escape(text)}</p>'


def picture(path: Path, title: str, warning: str) -> str:
    """A spectrogram in the page itself, and what is wrong with the sound."""
    data = base64.b64encode(path.read_bytes()).decode()
    alt = html.escape(f"Spectrogram: {title}", quote=True)
    return (
        f'<figure><img src="data:image/webp;base64,{data}" alt="{alt}"/>'
        f"<figcaption>40 Hz to 20 kHz, logarithmic; 80 dB. {html.escape(warning)}</figcaption></figure>"
    )


class Page:
    """The page, over the state of `playground`. `names` gives the models to choose from; with `free` a folder may be typed."""

    def __init__(self, playground: Playground, names: Callable[[], list[str]], free: bool) -> None:
        self.playground, self.names, self.free = playground, names, free

    def build(self) -> Any:
        """The page as gradio's Blocks."""
        import gradio as gr

        names = self.names()
        runs = [name for name in names if not name.startswith("base")]
        first, second = (runs[-1] if runs else names[0]), (names[0] if runs else NONE)
        offer = self.playground.offer(first)
        _, high, level = offer.noise
        with gr.Blocks(title="Playground", analytics_enabled=False) as blocks:
            gr.Markdown("# Try a prompt")
            current = gr.State(0)  # number of the pair that is shown
            with gr.Row(elem_id="rooms"):
                with gr.Column(min_width=300, elem_id="ask"):
                    prompt = gr.Textbox(label="Prompt", lines=2, placeholder="a forest ambience with birds and wind")
                    negative = gr.Textbox(
                        label="Negative prompt", placeholder="has an effect with a CFG scale other than 1"
                    )
                    with gr.Row():
                        a = gr.Dropdown(
                            names, value=first, label="Model A", allow_custom_value=self.free, min_width=130
                        )
                        b = gr.Dropdown(
                            [NONE, *names], value=second, label="Model B", allow_custom_value=self.free, min_width=130
                        )
                    blind = gr.Checkbox(False, label="Blind mode: random sides, and no names until you ask")
                    generate = gr.Button("Generate", variant="primary")
                with gr.Column(min_width=300, elem_id="pair"):
                    status = gr.HTML(said("Nothing is rendered yet."), elem_id="status")
                    with gr.Row():
                        shown = [self._place(gr, place) for place in range(2)]
                    with gr.Row(visible=False) as asking:
                        answers = {
                            key: gr.Button(text, size="sm", min_width=100)
                            for key, text in (
                                ("left", "Left is better"),
                                ("right", "Right is better"),
                                ("same", "No difference"),
                                ("", "Reveal only"),
                            )
                        }
                    send = gr.Button("Send left to init audio", size="sm", visible=False)
                    with gr.Accordion("History", open=True):
                        score = gr.Markdown()
                        history = gr.Radio([], label="Show one again", elem_id="history")
                with gr.Column(min_width=300, elem_id="settings"):
                    with gr.Row():
                        strength_a = gr.Slider(
                            0,
                            MOST,
                            1,
                            step=0.05,
                            label="Strength of A's adapter",
                            visible=offer.has_adapter,
                            min_width=130,
                        )
                        strength_b = gr.Slider(
                            0, MOST, 1, step=0.05, label="Strength of B's adapter", visible=False, min_width=130
                        )
                    with gr.Row():
                        seconds = gr.Slider(
                            0.1,
                            round(offer.window, 2),
                            round(offer.seconds, 2),
                            step=0.01,
                            label="Seconds total",
                            min_width=130,
                        )
                        seed = gr.Textbox("-1", label="Seed (set to -1 for random seed)", max_lines=1, min_width=130)
                    with gr.Accordion("Sampler params"):
                        steps = gr.Slider(1, max(500, offer.steps), offer.steps, step=1, label="Steps")
                        cfg = gr.Slider(0, max(25, offer.cfg_scale), offer.cfg_scale, step=0.1, label="CFG scale")
                        sampler = gr.Dropdown(list(offer.samplers), value=offer.sampler, label="Sampler type")
                    with gr.Accordion("Init audio"):
                        source = gr.Audio(
                            label="Init audio", type="filepath", sources=["upload"], editable=False, buttons=[]
                        )
                        noise = gr.Slider(0, high, level, step=0.01, label="Init noise level")
                        mask = gr.Textbox(
                            label="Mask (START:END in seconds, made anew)",
                            placeholder="1.5:2.25",
                            max_lines=1,
                            visible=offer.inpaints,
                        )
                        vary = gr.Checkbox(
                            False,
                            label="Vary the masked part, instead of making it from nothing",
                            visible=offer.inpaints,
                        )

            controls = [seconds, steps, cfg, sampler, noise, mask, vary, strength_a]
            results = [status, *(part for place in shown for part in place), asking, send, score, history, current]
            asked: list[Any] = [prompt, negative, a, b, strength_a, strength_b, seconds, seed, steps, cfg, sampler]
            asked += [source, noise, mask, vary, blind]
            again = [prompt, negative, seconds, seed, steps, cfg, sampler]

            def offered(name: str) -> list[Any]:
                """The controls as a model takes them."""
                return self._controls(gr, self.offer(name))

            def choose_a(name: str) -> list[Any]:
                try:
                    return [*offered(name), said(f"Model A: {name}")]
                except InputError as error:
                    return [*(gr.skip() for _ in controls), said(str(error), bad=True)]

            def choose_b(name: str) -> list[Any]:
                try:
                    has = name not in (NONE, "", None) and self.offer(name).has_adapter
                    return [gr.update(visible=has, value=1), gr.skip()]
                except InputError as error:
                    return [gr.update(visible=False, value=1), said(str(error), bad=True)]

            def show(pair: Pair, text: str) -> list[Any]:
                """The results that show a pair."""
                return [said(text), *self._shown(gr, pair), *self._around(gr, pair)]

            def render(*values: Any) -> Iterator[list[Any]]:
                yield [said("Rendering …"), *(gr.skip() for _ in results[1:])]
                try:
                    pair = self.asked(*values)
                except InputError as error:
                    yield [said(str(error), bad=True), *(gr.skip() for _ in results[1:])]
                else:
                    yield show(pair, self.told(pair))

            def reveal(number: int, better: str) -> list[Any]:
                pair = self.playground.reveal(number, better or None)
                return show(pair, self.told(pair))

            def look_back(number: int | None) -> list[Any]:
                if not number:
                    return [gr.skip() for _ in [*results, *again]]
                pair = self.playground.pairs[number - 1]
                asked, job = pair.request, pair.jobs[0]
                restored = [asked.prompt, asked.negative_prompt or "", pair.seconds, asked.seed]
                restored += [job.sampling["steps"], job.clip.cfg_scale, job.sampling["sampler"]]
                return [*show(pair, self.told(pair)), *restored]

            def opened() -> list[Any]:
                """What a page that is opened, perhaps again, begins with."""
                names = self.names()
                return [
                    gr.update(choices=names),
                    gr.update(choices=[NONE, *names]),
                    gr.update(choices=self.playground.lines()),
                    self.playground.score(),
                ]

            for trigger in (generate.click, prompt.submit):
                trigger(render, asked, results, concurrency_limit=1, show_progress="minimal")
            a.change(choose_a, a, [*controls, status], show_progress="hidden")
            b.change(choose_b, b, [strength_b, status], show_progress="hidden")
            for better, button in answers.items():
                button.click(lambda number, better=better: reveal(number, better), current, results)
            history.input(look_back, history, [*results, *again], show_progress="hidden")
            send.click(
                lambda number: str(self.playground.pairs[number - 1].sides[0].sound),
                current,
                source,
                show_progress="hidden",
            )
            blocks.load(opened, None, [a, b, history, score], show_progress="hidden")
            blocks.load(choose_b, b, [strength_b, status], show_progress="hidden")
        return blocks

    @staticmethod
    def _place(gr: Any, place: int) -> list[Any]:
        """Where one of two sounds is shown: title, player, picture."""
        with gr.Column(min_width=240, visible=False) as column:
            title = gr.Markdown()
            player = gr.Audio(
                label=("Left", "Right")[place], type="filepath", interactive=False, buttons=["download"], editable=False
            )
            spectrogram = gr.HTML()
        return [column, title, player, spectrogram]

    @staticmethod
    def _controls(gr: Any, offer: Offer) -> list[Any]:
        _, high, noise = offer.noise
        return [
            gr.update(maximum=round(offer.window, 2), value=round(offer.seconds, 2)),
            gr.update(maximum=max(500, offer.steps), value=offer.steps),
            gr.update(maximum=max(25, offer.cfg_scale), value=offer.cfg_scale),
            gr.update(choices=list(offer.samplers), value=offer.sampler),
            gr.update(maximum=high, value=noise),
            gr.update(visible=offer.inpaints, value=""),
            gr.update(visible=offer.inpaints, value=False),
            gr.update(visible=offer.has_adapter, value=1),
        ]

    @staticmethod
    def _shown(gr: Any, pair: Pair) -> Iterator[Any]:
        for place in range(2):
            if place >= len(pair.sides):
                yield from (gr.update(visible=False), "", None, "")
                continue
            side, title = pair.sides[place], pair.title(place)
            yield gr.update(visible=True)
            yield f"### {title}"
            yield gr.update(value=str(side.sound), label=title)
            yield picture(side.picture, title, side.warning)

    def _around(self, gr: Any, pair: Pair) -> list[Any]:
        lines = self.playground.lines()
        return [
            gr.update(visible=pair.hidden),
            gr.update(visible=True),
            self.playground.score(),
            gr.update(choices=lines, value=pair.number),
            pair.number,
        ]

    def offer(self, name: str) -> Offer:
        """What a model takes. Raises InputError on a name that must not be chosen."""
        if not self.free and name not in self.names():
            raise InputError(f"{name!r} is none of the models to choose from: {', '.join(self.names())}")
        return self.playground.offer(name)

    def asked(self, *values: Any) -> Pair:
        """Render what the controls say, in the order of the page. Raises InputError on what a model cannot take."""
        prompt, negative, a, b, strength_a, strength_b, seconds, seed, steps, cfg, sampler, *rest = values
        source, noise, mask, vary, blind = rest
        names = [a] if b in (NONE, "", None) else [a, b]
        # Rounded to the slider, the whole window may be a little too long.
        length = min(float(seconds), *(self.offer(name).window for name in names))
        if source:  # as long as it is, and no longer than wanted
            length = min(length, facts_of(Path(source), ORIGIN).seconds)
        request = Request(
            prompt=prompt or "",
            seconds=f"{length:.17g}",
            seed=str(seed).strip(),
            cfg_scale=f"{cfg:g}",
            steps=str(steps),
            sampler=sampler or "",
            negative_prompt=negative or None,
            init_audio=source or "",
            init_noise_level=f"{noise:g}" if source and (vary or not mask) else "",
            mask=mask or "" if source else "",
        )
        return self.playground.render(request, tuple(names), (strength_a, strength_b), bool(blind))

    @staticmethod
    def told(pair: Pair) -> str:
        names = "" if pair.hidden else f": {' and '.join(pair.names)}"
        return f"Sound {pair.number}, seed {pair.request.seed}{names}"


def free_port(host: str, wanted: int | None) -> int:
    """The port that is wanted, or the first free one from PORT on. Raises InputError if there is none."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for port in [wanted] if wanted is not None else range(PORT, PORT + 100):
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
                return int(probe.getsockname()[1])
            except OSError as error:
                reason = error.strerror or str(error)
    raise InputError(f"{host}: cannot listen on port {wanted or f'{PORT} to {PORT + 99}'} ({reason}): choose another")


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def serve(page: Page, host: str, port: int, scratch: Path) -> None:
    """Serve the page until this process is interrupted."""
    # Nothing is reported or fetched. gradio reads these when it is imported.
    os.environ.update(
        GRADIO_ANALYTICS_ENABLED="False",
        HF_HUB_OFFLINE="1",
        HF_HUB_DISABLE_TELEMETRY="1",
        GRADIO_TEMP_DIR=str(scratch / "served"),
    )
    try:
        import gradio as gr
    except ImportError as error:
        raise InputError(
            f"the page needs the package {error.name}: start it with `uv run --group ui python scripts/playground.py`"
        ) from None
    theme = gr.themes.Default(font=SYSTEM, font_mono=("ui-monospace", "monospace"))
    blocks = page.build()
    blocks.queue(api_open=False)
    blocks.launch(
        server_name=host,
        server_port=port,
        share=False,
        inbrowser=False,
        prevent_thread_lock=True,
        quiet=True,
        footer_links=[],
        enable_monitoring=False,
        ssr_mode=False,
        run_history=False,
        theme=theme,
        css=CSS,
        head=HEAD,
    )
    address = f"[{host}]" if ":" in host else host
    log.info("open http://%s:%d in a browser; end it with Ctrl+C", address, port)
    if not is_loopback(host):
        log.warning("warning: everybody who reaches %s can use this page", host)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        log.info("ended")
    finally:
        blocks.close(verbose=False)
