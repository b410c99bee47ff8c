"""Try a prompt: render it with a run, a leg of it, the base model, or any folder with a model.safetensors.

The file has the same bytes as the graph's render of this prompt. An option that is left out takes what the graph has for the
prompt, or else the config's value.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import warnings
from pathlib import Path

from sao.base.command import InputError, parse, run

from sao.plan.trying import models_of
from sao.rendering.outputs import check_output, compared, with_format, write
from sao.rendering.trying import Loaded, Request, beside, prepare, suffix_of, with_random_seed
from sao.rendering.worker import Worker


def request_of(args: argparse.Namespace) -> Request:
    """What the command line asks for. Raises InputError on a number without a name."""
    numbers = dict(text.partition("=")[::2] for text in args.number)
    if bad := next((text for text in args.number if "=" not in text), None):
        raise InputError(f"--number: found {bad!r}; it takes NAME=NUMBER, such as bpm=120")
    return Request(
        prompt=args.prompt,
        seconds=args.seconds,
        seed=args.seed,
        cfg_scale=args.cfg,
        steps=args.steps,
        sampler=args.sampler,
        negative_prompt=args.negative_prompt,
        init_audio=args.init_audio,
        init_noise_level=args.init_noise_level,
        mask=args.mask,
        strength=args.strength,
        numbers=numbers,
    )


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "model", help="a run (demo), a leg (demo@step-00000300), base, or a folder with model.safetensors"
    )
    parser.add_argument("prompt", help="what to render")
    parser.add_argument(
        "--output", "-o", type=Path, help="the sound (default: out.wav, or out.flac with render.format flac)"
    )
    parser.add_argument("--compare", metavar="MODEL", help="render with this model too, such as base: out.base.wav")
    parser.add_argument("--seconds", default="", help="length (default: render.seconds, or the model's window)")
    parser.add_argument("--seed", default="", help="whole number from 0; -1 draws one (default: from render.seed)")
    parser.add_argument("--cfg", "--cfg-scale", default="", help="scale of classifier-free guidance")
    parser.add_argument("--steps", default="", help="sampling steps")
    parser.add_argument("--sampler", default="", help="by stable-audio-tools' name")
    parser.add_argument("--negative-prompt", help='guidance leads away from it; "" for none')
    parser.add_argument("--init-audio", default="", metavar="FILE", help="a sound to start from")
    parser.add_argument("--init-noise-level", default="", metavar="LEVEL", help="noise on it (docs/guides/runs.md)")
    parser.add_argument("--mask", default="", metavar="START:END", help="make this part of it anew, in seconds")
    parser.add_argument("--strength", default="", help="of the run's adapter, from 0 to 10 (default: 1)")
    parser.add_argument(
        "--number", action="append", default=[], metavar="NAME=NUMBER", help="beside the prompt: bpm=120"
    )
    parser.add_argument("--threads", type=int, help="of the processor (default: as rule render has, at most all)")
    parser.add_argument(
        "--text-encoder", type=Path, metavar="FOLDER", help="of a model in a folder, if it is elsewhere"
    )
    parser.add_argument(
        "--configfile", type=Path, action="append", default=[], metavar="FILE", help="as for Snakemake; may be repeated"
    )
    parser.add_argument(
        "--config", action="append", default=[], metavar="KEY=VALUE", help="as for Snakemake; may be repeated"
    )
    return parser


def main() -> None:
    args = parse(options())
    if args.threads is not None and args.threads < 1:
        raise InputError(f"--threads is {args.threads}, not a whole number from 1: correct it")
    warnings.simplefilter("ignore")  # of libraries, about their own code

    with tempfile.TemporaryDirectory(prefix="try-") as folder:
        scratch = Path(folder)
        models = models_of(args.configfile, args.config, scratch)
        model = with_format(models.find(args.model, text_encoder=args.text_encoder), args.output)
        output = args.output or Path(f"out{suffix_of(model)}")
        request = with_random_seed(request_of(args))
        todo = [(model, prepare(model, request), output)]
        if args.compare is not None:
            other = with_format(models.find(args.compare, model, args.text_encoder), output)
            todo.append((other, beside(other, request, todo[0][1]), compared(output, args.compare)))
        for _, _, path in todo:
            check_output(path)
        if args.threads is not None:
            todo = [(dataclasses.replace(each, threads=args.threads), job, path) for each, job, path in todo]
        for each, job, path in todo:
            # Another base model has another text encoder, which only another process can load.
            made = Loaded(each) if each.base == model.base else Worker(each)
            write(made.render(job, scratch), each, job, path, scratch)


if __name__ == "__main__":
    run(main)
