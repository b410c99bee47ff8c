"""The files of a base model, from a folder or from the Hub, in the place where the graph has them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sao.base.command import InputError

from sao.base.files import copy_file, digest, read_json, sha256
from sao.hub.place import fetch_all, is_safe, snapshot
from sao.models.config import (
    ModelConfig,
    has_clap,
    read_model_config,
    text_conditioner,
    text_encoder_folder,
    text_encoder_name,
    text_encoder_names,
)
from sao.models.header import assert_same_weights, tensor_shapes
from sao.models.source import Source
from sao.models.weight_files import check_numbers, check_text_encoder

if TYPE_CHECKING:
    from sao.hub.fetch import HubFile

ENCODER_WEIGHTS = "model.safetensors"
ENCODER_FILES = ["config.json", "tokenizer.json", "tokenizer_config.json", ENCODER_WEIGHTS]
CLAP = "hub/clap.pt"  # place of a CLAP checkpoint in the output


def from_folder(source: Source, folder: Path) -> dict[str, Path]:
    """The files of a local model, by their names below the output; those of its text encoder if it is local too."""
    files = {"model_config.json": folder / source.model_config, "model.safetensors": folder / source.weights}
    place = source.encoder_folder()
    encoder = [place / name for name in ENCODER_FILES] if place else []
    for path in [*files.values(), *encoder]:
        if not path.is_file():
            raise InputError(
                f"{path}: missing; a local base model needs {source.model_config}, {source.weights} and a folder text_encoder/ "
                f"with {', '.join(ENCODER_FILES)}, or `text_encoder` in the config, which says where that is"
            )
    config = read_model_config(folder / source.model_config)
    check_clap(source, has_clap(config), folder / source.model_config)
    revision = digest([sha256(path) for path in encoder])[:40]
    return files | {encoder_place(config, revision, path.name): path for path in encoder}


def encoder_place(config: ModelConfig, revision: str, name: str) -> str:
    """The path of a file of the text encoder in the Hub cache, below the output."""
    return snapshot(text_encoder_name(config), revision, Path(text_encoder_folder(config), name).as_posix())


def from_hub(source: Source, output: Path, partial: Path) -> dict[str, Path]:
    """Fetch a model from pinned commits on the Hub into `partial`. Returns its files, by their names below the output."""
    # Imported here: a local model needs neither the Hub client nor its start-up time.
    from sao.hub.fetch import describe, fetch

    # Before gigabytes are fetched, check that the model can be fine-tuned and has the declared text encoder.
    described = describe(source.repo, source.revision, source.model_config)
    fetch([described], partial)
    files = {"model_config.json": described}
    config = read_model_config(described.path(partial))
    check_clap(source, has_clap(config), f"{source.repo}: {source.model_config}")
    encoder = encoder_on_hub(source, config, partial)
    files["model.safetensors"] = describe(source.repo, source.revision, source.weights)
    return fetch_all(files | clap_on_hub(source) | encoder, output, partial)


def encoder_on_hub(source: Source, config: ModelConfig, partial: Path) -> dict[str, HubFile]:
    """Describe the files of a text encoder on the Hub. Raises InputError if it is not the one that the model config names."""
    from sao.hub.fetch import NoSuchFile, describe, fetch

    named, files = text_encoder_names(config), {}
    if source.text_encoder_repo.split("/")[-1] not in {name.split("/")[-1] for name in named}:
        raise InputError(
            f"{source.name(source.model_config)}: names the text encoder {' or '.join(map(repr, named))}, but the config's "
            f"text_encoder.repo is {source.text_encoder_repo!r}: correct it"
        )

    def add_encoder(name: str) -> HubFile:
        file = describe(source.text_encoder_repo, source.text_encoder_revision, source.in_text_encoder(name))
        files[encoder_place(config, source.text_encoder_revision, name)] = file
        return file

    for name in ENCODER_FILES[:-1]:
        add_encoder(name)
    try:
        add_encoder(ENCODER_WEIGHTS)
    except NoSuchFile as error:
        # A large text encoder comes in parts, which an index lists.
        try:
            index = add_encoder(f"{ENCODER_WEIGHTS}.index.json")
        except NoSuchFile:
            raise error from None
        fetch([index], partial)
        for name in sorted(set(read_json(index.path(partial))["weight_map"].values())):
            add_encoder(name)
    return files


def clap_on_hub(source: Source) -> dict[str, HubFile]:
    """Describe the CLAP checkpoint that the config declares on the Hub, if there is one."""
    from sao.hub.fetch import describe

    return {CLAP: describe(source.clap_repo, source.clap_revision, source.clap_file)} if source.clap_repo else {}


def check_clap(source: Source, needed: bool, config: object) -> None:
    """Raise InputError if a needed CLAP checkpoint is not declared or missing, or if an unneeded one is declared."""
    declared = bool(source.clap_path or source.clap_repo)
    if needed and not declared:
        raise InputError(f"{config}: has a clap_text conditioner: declare its checkpoint as `clap` in the base model")
    if declared and not needed:
        raise InputError(f"{config}: has no clap_text conditioner: remove `clap` from the base model in the config")
    if source.clap_path and not source.clap_path.is_file():
        raise InputError(f"{source.clap_path}: no such file; correct `clap.path` in the config")


def place(files: dict[str, Path], output: Path, moved: bool) -> None:
    """Copy or move files to their names below the output, and convert pickled weights."""
    # Pickles first, because they may turn out to be unusable.
    for name, source in sorted(files.items(), key=lambda item: is_safe(item[1].name)):
        target = output / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if name == CLAP:
            from sao.models.build import convert_clap

            convert_clap(source, target)
        elif name == "model.safetensors" and not is_safe(source.name):
            from sao.models.build import convert_weights

            convert_weights(source, target)
        elif moved:
            source.replace(target)
        else:
            copy_file(source, target)
        if "/snapshots/" in name:
            repository, _, inside = name.partition("/snapshots/")
            refs = output / repository / "refs"
            refs.mkdir(exist_ok=True)
            (refs / "main").write_text(inside.split("/")[0], encoding="utf-8")


def check_weights(output: Path, shapes: Path, source: Source) -> None:
    """Raise InputError unless the weights fit the model that rule `rehearse` built without them."""
    expected = {key: tuple(shape) for key, shape in read_json(shapes).items()}
    weights = tensor_shapes(output / "model.safetensors")
    assert_same_weights(weights, expected, source.name(source.weights))


def check_files(files: dict[str, Path], source: Source) -> None:
    """Raise InputError on faults that would break or silently change a training: NaN, an incomplete text encoder."""
    kind = text_conditioner(read_model_config(files["model_config.json"]))["type"]
    encoder = {path.name: path for name, path in files.items() if "/snapshots/" in name}
    weights = [path for name, path in files.items() if "/snapshots/" in name and name.endswith(".safetensors")]
    for path in weights:
        check_numbers(path, path)
    if CLAP not in files:  # a CLAP checkpoint contains the weights of its text encoder
        place = source.encoder_folder() or source.text_encoder_repo
        check_text_encoder(kind, encoder["config.json"], weights, encoder["tokenizer.json"], place)
    if is_safe(files["model.safetensors"].name):
        check_numbers(files["model.safetensors"], source.name(source.weights))
