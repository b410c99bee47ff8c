"""Build stable-audio-tools models offline, and read, convert and load their weights without a silent mismatch."""

from __future__ import annotations

import contextlib
import copy
import importlib
import os
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sao.base.command import InputError, is_out_of_memory, output_to_log

from sao.base.files import UMASK, whole
from sao.models.config import ModelConfig, has_clap, text_conditioner

if TYPE_CHECKING:
    import torch

Shape = Sequence[int]

# The functions of torch.nn.init with which layers draw their first weights.
DRAWS = (
    "uniform_",
    "normal_",
    "trunc_normal_",
    "kaiming_uniform_",
    "kaiming_normal_",
    "xavier_uniform_",
    "xavier_normal_",
)


def load_model(config: ModelConfig, hub: Path, weights: Path) -> torch.nn.Module:
    """Build the model of `config` with the weights of a safetensors file, and its text encoder from the Hub cache `hub`.

    Raises InputError unless all keys and shapes match.
    """
    with _without_random_weights():
        model = build(config, hub)
    load_weights(model, weights)
    return model


def load_trainable(config: ModelConfig, weights: Path) -> torch.nn.Module:
    """Like `load_model`, without the text encoder, which a training has no use for."""
    full_float32()
    with output_to_log():
        from sao.models.text import without_text_encoder
    with _without_random_weights(), without_text_encoder():
        model = create(config, weights.parent / "model_config.json")
    load_weights(model, weights)
    return model


def build_text_conditioner(config: ModelConfig, hub: Path) -> torch.nn.Module:
    """Build the conditioner of `config` that takes captions, with its text encoder from the Hub cache `hub`.

    Its own layer has random weights. Call this before any module imports huggingface_hub, as `build`.
    """
    config = _with_text_encoder(config, hub)
    conditioning, entry = config["model"]["conditioning"], text_conditioner(config)
    alone = {"cond_dim": conditioning["cond_dim"], "configs": [entry]}
    source = hub.parent / "model_config.json"
    made: Any = _created("create_multi_conditioner_from_conditioning_config", alone, source, "conditioners")
    return made.conditioners[entry["id"]]


@contextlib.contextmanager
def _without_random_weights() -> Iterator[None]:
    """Leave the weights of layers as the memory is: to draw a billion random numbers takes longer than to read them."""
    from torch.nn import init
    from torch.overrides import TorchFunctionMode

    draws = {getattr(init, name) for name in DRAWS}

    class Left(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = kwargs or {}
            if func in draws:
                return args[0] if args else kwargs["tensor"]
            return func(*args, **kwargs)

    with Left():
        yield


def build(config: ModelConfig, hub: Path) -> torch.nn.Module:
    """Build the model of `config` with random weights, and its text encoder from the Hub cache `hub`.

    stable-audio-tools loads the text encoder by name while it builds. Call this before any module imports
    huggingface_hub, which reads its settings only once.
    """
    full_float32()
    return create(_with_text_encoder(config, hub), hub.parent / "model_config.json")


def _with_text_encoder(config: ModelConfig, hub: Path) -> ModelConfig:
    """Let the text encoder be found in `hub` and nowhere else; returns the config that says so."""
    os.environ["HF_HUB_CACHE"] = str(hub.resolve())
    os.environ["HF_HUB_OFFLINE"] = "1"
    if has_clap(config):
        config = copy.deepcopy(config)
        text_conditioner(config)["config"]["clap_ckpt_path"] = str(hub / "clap.pt")
        with output_to_log():
            prepare_clap()
    return config


def create(config: ModelConfig, source: object) -> torch.nn.Module:
    """Let stable-audio-tools build the model of a config. Raises InputError, which names `source`, if it cannot.

    The autoencoder is float32 whatever `model_half` says: latents are made only once, and CPUs are slow in float16.
    """
    return _created("create_model_from_config", _in_float32(config), source)


def build_autoencoder(config: ModelConfig, weights: Path) -> torch.nn.Module:
    """Build the autoencoder of `config` alone, with its part of the model's weights."""
    full_float32()
    autoencoder, prefix = create_autoencoder(config, weights.parent / "model_config.json"), "pretransform.model."
    state = {key.removeprefix(prefix): value for key, value in read_safetensors(weights, prefix).items()}
    _load(autoencoder, state, weights)
    return autoencoder


def create_autoencoder(config: ModelConfig, source: object) -> torch.nn.Module:
    """Let stable-audio-tools build the autoencoder of a config, with random weights. Raises InputError as `create` does."""
    part, rate = _in_float32(config)["model"]["pretransform"], config["sample_rate"]
    pretransform: Any = _created("create_pretransform_from_config", part, source, sample_rate=rate)
    return pretransform.model


def _in_float32(config: ModelConfig) -> ModelConfig:
    config = copy.deepcopy(config)  # stable-audio-tools changes parts of it
    config["model"]["pretransform"].pop("model_half", None)
    return config


def _created(
    function: str, config: ModelConfig, source: object, module: str = "factory", **more: Any
) -> torch.nn.Module:
    with output_to_log():
        warnings.filterwarnings("ignore", category=FutureWarning)
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message="pkg_resources")
        import sao.models.upstream  # noqa: F401

        try:
            return getattr(importlib.import_module(f"stable_audio_tools.models.{module}"), function)(config, **more)
        except InputError as error:
            raise InputError(f"{source}: {error}") from None
        except ModuleNotFoundError as error:
            package = (error.name or first_line(error)).split(".")[0]
            raise InputError(
                f"{source}: the model needs the Python package {package}, which is not part of this workflow: it cannot "
                "be fine-tuned here"
            ) from None
        except Exception as error:  # noqa: BLE001 - stable-audio-tools checks little of a config
            raise InputError(
                f"{source}: stable-audio-tools cannot build this model ({type(error).__name__}: {first_line(error)})"
            ) from None


