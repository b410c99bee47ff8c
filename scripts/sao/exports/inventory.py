"""All files under results/ that have a digest: where each lies, its digest, and what to do if it does not match."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sao.base.command import InputError, log

from sao.base.files import read_json
from sao.base.names import read_digests
from sao.base.tables import read_table
from sao.base.vouched import LISTING, Vouched, caption_file, dataset_files, latent_files, model_files, sound_files
from sao.exports.forms import FORMS

OWN = "restore the old file; if the change was intended, `touch` it and run again"
Entry = Vouched | str  # a file to hash, or a line about a fault


def archives(results: Path) -> Iterator[Entry]:
    """Downloads. Their checksum may be an MD5."""
    for listing in sorted(results.glob("data/*/archives/checksums/*.txt")):
        (name, digest), *_ = read_digests(listing).items()
        path = listing.parents[1] / name
        yield Vouched(path, digest, listing, f"delete {path} and {listing}, and run again")


def own_folder(facts: Path) -> Path | None:
    """The folder of a user's sounds, from the paths in the manifest, or in the table of cuts; None if there is none yet."""
    cuts, manifest = (facts.parents[1] / folder / facts.name for folder in ("cuts", "manifests"))
    for table, path, name in ((cuts, "source_path", "source_file"), (manifest, "path", "file_name")):
        if table.is_file():
            first = read_table(table).iloc[0]
            return Path(first[path].removesuffix(first[name]))
    return None


def sounds(results: Path) -> Iterator[Entry]:
    """The recordings of the corpora: unpacked ones, and a user's own in their folder, with their texts and tables.

    Clips that were cut from them come last.
    """
    for facts in [*sorted(results.glob("data/*/audio/*.csv")), *sorted(results.glob("data/*/cuts/audio/*.csv"))]:
        scanned, made = facts.with_suffix(".sha256"), facts.with_suffix("")
        if not scanned.is_file():
            yield from sound_files(facts, made)
        elif made.is_dir():  # rule fetch made it
            cure = f"delete {made} and run again"
            yield from (Vouched(made / name, digest, scanned, cure) for name, digest in read_digests(scanned).items())
        elif folder := own_folder(facts):
            yield from (Vouched(folder / name, digest, scanned, OWN) for name, digest in read_digests(scanned).items())
        else:
            log.warning("warning: %s: not checked: there is no manifest yet with the folder of the sounds", scanned)


def datasets(results: Path) -> Iterator[Entry]:
    for listing in sorted(results.glob("data/*/dataset_configs/*.sha256")):
        yield from dataset_files(listing.with_suffix(""), listing)


def models(results: Path) -> Iterator[Entry]:
    """Base models with their text encoders, the models of embeddings, and declared weights."""
    folders = ("models/*", "embeddings/*/model", "weights/*")
    for listing in sorted(path for folder in folders for path in results.glob(f"{folder}/{LISTING}")):
        yield from model_files(listing.parent, listing)


def latents(results: Path) -> Iterator[Entry]:
    for summary in sorted(results.glob("latents/*/*/*/*.json")):
        try:
            yield from latent_files(summary)
        except InputError as error:
            yield str(error)


def captions(results: Path) -> Iterator[Entry]:
    yield from map(caption_file, sorted(results.glob("encoded_captions/*/*.json")))


def trainings(results: Path) -> Iterator[Entry]:
    """Legs, including interrupted ones, and exported models."""
    folder = results / "checkpoints"
    listings = [*folder.glob(f"*/*/{LISTING}"), *folder.glob("*/.interrupted/*.sha256")]
    for listing in sorted(listings):
        for name, digest in read_digests(listing).items():
            path = listing.parent / name
            if name == "state.ckpt" and not path.exists():  # removed after the next leg was complete
                continue
            yield Vouched(path, digest, listing, f"delete {listing.parent} and run again")
    for export in sorted([*folder.glob("*/export.json"), *folder.glob("*/*/export.json")]):
        path = export.with_name("model.safetensors")
        yield Vouched(path, read_json(export)["sha256"], export, f"delete {path} and run again")


def exports(results: Path) -> Iterator[Entry]:
    """Models and adapters in the forms of other programs."""
    for record in sorted(path for form in FORMS for path in (results / "exports").rglob(f"{form}-*.json")):
        folder = record.with_suffix("")
        for name, file in read_json(record)["files"].items():
            yield Vouched(folder / name, file["sha256"], record, f"delete {folder} and run again")


def listened(results: Path) -> Iterator[Entry]:
    """The sounds of legs to listen to."""
    page = results / "listen"
    for summary in sorted(page.glob("*.json")):
        for sound in read_json(summary)["sounds"]:
            cure = f"delete {summary} and run again"
            yield Vouched(page / sound["file"], sound["sha256"], summary, cure)


KINDS = (archives, sounds, datasets, models, latents, captions, trainings, exports, listened)


def entries(results: Path) -> list[Entry]:
    """The files of all kinds, and a line for each listing that is at fault itself."""
    return [entry for kind in KINDS for entry in kind(results)]
