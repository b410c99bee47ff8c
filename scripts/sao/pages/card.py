"""Write the model card of a fine-tuned model, and the credits of the clips that it was trained on."""

from __future__ import annotations

import html
import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from sao.base.files import size_text
from sao.base.tables import caption_columns, captions_of
from sao.config.settings import TrainSeconds
from sao.data.cuts import in_times
from sao.data.licenses import MISSING, UNKNOWN, forbids_derivatives, is_non_commercial, label
from sao.evaluation.printed import corrected, difference, interval, notes, with_unit
from sao.evaluation.verdict import COMPARED_BY
from sao.models.config import ModelConfig, downsampling_ratio, has_clap, objective, text_encoder_name, window_frames
from sao.models.numbers import Numbers, column_of, numbers_of

if TYPE_CHECKING:
    from huggingface_hub import ModelCardData

TAGS = ["stable-audio-tools", "text-to-audio", "audio-generation"]
DIGITS = 4


def attribution(clips: pd.DataFrame) -> pd.DataFrame:
    """Clip, author, link and licence of every training clip, as text that no spreadsheet reads as a formula.

    Clips that were cut from a recording have its name and the times.
    """
    return pd.DataFrame(
        {
            "clip_id": clips.clip_id,
            "file_name": clips.file_name.map(no_formula),
            "author": clips.manufacturer.map(no_formula),
            "link": clips.sound_link.map(no_formula),
            "license": clips.license.map(no_formula),
        }
        | ({"cut_from": in_times(clips).map(no_formula)} if "source_file" in clips else {})
    )


def no_formula(text: str) -> str:
    """Put an apostrophe before a text that begins like a formula, so that a spreadsheet shows it and does not compute it.

    The signs are those of https://owasp.org/www-community/attacks/CSV_Injection.
    """
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")) else text


