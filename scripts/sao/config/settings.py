"""The settings that the plan hands to scripts: one type per script. Plan and script share it, so they cannot differ.

Settings decide a script's result, so a change reruns the job. Settings that decide no result have a type of their own
(`RunningSettings`). On the command line, `--settings` takes JSON or the path of a JSON file.
"""

# No `from __future__ import annotations` here: with it, typing cannot tell optional keys from required ones.
import argparse
import json
from pathlib import Path
from typing import Any, NotRequired, TypedDict, TypeVar, is_typeddict

Kind = TypeVar("Kind")
Entry = dict[str, Any]  # an entry of the config, as the schema describes it
TrainSeconds = (
    float | str | None
)  # the training window: None means the model's own, a text is the file that rule window writes


class FetchSettings(TypedDict):
    repo: str  # a data set on the Hub
    revision: str  # a commit
    config: NotRequired[str]  # a subset of it
    audio_column: NotRequired[str]


class ScanSettings(TypedDict):
    format: str  # of the corpus
    folder: str  # of the sounds
    options: Entry  # what the format reads them by


class CutSettings(TypedDict):
    format: str  # of the corpus
    source: str  # folder of the recordings
    silence_dbfs: float  # of the corpus: a clip with a lower peak is silent
    cut: Entry  # the corpus's `cut`: its method, and what this method looks at


class ManifestSettings(TypedDict):
    format: str
    audio: str  # folder of the sounds
    cut: NotRequired[bool]  # true if the sounds are clips that rule cut made; absent if they are not
    split_column: str | None  # metadata column that names the split, if there is one
    group_column: str | None
    columns: list[str]  # whose numbers conditioners take
    fields: NotRequired[list[str]]  # that prompts are made from


class SplitSettings(TypedDict):
    method: str  # official, fraction or column
    train: list[str]  # published splits, or values of the column
    validation: list[str]
    evaluation: list[str]
    seed: int | None  # for method fraction
    fractions: dict[str, float] | None  # share to draw for validation and evaluation


class ValidateSettings(TypedDict):
    split: SplitSettings
    on_invalid: str  # fail or drop
    on_leak: str
    licenses: list[str] | None  # allowed licences; None allows all
    silence_dbfs: float
    train_seconds: float | None  # longest allowed clip; None if clips may be longer, or if the model decides


class EncodeSettings(TypedDict):
    train_seconds: TrainSeconds
    random_crop: bool  # clips may be longer than the window


class MixSettings(TypedDict):
    corpora: list[str]
    on_leak: str


class ClipSource(TypedDict):
    """Where the clips of a corpus are."""

    latents: str | None  # folder of the shards; None trains from audio
    audio: dict[str, str] | None  # folder of each published split
    prompts: NotRequired[Entry]  # how they are made; without it, captions are prompts


class Member(ClipSource):
    """A corpus of a mixture."""

    weight: float


class DatasetSettings(EncodeSettings, ClipSource):
    shards: int | None
    on_invalid: str
    members: NotRequired[dict[str, Member]]  # of a mixture, in place of its own source


class Batches(TypedDict):
    batch: int  # clips per step
    captions: str


class ModelSource(TypedDict):
    """Where a base model comes from: `path`, or `repo` and `revision`."""

    path: NotRequired[str]
    repo: NotRequired[str]
    revision: NotRequired[str]
    model_config: str  # name of that file
    weights: str
    text_encoder: NotRequired[Entry]  # repo, revision
    clap: NotRequired[Entry]  # path, or repo, revision and file


class InitSettings(TypedDict):
    init_from: str  # as the config has it: a run, a leg of it, or a path
    init_weights: str  # ema or online


class TrainingSettings(TypedDict):
    """Settings that decide a run's weights. The number of steps is not one of them: a longer training repeats no leg."""

    base_model: str
    corpus: str
    method: str  # full, or a form of adapter
    adapter: Entry | None
    batch_size: int
    accumulate: int | str  # or auto
    devices: int
    num_nodes: int
    strategy: str
    threads: int
    learning_rate: float | None
    optimizer: Entry | None
    scheduler: Entry | None
    training: Entry  # laid over the section of the model config
    gradient_clip: float
    ema: bool | None
    precision: str
    recompute_activations: bool | None  # None is for what fits
    compile: bool | None
    captions: str
    phase_flip: bool
    seed: int


class RunningSettings(TypedDict):
    """Settings of a training that decide no weight, so that a change reruns nothing."""

    workers: int
    validate_every: int
    wandb: Entry | None
    tensorboard: bool
    scratch: bool