def full_float32() -> None:
    """Turn TF32 off, so that float32 convolutions and matrix products do not round to 10 binary digits.

    Encoding, training, rendering and embedding all call this.
    """
    import torch

    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def prepare_clap() -> None:
    """Import laion_clap without the downloads that it starts by itself, and make it load its checkpoint safely."""
    import sao.models.upstream  # noqa: F401

    from stable_audio_tools.models import conditioners
    from transformers import BartTokenizer, BertTokenizer

    def load(path: str, clap: torch.nn.Module) -> None:
        state = {key.removeprefix("module."): value for key, value in read_pickled(Path(path)).items()}
        # The audio side is not used.
        shapes = {k: v.shape for k, v in state.items() if k.startswith("text_")}
        expected = {k: v.shape for k, v in clap.state_dict().items() if k.startswith("text_")}
        shapes.pop("text_branch.embeddings.position_ids", None)
        expected.pop("text_branch.embeddings.position_ids", None)
        assert_same_keys(shapes, expected, Path(path))
        clap.load_state_dict({key: state[key] for key in shapes}, strict=False)

    conditioners.clap_load_state_dict = load
    # Its training code, which is imported but never run, loads these two tokenizers.
    originals = [(kind, kind.__dict__.get("from_pretrained")) for kind in (BertTokenizer, BartTokenizer)]
    for kind, _ in originals:
        kind.from_pretrained = lambda *_, **__: None
    try:
        import laion_clap  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"the model's text conditioner is CLAP, and {error.name} is not installed: run `uv sync --group clap`"
        ) from None
    finally:
        for kind, method in originals:
            del kind.from_pretrained
            if method is not None:
                kind.from_pretrained = method