@dataclass(frozen=True)
class Card:
    """The facts about a model, and the sections of its card made from them."""

    training: dict[str, Any]  # training.json of the leg that was exported
    export: dict[str, Any]  # export.json
    config: ModelConfig
    source: dict[str, Any]  # source of the base model: name, repo, revision, path, text_encoder, clap
    digests: dict[str, str]  # SHA-256 of the files of the base model, by path
    corpora: dict[str, float]  # with their weights
    sampling: dict[str, Any]  # settings of the sampler
    train_seconds: TrainSeconds
    clips: pd.DataFrame  # the training clips
    measures: dict[str, Any]  # this model's JSON of rule `evaluate`
    base_measures: dict[str, Any]  # the base model's
    start: dict[str, Any] | None  # source.json of rule `init`; None if it started from the base model
    sent: Sequence[str] = ("model",)  # what is published: model, adapter, diffusers
    exports: Sequence[dict[str, Any]] = ()  # records of rule `convert`, of what is published
    watermark: dict[str, Any] | None = None  # of the sounds that were measured; None if they were not marked

    def text(self) -> str:
        """README.md, with the Hub's front matter."""
        parts = [
            f"---\n{self.front().to_yaml()}\n---\n",
            f"# {self.training['run']}\n",
            self.summary(),
            "## How to load it\n",
            *self.ways(),
            "## Training data\n",
            self.data(),
            "## Measures\n",
            self.figures(),
            *self.marked(),
            "## Settings\n",
            self.settings(),
        ]
        return "\n".join(parts)

    def marked(self) -> list[str]:
        """What the measured sounds had that sounds of this model have not by themselves."""
        if self.watermark is None:
            return []
        return [
            f"The measured sounds were marked with a watermark (AudioSeal, message {self.watermark['message']}, strength "
            f"{self.watermark['strength']:g}) after they were rendered. The model itself marks nothing.\n"
        ]

    def front(self) -> ModelCardData:
        """The front matter, which the Hub reads."""
        from huggingface_hub import EvalResult, ModelCardData

        run, corpus = self.training["run"], " + ".join(self.corpora)
        results = [
            EvalResult(
                task_type="text-to-audio",
                dataset_type=corpus,
                dataset_name=corpus,
                dataset_split=measure["split"],
                metric_type=measure["measure"],
                metric_name=measure["name"],
                metric_value=measure["value"],
            )
            for measure in self.measures["measures"]
            if measure["split"] == COMPARED_BY and measure["value"] is not None
        ]
        repo = self.source.get("repo")
        licence: dict[str, Any] = {"license": "other", "license_link": f"https://huggingface.co/{repo}"} if repo else {}
        return ModelCardData(
            base_model=repo,
            **licence,
            library_name="stable-audio-tools",
            pipeline_tag="text-to-audio",
            tags=TAGS,
            model_name=run if results else None,
            eval_results=results or None,
        )

    def summary(self) -> str:
        training, export = self.training, self.export
        started = "those that it started from" if self.start else "the base model's"
        whole = "model" in self.sent and not any(record["form"] == "model" for record in self.exports)
        what = "`model.safetensors`" if whole else "the merged model in float32, which is not among these files"
        averaged = "; those of the diffusion model are moving averages" if training["moving_average"] else ""
        return (
            f"{self.base()}, fine-tuned with stable-audio-tools for {training['steps']} steps on {len(self.clips)} clips "
            f"of {self.trained_on()}.\n\n"
            f"{self.changed()}{self.lineage()}- SHA-256 of {what}: `{export['sha256']}`. Of its "
            f"{export['keys']} tensors {export['changed_keys']} differ from {started}{averaged}.\n"
            f"- SHA-256 of the base model's weights: `{self.digests['model.safetensors']}`.\n"
        )

    def trained_on(self) -> str:
        """The corpora, with their weights if there are several."""
        if len(self.corpora) == 1:
            return f"the corpus `{next(iter(self.corpora))}`"
        return f"the corpora {', '.join(f'`{name}` (weight {weight:g})' for name, weight in self.corpora.items())}"

    def changed(self) -> str:
        """What the run changed of how the base model was trained."""
        given = self.training["settings"]["training"]
        told = ", ".join(f"`{key}: {json.dumps(value)}`" for key, value in given.items())
        return f"- Of the base model's `training` settings the run changed {told}.\n" if told else ""

    def lineage(self) -> str:
        """What the training started from, and what that had started from, back to the base model."""
        lines, start = "", self.start
        while start:
            # A path may reveal something about a machine, so only its last part is shown.
            name, leg = code(start["init_from"].rsplit("/", 1)[-1]), f", {start['leg']}" if start["leg"] else ""
            digests = ", ".join(f"`{digest}`" for digest in start["sha256"].values())
            before = "That" if lines else "The training"
            lines += f"- {before} started from {name} ({start['kind']}{leg}; SHA-256 {digests}).\n"
            start = start["before"]
        return lines

    def base(self) -> str:
        """The base model and its source."""
        if repo := self.source.get("repo"):
            return f"[{repo}](https://huggingface.co/{repo}) at revision `{self.source['revision']}`"
        path = Path(self.source["path"])
        # An absolute path may reveal something about a machine, so only its last part is shown.
        return f"The base model `{self.source['name']}` (folder {code(str(path.name if path.is_absolute() else path))})"

    def ways(self) -> list[str]:
        """How to load what is published, one section for each form if there are several."""
        found = {"The merged model": self.loading()} if "model" in self.sent else {}
        if "adapter" in self.sent:
            found["The adapter, in stable-audio-tools"] = self.loading_adapter()
            found["The adapter, in ComfyUI"] = self.in_comfyui()
        if "diffusers" in self.sent:
            found["The merged model, in diffusers"] = self.in_diffusers()
        if list(found) == ["The merged model"]:
            parts = [*found.values()]
        else:
            parts = [f"### {heading}\n\n{text}" for heading, text in found.items()]
        return [*parts, self.exactness()] if self.exports else parts

    def needed(self) -> str:
        """What has to be installed for stable-audio-tools."""
        versions = self.training["provenance"]
        return (
            f"In this folder, with stable-audio-tools {versions['stable-audio-tools']} and torch {versions['torch']} (`pip "
            f"install --ignore-requires-python stable-audio-tools=={versions['stable-audio-tools']} pytorch-lightning`):\n\n"
        )

    def loading(self) -> str:
        """Python code that loads the model and makes a sound with it, and its requirements."""
        return (
            f"{self.needed()}"
            "```python\n"
            "import safetensors.torch, stable_audio_tools\n"
            'model = stable_audio_tools.create_model_from_config_path("model_config.json")\n'
            'safetensors.torch.load_model(model, "model.safetensors")\n'
            f"```\n\n{self.sounding()}"
        )

    def sounding(self) -> str:
        """What else is needed, and code that makes a sound."""
        return (
            f"{self.encoder()}\n\n"
            "A sound, from the caption of a clip that it was trained on and with the base model's sampling settings:\n\n"
            f"```python\n{self.generation()}```\n"
        )

    def loading_adapter(self) -> str:
        """Python code that lays the adapter over the base model and makes a sound, and its requirements."""
        repo, digest = self.source.get("repo"), self.digests["model.safetensors"]
        weights = self.source.get("weights", "")
        if repo and weights.endswith(".safetensors"):
            fetch = "from huggingface_hub import hf_hub_download\n"
            base = f"hf_hub_download({literal(repo)}, {literal(weights)}, revision={literal(self.source['revision'])})"
            told = "The base model comes from the Hub:"
        else:
            fetch, base = "", '"base/model.safetensors"'
            told = f"The weights of the base model, as safetensors (SHA-256 `{digest}`), have to lie in `base/`:"
        return (
            f"{self.needed()}{told}\n\n"
            "```python\n"
            f"import safetensors.torch, stable_audio_tools\n{fetch}"
            "from stable_audio_tools.models.lora import load_and_apply_loras\n"
            'model = stable_audio_tools.create_model_from_config_path("model_config.json")\n'
            f"safetensors.torch.load_model(model, {base})\n"
            f'load_and_apply_loras(model, ["lora.safetensors"], {literal(self.config["model_type"])})\n'
            f"```\n\n{self.sounding()}"
        )

    def in_comfyui(self) -> str:
        """How ComfyUI loads the adapter."""
        file = code(f"{self.training['run']}-comfyui.safetensors")
        return (
            f"Put {file} into `ComfyUI/models/loras`. Load the base model with *Load Checkpoint*, and connect its model through "
            f"*LoraLoaderModelOnly* with {file} and `strength_model` 1, which is the strength that it was trained at.\n"
        )

    def in_diffusers(self) -> str:
        """Python code that makes a sound with diffusers."""
        _, prompt, seconds = self.first_clip()
        rate, sampling = self.config["sample_rate"], self.sampling
        record = next(record for record in self.exports if record["form"] == "diffusers")
        half = "" if record["precision"] == "float32" else f'torch.{record["precision"]} if device == "cuda" else '
        # The folder has code for an autoencoder that diffusers does not have.
        has_code = any(name.endswith(".py") for name in record["files"])
        end = f"{min(math.ceil(seconds), self.window() / rate):.10g}"
        negative = sampling["negative_prompt"]
        lines = [
            "import soundfile, torch",
            "from diffusers import StableAudioPipeline",
            "",
            'device = "cuda" if torch.cuda.is_available() else "cpu"',
            f"prompt, seconds = {literal(prompt)}, {seconds:.6g}",
            "pipeline = StableAudioPipeline.from_pretrained(",
            f'    "diffusers", torch_dtype={half}torch.float32{", trust_remote_code=True" if has_code else ""}',
            ").to(device)",
            "audio = pipeline(",
            f"    prompt, {f'negative_prompt={literal(negative)}, ' if negative is not None else ''}audio_end_in_s={end},",
            f"    num_inference_steps={sampling['steps']}, guidance_scale={sampling['cfg_scale']},",
            "    generator=torch.Generator().manual_seed(0),",
            ").audios  # [1, channels, samples]",
            f'soundfile.write("sound.wav", audio[0, :, : round(seconds * {rate})].T.float().cpu().numpy(), {rate})',
        ]
        code_told = (
            " `trust_remote_code` lets it run `diffusers/vae/oobleck_of_pipeline.py`, the autoencoder."
            if has_code
            else ""
        )
        return (
            f"In this folder, with diffusers (`pip install diffusers transformers soundfile`).{code_told}\n\n"
            "```python\n" + "".join(f"{line}\n" for line in lines) + "```\n"
        )

    def exactness(self) -> str:
        """Sizes of what is published, and how far its weights and a sound lie from those of the exact model."""
        rows = []
        for record in self.exports:
            render, weights = record["render"], record["weights"]
            sound = "–" if render is None else "none" if render["decibels"] is None else f"{render['decibels']:.1f} dB"
            errors = f"{weights['mean_error']:.1e} ({weights['largest_error']:.1e})"
            rows.append((record["form"], record["precision"], size_text(record["bytes"]), errors, sound))
        text = (
            "How exact these files are: of the weights, the length of the difference to the merged model in float32 over the length of "
            "the weights, on average (at most); of a sound, the level of the difference to the same sound of that model, relative to "
            "that sound.\n\n"
        )
        return text + table(("Form", "Precision", "Size", "Weights differ by", "A sound differs by"), rows, "--rrr")

    def encoder(self) -> str:
        """The models that stable-audio-tools loads by name beside the weights."""
        name = text_encoder_name(self.config)
        text = (
            f"The text encoder is not part of the weights: stable-audio-tools loads {code(name)} from the Hub's cache. "
        )
        digest = next((d for path, d in self.digests.items() if is_encoder(path, name)), None)
        trained_with = f"It was trained with that of SHA-256 `{digest}`" if digest else "It was trained with that"
        if "repo" in (encoder := self.source.get("text_encoder") or {}):
            text += f"{trained_with}, `{encoder['repo']}` at revision `{encoder['revision']}`."
        else:
            text += (
                f"{trained_with}, which came with the base model and need not be the published one: set `HF_HUB_CACHE` to the "
                f"folder `hub` that was made with it (`results/models/{self.source['name']}/hub`) and `HF_HUB_OFFLINE` to "
                "1 before Python starts."
            )
        if has_clap(self.config):
            clap = self.source.get("clap", {})
            place = (
                f" {code(clap['file'])} of `{clap['repo']}` at revision `{clap['revision']}`" if "repo" in clap else ""
            )
            text += (
                f" The checkpoint of CLAP is a file of its own,{place or ' that of the base model'} (SHA-256 "
                f"`{self.digests['hub/clap.pt']}` once its tensors alone are kept): put its path into `clap_ckpt_path` in "
                "`model_config.json`, and install laion-clap."
            )
        return text

    def generation(self) -> str:
        """Code that renders the first training clip's caption to `sound.wav`."""
        row, prompt, seconds = self.first_clip()
        numbers = {number.name: number.read(row[column_of(number)]) for number in numbers_of(self.config)}
        sampling = self.sampling
        rate, samples = self.config["sample_rate"], self.window()
        sigma_min = f"sigma_min={sampling['sigma_min']}, " if objective(self.config) == "v" else ""
        lines = [
            "import soundfile, torch",
            "from stable_audio_tools.inference.generation import generate_diffusion_cond",
            "",
            'device = "cuda" if torch.cuda.is_available() else "cpu"',
            f"prompt, seconds = {literal(prompt)}, {seconds:.6g}",
            "audio = generate_diffusion_cond(",
            "    model.to(device).eval(),",
            f"    conditioning=[{conditioning('prompt', seconds, numbers)}],",
            *(
                [f"    negative_conditioning=[{conditioning(literal(sampling['negative_prompt']), seconds, numbers)}],"]
                if sampling["negative_prompt"] is not None
                else []
            ),
            f"    sampler_type={literal(sampling['sampler'])}, steps={sampling['steps']}, "
            f"cfg_scale={sampling['cfg_scale']}, apg_scale={sampling['apg_scale']},",
            f"    {sigma_min}sigma_max={sampling['sigma_max']},",
            f"    sample_size={samples}, seed=0, device=device,",
            ")  # [1, channels, samples]",
            f'soundfile.write("sound.wav", audio[0, :, : round(seconds * {rate})].T.cpu().numpy(), {rate})',
        ]
        return "".join(f"{line}\n" for line in lines)

    def first_clip(self) -> tuple[dict[str, Any], str, float]:
        """The first training clip: its row, its caption, and its length in s."""
        row: dict[str, Any] = {str(key): cell for key, cell in self.clips.iloc[0].to_dict().items()}
        # A longer clip is trained on in crops of one window.
        seconds = min(row["seconds"], self.window() / self.config["sample_rate"])
        return row, captions_of(row, caption_columns(row))[0], seconds

    def window(self) -> int:
        """Samples of the training window."""
        return window_frames(self.config, self.train_seconds) * downsampling_ratio(self.config)

    def data(self) -> str:
        """The clips, and the limits of their licences."""
        licences = Counter(map(label, self.clips.license))
        names = self.clips.license
        unknown = sum(number for name, number in licences.items() if name.startswith(UNKNOWN))
        kinds = [
            (names.map(is_non_commercial).sum(), "{} of the clips are under non-commercial licences."),
            (names.map(forbids_derivatives).sum(), "{} of the clips are under licences that forbid derivatives."),
            (unknown, "{} of the clips are under licences that are not known."),
            (licences[MISSING], "The licence of {} of the clips is missing."),
        ]
        limits = [text.format(number) for number, text in kinds if number]
        settings = self.training["settings"]
        sentences = [
            f"{len(self.clips)} clips of the corpus `{settings['corpus']}`, {self.clips.seconds.sum() / 3600:.2f} h; "
            f"{self.training['validation_clips']} more to validate on. `ATTRIBUTION.csv` names author, link and licence of "
            "every clip that it was trained on.",
            *limits,
            "The licence of the base model applies to this model too.",
        ]
        return (
            " ".join(sentences)
            + "\n\n"
            + table(("Licence", "Clips"), [(markdown(name), n) for name, n in sorted(licences.items())], "-r")
        )

    def figures(self) -> str:
        """Every measure, beside the base model's."""
        measures, base = self.measures["measures"], {m["key"]: m for m in self.base_measures["measures"]}
        splits = list(dict.fromkeys(m["split"] for m in measures))
        if not measures:
            return "None was taken.\n"
        rows = [
            (
                measure["split"],
                with_unit(measure),
                measure["better"],
                difference(measure, DIGITS),
                interval(base.get(measure["key"]), DIGITS),
                interval(measure, DIGITS),
                measure["n"],
            )
            for measure in sorted(measures, key=lambda m: splits.index(m["split"]))
        ]
        level, comparisons = self.measures["settings"]["level"], self.measures["comparisons"]
        caveats = notes(measures)
        text = (
            f"Of the split `{COMPARED_BY}`, whose clips were held out: {self.measures['verdict']}.\n\n"
            "Of sounds rendered from the captions of clips. *Difference* is this model less the base model, of the same prompts "
            f"and seeds. {corrected(level, comparisons)} Brackets hold intervals over clips (level {level:.4g}), and n is the "
            "number of clips. On `train` a low distance only says how well the clips were learned.\n\n"
        )
        header = ("Split", "Measure", "Better", "Difference", "Base model", "This model", "n")
        return text + table(header, rows, "---rrrr") + "".join(f"\n- {note}" for note in caveats) + "\n" * bool(caveats)

    def settings(self) -> str:
        """The settings of the training."""
        training, provenance = self.training, self.training["provenance"]
        rows = [
            ("leg", training["leg"]),
            ("steps", training["steps"]),
            ("clips a step", training["batch"]),
            ("parameters trained", training["trained_parameters"]),
            ("validation loss", f"{training['validation_loss']:.4f}"),
            # Only settings that decide the weights. The place where a training was logged stays private.
            *((k, value(v)) for k, v in provenance["settings"].items()),
            *((key, provenance[key]) for key in ("stable-audio-tools", "torch")),
        ]
        return table(("Setting", "Value"), rows, "--")


