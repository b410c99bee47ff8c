"""The dataset configs of stable-audio-tools for a corpus and a base model, and whether every clip fits the model."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from sao.base.command import InputError, about, log, progress

import pandas as pd

from sao.base.files import write_json
from sao.base.names import own_id, shard_name, shard_of
from sao.base.placeholders import is_blank
from sao.base.tables import each, read_table, records
from sao.config.resolve import ROLES
from sao.config.settings import Batches, DatasetSettings, Member
from sao.data.findings import Findings
from sao.data.mixing import per_epoch
from sao.data.splits import assert_disjoint
from sao.data.texts import Texts, texts_by_clip
from sao.models.config import (
    ModelConfig,
    downsampling_ratio,
    text_max_length,
    window_frames,
)
from sao.models.numbers import Number, check_columns, column_of, numbers_of
from sao.models.tokens import Reader
from sao.training import caption_hook
from sao.training.checks import check_batch


def check_captions(
    table: pd.DataFrame, texts: Texts, kind: str, reader: Reader, max_length: int, findings: Findings
) -> int:
    """Find captions or prompts that are empty, too long or not understood. Returns the tokens of the longest that fits."""
    longest = 0
    for row in progress(each(table), "counting tokens", total=len(table), unit="clips"):
        given = [text for text, _ in texts[row.clip_id]]
        for at, (text, reading) in enumerate(zip(given, reader.read(given), strict=True), start=1):
            name = f"{kind}_{at}"
            if is_blank(text):
                findings.error("caption", row, f"{name} is empty ({text!r})")
            elif problem := reading.problem():
                findings.error("unknown", row, f"{name} ({text[:60]!r}) {problem}")
            elif caveat := reading.caveat():
                findings.warning("unknown", row, f"{name} ({text[:60]!r}) {caveat}")
            if reading.tokens > max_length:
                findings.error(
                    "tokens",
                    row,
                    f"{name} has {reading.tokens} tokens, the text encoder cuts it after {max_length}: shorten it "
                    f"({text[:60]!r}…)",
                )
            else:
                longest = max(longest, reading.tokens)
    return longest


def check_durations(table: pd.DataFrame, config: ModelConfig, frames: int, findings: Findings) -> None:
    """Find clips that the window would cut."""
    window = frames * downsampling_ratio(config) / config["sample_rate"]
    longest = window_frames(config, None) * downsampling_ratio(config) / config["sample_rate"]
    for row in each(table[table.seconds > window]):
        if row.seconds <= longest:
            advice = (
                f": raise train_seconds (null is the model's own {longest:.6g} s), cut the clip, or set random_crop"
            )
        else:
            advice = (
                ", which is the model's own: cut the clip, or set random_crop"
                if window == longest
                else (f", and the model's own {longest:.6g} s: cut the clip, or set random_crop")
            )
        findings.error(
            "duration", row, f"lasts {row.seconds:.6g} s, longer than the training window of {window:.6g} s{advice}"
        )


def check_cuts(table: pd.DataFrame, config: ModelConfig, findings: Findings) -> None:
    """Find clips that rule cut made shorter than one latent frame: most of what a model would learn from them is padding."""
    least = downsampling_ratio(config) / config["sample_rate"]
    for row in each(table[table.seconds < least]) if "source_file" in table else ():
        findings.error(
            "cut", row, f"lasts {row.seconds:.6g} s, less than a latent frame of {least:.6g} s: raise cut.min_seconds"
        )


def check_numbers(table: pd.DataFrame, numbers: list[Number], findings: Findings) -> None:
    """Find clips without a number that the model's conditioners take."""
    for number in numbers:
        for row, text in zip(each(table), table[column_of(number)], strict=True):
            try:
                number.read(text)
            except ValueError as error:
                findings.error("number", row, f"{number.name} {error}: correct its row in the metadata")


