"""Building stable-audio-tools models offline and loading weights without a silent mismatch."""

from __future__ import annotations

import contextlib
import copy
import os
import warnings
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from sao.base.command import InputError, output_to_log

from sao.base.files import UMASK, whole
from sao.models.config import ModelConfig, has_clap, text_conditioner

if TYPE_CHECKING:
    import torch


def build(config: ModelConfig, hub: Path) -> torch.nn.Module:
    """The model of `config`, randomly initialised, its text encoder taken from the Hub cache `hub`.

    stable-audio-tools loads the text encoder by name while it builds. Has to be called before anything imports
    huggingface_hub, which reads its settings once.
    """
    os.environ["HF_HUB_CACHE"] = str(hub.resolve())
    os.environ["HF_HUB_OFFLINE"] = "1"
    full_float32()
    if has_clap(config):
        config = copy.deepcopy(config)
        text_conditioner(config)["config"]["clap_ckpt_path"] = str(hub / "clap.pt")
        with output_to_log():
            prepare_clap()
    return create(config, hub.parent / "model_config.json")


def create(config: ModelConfig, source: object) -> torch.nn.Module:
    """stable-audio-tools' model of a config that is from `source`; raises InputError where it cannot build one.

    The autoencoder is float32 whatever `model_half` says: latents are made once, and a CPU has no fast float16.
    """
    config = copy.deepcopy(config)  # stable-audio-tools changes some of it
    config["model"]["pretransform"].pop("model_half", None)
    with output_to_log():
        warnings.filterwarnings("ignore", category=FutureWarning)
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message="pkg_resources")
        from stable_audio_tools.models.factory import create_model_from_config

        try:
            return create_model_from_config(config)
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
    """Compute in float32 where that is asked for: no TF32, of 10 binary digits, in convolutions and products of matrices.

    The one place where this is decided, for encoding, training, rendering and embedding alike.
    """
    import torch

    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def prepare_clap() -> None:
    """Import laion_clap with what it loads by name taken away, and let no pickle be run for its checkpoint."""
    from stable_audio_tools.models import conditioners
    from transformers import BartTokenizer, BertTokenizer

    def load(path: str, clap: torch.nn.Module) -> None:
        state = {key.removeprefix("module."): value for key, value in read_pickled(Path(path)).items()}
        # The audio side is thrown away.
        found = {k: v.shape for k, v in state.items() if k.startswith("text_")}
        expected = {k: v.shape for k, v in clap.state_dict().items() if k.startswith("text_")}
        found.pop("text_branch.embeddings.position_ids", None)
        expected.pop("text_branch.embeddings.position_ids", None)
        assert_same_keys(found, expected, Path(path))
        clap.load_state_dict({key: state[key] for key in found}, strict=False)

    conditioners.clap_load_state_dict = load
    # Its training code, imported and never run, loads these two tokenizers.
    kept = [(kind, kind.__dict__.get("from_pretrained")) for kind in (BertTokenizer, BartTokenizer)]
    for kind, _ in kept:
        kind.from_pretrained = lambda *_, **__: None
    try:
        import laion_clap  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"the model's text conditioner is CLAP, and {error.name} is not installed: run `uv sync --group clap`"
        ) from None
    finally:
        for kind, method in kept:
            del kind.from_pretrained
            if method is not None:
                kind.from_pretrained = method


def read_pickled(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a pickled checkpoint; raises InputError on one that holds more than data, and runs none of it."""
    import numpy as np
    import torch

    # Numbers of numpy lie beside the weights of CLAP; they hold no code.
    scalar = np._core.multiarray.scalar
    harmless = [scalar, (scalar, "numpy.core.multiarray.scalar"), np.dtype]
    harmless += [type(np.dtype(name)) for name in ("float64", "float32", "int64", "int32", "bool")]
    try:
        with torch.serialization.safe_globals(harmless):
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except FileNotFoundError:
        raise
    except Exception as error:  # noqa: BLE001 - a damaged or malicious file may raise anything
        reason = first_line(error)
        raise InputError(f"{path}: cannot be loaded safely ({reason}): take it from where it was published") from None
    state = state.get("state_dict", state) if isinstance(state, dict) else {}
    tensors = {key: value for key, value in state.items() if isinstance(value, torch.Tensor)}
    if not tensors:
        raise InputError(f"{path}: holds no weights: take the file from where it was published")
    return tensors


def write_safetensors(tensors: dict[str, torch.Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file that may be read by whom other new files may: the library makes it its owner's alone."""
    from safetensors.torch import save_file

    save_file(tensors, path, metadata)
    with contextlib.suppress(PermissionError):  # a file system that has no modes to change
        path.chmod(0o666 & ~UMASK)


def convert_weights(source: Path, target: Path) -> None:
    """Write the tensors of a pickled checkpoint as safetensors."""
    tensors = read_pickled(source)
    with whole(target) as temporary:
        # Cloned: tensors of a checkpoint may share their memory, those of safetensors must not.
        write_safetensors({key: value.clone().contiguous() for key, value in tensors.items()}, temporary)


def convert_clap(source: Path, target: Path) -> None:
    """Write the tensors of a CLAP checkpoint, and nothing else, in the form that stable-audio-tools reads."""
    import torch

    state = read_safetensors(source) if source.suffix == ".safetensors" else read_pickled(source)
    tensors = {f"module.{key.removeprefix('module.')}": value for key, value in state.items()}
    with whole(target) as temporary:
        torch.save({"state_dict": {key: value.clone() for key, value in tensors.items()}}, temporary)


def first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__


def load_weights(model: torch.nn.Module, path: Path) -> None:
    """Load a safetensors file into `model`; raises InputError unless every key matches, with equal shape."""
    state = read_safetensors(path)
    assert_same_keys({k: v.shape for k, v in state.items()}, {k: v.shape for k, v in model.state_dict().items()}, path)
    model.load_state_dict(state, strict=True)


def read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """Tensors by key; raises InputError on anything that is not a safetensors file."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise InputError(f"{path}: not a whole safetensors file ({error})") from None


def assert_same_keys(found: dict[str, tuple], expected: dict[str, tuple], path: object) -> None:
    """Raise InputError, with counts and an example, unless `found` has the keys and shapes of `expected`."""
    missing = sorted(set(expected) - set(found))
    unexpected = sorted(set(found) - set(expected))
    wrong = sorted(k for k in set(found) & set(expected) if tuple(found[k]) != tuple(expected[k]))
    complaints = [f"{len(missing)} keys are missing ({missing[0]} …)"] if missing else []
    complaints += [f"{len(unexpected)} are unexpected ({unexpected[0]} …)"] if unexpected else []
    complaints += [
        f"{len(wrong)} have another shape ({k}: {tuple(found[k])}, not {tuple(expected[k])})" for k in wrong[:1]
    ]
    if complaints:
        raise InputError(f"{path}: does not fit the model of {len(expected)} keys: {'; '.join(complaints)}")


def pick_device() -> str:
    """`cuda` where there is a GPU, else `cpu`."""
    import torch

    full_float32()
    return "cuda" if torch.cuda.is_available() else "cpu"