def is_encoder(path: str, name: str) -> bool:
    """Whether a file of a base model has the weights of this text encoder."""
    return path.startswith(f"hub/models--{name.replace('/', '--')}/") and path.endswith("/model.safetensors")


def markdown(text: str) -> str:
    """Escape all marks of Markdown and HTML in a text. A URL stays a link."""
    return re.sub(r"[\\`*_\[\]~$#!]", r"\\\g<0>", html.escape(text, quote=False))


def code(text: str) -> str:
    """A text as inline code in Markdown. It stands between more backticks than its own longest run of them."""
    text = " ".join(text.split())
    marks = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    space = " " if text[:1] == "`" or text[-1:] == "`" else ""
    return f"{marks}{space}{text}{space}{marks}"


def value(setting: Any) -> str:
    """A setting as text, or as code if Markdown or HTML would change it."""
    text = setting if isinstance(setting, str) else json.dumps(setting)
    return text if markdown(text) == text else code(text)


def literal(text: str) -> str:
    """A Python string literal on one line."""
    return json.dumps(text, ensure_ascii=False)


def conditioning(prompt: str, seconds: float, numbers: Numbers) -> str:
    """Python code of a clip's conditioning, the same as in rule `render`."""
    more = "".join(f", {literal(name)}: {value!r}" for name, value in numbers.items())
    return f'{{"prompt": {prompt}, "seconds_start": 0, "seconds_total": {math.ceil(seconds)}{more}}}'


def table(header: tuple[str, ...], rows: list[tuple[Any, ...]], sides: str) -> str:
    """A Markdown table. `sides` has one sign per column, `r` for numbers."""
    marks = ["---:" if side == "r" else "---" for side in sides]
    lines = [header, marks, *rows]
    cells = [[" ".join(str(cell).split()).replace("|", r"\|") for cell in line] for line in lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)