def check_batches(
    table: pd.DataFrame, texts: Texts, settings: DatasetSettings, runs: dict[str, Batches], where: Path
) -> None:
    """Raise InputError if the training clips do not fill one batch of a run, or a corpus has none."""
    for run_name, run_settings in runs.items():
        items = 0
        for corpus, source in sources_of(settings).items():
            clips = of_corpus(table, corpus).clip_id
            if not len(clips):
                raise InputError(
                    f"{where}: no training clip of corpus {corpus} is left: take it out of the run's corpora"
                )
            own = sum(len(texts[clip]) for clip in clips) if run_settings["captions"] == "all" else len(clips)
            items += per_epoch(own, source["weight"])
        with about(f"run {run_name}"):
            check_batch(items, run_settings["batch"])


def write_hook(folder: Path, key: str, table: pd.DataFrame, texts: Texts, numbers: list[Number]) -> None:
    """Write the metadata module that a dataset config points to, and the captions and numbers that it reads, by `key`."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = records(table)
    write_json(folder / "captions.json", {row[key]: [text for text, _ in texts[row["clip_id"]]] for row in rows})
    weights = {row[key]: [weight for _, weight in texts[row["clip_id"]]] for row in rows}
    if any(len(set(given)) > 1 for given in weights.values()):
        write_json(folder / "weights.json", weights)
    if numbers:
        values = {row[key]: {n.name: n.read(row[column_of(n)]) for n in numbers} for row in rows}
        write_json(folder / "numbers.json", values)
    shutil.copyfile(caption_hook.__file__, folder / "metadata.py")


def sources_of(settings: DatasetSettings) -> dict[str, Member]:
    """Where the clips of each corpus are, by its name. That of a corpus which is no mixture is empty."""
    if "members" in settings:
        return settings["members"]
    alone: Member = {"latents": settings["latents"], "audio": settings["audio"], "weight": 1}
    if "prompts" in settings:
        alone["prompts"] = settings["prompts"]
    return {"": alone}


def of_corpus(table: pd.DataFrame, corpus: str) -> pd.DataFrame:
    """The clips of a corpus of a mixture; of a corpus alone, all."""
    return table[table.corpus == corpus] if corpus else table


def texts_of_corpora(tables: dict[str, pd.DataFrame], settings: DatasetSettings, findings: Findings) -> Texts:
    """The texts of every clip, made as its corpus says."""
    texts: Texts = {}
    for corpus, source in sources_of(settings).items():
        own = {role: of_corpus(table, corpus) for role, table in tables.items()}
        texts |= texts_by_clip(own, source.get("prompts"), findings)
    return texts


def makes_prompts(settings: DatasetSettings) -> bool:
    return any(source.get("prompts") for source in sources_of(settings).values())


def latent_datasets(
    folder: Path, place: Path, table: pd.DataFrame, texts: Texts, numbers: list[Number], latents: Path, shards: int
) -> list[dict[str, str]]:
    """The entry of a `pre_encoded` dataset config. Its path is a folder with the `filelist.txt` of the clips' latents.

    Files are written to `folder`, which will be moved to `place`.
    """
    write_hook(folder, "clip_id", table, texts, numbers)
    up = Path(os.path.relpath(latents, place)).as_posix()
    files = [
        f"{up}/{split}/{shard_name(shard_of(clip, shards), shards)}/{clip}.npy\n"
        for clip, split in zip(table.clip_id, table.published_split, strict=True)
    ]
    (folder / "filelist.txt").write_text("".join(files), encoding="utf-8")
    hook = (place / "metadata.py").as_posix()
    return [{"id": place.name, "path": place.as_posix(), "custom_metadata_module": hook}]


def audio_datasets(
    folder: Path, place: Path, table: pd.DataFrame, texts: Texts, numbers: list[Number], audio: dict[str, str]
) -> list[dict[str, str]]:
    """The entries of an `audio_dir` dataset config, one for each published split that has clips in it."""
    entries = []
    for split in sorted(set(table.published_split)):
        write_hook(folder / split, "file_name", table[table.published_split == split], texts, numbers)
        hook = (place / split / "metadata.py").as_posix()
        entries.append({"id": split, "path": audio[split], "custom_metadata_module": hook})
    return entries


def read_splits(folder: Path) -> dict[str, pd.DataFrame]:
    """Read the tables of the three sides. Raises InputError on a clip that is on two of them."""
    tables = {role: read_table(folder / f"{role}.csv") for role in ROLES}
    try:
        assert_disjoint(tables)
    except InputError as error:  # someone has edited them
        raise InputError(f"{folder}: {error}; delete the folder and run again") from None
    return tables


def check_clips(
    tables: dict[str, pd.DataFrame], config: ModelConfig, reader: Reader, settings: DatasetSettings
) -> tuple[Findings, Texts, int]:
    """`(findings about clips for this model, the texts of every clip, tokens of the longest text that fits)`.

    Raises InputError on the first clip that does not fit, unless the settings leave such clips out.
    """
    limit, frames = text_max_length(config), window_frames(config, settings["train_seconds"])
    findings, longest, numbers = Findings(), 0, numbers_of(config)
    texts = texts_of_corpora(tables, settings, findings)
    kind = "prompt" if makes_prompts(settings) else "caption"
    for role, table in tables.items():
        check_columns(numbers, [*map(str, table)], f"{role}.csv")
        check_numbers(table, numbers, findings)
        if not settings["random_crop"]:
            check_durations(table, config, frames, findings)
        check_cuts(table, config, findings)
        longest = max(longest, check_captions(table, texts, kind, reader, limit, findings))
    if findings.errors and settings["on_invalid"] == "fail":
        raise findings.failure("; on_invalid: drop leaves such clips out")
    findings.drop_errors()
    return findings, texts, longest


def mixed(entry: dict[str, str], corpus: str, weight: float) -> dict[str, Any]:
    """What the entry of a mixture's corpus has besides. stable-audio-tools does not know weights.

    It runs the hook of the dataset whose path is a part of the clip's path; with the slash no other begins so.
    """
    name = corpus if entry["id"] == corpus else f"{corpus}--{entry['id']}"
    return {"id": name, "path": f"{entry['path']}/", "corpus": corpus, "weight": weight}


def write_dataset(
    folder: Path,
    place: Path,
    role: str,
    table: pd.DataFrame,
    texts: Texts,
    numbers: list[Number],
    frames: int,
    settings: DatasetSettings,
) -> None:
    """Write the dataset config of a side to `folder`, which will be moved to `place`."""
    entries: list[dict[str, Any]] = []
    for corpus, source in sources_of(settings).items():
        rows, own, below = of_corpus(table, corpus), texts, role
        if corpus:
            rows = rows.assign(clip_id=[own_id(corpus, clip) for clip in rows.clip_id])
            own, below = {own_id(corpus, clip): given for clip, given in texts.items()}, f"{role}/{corpus}"
        if not len(rows):
            continue
        if source["latents"] is not None and settings["shards"] is not None:
            latents, shards = Path(source["latents"]), settings["shards"]
            made = latent_datasets(folder / below, place / below, rows, own, numbers, latents, shards)
        else:
            made = audio_datasets(folder / below, place / below, rows, own, numbers, source["audio"] or {})
        entries += [entry | mixed(entry, corpus, source["weight"]) for entry in made] if corpus else made
    kind = "audio_dir" if settings["shards"] is None else "pre_encoded"
    dataset: dict[str, Any] = {
        "dataset_type": kind,
        "datasets": entries,
        "latent_crop_length": frames,
        "random_crop": settings["random_crop"],
        "drop_last": role == "train",
    }
    (folder / f"{role}.json").write_text(json.dumps(dataset, indent=2) + "\n", encoding="utf-8")
    log.info("%s: %d clips", place / f"{role}.json", len(table))
