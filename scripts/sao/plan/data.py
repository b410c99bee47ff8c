"""The chapter of rules/data.smk: from published files, or a user's folder, to the dataset configs of a training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from sao.base.files import content_key
from sao.config.mixtures import mixtures
from sao.config.resolve import ROLES, Config
from sao.config.settings import (
    Batches,
    ClipSource,
    CutSettings,
    DatasetSettings,
    EncodeSettings,
    FetchSettings,
    ManifestSettings,
    MixSettings,
    ScanSettings,
    SplitSettings,
    TrainSeconds,
    ValidateSettings,
    pick,
)
from sao.data.corpora import published_splits
from sao.data.cuts import columns_of, relevant
from sao.data.formats import FORMATS
from sao.data.formats.base import Format, InPlace
from sao.data.formats.clotho import file_name
from sao.data.listing import Scanned, folder_key
from sao.data.templates import columns_of as templates_columns
from sao.plan.runs import Runs, pattern
from sao.training.leg import least_batch

AUTO = "auto"  # train_seconds by the lengths of the clips
SCAN_MB, SCAN_MINUTES = 800, 10  # for a scan, whatever the folder holds; each file adds:
FILE_MB, FILE_MINUTES = 0.01, 0.002
FETCHED_KEY = "0" * 64  # stands for the state of a folder that rule fetch made, which its inputs tell


class Data:
    def __init__(self, config: Config, runs: Runs, remembers: Callable[[], bool]) -> None:
        self.corpora, self.mixtures = config["corpora"], mixtures(config)
        self.runs, self._remembers = runs, remembers
        self.on_latents, self.shards = config["latents"]["enabled"], config["latents"]["shards"]
        # Each folder is read once, however often Snakemake asks.
        self._names: dict[tuple[str, str], list[str]] = {}
        self._keys: dict[tuple[str, str], str] = {}

    def _format(self, corpus: str) -> Format:
        return FORMATS[self.corpora[corpus]["format"]]

    def entry(self, corpus: str) -> Config:
        """What the config says of a corpus, or of a mixture."""
        return self.mixtures.get(corpus) or self.corpora[corpus]

    def members(self, corpus: str) -> list[str]:
        """The corpora of a mixture; of a corpus, itself."""
        return list(self.weights(corpus))

    def weights(self, corpus: str) -> dict[str, float]:
        """The weight of each corpus of a mixture; of a corpus, 1."""
        return self.mixtures[corpus]["corpora"] if corpus in self.mixtures else {corpus: 1}

    # Rules download and extract.

    def files(self, corpus: str, used: bool = False) -> list[Config]:
        """The published files of a corpus. With `used`, only those of the splits that the config uses."""
        entry = self.corpora[corpus]
        published = entry.get("splits", {})
        splits = [published[s] for s in published_splits(entry) if s in published] if used else published.values()
        return [file for split in splits for kind in ("archives", "captions", "metadata") for file in split[kind]]

    def file_names(self) -> str:
        """A pattern of the names of all published files, for wildcards. Without files it matches nothing."""
        return pattern(sorted({file_name(file["url"]) for corpus in self.corpora for file in self.files(corpus)}))

    def _file(self, corpus: str, file: str) -> Config:
        """The config's entry of a published file, by the name under which the file is stored."""
        return next(entry for entry in self.files(corpus) if file_name(entry["url"]) == file)

    def algorithm(self, corpus: str, file: str) -> str:
        """The hash algorithm of a published file's checksum."""
        return "sha256" if "sha256" in self._file(corpus, file) else "md5"

    def checksum(self, corpus: str, file: str) -> str:
        return self._file(corpus, file)[self.algorithm(corpus, file)]

    def size(self, corpus: str, file: str) -> list[int]:
        """The size of a published file in bytes, or nothing if the config does not give it."""
        return [size] if (size := self._file(corpus, file).get("size")) is not None else []

    def url(self, corpus: str, file: str) -> str:
        return self._file(corpus, file)["url"]

    def mirror(self, corpus: str) -> list[str]:
        return [mirror] if (mirror := self.corpora[corpus]["mirror"]) else []

    def remote(self, corpus: str, file: str) -> int:
        """1 if fetching a published file needs the network, else 0."""
        places = (self.url(corpus, file), *(self.mirror(corpus) or ["https:"]))
        return int(all(urlsplit(url).scheme in ("http", "https") for url in places))

    def downloads(self) -> list[str]:
        """All files that have to be downloaded for the corpora of the runs."""
        return [
            f"results/data/{corpus}/archives/{file_name(file['url'])}"
            for corpus in self.runs.used_corpora
            for file in self.files(corpus, used=True)
        ] + [path for corpus in self.runs.used_corpora for path in self._fetched_sources(corpus)]

    def _archives(self, corpus: str, split: str, kind: str) -> list[str]:
        entries = self.corpora[corpus]["splits"][split][kind]
        return [f"results/data/{corpus}/archives/{file_name(entry['url'])}" for entry in entries]

    def archives(self, corpus: str, split: str) -> list[str]:
        return self._archives(corpus, split, "archives")

    def archive_digests(self, corpus: str, split: str) -> list[str]:
        folder = f"results/data/{corpus}/archives"
        return [path.replace(folder, f"{folder}/checksums") + ".txt" for path in self.archives(corpus, split)]

    def pattern(self, in_place: bool) -> str:
        """A pattern, for wildcards, of the corpora that are read in place, or else of those that are unpacked."""
        return pattern([corpus for corpus in self.corpora if self._format(corpus).in_place == in_place])

    # Rule fetch.

    def fetched_pattern(self) -> str:
        """A pattern, for wildcards, of the corpora that rule fetch makes folders of."""
        return pattern([corpus for corpus in self.corpora if self._format(corpus).fetched])

    def fetched_splits(self) -> str:
        """A pattern of the names of their splits, without which a table beside the folder of a split would be one more."""
        fetched = [entry for name, entry in self.corpora.items() if self._format(name).fetched]
        return pattern(sorted({split for entry in fetched for split in published_splits(entry)}))

    def fetch(self, corpus: str) -> FetchSettings:
        return pick(FetchSettings, self.corpora[corpus])

    def _fetched_sources(self, corpus: str) -> list[str]:
        splits = published_splits(self.corpora[corpus]) if self._format(corpus).fetched else []
        return [f"results/data/{corpus}/hub/{split}.json" for split in splits]

    def fetched_source(self, corpus: str, split: str) -> list[str]:
        """What tells where the folder of a split comes from, if rule fetch made it."""
        return [f"results/data/{corpus}/hub/{split}.json"] if self._format(corpus).fetched else []

    def fetched_folder(self, corpus: str, split: str) -> list[str]:
        return [self.source(corpus, split)] if self._format(corpus).fetched else []

    # Rule scan.

    def source(self, corpus: str, split: str) -> str:
        """The folder of a published split's recordings: a user's folder if the corpus is read in place."""
        user_folder = self._format(corpus).folder(self.corpora[corpus], split)
        return user_folder or f"results/data/{corpus}/audio/{split}"

    def audio(self, corpus: str, split: str) -> str:
        """The folder of a published split's clips: that of the recordings, or of what was cut from them."""
        return f"results/data/{corpus}/cuts/audio/{split}" if self._is_cut(corpus) else self.source(corpus, split)

    def facts(self, corpus: str, split: str) -> str:
        """The table of facts of these clips, with their hashes."""
        return f"results/data/{corpus}/{'cuts/' if self._is_cut(corpus) else ''}audio/{split}.csv"

    def audio_by_split(self, corpus: str) -> dict[str, str]:
        return {split: self.audio(corpus, split) for split in published_splits(self.corpora[corpus])}

    def recordings(self, corpus: str) -> list[str]:
        """The folders of a corpus's clips that the graph makes. A user's own folder is none of them."""
        made = [member for member in self.members(corpus) if self._is_made(member)]
        return [folder for member in made for folder in self.audio_by_split(member).values()]

    def _is_made(self, corpus: str) -> bool:
        form = self._format(corpus)
        return not form.in_place or form.fetched or self._is_cut(corpus)

    def _is_cut(self, corpus: str) -> bool:
        return self.corpora[corpus]["cut"] is not None

    def _in_place(self, corpus: str) -> InPlace:
        in_place = self._format(corpus)
        assert isinstance(in_place, InPlace), f"{corpus} is unpacked, not scanned"
        return in_place

    def scan(self, corpus: str, split: str) -> ScanSettings:
        entry = self.corpora[corpus]
        options = self._in_place(corpus).options(entry, split)
        if self._is_cut(corpus):
            options = options | {"segments": columns_of(entry["cut"])}
        return {"format": entry["format"], "folder": self.source(corpus, split), "options": options}

    def _files_in_place(self, corpus: str, split: str) -> list[str]:
        """The files of a folder that is read in place. Raises FileNotFoundError before the folder is fetched."""
        if (corpus, split) not in self._names:
            settings = self.scan(corpus, split)
            names = self._in_place(corpus).names(Path(settings["folder"]), settings["options"])
            if self._format(corpus).fetched:
                return names  # they may be fetched anew
            self._names[corpus, split] = names
        return self._names[corpus, split]

    def folder_key(self, corpus: str, split: str) -> str:
        """A key of the state of a user's folder. It changes only if the contents of the folder change."""
        if self._format(corpus).fetched:
            return FETCHED_KEY
        if (corpus, split) not in self._keys:
            folder = Path(f"results/data/{corpus}")
            scanned = Scanned(
                listing=folder / f"folder/{split}.txt",
                digests=folder / f"audio/{split}.sha256",
                touched=folder / f"folder/{split}.seen",
            )
            names = self._files_in_place(corpus, split)
            self._keys[corpus, split] = folder_key(Path(self.source(corpus, split)), names, scanned, self._remembers())
        return self._keys[corpus, split]

    def scan_mb(self, corpus: str, split: str) -> float:
        return SCAN_MB + FILE_MB * len(self._files_in_place(corpus, split))

    def scan_minutes(self, corpus: str, split: str) -> float:
        return SCAN_MINUTES + FILE_MINUTES * len(self._files_in_place(corpus, split))

    # Rule cut.

    def cut_pattern(self) -> str:
        """A pattern, for wildcards, of the corpora whose recordings are cut."""
        return pattern([corpus for corpus in self.corpora if self._is_cut(corpus)])

    def cut(self, corpus: str, split: str) -> CutSettings:
        entry = self.corpora[corpus]
        return {
            "format": entry["format"],
            "source": self.source(corpus, split),
            "silence_dbfs": entry["silence_dbfs"],
            "cut": relevant(entry["cut"]),
        }

    def source_captions(self, corpus: str, split: str) -> list[str]:
        """The tables of captions of the recordings: the published ones, or the one that rule scan writes."""
        if self._format(corpus).in_place:
            return [f"results/data/{corpus}/captions/{split}.csv"]
        return self._archives(corpus, split, "captions")

    def source_metadata(self, corpus: str, split: str) -> list[str]:
        return [] if self._format(corpus).in_place else self._archives(corpus, split, "metadata")

    # Rules manifest, validate and split.

    def captions(self, corpus: str, split: str) -> list[str]:
        """The tables of captions of the clips: those of the recordings, or the table of cuts, which has metadata too."""
        return (
            [f"results/data/{corpus}/cuts/{split}.csv"] if self._is_cut(corpus) else self.source_captions(corpus, split)
        )

    def metadata(self, corpus: str, split: str) -> list[str]:
        return [] if self._is_cut(corpus) else self.source_metadata(corpus, split)

    def manifest(self, corpus: str, split: str) -> ManifestSettings:
        """The settings of a manifest: the folder of the sounds, and the metadata columns that the split needs."""
        entry = self.corpora[corpus]["split"]
        settings: ManifestSettings = {
            "format": self.corpora[corpus]["format"],
            "audio": self.audio(corpus, split),
            "split_column": entry["column"] if entry["method"] == "column" else None,
            "group_column": entry["group"] or None,
            "columns": self.corpora[corpus]["columns"],
        }
        if prompts := self.corpora[corpus]["prompts"]:
            settings["fields"] = templates_columns(prompts)
        if self._is_cut(corpus):
            settings["cut"] = True
        return settings

    def manifests(self, corpus: str) -> list[str]:
        return [f"results/data/{corpus}/manifests/{split}.csv" for split in published_splits(self.corpora[corpus])]

    def on_invalid(self, corpus: str) -> str:
        return self.entry(corpus)["on_invalid"]

    def validate(self, corpus: str) -> ValidateSettings:
        entry = self.corpora[corpus]
        return {
            "split": self.split(corpus),
            "on_invalid": entry["on_invalid"],
            "on_leak": entry["on_leak"],
            "licenses": None if entry["licenses"] is None else entry["licenses"]["allow"],
            "silence_dbfs": entry["silence_dbfs"],
            "train_seconds": None if entry["random_crop"] or entry["train_seconds"] == AUTO else entry["train_seconds"],
        }

    def split(self, corpus: str) -> SplitSettings:
        """The settings that assign clips to train, validation and evaluation. Those that the method ignores are None."""
        entry = self.corpora[corpus]
        by_fraction = entry["split"]["method"] == "fraction"
        return {
            "method": entry["split"]["method"],
            "train": entry["train"],
            "validation": entry["validation"],
            "evaluation": entry["evaluation"],
            "seed": entry["split"]["seed"] if by_fraction else None,
            "fractions": {role: entry["split"][role] for role in ROLES[1:]} if by_fraction else None,
        }

    def split_folder(self, corpus: str) -> str:
        """The folder of the tables of the train, validation and evaluation clips."""
        return f"results/data/{corpus}/splits"

    def reports(self) -> list[str]:
        """The validation reports of the corpora that the runs use, and of their mixtures."""
        return [f"results/data/{corpus}/validation.json" for corpus in (*self.runs.used_corpora, *self.mixtures)]

    # Rule mix.

    def plain(self) -> str:
        """A pattern of the corpora that are no mixtures."""
        return pattern(list(self.corpora))

    def mixed(self) -> str:
        """A pattern of the mixtures."""
        return pattern(list(self.mixtures))

    def mix(self, corpus: str) -> MixSettings:
        return {"corpora": self.members(corpus), "on_leak": self.entry(corpus)["on_leak"]}

    def split_folders(self, corpus: str) -> list[str]:
        """The folders of the splits of a mixture's corpora."""
        return [self.split_folder(member) for member in self.members(corpus)]

    def split_tables(self, corpus: str) -> list[str]:
        return [f"{folder}/{role}.csv" for folder in self.split_folders(corpus) for role in ROLES]

    def report_pages(self) -> list[str]:
        return [path.removesuffix("json") + "html" for path in self.reports()]

    # Rules window, dataset_configs and encode.

    def window_files(self, corpus: str, base_model: str) -> list[str]:
        """The file of a window that follows from the lengths of the clips, or nothing if the config gives the window."""
        by_lengths = self.entry(corpus)["train_seconds"] == AUTO
        return [f"results/data/{corpus}/windows/{base_model}.json"] if by_lengths else []

    def train_seconds(self, corpus: str, base_model: str) -> TrainSeconds:
        """The training window, or the file that has it."""
        return next(iter(self.window_files(corpus, base_model)), self.entry(corpus)["train_seconds"])

    def window(self, corpus: str, base_model: str) -> EncodeSettings:
        """The settings of encoding: the training window, and whether clips may be longer."""
        return {
            "train_seconds": self.train_seconds(corpus, base_model),
            "random_crop": self.entry(corpus)["random_crop"],
        }

    def datasets(self, corpus: str, base_model: str) -> DatasetSettings:
        """The settings of dataset configs: where a training finds the clips (latents in shards, or audio), and the window."""
        window, mixture = self.window(corpus, base_model), corpus in self.mixtures
        sources = {member: self._source(member, base_model) for member in self.members(corpus)}
        settings: DatasetSettings = {
            "latents": None if mixture else sources[corpus]["latents"],
            "shards": self.shards if self.on_latents else None,
            "audio": None if mixture else sources[corpus]["audio"],
            "on_invalid": self.on_invalid(corpus),
            "train_seconds": window["train_seconds"],
            "random_crop": window["random_crop"],
        }
        if not mixture and "prompts" in sources[corpus]:
            settings["prompts"] = sources[corpus]["prompts"]
        if mixture:
            weights = self.weights(corpus)
            settings["members"] = {name: {**source, "weight": weights[name]} for name, source in sources.items()}
        return settings

    def _source(self, corpus: str, base_model: str) -> ClipSource:
        """Where the clips of a corpus are, and how their prompts are made."""
        source: ClipSource = {
            "latents": f"results/latents/{base_model}/{corpus}" if self.on_latents else None,
            "audio": None if self.on_latents else self.audio_by_split(corpus),
        }
        if prompts := self.corpora[corpus]["prompts"]:
            source["prompts"] = prompts
        return source

    def has_prompts(self, corpus: str) -> bool:
        """Whether templates or a hook make the prompts of a corpus, or of one of a mixture's corpora."""
        return any(self.corpora[member]["prompts"] for member in self.members(corpus))

    def hooks(self, corpus: str) -> list[str]:
        """A user's own metadata modules that give the prompts."""
        prompts = (self.corpora[member]["prompts"] or {} for member in self.members(corpus))
        return [entry["hook"] for entry in prompts if "hook" in entry]

    def hook_content(self, corpus: str) -> list[str]:
        return [content_key(Path(path)) for path in self.hooks(corpus)]

    def dataset_folder(self, corpus: str, base_model: str) -> str:
        """The folder of the dataset configs. They contain this path themselves."""
        return f"results/data/{corpus}/dataset_configs/{base_model}"

    def kept(self, corpus: str, base_model: str) -> str:
        """The table of the clips that a base model can take. It gives the side of each clip."""
        return f"{self.dataset_folder(corpus, base_model)}.csv"

    def batches(self, corpus: str, base_model: str) -> dict[str, Batches]:
        """The size of a batch and the use of captions, for each run that trains this base model on this corpus."""
        return {
            name: {"batch": least_batch(run) * self.runs.processes(name), "captions": run["captions"]}
            for name, run in self.runs.runs.items()
            if (run["corpus"], run["base_model"]) == (corpus, base_model)
        }