class Sampling(TypedDict):
    sampler: str
    steps: int
    cfg_scale: float
    apg_scale: float
    sigma_min: float
    sigma_max: float
    negative_prompt: str | None


class PromptSettings(TypedDict):
    clips: dict[str, str | int]  # by side: how many, or all
    caption: int  # which caption of a clip is its prompt, counted from 1
    templates: NotRequired[bool]  # the first text of the corpus's templates is
    seconds: float | None  # length of a sound that is rendered from a file of prompts
    seed: int
    takes: NotRequired[int]  # renders of each prompt; absent if there is one
    sampling: Sampling
    train_seconds: TrainSeconds


class RenderSettings(TypedDict):
    loudness: float | None  # LUFS
    format: str
    precision: str  # auto, fp32, bf16 or fp16
    sampling: Sampling
    train_seconds: TrainSeconds
    watermark: NotRequired[Entry]  # method, message, strength; absent if renders are not marked


class ListenSettings(TypedDict):
    clips: int  # how many prompts
    cfg_scales: list[float] | None  # of guidance; None leaves each prompt its own
    empty_prompt: bool


class AudioLogSettings(TypedDict):
    """Where the sounds of a run's legs are logged."""

    wandb: Entry | None
    tensorboard: bool


class WeightsSettings(TypedDict):
    """A declared file of weights. A commit on the Hub stands for its hash; any other file needs one."""

    sha256: str | None
    repo: NotRequired[str]
    revision: NotRequired[str]
    file: NotRequired[str]


class EmbedSettings(TypedDict):
    embedding: Any  # one entry of evaluation.embeddings, without the weights
    windows: NotRequired[list[str]]  # splits whose windows are kept, if the embedding compares windows


class EvaluateSettings(TypedDict):
    embeddings: list[Any]
    bootstrap: int
    level: float
    seed: int
    comparisons: int  # models that are compared with the same base model
    source: Entry  # folder, run, base_model, corpus


class ConvertSettings(TypedDict):
    form: str  # of the export
    precision: str  # float32, float16 or bfloat16
    sampling: Sampling
    train_seconds: TrainSeconds


class VotesSettings(TypedDict):
    level: float  # of the intervals


class CardSettings(TypedDict):
    watermark: NotRequired[Entry]  # of the renders that were measured; absent if they are not marked
    source: Entry  # of the base model: name, repo, …
    corpora: dict[str, float]  # with their weights; one, if it is no mixture
    sampling: Sampling
    train_seconds: TrainSeconds
    sent: NotRequired[list[str]]  # what is published, if it is more than the merged model in float32


def pick(kind: type[Kind], entry: Entry) -> Kind:
    """The settings of type `kind` from a config's entry, which may have more keys. Raises KeyError if one is missing."""
    optional: frozenset[str] = getattr(kind, "__optional_keys__", frozenset())
    return {key: entry[key] for key in kind.__annotations__ if key in entry or key not in optional}  # type: ignore[return-value]


def to_text(settings: Any) -> str:
    """Settings as JSON for a command line."""
    return json.dumps(settings, ensure_ascii=False)


def from_text(kind: type[Kind], text: str) -> Kind:
    """Settings from JSON or from a JSON file. Raises ArgumentTypeError if keys are missing or unknown."""
    try:
        settings = json.loads(text if text.lstrip().startswith(("{", "[")) else Path(text).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"neither JSON nor the path of a JSON file: {error}") from None
    if is_typeddict(kind):
        required = kind.__required_keys__  # type: ignore[attr-defined]
        allowed = required | kind.__optional_keys__  # type: ignore[attr-defined]
        if not isinstance(settings, dict) or (missing := sorted(required - set(settings))):
            raise argparse.ArgumentTypeError(
                f"{kind.__name__} without {', '.join(missing) if isinstance(settings, dict) else 'keys'}"
            )
        if unknown := sorted(set(settings) - allowed):
            raise argparse.ArgumentTypeError(f"{kind.__name__} has no {', '.join(unknown)}")
    return settings


def add_settings(parser: argparse.ArgumentParser, kind: type[Any], name: str = "settings", help: str = "") -> None:
    """Add the option `--settings` (or another `name`) for settings of type `kind` to a command line."""
    meaning = help or (kind.__doc__ if is_typeddict(kind) and kind.__doc__ else "settings that decide the result")
    parser.add_argument(
        f"--{name}", type=lambda text: from_text(kind, text), required=True, help=f"JSON or a JSON file: {meaning}"
    )