def read_pickled(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a pickled checkpoint. Raises InputError on code in it, without running any."""
    import numpy as np
    import torch

    # CLAP's checkpoints also hold numbers of numpy, which contain no code.
    scalar = np._core.multiarray.scalar  # type: ignore[attr-defined]
    harmless = [scalar, (scalar, "numpy.core.multiarray.scalar"), np.dtype]
    harmless += [type(np.dtype(name)) for name in ("float64", "float32", "int64", "int32", "bool")]
    try:
        with torch.serialization.safe_globals(harmless):
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except FileNotFoundError:
        raise
    except Exception as error:  # noqa: BLE001 - a damaged or malicious file may raise anything
        reason = first_line(error)
        raise InputError(
            f"{path}: cannot be loaded safely ({reason}): take it from the place where it was published"
        ) from None
    state = state.get("state_dict", state) if isinstance(state, dict) else {}
    tensors = {key: value for key, value in state.items() if isinstance(value, torch.Tensor)}
    if not tensors:
        raise InputError(f"{path}: holds no weights: take the file from the place where it was published")
    return tensors


def write_safetensors(tensors: dict[str, torch.Tensor], path: Path, note: tuple[str, str] | None = None) -> None:
    """Write a safetensors file with the mode of the user's umask. The library would let only its owner read it.

    `note` is key and value of the header's metadata. It is one, because the library writes several in random order.
    """
    from safetensors.torch import save_file

    save_file(tensors, path, dict([note]) if note else None)
    with contextlib.suppress(PermissionError):  # a file system without modes
        path.chmod(0o666 & ~UMASK)


def convert_weights(source: Path, target: Path) -> None:
    """Write the tensors of a pickled checkpoint as safetensors."""
    tensors = read_pickled(source)
    with whole(target) as temporary:
        # Tensors of a checkpoint may share memory, but tensors of safetensors must not, so they are cloned.
        write_safetensors({key: value.clone().contiguous() for key, value in tensors.items()}, temporary)


def convert_clap(source: Path, target: Path) -> None:
    """Write only the tensors of a CLAP checkpoint, in the form that stable-audio-tools reads."""
    import torch

    state = read_safetensors(source) if source.suffix == ".safetensors" else read_pickled(source)
    tensors = {f"module.{key.removeprefix('module.')}": value for key, value in state.items()}
    with whole(target) as temporary:
        torch.save({"state_dict": {key: value.clone() for key, value in tensors.items()}}, temporary)


def first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__


def load_weights(model: torch.nn.Module, path: Path) -> None:
    """Load a safetensors file into `model`. Raises InputError unless all keys and shapes match."""
    _load(model, read_safetensors(path), path)


def _load(model: torch.nn.Module, state: dict[str, torch.Tensor], path: Path) -> None:
    assert_same_keys({k: v.shape for k, v in state.items()}, {k: v.shape for k, v in model.state_dict().items()}, path)
    model.load_state_dict(state, strict=True)


def read_safetensors(path: Path, prefix: str = "") -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file, by key; those whose key begins with `prefix`. Raises InputError on any other file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            return {key: file.get_tensor(key) for key in file.keys() if key.startswith(prefix)}  # noqa: SIM118
    except SafetensorError as error:
        raise InputError(f"{path}: not a whole safetensors file ({error})") from None


def changed_keys(weights: Mapping[str, torch.Tensor], base: Mapping[str, torch.Tensor]) -> list[str]:
    """The keys of `weights` whose numbers are others than those of `base`, in whatever precision."""
    import torch

    return [key for key, value in weights.items() if not torch.equal(value.float(), base[key].float())]


def assert_same_keys(shapes: Mapping[str, Shape], expected: Mapping[str, Shape], path: object) -> None:
    """Raise InputError, with counts and an example, unless both have the same keys and shapes."""
    missing = sorted(set(expected) - set(shapes))
    unexpected = sorted(set(shapes) - set(expected))
    wrong = sorted(k for k in set(shapes) & set(expected) if tuple(shapes[k]) != tuple(expected[k]))
    complaints = [f"{len(missing)} keys are missing ({missing[0]} …)"] if missing else []
    complaints += [f"{len(unexpected)} are unexpected ({unexpected[0]} …)"] if unexpected else []
    complaints += [
        f"{len(wrong)} have another shape ({k}: {tuple(shapes[k])}, not {tuple(expected[k])})" for k in wrong[:1]
    ]
    if complaints:
        raise InputError(f"{path}: does not fit the model of {len(expected)} keys: {'; '.join(complaints)}")


@contextlib.contextmanager
def enough_memory(subject: object, cure: str) -> Iterator[None]:
    """Turn an allocation that failed, on a GPU or in main memory, into an InputError with what to do."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise InputError(f"{subject}: out of memory: {cure}") from None
