"""The chapter of rules/evaluation.smk: embed recordings and renders, measure their signals, and compare the models."""

from __future__ import annotations

import re

from sao.base.command import InputError

from sao.config.resolve import ROLES, Config
from sao.config.settings import EmbedSettings, EvaluateSettings, pick
from sao.data.corpora import published_splits
from sao.evaluation.embeddings import THUMBNAIL, Embedding, find
from sao.plan.data import Data
from sao.plan.models import Models
from sao.plan.rendering import Rendering
from sao.plan.runs import Runs, pattern
from sao.plan.weights import Weights


class Evaluation:
    def __init__(
        self, config: Config, runs: Runs, data: Data, models: Models, rendering: Rendering, weights: Weights
    ) -> None:
        self.evaluation = config["evaluation"]
        self.runs, self.data, self.models, self.rendering = runs, data, models, rendering
        self.weights = weights
        self.entries = [*self.evaluation["embeddings"], *self.weights.detectors()]
        for entry in self.entries:
            _check_declared(entry)

    # Rules embedding_model and embed.

    def embeddings(self) -> list[str]:
        """The folder names of the embeddings."""
        return [find(entry).folder for entry in self.entries]

    def _embedding(self, folder: str) -> tuple[Config | str, Embedding]:
        """The config's entry of an embedding, and the embedding itself, by its folder name."""
        entries = [*self.entries, THUMBNAIL.name]
        return next((entry, find(entry)) for entry in entries if find(entry).folder == folder)

    def embed(self, embedding: str) -> EmbedSettings:
        entry, found = self._embedding(embedding)
        if found.published is None:
            return {"embedding": entry}
        settings: EmbedSettings = {"embedding": found.name}
        if found.keeps_windows:
            settings["windows"] = list(self.rendering.render["clips"])
        return settings

    def pattern(self) -> str:
        return pattern([*self.embeddings(), THUMBNAIL.folder])

    def fetched_pattern(self) -> str:
        """A pattern of the embeddings whose weights have to be downloaded."""
        return pattern([name for name in self.embeddings() if self._embedding(name)[1].fetched])

    def digests(self, embedding: str) -> list[str]:
        """The file of checksums of an embedding's weights, or nothing if it has none of its own."""
        if self._embedding(embedding)[1].published:
            return [self.weights.digest(embedding)]
        fetched = self._embedding(embedding)[1].fetched
        return [f"results/embeddings/{embedding}/model/checksums.sha256"] if fetched else []

    def hubs(self, embedding: str) -> list[str]:
        """The folder or file of an embedding's weights, or nothing if it has none of its own."""
        if self._embedding(embedding)[1].published:
            return [self.weights.output(embedding)]
        return [path.replace("checksums.sha256", "hub") for path in self.digests(embedding)]

    def downloads(self) -> list[str]:
        names = [path for name in self.embeddings() for path in self.digests(name)]
        return [*dict.fromkeys([*names, *map(self.weights.digest, self.weights.declared)])]

    def repo(self, embedding: str) -> str:
        return self._embedding(embedding)[1].name

    def revision(self, embedding: str) -> str:
        return self._embedding(embedding)[1].revision

    def gpus(self, embedding: str) -> int:
        """The number of GPUs for embedding: 1 if the embedding can use one and the runs have one, else 0."""
        return int(self._embedding(embedding)[1].gpu and any(map(self.models.run_gpus, self.runs.runs)))

    def tables(self, kind: str, name: str) -> list[str]:
        """The tables of a set of sounds: the recordings of a corpus, or the renders of a run."""
        if kind == "renders":
            return [f"results/renders/{name}.csv"]
        return [f"results/data/{name}/splits/{role}.csv" for role in ROLES]

    def sounds(self, kind: str, name: str) -> list[str]:
        """The folders that hold a set of sounds."""
        if kind == "renders":
            # The table of renders also names recordings and sources.
            return [f"results/renders/{name}", *self.rendering.beside(name)]
        corpora = {corpus: published_splits(self.data.corpora[corpus]) for corpus in self.data.members(name)}
        return [self.data.audio(corpus, split) for corpus, splits in corpora.items() for split in splits]

    def renders(self, kind: str, name: str) -> list[str]:
        """The folder that the paths in a table of renders are relative to. Tables of recordings have full paths."""
        return [f"results/renders/{name}"] if kind == "renders" else []

    # Rule signals.

    def signals(self, run: str) -> str:
        """The file of the measured signals of a run's renders."""
        return f"results/signals/renders/{run}.npz"

    def recorded_signals(self, run: str) -> str:
        """The file of the measured signals of the reference recordings, which all runs of a corpus share."""
        return f"results/signals/recordings/{self.runs.corpus(run)}.npz"

    def signal_tables(self, kind: str, name: str) -> list[str]:
        """The table of a model's renders, or for a corpus the tables of what each of its base models is going to render."""
        if kind == "renders":
            return [f"results/renders/{name}.csv"]
        runs = [run for run in self.runs.rendered if self.runs.corpus(run) == name]
        return list(dict.fromkeys(map(self.rendering.clips, runs)))

    def measured(self, kind: str, name: str) -> list[str]:
        """The folders that rule signals needs: those of the sounds it measures, and of all others named in the table."""
        if kind == "renders":
            return [f"results/renders/{name}", *self.rendering.beside(name)]
        return self.data.recordings(name)

    # Rules evaluate and compare.

    def _embedded(self, kind: str, name: str) -> list[str]:
        """The files of a set of sounds' vectors, one per embedding."""
        return [f"results/embeddings/{embedding}/{kind}/{name}.npz" for embedding in self.embeddings()]

    def embedded(self, run: str) -> list[str]:
        return self._embedded("renders", run)

    def embedded_recordings(self, run: str) -> list[str]:
        return self._embedded("corpora", self.runs.corpus(run))

    def thumbnails(self, run: str) -> str:
        """The file of the thumbnails of the recordings of a run's corpus."""
        return f"results/embeddings/{THUMBNAIL.folder}/corpora/{self.runs.corpus(run)}.npz"

    def base_clips(self, run: str) -> list[str]:
        """The figures of the clips of a run's base model, or nothing for a base model."""
        return [] if self.runs.is_base(run) else [f"results/evaluation/{self.runs.base(run)}.csv"]

    def base_embedded(self, run: str) -> list[str]:
        """The vectors of the base model's renders, one per embedding, or nothing for a base model."""
        return [] if self.runs.is_base(run) else self._embedded("renders", self.runs.base(run))

    def leg(self, run: str) -> list[str]:
        """The file that names the leg that a fine-tuned model comes from. A base model has none."""
        return [] if self.runs.is_base(run) else [self.rendering.weights_digest(run)]

    def evaluated(self) -> list[str]:
        """The names of all models to measure: base models, runs and, if the config asks for them, the legs of the runs."""
        names = []
        for name, entry in self.runs.rendered.items():
            if self.evaluation["legs"] and entry["run"]:
                # The run's model is that of the last leg, unless the run exports its best leg.
                legs = self.runs.legs(name)
                legs = legs if self.runs.runs[name]["checkpoint"] == "best" else legs[:-1]
                names += [f"{name}@{leg}" for leg in legs]
            names.append(name)
        return names

    def by_step(self) -> list[str]:
        """The runs whose legs are measured, so that their measures can be drawn over the steps."""
        return [run for run in self.runs.runs if any(name.startswith(f"{run}@") for name in self.evaluated())]

    def families(self) -> dict[str, list[str]]:
        """The runs that differ only in their seed, by the name that they share."""
        alike: dict[str, list[str]] = {}
        for run, settings in self.runs.runs.items():
            rest = {key: value for key, value in settings.items() if key not in ("seed", "publish")}
            alike.setdefault(repr(sorted(rest.items())), []).append(run)
        named = {re.sub(r"--seed-\d+", "", runs[0]): runs for runs in alike.values()}
        return {name: runs for name, runs in named.items() if len(runs) > 1}

    def label(self, run: str) -> str:
        """The name of a measured model in tables and on pages: `base`, a run, or a run's leg."""
        return run if "@" in run else self.runs.entry(run)["label"]

    def settings(self, run: str) -> EvaluateSettings:
        entry = self.runs.entry(run)
        source = {"folder": run} | {key: entry[key] for key in ("run", "base_model", "corpus")}
        # The weights decide the vectors, and rule embed knows them.
        embeddings = [found.name if (found := find(entry)).published else entry for entry in self.entries]
        given = {"embeddings": embeddings, "source": source, "comparisons": self._comparisons(run)}
        return pick(EvaluateSettings, self.evaluation | given)

    def _comparisons(self, run: str) -> int:
        """The number of models that are compared with a run's base model, the run among them. A base model has one."""
        models = {name for name in self.evaluated() if not self.runs.is_base(name)} | {run}
        alone = self.runs.is_base(run)
        return 1 if alone else sum(self.runs.base(name) == self.runs.base(run) for name in models)


def _check_declared(entry: Config | str) -> None:
    """Raise InputError if an embedding is named without the weights that it needs."""
    published = find(entry).published
    if published and isinstance(entry, str):
        raise InputError(
            f"config: evaluation.embeddings: {entry!r} needs its weights: download {published.url}, take its hash with `sha256sum`, "
            f"and write {{name: {entry}, weights: {{path: FILE, sha256: HASH}}}} (docs/guides/results.md)"
        )
