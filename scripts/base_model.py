"""Bring a base model and its text encoder into place, from the Hugging Face Hub or a local folder."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from sao.base.command import InputError, log, parse, progress, run
from sao.base.files import copy_file, digest, read_json, sha256, size_text, write_json
from sao.base.names import write_digests
from sao.models.config import has_clap, read_model_config, text_conditioner, text_encoder_name
from sao.models.header import Shapes, assert_same_weights, tensor_shapes
from sao.models.weight_files import check_numbers, check_t5

ENCODER_WEIGHTS = "model.safetensors"
ENCODER_FILES = ["config.json", "tokenizer.json", "tokenizer_config.json", ENCODER_WEIGHTS]
CLAP = "hub/clap.pt"  # where a CLAP checkpoint is put


def from_folder(args: argparse.Namespace) -> dict[str, Path]:
    """`{name below the output: file}` of a local model."""
    names = [args.model_config, args.weights, *(f"text_encoder/{name}" for name in ENCODER_FILES)]
    for name in names:
        if not (args.path / name).is_file():
            raise InputError(
                f"{args.path / name}: missing; a local base model needs {args.model_config}, {args.weights} and "
                f"text_encoder/ with {', '.join(ENCODER_FILES)}"
            )
    config = read_model_config(args.path / args.model_config)
    check_clap(args, has_clap(config), args.path / args.model_config)
    encoder = [args.path / name for name in names[2:]]
    revision = digest([sha256(path) for path in encoder])[:40]
    files = {"model_config.json": args.path / args.model_config, "model.safetensors": args.path / args.weights}
    return files | {snapshot(text_encoder_name(config), revision, path.name): path for path in encoder}


def from_hub(args: argparse.Namespace, partial: Path) -> dict[str, Path]:
    """`{name below the output: file}` of a model on the Hub, the pinned commits fetched into `partial`."""
    # Imported here: a local model needs neither the Hub client nor its start-up time.
    from sao.hub.fetch import HubFile, NoSuchFile, describe, fetch

    # Before gigabytes are fetched: is it a model that can be fine-tuned, with the text encoder that was declared?
    described = describe(args.repo, args.revision, args.model_config)
    fetch([described], partial)
    files = {"model_config.json": described}
    config = read_model_config(described.path(partial))
    check_clap(args, has_clap(config), f"{args.repo}: {args.model_config}")
    encoder = text_encoder_name(config)
    if encoder.split("/")[-1] != args.text_encoder_repo.split("/")[-1]:
        raise InputError(
            f"{args.repo}: its {args.model_config} names the text encoder {encoder!r}, the config's text_encoder.repo "
            f"is {args.text_encoder_repo!r}: correct it"
        )

    def add_encoder(name: str) -> HubFile:
        file = describe(args.text_encoder_repo, args.text_encoder_revision, name)
        files[snapshot(encoder, args.text_encoder_revision, name)] = file
        return file

    files["model.safetensors"] = describe(args.repo, args.revision, args.weights)
    files |= clap_on_hub(args)
    for name in ENCODER_FILES[:-1]:
        add_encoder(name)
    try:
        add_encoder(ENCODER_WEIGHTS)
    except NoSuchFile as error:
        # A large one comes in parts, which an index names.
        try:
            index = add_encoder(f"{ENCODER_WEIGHTS}.index.json")
        except NoSuchFile:
            raise error from None
        fetch([index], partial)
        for name in sorted(set(read_json(index.path(partial))["weight_map"].values())):
            add_encoder(name)
    return fetch_all(files, args.output, partial)


def fetch_all(files: dict, output: Path, partial: Path) -> dict[str, Path]:
    """Fetch described files, `{name below the output: file}`, where there is room for them."""
    from sao.hub.fetch import fetch, missing_bytes

    wanted = list(files.values())
    # What is pickled is written a second time, converted.
    needed = missing_bytes(wanted, partial) + sum(f.size or 0 for f in wanted if not is_safe(f.name))
    free = shutil.disk_usage(output).free
    if needed > free:
        raise InputError(f"{output}: needs {size_text(needed)}, {size_text(free)} are free: make room first")
    fetch(wanted, partial)
    return {name: file.path(partial) for name, file in files.items()}


def clap_on_hub(args: argparse.Namespace) -> dict:
    """The CLAP checkpoint that the config declares on the Hub, if any, described."""
    from sao.hub.fetch import describe

    return {CLAP: describe(args.clap_repo, args.clap_revision, args.clap_file)} if args.clap_repo else {}


def check_clap(args: argparse.Namespace, wanted: bool, source: object) -> None:
    """Raise InputError unless a CLAP checkpoint is declared exactly where it is needed, and is there."""
    declared = bool(args.clap_path or args.clap_repo)
    if wanted and not declared:
        raise InputError(f"{source}: has a clap_text conditioner: declare its checkpoint as `clap` in the base model")
    if declared and not wanted:
        raise InputError(f"{source}: has no clap_text conditioner: take `clap` out of the base model in the config")
    if args.clap_path and not args.clap_path.is_file():
        raise InputError(f"{args.clap_path}: no such file; correct `clap.path` in the config")


def snapshot(repo: str, revision: str, name: str) -> str:
    """Where stable-audio-tools, which loads text encoders by their name, looks in a Hub cache."""
    return f"hub/models--{repo.replace('/', '--')}/snapshots/{revision}/{name}"


def is_safe(name: str) -> bool:
    return not name.endswith((".ckpt", ".pt", ".pth", ".bin"))


def place(files: dict[str, Path], output: Path, moved: bool) -> None:
    """Give files their names below the output: copied or moved, pickled weights converted."""
    # Pickles first: they may turn out to be unusable.
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
            refs = target.parents[2] / "refs"
            refs.mkdir(exist_ok=True)
            (refs / "main").write_text(target.parent.name, encoding="utf-8")


def check_weights(found: Shapes, args: argparse.Namespace) -> None:
    """Raise InputError unless weights are those of the model that was built without them."""
    expected = {key: tuple(shape) for key, shape in read_json(args.shapes).items()}
    config = read_model_config(args.output / "model_config.json")
    assert_same_weights(found, expected, config, f"{args.repo or args.path}: {args.weights}")


def refuse_pickles(files: dict[str, Path]) -> None:
    """Raise InputError on weights that are no safetensors file under the name of one.

    By how such a file begins: a pickle of the first protocols has no sign to know it by.
    """
    for name, path in files.items():
        if not name.endswith(".safetensors") or not is_safe(path.name):
            continue
        with path.open("rb") as handle:
            length, begin = int.from_bytes(handle.read(8), "little"), handle.read(1)
        if begin != b"{" or length > path.stat().st_size - 8:
            raise InputError(
                f"{path}: no safetensors file, maybe a pickle, which can hold code: take the file from where it was "
                "published"
            )


def check_files(files: dict[str, Path], args: argparse.Namespace) -> None:
    """Raise InputError on what would make a training fail, or quietly another one: NaN, a text encoder in part."""
    encoder = {path.name: path for name, path in files.items() if "/snapshots/" in name}
    weights = [path for name, path in files.items() if "/snapshots/" in name and name.endswith(".safetensors")]
    for path in weights:
        check_numbers(path, path)
    if CLAP not in files:  # else all its weights are in that file
        source = args.text_encoder_repo or args.path / "text_encoder"
        check_t5(encoder["config.json"], weights, encoder["tokenizer.json"], source)
    if is_safe(files["model.safetensors"].name):
        check_numbers(files["model.safetensors"], f"{args.repo or args.path}: {args.weights}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--path", type=Path, help="local folder")
    source.add_argument("--repo", help="owner/name on the Hub")
    parser.add_argument("--revision", help="commit of --repo")
    parser.add_argument("--model-config", default="model_config.json", help="name of that file")
    parser.add_argument("--weights", default="model.safetensors", help="name of that file")
    parser.add_argument("--text-encoder-repo")
    parser.add_argument("--text-encoder-revision")
    parser.add_argument("--clap-path", type=Path, help="checkpoint of a clap_text conditioner")
    parser.add_argument("--clap-repo", help="or where it is on the Hub")
    parser.add_argument("--clap-revision")
    parser.add_argument("--clap-file")
    parser.add_argument("--shapes", type=Path, required=True, help="JSON: shapes of the weights, from rehearse.py")
    parser.add_argument("--output", type=Path, required=True, help="folder of the model")
    parser.add_argument("--digest", type=Path, required=True, help="sha256sum listing of the folder")
    args = parse(parser)

    # Undeclared to Snakemake, so that an interrupted transfer goes on from here.
    partial = args.output / ".partial"
    args.output.mkdir(parents=True, exist_ok=True)
    files = from_folder(args) if args.path else from_hub(args, partial)
    if args.path and args.clap_repo:
        files |= fetch_all(clap_on_hub(args), args.output, partial)
    if args.clap_path:
        files[CLAP] = args.clap_path
    refuse_pickles(files)
    check_files(files, args)

    args.digest.unlink(missing_ok=True)
    shutil.rmtree(args.output / "hub", ignore_errors=True)
    place(files, args.output, moved=not args.path)
    # Of pickled weights this is the first that is known of their shapes.
    check_weights(tensor_shapes(args.output / "model.safetensors"), args)
    if not is_safe(files["model.safetensors"].name):
        check_numbers(args.output / "model.safetensors", f"{args.repo or args.path}: {args.weights}")
    if CLAP in files:
        config = read_json(args.output / "model_config.json")
        text_conditioner(config)["config"]["clap_ckpt_path"] = (args.output / CLAP).as_posix()
        write_json(args.output / "model_config.json", config)
    shutil.rmtree(partial, ignore_errors=True)
    names = sorted(files, key=lambda name: (name.startswith("hub/"), name))
    write_digests(args.digest, args.output, progress([args.output / name for name in names], "checksums"))
    log.info("%s: %d files", args.output, len(names))


if __name__ == "__main__":
    run(main)
