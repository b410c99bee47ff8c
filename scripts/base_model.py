"""Bring a base model and its text encoder into place, from the Hugging Face Hub or a local folder."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from sao.clips import write_digests
from sao.command import InputError, log, parse, progress, run
from sao.files import digest, link_or_copy, sha256
from sao.model_config import read_model_config, text_encoder_name

MODEL_FILES = ["model_config.json", "model.safetensors"]
TEXT_ENCODER_FILES = ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"]


def from_folder(source: Path, output: Path, hub: Path) -> None:
    """Take the files of a local model; the text encoder goes into a Hub cache, where stable-audio-tools looks."""
    wanted = [source / name for name in MODEL_FILES] + [source / "text_encoder" / name for name in TEXT_ENCODER_FILES]
    for path in wanted:
        if not path.is_file():
            raise InputError(f"{path}: missing; a local base model needs {', '.join(MODEL_FILES)} and text_encoder/")
    encoder = text_encoder_name(read_model_config(source / "model_config.json"))
    for name in MODEL_FILES:
        link_or_copy(source / name, output / name)
    revision = digest([sha256(path) for path in wanted[2:]])[:40]
    root = hub / f"models--{encoder.replace('/', '--')}"
    for path in wanted[2:]:
        link_or_copy(path, root / "snapshots" / revision / path.name)
    (root / "refs").mkdir(exist_ok=True)
    (root / "refs" / "main").write_text(revision, encoding="utf-8")


def first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0]


def from_hub(args: argparse.Namespace, hub: Path) -> None:
    """Download the pinned revisions, only the files that are needed."""
    # Imported here: a local model needs neither the Hub client nor its start-up time.
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    steps = (
        f"(1) accept the licence at https://huggingface.co/{args.repo}, (2) make a token at "
        "https://huggingface.co/settings/tokens, (3) log in with `hf auth login` or set HF_TOKEN"
    )
    wanted = [(args.repo, args.revision, name) for name in MODEL_FILES]
    wanted += [(args.text_encoder_repo, args.text_encoder_revision, name) for name in TEXT_ENCODER_FILES]
    for repo, revision, name in progress(wanted, "downloading", unit="files"):
        try:
            cached = Path(hf_hub_download(repo, name, revision=revision, cache_dir=hub))
        except (GatedRepoError, RepositoryNotFoundError):
            raise InputError(f"{repo}: access denied: {steps}") from None
        except LocalEntryNotFoundError as error:
            # The Hub client says so too when it was refused; the refusal is the cause then.
            cause = error.__cause__ or error
            hint = steps if isinstance(cause, HfHubHTTPError) else "is there a network?"
            raise InputError(f"{repo}: {name} cannot be fetched ({first_line(cause)}): {hint}") from None
        except (RevisionNotFoundError, EntryNotFoundError):
            raise InputError(f"{repo}: has no {name} at {revision}: correct `revision` in the config") from None
        except HfHubHTTPError as error:
            raise InputError(f"{repo}: {name} at {revision} cannot be fetched ({first_line(error)}): {steps}") from None
        if repo == args.repo:
            link_or_copy(cached.resolve(), args.output / name)
        else:
            (hub / f"models--{repo.replace('/', '--')}" / "refs").mkdir(exist_ok=True)
            (hub / f"models--{repo.replace('/', '--')}" / "refs" / "main").write_text(revision, encoding="utf-8")
    encoder = text_encoder_name(read_model_config(args.output / "model_config.json"))
    if encoder != args.text_encoder_repo:
        raise InputError(
            f"{args.repo}: its model_config.json names the text encoder {encoder!r}, the config's text_encoder.repo is "
            f"{args.text_encoder_repo!r}: correct it"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--path", type=Path, help="local folder")
    source.add_argument("--repo", help="owner/name on the Hub")
    parser.add_argument("--revision", help="commit of --repo")
    parser.add_argument("--text-encoder-repo")
    parser.add_argument("--text-encoder-revision")
    parser.add_argument("--output", type=Path, required=True, help="folder of the model")
    parser.add_argument("--digest", type=Path, required=True, help="sha256sum listing of the folder")
    args = parse(parser)

    hub = args.output / "hub"
    shutil.rmtree(hub, ignore_errors=True)
    hub.mkdir(parents=True)
    if args.path:
        from_folder(args.path, args.output, hub)
    else:
        from_hub(args, hub)
    read_model_config(args.output / "model_config.json")
    files = [args.output / name for name in MODEL_FILES]
    files += sorted(path for path in hub.rglob("*") if path.is_file() and "snapshots" in path.parts)
    write_digests(args.digest, args.output, progress(files, "checksums"))
    log.info("%s: %d files", args.output, len(files))


if __name__ == "__main__":
    run(main)
